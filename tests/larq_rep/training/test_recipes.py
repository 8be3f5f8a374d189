import dataclasses
import functools
import json
import math
import sys

import larq as lq
import numpy as np
import pytest
import support
import tensorflow as tf

from larq_rep import zoo
from larq_rep.layers import CirculantConv2D, RPReLU
from larq_rep.quantizers import EDESign, LeakyRSign, ReCURSign, ReCUSign, Thermometer
from larq_rep.signs import signs
from larq_rep.training import Config
from larq_rep.training.folder import in_common
from larq_rep.training.phases import transfer, with_real_weights
from larq_rep.training.published import RECIPES, get_recipe
from larq_rep.training.recipe import Phase, changed, from_json, to_json

# What the code and the papers of the authors say. Learning rates are written out, epoch by epoch.


def _linear(learning_rate, epochs):
    return [learning_rate * (1 - (epoch + 1) / epochs) for epoch in range(epochs)]


def _cosine(learning_rate, epochs):
    return [learning_rate * (1 + math.cos(math.pi * epoch / epochs)) / 2 for epoch in range(epochs)]


def _warm_cosine(epochs, offset):
    falling = [0.05 * (1 + math.cos(math.pi * (e - offset) / (epochs - 4))) for e in range(5, epochs)]
    return [0.02, 0.04, 0.06, 0.08, 0.1, *falling]


def _steps(learning_rate, epochs, at, factor):
    rates = np.full(epochs, learning_rate)
    for epoch in at:
        rates[epoch:] *= factor
    return rates


def _warm_steps():
    """62,500 steps, of which the first of each of 100 epochs."""
    steps = np.arange(0, 62500, 625)
    rates = _steps(0.8, 62500, (18750, 37500, 56250), 0.1)[steps]
    rates[:4] = 0.2 + 0.6 * steps[:4] / 2500
    return rates


def _adam(batch_size, rates, weight_decay=0.0, **values):
    return {"optimizer": "adam", "batch_size": batch_size, "rates": rates, "weight_decay": weight_decay, **values}


def _sgd(batch_size, rates, weight_decay, **values):
    return {
        "optimizer": "sgd",
        "momentum": 0.9,
        "nesterov": False,
        "decayed": "all",
        "batch_size": batch_size,
        "rates": rates,
        "weight_decay": weight_decay,
        **values,
    }


def _two(batch_size, rates, weight_decay, start, **values):
    real = {"weights": "real", "decayed": "conv_and_shifts", "initializer": "uniform_fan_in", **values}
    return [_adam(batch_size, rates, weight_decay, **real), _adam(batch_size, rates, start=start, **values)]


_OF_ALL = {
    "weights": "binary",
    "activations": "binary",
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "teacher": None,
    "temperature": 1.0,
    "initializer": None,
    "left_behind": (),
    "drop_last": False,
    "best": "earlier",
}
_TEACHER = {"teacher": "ResNet-34 of torchvision with its ImageNet V1 weights"}
_ALPHA = (r".*/re_cu_sign/alpha:0",)
_SMOOTHED = {"label_smoothing": 0.1}
_TAU = {"threshold": 1e-8}
_SHIFTS = (r".*/leaky_r_sign/bias:0", r".*_rsign/bias:0")
_REACT_128, _REACT_256 = _linear(1.25e-3, 128), _linear(1.25e-3, 256)
_FINAL = [_adam(256, _steps(1e-3, 120, (100, 110), 0.1))]
# Of 50,000 images 390 batches of 128, and the later of equally good epochs.
_DROPPED = {"drop_last": True}
_FRACBNN = {**_DROPPED, "best": "later"}
_ON_CIFAR = [_adam(128, _steps(0.01, 150, (75, 100, 125), 0.3))]
# That of PyTorch's example for ImageNet.
_EXAMPLE = _sgd(256, _steps(0.1, 90, (30, 60), 0.1), 1e-4)

