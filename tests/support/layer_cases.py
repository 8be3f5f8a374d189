"""One row for every layer and quantizer: how it is made, how it stands in a model, what it trains.

A new one needs a row, and a test of its own formula.
"""

from typing import NamedTuple

import larq as lq

from larq_rep import layers, quantizers
from larq_rep.quantizers import LowBitSign, QuantSign

INPUT_SHAPE = (6, 6, 8)


def conv(input_quantizer=None, kernel_quantizer=None, **arguments):
    return lq.layers.QuantConv2D(
        4,
        3,
        padding="same",
        use_bias=False,
        input_quantizer=input_quantizer or lq.quantizers.NoOp(precision=1),
        kernel_quantizer=kernel_quantizer or lq.quantizers.SteSign(clip_value=1.3),
        **arguments,
    )


def gate(thing, x):
    """The fractional convolution of FracBNN."""
    shared = conv()
    return thing([shared(QuantSign(bits=1)(x)), shared(LowBitSign()(x))])


# How a thing stands in a model.
USES = {
    "layer": lambda thing, x: thing(x),
    "before a convolution": lambda thing, x: conv()(thing(x)),
    "input quantizer": lambda thing, x: conv(thing)(x),
    "kernel quantizer": lambda thing, x: conv("ste_sign", thing)(x),
    "kernel constraint": lambda thing, x: conv("ste_sign", kernel_constraint=thing)(x),
    "of output and input": lambda thing, x: thing([conv("ste_sign")(x), x]),
    "gate": gate,
    "of two": lambda thing, x: thing([conv("ste_sign")(x), conv("ste_sign")(x)]),
    "circulant": lambda thing, x: layers.CirculantConv2D(4, 3, input_quantizer="ste_sign", kernel_quantizer=thing)(x),
}


class Case(NamedTuple):
    """A thing with arguments that are not the default ones.

    # Attributes
        arguments: Those of the constructor, which its config must have.
        use: How it stands in the model.
        trained: The shapes of the model's trainable weights.
        alias: The name by which Larq finds a quantizer, or Keras a constraint.
        state: The shapes of its weights that no gradient changes.
    """

    arguments: dict
    use: str = "layer"
    trained: list = []  # noqa: RUF012
    alias: str | None = None
    state: list = []  # noqa: RUF012


KERNEL = (3, 3, 8, 4)


def kernel(alias, arguments, *weights, state=()):
    return Case(arguments, "kernel quantizer", [KERNEL, *weights], alias, list(state))


def inputs(alias, arguments, *weights, use="input quantizer", state=()):
    return Case(arguments, use, [KERNEL, *weights], alias, list(state))


