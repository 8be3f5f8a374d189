"""Which key of the authors' files each layer takes, a function for each family of networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from larq_rep.layers import Mirror, PopCount
from larq_rep.zoo.checkpoint.mapping import Importer, ImportReport
from larq_rep.zoo.checkpoint.tensors import CheckpointError

_COUNTER = {r".*\.num_batches_tracked": "a counter that only PyTorch's training uses"}


def _blocks(weights: Importer) -> Iterator[tuple[str, str]]:
    """The blocks of a ResNet as the layers are called, `layer1_0`, and as the keys are, `layer1.0`."""
    found = (re.match(r"(layer\d+_\d+|layers_\d+)(?=_)", layer.name) for layer in weights.model.layers)
    for name in dict.fromkeys(match[0] for match in found if match):
        yield name, name.replace("_", ".")


def _classifier(weights: Importer, *names: str, norm: bool = False) -> dict[str, str]:
    """The last layer, called by one of these names; what is left over if the model has none."""
    layer = next((name for name in names if weights.has(name)), None)
    if layer is None:
        return {rf"({'|'.join([*names, *['bn2'] * norm])})\..*": "the model has no classifier (include_top=False)"}
    weights.dense(layer, next((name for name in names if name in weights), layer))
    if norm:
        weights.norm("bn2", "bn2")
    return {}


def reactnet(weights: Importer) -> dict[str, str]:
    """ReActNet-A, AdamBNN and Rep_AdamBNN."""
    weights.conv("stem_conv", "feature.0.conv1")
    weights.norm("stem_bn", "feature.0.bn1")
    for number in range(1, 14):
        block, key = f"block{number}", f"feature.{number}"
        weights.shift(f"{block}_rsign1", f"{key}.move11")
        weights.conv(f"{block}_conv3x3", f"{key}.binary_3x3")
        weights.norm(f"{block}_bn1", f"{key}.bn1")
        weights.rprelu(f"{block}_rprelu1", f"{key}.move12", f"{key}.prelu1", f"{key}.move13")
        weights.shift(f"{block}_rsign2", f"{key}.move21")
        if weights.has(f"{block}_concat"):
            for branch in (1, 2):
                weights.conv(f"{block}_down{branch}_conv", f"{key}.binary_pw_down{branch}")
                weights.norm(f"{block}_down{branch}_bn", f"{key}.bn2_{branch}")
        else:
            weights.conv(f"{block}_conv1x1", f"{key}.binary_pw")
            weights.norm(f"{block}_bn2", f"{key}.bn2")
        weights.rprelu(f"{block}_rprelu2", f"{key}.move22", f"{key}.prelu2", f"{key}.move23")
    return _classifier(weights, "fc")


def bireal(weights: Importer) -> dict[str, str]:
    """Bi-Real-Net-18 and -34, and ReActNet on them."""
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in _blocks(weights):
        weights.conv(f"{block}_binary_conv", f"{key}.binary_conv")
        weights.norm(f"{block}_bn1", f"{key}.bn1")
        if weights.has(f"{block}_rsign"):
            weights.shift(f"{block}_rsign", f"{key}.move0")
        if weights.has(f"{block}_rprelu"):
            weights.rprelu(f"{block}_rprelu", f"{key}.move1", f"{key}.prelu", f"{key}.move2")
        if weights.has(f"{block}_downsample_1"):
            weights.conv(f"{block}_downsample_1", f"{key}.downsample.1")
            weights.norm(f"{block}_downsample_2", f"{key}.downsample.2")
    return _classifier(weights, "fc")


def bireal50(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in _blocks(weights):
        for number in (1, 2, 3):
            weights.conv(f"{block}_conv{number}", f"{key}.conv{number}")
            weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
        if weights.has(f"{block}_down_conv1x1"):
            weights.conv(f"{block}_down_conv1x1", f"{key}.down_conv1x1")
        if weights.has(f"{block}_downsample_1"):
            weights.conv(f"{block}_downsample_1", f"{key}.downsample.1")
            weights.norm(f"{block}_downsample_2", f"{key}.downsample.2")
    return {r"layers\.0\.down_conv1x1\.weight": "never used", **_classifier(weights, "fc")}


def vgg(weights: Importer) -> dict[str, str]:
    for number in range(6):
        weights.conv(f"conv{number}", f"conv{number}")
        weights.norm(f"bn{number}", f"bn{number}")
    unused = {r"conv\d\.tau": "a threshold of ReCU's gradient"}
    if not weights.has("fc"):
        return unused | _classifier(weights, "fc")
    height, width, _ = weights.layer("flatten").input_shape[1:]
    weights.dense("fc", "fc", image=(height, width))
    return unused


def resnet(weights: Importer) -> dict[str, str]:
    """ResNet-20 and -18 of IR-Net, RBNN, ReCU, FracBNN and real ones."""
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in _blocks(weights):
        for number in (1, 2):
            weights.conv(f"{block}_conv{number}", f"{key}.conv{number}")
            if weights.has(f"{block}_conv{number}_gate"):
                weights.vector(f"{block}_conv{number}_gate", "threshold", f"{key}.conv{number}.threshold")
            if weights.has(f"{block}_rprelu{number}"):
                rprelu = f"{key}.rprelu{number}"
                weights.rprelu(f"{block}_rprelu{number}", f"{rprelu}.shift_x", f"{rprelu}.prelu", f"{rprelu}.shift_y")
        for number in range(1, 5):
            if weights.has(f"{block}_bn{number}"):
                weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
        for kind in ("shortcut", "downsample"):
            if weights.has(f"{block}_{kind}_0"):
                weights.conv(f"{block}_{kind}_0", f"{key}.{kind}.0")
                weights.norm(f"{block}_{kind}_1", f"{key}.{kind}.1")
    return {
        r"encoder\.placeholder": "scratch space of FracBNN's encoder",
        r"bn3\..*": "never used",
        r".*\.tau": "a threshold of ReCU's gradient",
        **_classifier(weights, "fc", "linear", norm=weights.has("bn2") or not weights.has("pool")),
    }


def presbnet(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in _blocks(weights):
        for unit, number, order in (("Grouped3x3", 1, 1), ("Grouped1x1", 3, 2)):
            for group in (0, 1):
                conv = f"{block}_{unit}_conv_list_{group}"
                weights.conv(conv, f"{key}.{unit}.conv_list.{group}")
                weights.shift(conv, f"{key}.move{number}_1", half=group)
            groups = [[f"{key}.{unit}.{part}.{group}" for group in (0, 1)] for part in ("leanable", "active", "bn")]
            weights.biased_prelu(f"{block}_{unit}_active", groups[0], groups[1])
            weights.norm(f"{block}_{unit}_bn", *groups[2])
            weights.biased_prelu(f"{block}_prelu{number}", [f"{key}.act_bias{order}"], [f"{key}.prelu{number}"])
            weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
        for number in (2, 4):
            slope = f"{key}.prelu{number}"
            weights.rprelu(f"{block}_rprelu{number}", f"{key}.move{number}_1", slope, f"{key}.move{number}_2")
        if weights.has(f"{block}_res_layer_1"):
            weights.conv(f"{block}_res_layer_1", f"{key}.res_layer.1")
            weights.norm(f"{block}_res_layer_2", f"{key}.res_layer.2")
        weights.norm(f"{block}_bn_bottom", f"{key}.bn_bottom")
    return {
        r"layer\d\.\d+\.(bn0|bn_mid|move5_1|move5_2|prelu5)\..*": "never used",
        **_classifier(weights, "fc", "linear"),
    }


def aresbnet(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    # For ImageNet there is one more, between convolution and concatenation.
    for layer, key in (("bn0", "bn1"), ("bn1", "bn2")) if weights.has("bn0") else (("bn1", "bn1"),):
        weights.norm(layer, key)
    for block, key in _blocks(weights):
        for conv in ("conv1", "conv2"):
            for half in (0, 1):
                weights.conv(f"{block}_{conv}_{half}", f"{key}.{conv}", half=half)
        for number in (1, 2, 3):
            weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
    return {r"bn2\..*": "never used", **_classifier(weights, "fc", "linear")}


def _in_order(weights: Importer, layers: Iterable[str]) -> dict[str, str]:
    """The layers of a network of BMXNet, in the order of its code, each with the next name of the file.

    The names themselves are numbers in the nested blocks of Gluon, which tell nothing.
    """
    modules = iter(weights.modules())
    unused = {}
    for layer in layers:
        key = next(modules, f"(nothing is left for {layer})")
        found = weights.layer(layer)
        if isinstance(found, tf.keras.layers.BatchNormalization):
            weights.norm(layer, key)
            if not found.scale:
                unused[rf"{re.escape(key)}\.weight"] = "always 1"
        elif isinstance(found, tf.keras.layers.Dense):
            weights.dense(layer, key)
        else:
            weights.conv(layer, key)
    return unused


def bmxnet(weights: Importer) -> dict[str, str]:
    """BinaryDenseNet and MeliusNet."""
    return _in_order(weights, _bmxnet_layers(weights))


def _bmxnet_layers(weights: Importer) -> list[str]:
    if not any(isinstance(layer, PopCount) or "_scale" in layer.name for layer in weights.model.layers):
        raise CheckpointError(
            f"it cannot be imported, for this {weights.model.name} pads with 0, while BMXNet pads with -1 and counts. "
            "Build it with padding='bmxnet'."
        )
    kinds = (tf.keras.layers.Conv2D, tf.keras.layers.Dense, tf.keras.layers.BatchNormalization)
    return [layer.name for layer in weights.model.layers if isinstance(layer, kinds)]


def resnet_e(weights: Importer) -> dict[str, str]:
    """ResNetE, where the shortcut of a block stands behind what it goes around."""
    layers = _bmxnet_layers(weights)

    def place(layer: str) -> tuple[int, ...]:
        stage, block = (int(number) for number in re.findall(r"\d+", layer)) if "block" in layer else (0, 0)
        return stage, block, "_down_" in layer

    blocks = [layer for layer in layers if "block" in layer]
    start = layers.index(blocks[0])
    end = len(layers) - 1 - layers[::-1].index(blocks[-1])
    return _in_order(weights, [*layers[:start], *sorted(blocks, key=place), *layers[end + 1 :]])


# By the name of the base network; a Rep network has the layers of its base.
FAMILIES: dict[str, Callable[[Importer], dict[str, str]]] = {
    "ReActNetA": reactnet,
    "BiRealNet18": bireal,
    "BiRealNet34": bireal,
    "BiRealNet50": bireal50,
    "ReActNet10": bireal,
    "ReActNet18": bireal,
    "ReActNet34": bireal,
    "VGGSmall": vgg,
    "ResNet18": resnet,
    "ResNet20": resnet,
    "PresBNet10": presbnet,
    "PresBNet18": presbnet,
    "PresBNet34": presbnet,
    "AresBNet10": aresbnet,
    "AresBNet18": aresbnet,
    "AresBNet34": aresbnet,
    **dict.fromkeys(
        (
            "BinaryDenseNet13",
            "BinaryDenseNet21",
            "BinaryDenseNet28",
            "BinaryDenseNet37",
            "BinaryDenseNet37Ablation",
            "BinaryDenseNet37Dilated",
            "BinaryDenseNet45",
            "MeliusNet22",
            "MeliusNet29",
            "MeliusNet42",
            "MeliusNet59",
        ),
        bmxnet,
    ),
    "ResNetE18": resnet_e,
    "ResNetE34": resnet_e,
}


def load_state_dict(model: tf.keras.Model, arrays: Mapping[str, np.ndarray]) -> ImportReport:
    """Gives a network of the zoo the weights of a PyTorch state dict: all of them, or none.

    # Arguments
        model: The network, whose first layer is a `larq_rep.layers.Mirror` named `mirror`: the kernels it gets are
            mirrored. It may have its latent weights for weights (`larq_rep.training.with_real_weights`), as the
            network of a first training phase.
        arrays: What `read_state_dict` returns.

    # Returns
        What became of each key.

    # Raises
        CheckpointError: If this network has no published layout, or with every key that is missing, left over, has
            another shape or is not finite.
    """
    family = FAMILIES.get(model.name.removeprefix("Rep"))
    if family is None:
        raise CheckpointError(
            f"it cannot be imported, for no checkpoint of {model.name} has a known layout. Networks with one: "
            f"{', '.join(FAMILIES)} and their Rep networks."
        )
    if not any(isinstance(layer, Mirror) and layer.input is model.input for layer in model.layers):
        raise CheckpointError(
            f"it cannot be imported, for this {model.name} does not begin with a Mirror layer, and the kernels are "
            "mirrored. Build it with input_tensor=larq_rep.layers.Mirror(name='mirror')(image)."
        )
    weights = Importer(model, arrays)
    return weights.finish(_COUNTER | family(weights))