PHASES = {
    # ReActNet, AdamBNN, Bi-Real-Net
    "reactnet": _two(256, _REACT_128, 1e-5, "last", **_TEACHER),
    "reactnet-first": _two(256, _linear(5e-4, 256), 1e-5, "last", **_TEACHER),
    "reactnet-paper": _two(256, _linear(5e-4, 120), 1e-5, "last", **_TEACHER),
    "react-bireal": _two(512, _linear(2.5e-3, 128), 1e-5, "last", **_TEACHER),
    "react-bireal-first": _two(512, _linear(1e-3, 256), 1e-5, "last", **_TEACHER),
    "adambnn": _two(256, _REACT_256, 5e-6, "best", **_TEACHER),
    "rep-adambnn": _two(256, _REACT_256, 5e-6, "best", **_TEACHER),
    "bireal": [_adam(512, _linear(1e-3, 256), **_SMOOTHED)],
    "bireal-50": [_adam(256, _linear(5e-4, 256), **_SMOOTHED)],
    # IR-Net, RBNN, ReCU, FracBNN, ResNet
    "irnet": [_sgd(128, _cosine(0.1, 400), 1e-4, **_DROPPED)],
    "irnet-vgg": [_sgd(128, _cosine(0.007, 300), 1e-4, **_DROPPED)],
    "irnet-imagenet": [_sgd(2048, _warm_steps(), 1e-5, nesterov=True)],
    "rbnn": [_sgd(256, _warm_cosine(1000, 8), 1e-4)],
    "rbnn-imagenet": [_sgd(512, _cosine(0.1, 150), 1e-4)],
    "recu": [_sgd(256, _warm_cosine(600, 4), 5e-4)],
    "recu-imagenet": [_sgd(512, _warm_cosine(200, 4), 1e-4, decayed="conv_and_fc")],
    # Adam's rate is a hundredth of that of SGD above.
    "recu-two-stage": [
        _adam(512, 0.01 * np.array(_warm_cosine(256, 4)), **phase, **_TEACHER, left_behind=_ALPHA)
        for phase in ({"weights": "real", "initializer": "uniform_fan_in"}, {"start": "last"})
    ],
    "fracbnn": [
        _adam(128, [1e-3 * (1 - epoch / 250) for epoch in range(250)], 1e-5, weights="real", decayed="all", **_FRACBNN),
        _adam(128, _steps(1e-3, 250, (100, 150, 200), 0.1), start="best", **_FRACBNN),
    ],
    "resnet20": [_sgd(128, _steps(0.1, 200, (100, 150), 0.1), 1e-4)],
    # Activations of several bits
    "dorefa": [_adam(256, _steps(1e-4, 100, (56, 64), 0.2))],
    "hwgq": [_sgd(256, [0.1 * (1 - epoch / 64) for epoch in range(64)], 5e-5)],
    "lq-nets": [_sgd(256, _steps(0.1, 110, (30, 60, 85, 95, 105), 0.1), 5e-5, nesterov=True)],
    "sibnn": [_adam(256, _cosine(1e-3, 100), 1e-5, decayed="all")],
    "tbn": [_sgd(256, _steps(0.1, 90, (30, 60), 0.1), 1e-4)],
    # Several branches
    "abc-net": [
        _sgd(256, _steps(0.1, 90, (30, 60), 0.1), 1e-4, weights="real"),
        _adam(256, _steps(1e-3, 90, (30, 60), 0.1), start="last"),
    ],
    "group-net": [
        _sgd(256, _steps(0.05, 40, (25, 35), 0.1), 1e-4, weights="real", activations="tanh"),
        _adam(256, _steps(5e-4, 40, (20, 30), 0.1), start="last"),
    ],
    "cbcn": [_sgd(256, _steps(0.1, 90, (20, 40, 60, 80), 0.1), 1e-4)],
    "benn-bagging": [_adam(256, _steps(1e-3, 80, (30, 60), 0.1), 1e-5, decayed="all")],
    "benn-boosting": [_adam(256, _steps(1e-3, 80, (25, 50, 75), 0.1), 1e-5, decayed="all")],
    # Quantized weights
    "binaryconnect": [
        _adam(50, 3e-3 * (2e-6 / 3e-3) ** (np.arange(500) / 500), loss="squared_hinge", decayed="all"),
    ],
    "bwn": [_EXAMPLE],
    "twn": [_sgd(256, _steps(0.1, 60, (30, 40, 50), 0.1), 1e-4)],
    **{
        name: [{**_EXAMPLE, "weights": "real", "left_behind": left}, {**second, "left_behind": left, "start": "last"}]
        for name, left, second in (
            ("ttq", (r".*/trained_ternary/(positive|negative):0",), _adam(256, _steps(1e-4, 72, (56, 64), 0.2))),
            ("inq", (r".*/power_of_two/(codes|largest):0",), _sgd(256, np.full(80, 1e-3), 1e-4, best="last")),
            ("syq", (r".*/position_scaled/scale:0",), _adam(32, np.repeat([1e-4, 2e-5, 4e-6], (28, 14, 18)))),
        )
    },
    # PresB-Net, AresB-Net
    "presbnet": _two(256, _linear(5e-4, 400), 1e-5, "best", **_SMOOTHED),
    "presbnet-imagenet": _two(256, _linear(1e-3, 50), 1e-5, "best", **_SMOOTHED),
    "aresbnet": [_sgd(256, _steps(0.1, 360, (160, 200, 260, 320), 0.2), 1e-5)],
    "aresbnet-cifar10": [_sgd(256, _steps(0.1, 200, (80, 100, 130, 160), 0.2), 1e-5)],
    "aresbnet-imagenet": [_adam(256, _steps(1e-3, 100, (40, 50, 65, 80), 0.1), 1e-5, decayed="all")],
    # BMXNet v2, and Table 2 of its paper
    "binarydensenet": _FINAL,
    "binarydensenet-45": [_adam(256, _steps(1e-3, 130, (100, 110), 0.1))],
    "binarydensenet-ablation": [_adam(128, _steps(1e-3, 60, (30, 40, 50), 0.1))],
    "binarydensenet-ablation-32": [_adam(128, _steps(1e-3, 50, (40, 45), 0.1))],
    "binarydensenet-ablation-16": [_adam(128, _steps(1e-3, 40, (34, 37), 0.1))],
    "binarydensenet-cifar10": _ON_CIFAR,
    "resnete": [_adam(256, _steps(1e-3, 40, (34, 37), 0.1))],
    "resnete-final": _FINAL,
    "resnete-cifar10": _ON_CIFAR,
    "meliusnet": [_adam(256, _cosine(2e-3, 120), optimizer="radam")],
    # Bop, the distribution loss, and what the paper of PresB-Net says
    **{
        name: [_adam(1024, np.linspace(2.5e-3, 5e-6, epochs + 1)[:-1], optimizer="bop", gamma=(1e-4, 1e-6), **_TAU)]
        for name, epochs in (("bop-bireal", 300), ("bop-xnor", 150))
    },
    "xnor-plus-plus": [_sgd(256, _steps(0.1, 60, (30, 40), 0.1), 1e-4, nesterov=True)],
    "distribution-loss": [_adam(256, np.full(60, 1e-2), loss="distribution"), _adam(256, np.full(5, 1e-2))],
    "presbnet-paper": [
        _adam(256, _linear(5e-4, 400), **_SMOOTHED, left_behind=_SHIFTS, **phase)
        for phase in (
            {
                "weights": "real",
                "activations": "real",
                "weight_decay": 1e-4,
                "decayed": "conv_and_shifts",
                "initializer": "uniform_fan_in",
            },
            {"start": "best"},
        )
    ],
}

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
_CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_BMXNET = (np.array([123.68, 116.779, 103.939]) / 255, np.array([58.393, 57.12, 57.375]) / 255)


