import larq_rep.zoo as zoo  # before TensorFlow

# isort: split
import numpy as np
import pytest
import tensorflow as tf
from support import built, first_quick, others_slow

from larq_rep import reptran
from larq_rep.cost import count
from larq_rep.zoo.meliusnet import MeliusNet22

# Parameters, MiB, real MACs + binary ones / 64 in millions.
PUBLISHED = [
    ("MeliusNet22", 6944584, 3.88, 208.1),
    ("MeliusNet29", 11328328, 5.07, 214.3),
    ("MeliusNet42", 26825544, 10.10, 325.5),
    ("MeliusNet59", 55555336, 17.39, 532.0),
]

# BOPs in 1e9, FLOPs in 1e8 and OPs in 1e8, as ReActNet prints them in Table 1.
REACTNET = {"MeliusNet29": (5.47, 1.29, 2.14), "MeliusNet42": (9.69, 1.74, 3.25), "MeliusNet59": (18.3, 2.45, 5.32)}


@pytest.mark.parametrize("name, params, size, ops", first_quick(PUBLISHED, 1))
def test_counts(name, params, size, ops):
    cost = count(built(name))
    assert cost.trainable_params == params
    assert round(cost.trainable_bits / 8 / 2**20, 2) == size
    assert round((cost.conv_flops + cost.bops / 64) / 1e6, 1) == ops
    if name in REACTNET:
        # They cut digits off, or round.
        bops, flops, total = REACTNET[name]
        assert cost.bops / 1e9 == pytest.approx(bops, abs=0.02)
        assert cost.conv_flops / 1e8 == pytest.approx(flops, abs=0.01)
        assert (cost.conv_flops + cost.bops / 64) / 1e8 == pytest.approx(total, abs=0.01)
    assert not cost.uncounted


@pytest.mark.parametrize("beta", others_slow([1, 2], 1))
def test_improvement_adds_to_the_newest_channels_only(beta):
    model = MeliusNet22(input_shape=(32, 32, 3), include_top=False)
    model = reptran(model, beta=beta) if beta > 1 else model
    names = [f"stage1_block2_{part}" for part in ("dense_concat", "improvement_conv", "improvement_concat")]
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    before, improvement, after = tf.keras.Model(model.input, [model.get_layer(name).output for name in names])(x)
    assert after.shape == before.shape
    np.testing.assert_array_equal(after[..., : -64 * beta], before[..., : -64 * beta])
    np.testing.assert_array_equal(after[..., -64 * beta :], before[..., -64 * beta :] + improvement)
    assert np.any(improvement)


def test_stem_is_grouped():
    model = built("MeliusNet22")
    convs = [model.get_layer(f"stem_conv{number}") for number in (1, 2, 3)]
    assert [(conv.filters, conv.strides[0], conv.groups) for conv in convs] == [(32, 2, 1), (32, 1, 4), (64, 1, 8)]
    assert model.get_layer("stem_pool").output.shape == (None, 56, 56, 64)


def test_unknown_padding():
    with pytest.raises(ValueError, match="MeliusNet22: padding must be one of 'zero', 'bmxnet', found 'valid'"):
        zoo.get_model("MeliusNet22", padding="valid")