L2 = {"class_name": "L2", "config": {"l2": 0.01}}
REP = {"filters": 8, "kernel_size": 3, "padding": "same"}
CASES = {
    "BatchNormalization": Case({"momentum": 0.9}, trained=[(8,), (8,)], state=[(8,), (8,)]),
    "BiasedPReLU": Case({"alpha_regularizer": L2}, trained=[(8,), (1, 1, 8)]),
    "ChannelShuffle": Case({}),
    "ChannelShuffle-4": Case({"groups": 4}),
    "CirculantConv2D": Case(
        {"filters": 8, "kernel_size": 3, "strides": 2, "padding": "same", "input_quantizer": "ste_sign"},
        trained=[(3, 3, 8, 2), (8,)],
    ),
    "GroupNormShuffle": Case({}, trained=[(8,), (8,)]),
    "GroupNormShuffle-4": Case({"groups": 4, "shuffle": False, "epsilon": 0.1}, trained=[(8,), (8,)]),
    "Mirror": Case({}, state=[()]),
    "PopCount": Case({"kernel_size": 3}, "of output and input", [KERNEL]),
    "PrecisionGate": Case({"threshold_initializer": "ones", "threshold_regularizer": L2}, "gate", [KERNEL, (4,)]),
    "RPReLU": Case({"alpha_regularizer": L2}, trained=[(8,), (1, 1, 8), (8,)]),
    "RepConv2D": Case(
        {"filters": 8, "kernel_size": 1, "strides": 2, "beta": 4, "activation": "relu"}, trained=[(1, 1, 8, 2), (2,)]
    ),
    "RepDense": Case({"units": 8, "beta": 2}, trained=[(8, 4), (4,)]),
    "RepQuantConv2D": Case(
        {**REP, "input_quantizer": "r_sign", "kernel_quantizer": "scaled_sign"}, trained=[(3, 3, 8, 4), (4,), (8,)]
    ),
    "RepQuantConv2D-ir": Case(
        {
            **REP,
            "strides": 2,
            "pad_values": 1.0,
            "use_bias": False,
            "input_quantizer": "ede_sign",
            "kernel_quantizer": quantizers.LibraSign(t=0.5),
        },
        trained=[(3, 3, 8, 4)],
    ),
    "RepQuantConv2D-beta1": Case(
        {"filters": 6, "kernel_size": 3, "beta": 1, "input_quantizer": "r_sign"}, trained=[(3, 3, 8, 6), (6,), (8,)]
    ),
    "RepQuantDense": Case(
        {"units": 8, "input_quantizer": "r_sign", "kernel_quantizer": "scaled_sign"}, trained=[(8, 4), (4,), (8,)]
    ),
    "Repeat": Case({"times": 3}),
    "ShiftedScale": Case({}, trained=[(8,), (8,)]),
    "SoftGate": Case({"theta_initializer": "ones"}, "of two", [KERNEL, KERNEL, ()]),
    "ThermometerEncoding": Case({"resolution": 5}, "before a convolution", [(3, 3, 51 * 8, 4)]),
    "Vote": Case({"factors_initializer": "zeros"}, "of two", [KERNEL, KERNEL], state=[(2,)]),
    "WeightedSum": Case({"factors_initializer": "ones"}, "of two", [KERNEL, KERNEL, (2,)]),
    "XNORScale": Case({"kernel_size": (3, 1), "strides": 2, "padding": "valid"}),
    "AresSign": kernel("ares_sign", {}),
    "BasisWeights": kernel("basis_weights", {}),
    "BasisWeights-3": kernel("basis_weights", {"bits": 3}),
    "CentredClip": Case({}, "kernel constraint", [KERNEL], "centred_clip"),
    "CirculantKernel": Case({}, "circulant", [(3, 3, 8, 1), (4,)], "circulant_kernel"),
    "DoReFaSign": kernel("dorefa_sign", {}),
    "EDESign": Case({"t": 0.3}, alias="ede_sign"),
    "EDESign-input": inputs("ede_sign", {"t": 0.3}),
    "LeakyRSign": inputs("leaky_r_sign", {"slope": 0.2, "shift_regularizer": L2}, (8,)),
    "LeakySign": inputs("leaky_sign", {"slope": 0.2}),
    "LearnedLevels": inputs("learned_levels", {}, state=[(2,)]),
    "LibraSign": kernel("libra_sign", {"t": 0.5}),
    "LowBitSign": inputs("low_bit_sign", {}, use="before a convolution"),
    "PositionScaled": kernel("position_scaled", {}, (3, 3)),
    "PowerOfTwo": kernel("power_of_two", {"bits": 3}, state=[KERNEL, ()]),
    "QuantSign": inputs("quant_sign", {"bits": 1}),
    "QuantSign-2": inputs("quant_sign", {"bits": 2}, use="before a convolution"),
    "RSign": Case({"shift_regularizer": L2}, trained=[(8,)], alias="r_sign"),
    "RSign-input": inputs("r_sign", {}, (8,)),
    "ReCUInputSign": inputs("recu_input_sign", {}),
    "ReCURSign": inputs("recu_r_sign", {"shift_regularizer": L2}, (8,)),
    "ReCUSign": kernel("recu_sign", {"tau": 0.9, "alpha_regularizer": L2}, (4,)),
    "ResidualSigns": inputs("residual_signs", {"stages": 3}, state=[(3,)]),
    "ResidualSigns-trained": Case({"scale": "trained"}, trained=[(2,)], alias="residual_signs"),
    "RotatedSign": kernel(
        "rotated_sign", {"t": 0.3, "regularizer": L2, "alpha_initializer": "ones"}, (4,), (4,), state=[(8, 8), (9, 9)]
    ),
    "ScaledBinary": kernel("scaled_binary", {"scale": "ema"}, state=[(4,)]),
    "ScaledBinary-centre": kernel("scaled_binary", {"centre": True, "gradient": "sibnn"}),
    "ScaledBinary-trained": kernel(
        "scaled_binary",
        {"scale": "trained", "per": "layer", "gradient": "clipped", "alpha_initializer": "random_normal"},
        (),
    ),
    "ScaledSign": kernel("scaled_sign", {}),
    "ShiftedSigns": inputs("shifted_signs", {}, (1,), (1,)),
    "ShiftedSigns-3": inputs("shifted_signs", {"bits": 3}, (3,), (3,)),
    "StandardizedSign": inputs("standardized_sign", {"t": 0.2, "crop": (1, 0)}),
    "TernaryWeight": kernel("ternary_weight", {"factor": 0.5}),
    "TrainedTernary": kernel("trained_ternary", {"factor": 0.2}, (), ()),
    "TernaryInput": inputs("ternary_input", {"delta": 0.5, "momentum": 0.2}, state=[()]),
    "Thermometer": inputs("thermometer", {"thresholds": (0.1, 0.3, 0.6), "levels": (0, 0.2, 0.5, 0.7)}),
    "Uniform": inputs("uniform_quantizer", {"bits": 3}),
    "XNORSign": kernel("xnor_sign", {}),
    "ZeroOneSign": inputs("zero_one_sign", {}),
}


# What a schedule changes; neither a config nor a file keeps that, and it is no weight.
SCHEDULED = {"EDESign": "t", "LibraSign": "t", "ReCUSign": "tau", "RotatedSign": "t", "StandardizedSign": "t"}


def class_of(name):
    name = name.split("-")[0]
    return getattr(layers, name, None) or getattr(quantizers, name)