def _images(dataset, statistics, **values):
    common = {"lighting": None, "jitter": None, "erasing": False, "flip": True, "test_resize": None}
    cropped = {"crop": "pad", "padding": 4}
    if dataset == "imagenet2012":
        cropped = {"crop": "resized", "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "test_resize": 256}
    mean, std = statistics or (None, None)
    return dataset, {**common, **cropped, "mean": mean, "std": std, **values}


_REACT = _images("imagenet2012", _IMAGENET, lighting="truncated")
_RECU = _images("imagenet2012", _IMAGENET, scale=(0.08, 1.25), lighting="truncated")
# The authors of IR-Net, RBNN and ReCU take the statistics of ImageNet for CIFAR-10, too.
_IRNET = _images("cifar10", _IMAGENET)
_XNOR = _images("imagenet2012", _BMXNET)
_COLOURS = {"jitter": (0.4, 0.4, 0.4, 0.0), "lighting": 0.1}

IMAGES = {
    **dict.fromkeys(("reactnet", "reactnet-first", "reactnet-paper", "react-bireal", "react-bireal-first"), _REACT),
    **dict.fromkeys(("adambnn", "rep-adambnn", "bireal", "bireal-50"), _REACT),
    **dict.fromkeys(("irnet", "irnet-vgg", "rbnn", "recu", "resnet20"), _IRNET),
    "dorefa": _images("imagenet2012", (np.zeros(3), np.full(3, 256 / 255)), **_COLOURS),
    "hwgq": _images(
        "imagenet2012",
        (np.array([123, 117, 104]) / 255, np.ones(3) / 255),
        scale=(0.57, 0.77),
        ratio=(1.0, 1.0),
    ),
    "lq-nets": _images("imagenet2012", _IMAGENET, **_COLOURS),
    **dict.fromkeys(
        ("sibnn", "tbn", "bwn", "twn", "ttq", "inq", "abc-net", "group-net", "cbcn", "benn-bagging", "benn-boosting"),
        _images("imagenet2012", _IMAGENET),
    ),
    "binaryconnect": _images("cifar10", _CIFAR10, crop=None, flip=False),
    "syq": _images("imagenet2012", (np.zeros(3), np.full(3, 256 / 255))),
    "irnet-imagenet": _images("imagenet2012", _IMAGENET, jitter=(0.2, 0.2, 0.2, 0.1)),
    "rbnn-imagenet": _images("imagenet2012", _IMAGENET, scale=(0.08, 1.25)),
    **dict.fromkeys(("recu-imagenet", "recu-two-stage"), _RECU),
    "fracbnn": _images("cifar10", None),
    **dict.fromkeys(("presbnet", "presbnet-paper"), _images("cifar100", _CIFAR100)),
    **dict.fromkeys(
        ("bop-bireal", "bop-xnor", "distribution-loss", "xnor-plus-plus"), _images("imagenet2012", _IMAGENET)
    ),
    "presbnet-imagenet": _images("imagenet2012", _IMAGENET, scale=(0.446, 0.875)),
    "aresbnet": _images("cifar100", _CIFAR10, erasing=True),
    "aresbnet-cifar10": _images("cifar10", _CIFAR10, erasing=True),
    "aresbnet-imagenet": _images("imagenet2012", _IMAGENET, scale=(0.466, 0.875)),
    **dict.fromkeys([name for name in PHASES if name.startswith(("binarydensenet", "resnete", "meliusnet"))], _XNOR),
    **dict.fromkeys(("binarydensenet-cifar10", "resnete-cifar10"), _images("cifar10", _CIFAR10)),
}
_INFERRED = (
    "abc-net",
    "bwn",
    "ttq",
    "inq",
    "syq",
    "dorefa",
    "presbnet-imagenet",
    "recu-two-stage",
    "meliusnet",
    "bop-xnor",
    "distribution-loss",
    "xnor-plus-plus",
)
_PAPER = ("reactnet-paper", "presbnet-paper", "twn")
SOURCES = {**dict.fromkeys(_PAPER, "paper"), **dict.fromkeys(_INFERRED, "inferred")}


def _rates(phase):
    return [phase.schedule(phase.learning_rate, epoch, phase.epochs) for epoch in range(phase.epochs)]


def test_every_recipe_is_in_the_tables():
    assert set(RECIPES) == set(PHASES) == set(IMAGES)
    assert all(name == recipe.name for name, recipe in RECIPES.items())


@pytest.mark.parametrize("name", PHASES)
def test_phases_are_those_of_the_specification(name):
    phases = get_recipe(name).phases
    assert len(phases) == len(PHASES[name])
    for phase, expected in zip(phases, PHASES[name], strict=True):
        expected = {**_OF_ALL, **expected}
        rates = expected.pop("rates")
        assert {key: getattr(phase, key) for key in expected} == expected
        assert phase.epochs == len(rates)
        np.testing.assert_allclose(_rates(phase), rates, rtol=1e-12, atol=1e-18)
    assert get_recipe(name).epochs == sum(len(phase["rates"]) for phase in PHASES[name])


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_those_of_the_specification(name):
    recipe = get_recipe(name)
    dataset, expected = IMAGES[name]
    assert recipe.dataset == dataset
    assert recipe.source == SOURCES.get(name, "code")
    for key, value in expected.items():
        found = getattr(recipe.augmentation, key)
        if key in ("mean", "std") and value is not None:
            np.testing.assert_allclose(found, value, rtol=1e-12)
        else:
            assert found == value, key


def test_learning_rates_that_are_printed():
    reactnet, recu, rbnn = (get_recipe(name).phases[0] for name in ("reactnet", "recu", "rbnn"))
    rates = _rates(reactnet)
    assert [rates[0], rates[1], rates[126], rates[127]] == [1.240234375e-3, 1.23046875e-3, 9.765625e-6, 0.0]
    # Half of the cosine's 596 epochs after epoch 4, and of 996 after epoch 8.
    assert _rates(recu)[302] == pytest.approx(0.05)
    assert _rates(rbnn)[506] == pytest.approx(0.05)
    assert _rates(rbnn)[8] == pytest.approx(0.1)
    last = get_recipe("fracbnn").phases
    assert _rates(last[0])[-1] == pytest.approx(4e-6)
    assert _rates(last[1])[-1] == pytest.approx(1e-6)
    aresbnet = get_recipe("aresbnet-imagenet").phases[0]
    assert aresbnet.epochs == 100
    assert [_rates(aresbnet)[epoch] for epoch in (0, 39, 40, 79, 80, 99)] == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-6, 1e-7, 1e-7]
    )


