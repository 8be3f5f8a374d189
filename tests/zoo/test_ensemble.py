"""Ensembles: their members, votes, files and counts."""

import numpy as np
import pytest
import tensorflow as tf
from forms import check_conversion, check_training_and_saving, without_gradient
from support import built, first_quick, images, randomize

from larq_rep import reptran
from larq_rep.converters import convert, verify
from larq_rep.cost import count
from larq_rep.record import Record
from larq_rep.zoo import BENN18, Ensemble, ResNet18, VGGSmall, get_network

# Of one ResNet-18 of XNOR-Net.
PARAMS, BINARY, OPS = 11688616, 10985472, 163985408
PUBLISHED = [
    (2, {"trainable_params": 2 * PARAMS, "binary_params": 2 * BINARY, "ops": 2 * OPS}),
    (
        6,
        {"trainable_params": 70131696, "binary_params": 65912832, "bops": 10057678848, "ops": 983912448},
    ),
]


@pytest.mark.parametrize("members, expected", first_quick(PUBLISHED, 1))
def test_counts_of_benn(members, expected):
    cost = count(built("BENN18", members=members))
    assert {key: getattr(cost, key) for key in expected} == expected
    assert members != 6 or round(cost.trainable_bits / 2**23, 2) == 23.95
    assert not cost.uncounted


SMALL = {"method": "irnet", "width": 8, "input_shape": (16, 16, 3)}


def small(members=2, **arguments):
    return Ensemble("VGGSmall", members, **SMALL, **arguments)


def test_its_output_is_the_vote_of_networks_with_its_weights():
    model = randomize(small())
    factors = model.get_layer("vote").get_weights()[0]
    logits = []
    for number in (1, 2):
        member = VGGSmall(**SMALL)
        for layer in member.layers:
            if layer.weights:
                layer.set_weights(model.get_layer(f"member{number}_{layer.name}").get_weights())
        logits.append(member(images(model)).numpy())
    np.testing.assert_allclose(model(images(model)), np.tensordot(factors, logits, 1), rtol=1e-4, atol=1e-4)
    majority = small(vote="majority")
    majority.set_weights(model.get_weights())
    votes = [np.eye(10)[y.argmax(-1)] for y in logits]
    np.testing.assert_allclose(majority(images(model)), np.tensordot(factors, votes, 1), rtol=1e-5)


def test_members_begin_with_values_of_their_own():
    model = small()
    first, second = (model.get_layer(f"member{n}_conv1").get_weights()[0] for n in (1, 2))
    assert first.shape == second.shape and np.all(first != second)


def test_larq_is_quiet_about_kernels_without_a_clip(caplog):
    """As in the constructor of the network."""
    small()
    assert not caplog.records


def test_form(tmp_path):
    model = randomize(small())
    check_training_and_saving(model, str(tmp_path / "model.h5"))
    check_conversion(model, get_network("BENN18").variants[0])
    loaded = tf.keras.models.load_model(tmp_path / "model.h5", compile=False)
    assert loaded.record == model.record == Record("VGGSmall", model.record.arguments)
    assert model.record.arguments["method"] == "irnet"


def test_a_file_holds_all_members_of_a_majority():
    model = randomize(small(vote="majority"))
    content, report = convert(model)
    assert report.bitpacked == report.binary == 2 * 5
    assert verify(model, content, images(model, 2), runtime="delegate").ok


def test_benn_is_an_ensemble_of_xnor_networks():
    model = BENN18(members=2, input_shape=(32, 32, 3), num_classes=10)
    assert model.record.network == "BENN18" and model.record.arguments["members"] == 2
    member = ResNet18(method="xnor", input_shape=(32, 32, 3), num_classes=10)
    expected = [f"member{number}_{w.name}" for number in (1, 2) for w in member.weights]
    assert sorted(w.name for w in model.weights) == sorted([*expected, "vote/factors:0"])


def test_without_classifiers_feature_maps_stand_side_by_side():
    member = VGGSmall(**SMALL, include_top=False)
    assert small(include_top=False).output_shape == (*member.output_shape[:-1], 2 * member.output_shape[-1])


def test_refusals():
    with pytest.raises(ValueError, match="BENN18: members must be a positive number of networks, found 0"):
        BENN18(members=0)
    with pytest.raises(ValueError, match="Ensemble: members must be a positive number of networks, found 1.5"):
        Ensemble("VGGSmall", 1.5)
    with pytest.raises(TypeError, match="Ensemble takes no input_tensor and no weights: its members"):
        Ensemble("VGGSmall", weights="file", input_tensor=None)
    with pytest.raises(TypeError, match="VGGSmall has no argument 'metod'"):
        Ensemble("VGGSmall", metod="irnet")
    with pytest.raises(ValueError, match="Vote 'vote' should be 'soft' or 'majority', but got kind='hard'"):
        small(vote="hard")


def test_rep_network_trains():
    model = small()
    rep = reptran(model)
    assert without_gradient(rep, images(rep, 4), 10) == []
    assert count(rep).bops == count(model).bops