@pytest.mark.parametrize("name", RECIPES)
def test_rates_are_finite_and_not_negative(name):
    for phase in get_recipe(name).phases:
        rates = np.array(_rates(phase))
        assert np.isfinite(rates).all() and (rates >= 0).all() and rates.max() <= phase.learning_rate * (1 + 1e-12)


@pytest.mark.parametrize(
    "name, network, arguments",
    [
        ("irnet", "ResNet20", {"method": "irnet"}),
        ("recu", "ResNet18", {"method": "recu", "dataset": "cifar10"}),
        ("rbnn", "VGGSmall", {"method": "rbnn"}),
        ("recu-imagenet", "ResNet18", {"method": "recu"}),
        ("recu-two-stage", "ReCUResNet18", {}),
        ("fracbnn", "ResNet20", {"method": "fracbnn"}),
        ("adambnn", "ReActNetA", {}),
        ("dorefa", "DoReFaResNet18", {}),
        ("hwgq", "HWGQResNet18", {}),
        ("lq-nets", "LQNetResNet34", {}),
        ("sibnn", "SiBNNResNet18", {}),
        ("tbn", "TBNResNet18", {}),
        ("binaryconnect", "BinaryConnectVGG", {}),
        ("inq", "INQResNet18", {}),
        ("syq", "SYQResNet18", {}),
        ("presbnet", "PresBNet18", {}),
        ("aresbnet", "AresBNet18", {}),
        ("binarydensenet", "BinaryDenseNet28", {}),
        ("resnete-cifar10", "ResNetE18", {"dataset": "cifar10", "version": 2}),
    ],
)
def test_recipe_and_zoo_agree_how_images_are_normalised(name, network, arguments):
    variants = zoo.get_network(network).variants
    published = [v.preprocessing for v in variants if arguments.items() <= v.arguments.items()] or [
        variants[0].preprocessing
    ]
    augmentation = get_recipe(name).augmentation
    found = (augmentation.mean or (0.0,) * 3, augmentation.std or (1.0,) * 3)
    np.testing.assert_allclose(found, published[0], rtol=1e-6)


# What a loader of the authors normalises with, for data sets other than the recipe's own.
_OTHER_LOADERS = {("rbnn", "cifar100"): _CIFAR100, ("recu", "cifar100"): _CIFAR100}


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "imagenet2012", "digits", "a/folder"])
@pytest.mark.parametrize("name", RECIPES)
def test_images_of_each_data_set_are_normalised_as_the_authors_do(name, data):
    recipe = get_recipe(name)
    used = Config("network", data, recipe).recipe
    expected = _OTHER_LOADERS.get((name, data), (recipe.augmentation.mean, recipe.augmentation.std))
    assert (used.augmentation.mean, used.augmentation.std) == expected
    statistics = {"mean": used.augmentation.mean, "std": used.augmentation.std}
    assert dataclasses.replace(recipe.augmentation, **statistics) == used.augmentation
    assert used.phases == recipe.phases
    # Also when it is read again, and whatever is chosen counts for all data sets.
    assert from_json(json.loads(json.dumps(to_json(used)))).on(data) == used
    chosen = changed(recipe, "std", [0.5, 0.25, 0.125]) if expected[0] else changed(recipe, "std", "none")
    assert Config("network", data, chosen).recipe.augmentation == chosen.augmentation


def test_which_of_equal_epochs_is_the_best():
    accuracies = [0.5, 0.7, 0.6, 0.7, 0.7, 0.2]
    for best, expected in (("earlier", [0, 1]), ("later", [0, 1, 3, 4]), ("last", [*range(6)])):
        phase = Phase(best=best)
        found = [epoch for epoch, accuracy in enumerate(accuracies) if phase.is_best(accuracy, accuracies[:epoch])]
        assert found == expected


def test_the_module_has_its_old_name_too():
    sys.modules.pop("larq_rep.training.recipes", None)
    with pytest.warns(DeprecationWarning, match=r"training\.published.*training\.recipe .*0\.3"):
        from larq_rep.training import recipes
    assert recipes.RECIPES is RECIPES and recipes.Phase is Phase and recipes.changed is changed


def test_words_about_a_recipe_do_not_make_another_run():
    recipe = get_recipe("adambnn")
    reworded = dataclasses.replace(recipe, spec="elsewhere", note="said otherwise")
    first, second = Config("network", "digits", recipe), Config("network", "digits", reworded)
    assert in_common(first) == in_common(second)
    assert in_common(first) != in_common(dataclasses.replace(first, recipe=changed(recipe, "epochs", 3)))


# Changes


@pytest.mark.parametrize("name", RECIPES)
def test_json_keeps_every_recipe(name):
    recipe = get_recipe(name)
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe


def test_json_keeps_what_was_changed():
    recipe = changed(changed(get_recipe("fracbnn"), "2.at", [3, 5]), "jitter", [0.1, 0.2, 0.3, 0.4])
    again = from_json(json.loads(json.dumps(to_json(recipe))))
    assert again == recipe
    assert again.phases[1].schedule.at == (3, 5)


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("epochs", 5, [5, 5]),
        ("2.epochs", 5, [250, 5]),
        ("1.epochs", 5, [5, 250]),
        ("learning_rate", 1, [1, 1]),
        ("2.optimizer", "sgd", ["adam", "sgd"]),
        ("teacher", "none", [None, None]),
        ("1.initializer", "None", [None, None]),
        ("left_behind", ["a.*", "b"], [("a.*", "b"), ("a.*", "b")]),
        ("drop_last", "false", [False, False]),
        ("2.drop_last", False, [True, False]),
        ("2.nesterov", "True", [False, True]),
        ("best", "earlier", ["earlier", "earlier"]),
    ],
)
def test_a_value_of_phases_changes(key, value, expected):
    recipe = get_recipe("fracbnn")
    new = changed(recipe, key, value)
    name = key.rpartition(".")[2]
    assert [getattr(phase, name) for phase in new.phases] == expected
    others = [f.name for f in dataclasses.fields(Phase) if f.name != name]
    for before, after in zip(recipe.phases, new.phases, strict=True):
        assert [getattr(before, other) for other in others] == [getattr(after, other) for other in others]
    assert dataclasses.replace(new, phases=recipe.phases) == recipe


def test_a_value_of_the_schedule_changes():
    new = changed(get_recipe("fracbnn"), "at", [30, 60])
    assert new.phases[0] == get_recipe("fracbnn").phases[0]
    np.testing.assert_allclose(_rates(new.phases[1])[29:31] + _rates(new.phases[1])[59:61], [1e-3, 1e-4, 1e-4, 1e-5])
    assert _rates(changed(get_recipe("recu"), "warmup", 2).phases[0])[:2] == [0.05, 0.1]


def test_the_values_of_bop_change():
    recipe = changed(changed(get_recipe("bop-bireal"), "gamma", [1e-3, 1e-5]), "threshold", 1e-7)
    assert (recipe.phases[0].gamma, recipe.phases[0].threshold) == ((1e-3, 1e-5), 1e-7)
    assert from_json(json.loads(json.dumps(to_json(recipe)))) == recipe
    assert _rates(changed(recipe, "final", 1e-4).phases[0])[150] == pytest.approx((2.5e-3 + 1e-4) / 2)


def test_a_value_of_the_images_changes():
    recipe = get_recipe("reactnet")
    assert changed(recipe, "flip", False).augmentation == dataclasses.replace(recipe.augmentation, flip=False)
    assert changed(recipe, "scale", [0.5, 1]).augmentation.scale == (0.5, 1)
    assert changed(recipe, "lighting", "none").augmentation.lighting is None
    assert changed(recipe, "lighting", 0.1).augmentation.lighting == 0.1
    assert changed(recipe, "flip", False).phases == recipe.phases
    assert recipe.augmentation.flip


@pytest.mark.parametrize("key", ["width", "method", "networks", "schedule", "at"])
def test_what_is_no_value_of_the_recipe_is_left_to_the_network(key):
    assert changed(get_recipe("reactnet"), key, 5) is None


@pytest.mark.parametrize(
    "name, key, value, message",
    [
        ("fracbnn", "epochs", "many", r"epochs: expected int.*found 'many'"),
        ("fracbnn", "epochs", 2.5, r"epochs: expected int.*found 2\.5"),
        ("fracbnn", "epochs", True, r"epochs: expected int.*found True"),
        ("fracbnn", "epochs", "none", r"epochs: expected int.*found None"),
        ("fracbnn", "epochs", 0, "epochs should be 1 or more, found 0"),
        ("fracbnn", "drop_last", "yes", r"drop_last: expected bool.*found 'yes'"),
        ("fracbnn", "best", "first", "best should be 'earlier' or 'later' or 'last', found 'first'"),
        ("fracbnn", "nesterov", 1, r"nesterov: expected bool.*found 1"),
        (
            "fracbnn",
            "loss",
            "hinge",
            "loss should be 'cross_entropy' or 'distribution' or 'squared_hinge', found 'hinge'",
        ),
        ("fracbnn", "activations", "ternary", "activations should be 'binary' or 'real' or 'tanh', found 'ternary'"),
        ("bop-bireal", "gamma", 0.1, r"gamma: expected tuple.*found 0\.1"),
        ("fracbnn", "learning_rate", "fast", r"learning_rate: expected float"),
        ("fracbnn", "at", 30, r"at: expected tuple.*found 30"),
        ("fracbnn", "at", [30, "x"], r"at: expected tuple.*found \(30, 'x'\)"),
        ("fracbnn", "optimizer", "lion", r"optimizer should be 'adam' or 'bop' or 'radam' or 'sgd', found 'lion'"),
        ("fracbnn", "2.start", "first", r"start should be 'last' or 'best', found 'first'"),
        ("fracbnn", "jitter", 0.1, r"jitter: expected tuple.*found 0\.1"),
        ("fracbnn", "jitter", [0.1], r"jitter: expected tuple.*found \(0\.1,\)"),
        ("fracbnn", "crop", "round", "crop should be"),
        ("fracbnn", "3.epochs", 5, r"3\.epochs: recipe fracbnn has 2 phase\(s\).*Expected 1 to 2"),
        ("fracbnn", "0.epochs", 5, r"0\.epochs: .*Expected 1 to 2"),
        ("irnet", "2.epochs", 5, r"2\.epochs: recipe irnet has 1 phase\(s\).*Expected 1\."),
        ("irnet", "first.epochs", 5, "found 'first' before the dot"),
        ("fracbnn", "2.width", 5, r"2\.width: phase 2 of recipe fracbnn has no value 'width'.*epochs.*, at, factor"),
        ("fracbnn", "1.at", [5], r"1\.at: phase 1 of recipe fracbnn has no value 'at'.*, ahead"),
        ("fracbnn", "1.flip", True, "has no value 'flip'"),
        ("fracbnn", "1.schedule", "Cosine", "has no value 'schedule'"),
    ],
)
def test_wrong_changes_are_refused(name, key, value, message):
    with pytest.raises(ValueError, match=message):
        changed(get_recipe(name), key, value)


def test_a_mistyped_name():
    with pytest.raises(ValueError, match=r"no recipe named 'Adam-BNN'\. Did you mean adambnn"):
        get_recipe("Adam-BNN")
    with pytest.raises(ValueError, match="There are: reactnet, .*, meliusnet"):
        get_recipe("xyz")


# The networks of two phases

_SMALL = {"input_shape": (32, 32, 3), "num_classes": 5}
NETWORKS = {
    "ReActNetA": ("adambnn", "ReActNetA", _SMALL),
    "ReActNetB": ("reactnet", "ReActNetB", _SMALL),
    "RepReActNetA": ("rep-adambnn", "RepReActNetA", _SMALL),
    "ReActNet18": ("presbnet", "ReActNet18", {"dataset": "cifar10", "width": 8}),
    "RepReActNet18": ("react-bireal", "RepReActNet18", {"dataset": "cifar10", "width": 8}),
    "PresBNet10": ("presbnet", "PresBNet10", {"width": 16}),
    "fracbnn": ("fracbnn", "ResNet20", {"method": "fracbnn"}),
    "fracbnn_gated": ("fracbnn", "ResNet20", {"method": "fracbnn_gated"}),
    "Rep fracbnn": ("fracbnn", "RepResNet20", {"method": "fracbnn"}),
    "Rep fracbnn_gated": ("fracbnn", "RepResNet20", {"method": "fracbnn_gated"}),
}
# Binary weights on real inputs: PresB-Net's 1x1 shortcuts of stages 2 to 4.
_REAL_INPUTS = {"PresBNet10": 3}


def _kernels(model):
    return [layer for layer in model.layers if getattr(layer, "kernel_quantizer", None) is not None]


def _shapes(model):
    return {weight.name: tuple(weight.shape) for weight in model.weights}


def _binary_inputs(model, names):
    """Which of the named layers convolve with -1 and +1 alone."""
    layers = [model.get_layer(name) for name in names]
    inputs = tf.keras.Model(model.input, [layer.get_input_at(0) for layer in layers])
    values = inputs(np.random.default_rng(0).uniform(size=(2, *model.input_shape[1:])).astype(np.float32))
    quantized = [
        layer.input_quantizer(value) if getattr(layer, "input_quantizer", None) else value
        for layer, value in zip(layers, values, strict=True)
    ]
    return [name for name, value in zip(names, quantized, strict=True) if set(np.unique(value)) <= {-1.0, 1.0}]


# The others have the same layers and take longer to build.
_SLOW = (
    "ReActNetA",
    "ReActNetB",
    "RepReActNet18",
    "RepReActNetA",
    "ReActNet18",
    "fracbnn",
    "Rep fracbnn",
    "Rep fracbnn_gated",
)
_PARAMS = [pytest.param(name, marks=pytest.mark.slow) if name in _SLOW else name for name in NETWORKS]


@pytest.fixture(scope="module", params=_PARAMS)
def network(request):
    name, constructor, arguments = NETWORKS[request.param]
    model = getattr(zoo, constructor)(**arguments)
    yield request.param, model, with_real_weights(model, get_recipe(name).phases[0].initializer)
    support.forget()


def test_real_form_has_binary_activations_and_real_weights(network):
    name, model, real = network
    names = [layer.name for layer in _kernels(model)]
    assert names
    assert not [module for module in real.submodules if getattr(module, "kernel_quantizer", None) is not None]
    assert _shapes(real) == _shapes(model)
    assert len(_shapes(model)) == len(model.weights), "names that are not unique would be lost"
    binary = _binary_inputs(real, names)
    assert binary == _binary_inputs(model, names)
    assert len(names) - len(binary) == _REAL_INPUTS.get(name, 0)


def test_real_weights_begin_as_pytorch_begins_them(network):
    _, model, real = network
    ratios = []
    for layer in _kernels(model):
        kernel = real.get_layer(layer.name).kernel.numpy()
        ratios.append(kernel.ravel() * math.sqrt(kernel[..., 0].size))
    ratios = np.concatenate(ratios)
    assert np.abs(ratios).max() <= 1 + 1e-6
    # Each tenth of the interval has as many; the latent weights of ReActNet would all be a little over 0.
    shares, _ = np.histogram(ratios, 10, (-1, 1))
    np.testing.assert_allclose(shares / len(ratios), 0.1, atol=5 * math.sqrt(0.09 / len(ratios)))


def test_all_weights_go_to_the_second_phase(network):
    _, model, real = network
    rng = np.random.default_rng(1)
    expected = {weight.name: rng.random(weight.shape, np.float32) for weight in real.weights}
    for weight in real.weights:
        weight.assign(expected[weight.name])
    transfer(real, model)
    for weight in model.weights:
        np.testing.assert_array_equal(weight, expected[weight.name])


@pytest.mark.parametrize("method", ["recu", "rbnn"])
def test_a_kernel_quantizer_with_weights_has_no_real_form(method):
    model = zoo.ResNet20(method=method, width=2)
    first = _kernels(model)[0]
    with pytest.raises(ValueError, match=f"kernel quantizer of '{first.name}'.*alpha.*one phase"):
        with_real_weights(model)


def _recu_convolutions():
    """Two of the convolutions of ReCU's networks of two stages, with the names of their layers."""
    x = image = tf.keras.Input((4, 4, 3))
    for block in ("layer1_0", "layer1_1"):
        x = lq.layers.QuantConv2D(
            4,
            3,
            padding="same",
            input_quantizer=ReCURSign(),
            kernel_quantizer=ReCUSign(),
            use_bias=False,
            name=f"{block}_conv",
        )(x)
        x = RPReLU(name=f"{block}_rprelu")(x)
    return tf.keras.Model(image, x, name="net")


@pytest.mark.parametrize(
    "build",
    [
        _recu_convolutions,
        pytest.param(lambda: zoo.ReCUResNet18(**_SMALL), marks=pytest.mark.slow),
        pytest.param(lambda: zoo.RepReCUResNet18(**_SMALL), marks=pytest.mark.slow),
        pytest.param(lambda: zoo.RepReCUResNet34(**_SMALL), marks=pytest.mark.slow),
    ],
)
def test_the_first_stage_of_recu_is_without_scales(build):
    model, again = build(), build()
    first, second = get_recipe("recu-two-stage").phases
    with pytest.raises(ValueError, match="alpha.*one phase"):
        with_real_weights(model)
    real = with_real_weights(model, first.initializer, (), first.left_behind)
    assert not _kernels(real)
    names = [layer.name for layer in _kernels(model)]
    assert len(real.weights) == len(model.weights) - len(names)
    assert _binary_inputs(real, names) == names

    rng = np.random.default_rng(1)
    for weight in real.weights:
        weight.assign(rng.random(weight.shape, np.float32))
    kept = [layer.kernel_quantizer.alpha.numpy() for layer in _kernels(again)]
    with pytest.raises(ValueError, match="_conv/.*/re_cu_sign/alpha:0 is in"):
        transfer(real, again)
    transfer(real, again, second.left_behind)
    scales = [layer.kernel_quantizer.alpha for layer in _kernels(again)]
    for scale, value in zip(scales, kept, strict=True):
        np.testing.assert_array_equal(scale, value)
    for layer in real.layers[1:]:
        weights = [weight for weight in again.get_layer(layer.name).weights if not any(weight is s for s in scales)]
        for old, new in zip(layer.weights, weights, strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("name", ["ReCUResNet18", "ReCUResNet34", "RepReCUResNet18", "RepReCUResNet34"])
def test_recipe_and_zoo_agree_what_the_first_stage_lacks(name):
    left_behind = {phase.left_behind for phase in get_recipe("recu-two-stage").phases}
    assert left_behind == {zoo.get_network(name).left_behind}


def test_real_activations():
    """A quantizer of a layer, one that is a layer (with a weight and a scheduled number), and an activation."""

    def build():
        x = image = tf.keras.Input((5, 5, 3))
        convolution = functools.partial(
            lq.layers.QuantConv2D, 4, 3, kernel_quantizer="ste_sign", use_bias=False, padding="same"
        )
        x = convolution(input_quantizer=LeakyRSign(), name="a")(x)
        x = EDESign(name="ede")(x)
        x = LeakyRSign(name="shifted")(convolution(name="b")(x))
        x = tf.keras.layers.Activation(lq.quantizers.SteSign(), name="sign")(convolution(name="c")(x))
        return tf.keras.Model(image, convolution(name="d")(x), name="net")

    model, left_behind = build(), (".*leaky_r_sign/.*", "shifted/.*")
    with pytest.raises(ValueError, match="the input quantizer of 'a', LeakyRSign, has weights of its own"):
        with_real_weights(model, left_behind=("shifted/.*",), activations="real")
    real = with_real_weights(model, left_behind=left_behind, activations="real")
    x = expected = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    for name in "abcd":
        expected = tf.nn.conv2d(expected, model.get_layer(name).kernel, 1, "SAME")
    np.testing.assert_allclose(real(x), expected, rtol=1e-5, atol=1e-6)
    assert [weight.name for weight in real.weights] == [f"{name}/kernel:0" for name in "abcd"]

    # The next phase begins with these kernels, and its own shifts.
    again = build()
    shift = again.get_layer("shifted").get_weights()
    transfer(real, again, left_behind)
    np.testing.assert_array_equal(again.get_layer("a").kernel, real.get_layer("a").kernel)
    np.testing.assert_array_equal(again.get_layer("shifted").get_weights(), shift)


def test_hyperbolic_tangents_in_place_of_signs():
    x = image = tf.keras.Input((5, 5, 3))
    for name in "ab":
        x = lq.quantizers.ApproxSign(name=f"sign_{name}")(x)
        quantizers = dict(input_quantizer=lq.quantizers.NoOp(precision=1), kernel_quantizer="ste_sign")
        x = lq.layers.QuantConv2D(4, 3, use_bias=False, name=name, **quantizers)(x)
    model = tf.keras.Model(image, x, name="net")
    tanh = with_real_weights(model, activations="tanh")
    x = expected = np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype(np.float32)
    for name in "ab":
        expected = tf.nn.conv2d(tf.tanh(expected), model.get_layer(name).kernel, 1, "VALID")
    np.testing.assert_allclose(tanh(x), expected, rtol=1e-5, atol=1e-6)
    transfer(tanh, model)
    own = lq.layers.QuantConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer="ste_sign", name="conv")
    with pytest.raises(ValueError, match="'conv' takes the sign of its input itself"):
        with_real_weights(tf.keras.Model(image, own(image)), activations="tanh")


@pytest.mark.parametrize("activations", ["real", "tanh"])
@pytest.mark.parametrize("place", ["input_quantizer", "layer", "activation"])
def test_activations_of_several_bits_are_no_signs(place, activations):
    """They are quantized in the first phase, too; else nothing would replace them."""
    image = x = tf.keras.Input((4, 4, 2))
    quantizer = Thermometer(name="q")
    if place != "input_quantizer":
        x = (quantizer if place == "layer" else tf.keras.layers.Activation(quantizer, name="q"))(x)
    own = {"input_quantizer": quantizer} if place == "input_quantizer" else {}
    model = tf.keras.Model(image, lq.layers.QuantConv2D(2, 3, kernel_quantizer="ste_sign", name="conv", **own)(x))
    named = "conv" if own else "q"
    with pytest.raises(ValueError, match=f"Thermometer of '{named}' has 2 bits. .* activations='binary'"):
        with_real_weights(model, activations=activations)
    with_real_weights(model)


def test_circulant_convolutions_have_one_phase():
    image = tf.keras.Input((4, 4, 4))
    with pytest.raises(ValueError, match="'conv' is a CirculantConv2D, whose filters its kernel quantizer makes"):
        with_real_weights(tf.keras.Model(image, CirculantConv2D(4, 3, name="conv")(image)))


@pytest.mark.parametrize(
    "name", ["ReActNet10", *(pytest.param(name, marks=pytest.mark.slow) for name in ("PresBNet10", "AresBNet10"))]
)
def test_the_first_phase_of_the_paper_of_presb_net(name):
    """Nothing is binary in it, and the recipe names the weights that it lacks."""
    size = {"dataset": "cifar100", "input_shape": (32, 32, 3)}
    model, again = (zoo.get_model(name, **size) for _ in range(2))
    first, second = get_recipe("presbnet-paper").phases
    real = with_real_weights(model, first.initializer, (), first.left_behind, first.activations)
    assert not _kernels(real) and not signs(real) and signs(model)
    lacking = len(model.weights) - len(real.weights)
    assert lacking == sum(len(sign.quantizer.weights) for sign in signs(model))
    assert lacking == (0 if name == "AresBNet10" else len(signs(model)))
    transfer(real, again, second.left_behind)
    for layer in _kernels(again):
        np.testing.assert_array_equal(layer.kernel, real.get_layer(layer.name).kernel)


def test_a_real_network_has_no_real_form():
    with pytest.raises(ValueError, match="no layer of model 'ResNet20' has a kernel quantizer"):
        with_real_weights(zoo.ResNet20(method="real", width=2))


def _dense(name, *layers):
    x = image = tf.keras.Input((3,))
    for layer, units in layers:
        x = tf.keras.layers.Dense(units, use_bias=False, name=layer)(x)
    return tf.keras.Model(image, x, name=name)


def test_weights_that_would_stay_behind_are_named():
    source = _dense("first", ("same", 4), ("old", 4), ("changed", 5))
    target = _dense("second", ("same", 4), ("new", 4), ("changed", 6))
    kept = [weight.numpy() for weight in target.weights]
    with pytest.raises(ValueError, match="not all weights have a place") as error:
        transfer(source, target)
    assert "old/kernel:0 is in 'first' only" in str(error.value)
    assert "new/kernel:0 is in 'second' only" in str(error.value)
    assert "changed/kernel:0 has shape (4, 5) in 'first', (4, 6) in 'second'" in str(error.value)
    assert "same" not in str(error.value)
    # Nothing is changed before all is known to fit.
    for weight, value in zip(target.weights, kept, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_weights_that_may_stay_behind():
    source, target = _dense("first", ("same", 4), ("old", 4)), _dense("second", ("same", 4), ("new", 4))
    new = target.get_layer("new").kernel.numpy()
    # A part of a name is not enough.
    with pytest.raises(ValueError, match=r"old/kernel:0 is in 'first' only$"):
        transfer(source, target, ["old", "new/.*"])
    transfer(source, target, ["old/kernel:0", "new/.*"])
    np.testing.assert_array_equal(target.get_layer("same").kernel, source.get_layer("same").kernel)
    np.testing.assert_array_equal(target.get_layer("new").kernel, new)


def _two_convolutions():
    x = image = tf.keras.Input((4, 4, 3))
    for name in ("a", "b"):
        x = lq.layers.QuantConv2D(
            3, 1, input_quantizer=LeakyRSign(), kernel_quantizer="ste_sign", use_bias=False, name=name
        )(x)
    return tf.keras.Model(image, x, name="net")


def test_phases_may_build_the_network_anew():
    """Keras numbers quantizers without a name through all models: another model has other names."""
    model, again = _two_convolutions(), _two_convolutions()
    assert _shapes(model) != _shapes(again)
    real = with_real_weights(model)
    for number, weight in enumerate(real.weights):
        weight.assign(tf.fill(weight.shape, float(number)))
    transfer(real, again)
    for layer in ("a", "b"):
        moved, origin = again.get_layer(layer), real.get_layer(layer)
        np.testing.assert_array_equal(moved.kernel, origin.kernel)
        np.testing.assert_array_equal(moved.input_quantizer.bias, origin.input_quantizer.bias)
    assert again.get_layer("a").kernel_quantizer is not None


def test_weights_of_one_name_are_refused():
    image = tf.keras.Input((3,))
    branches = [_dense(name, ("same", 4))(image) for name in ("left", "right")]
    model = tf.keras.Model(image, tf.keras.layers.Add()(branches), name="net")
    with pytest.raises(ValueError, match="'net' has two weights named same/kernel:0"):
        transfer(model, model)
