"""Layers of the published networks that Keras and Larq lack or define otherwise, on NHWC tensors (`channels_last`)."""

from larq_rep.layers.activations import BiasedPReLU, RPReLU
from larq_rep.layers.batch_norm import BatchNormalization
from larq_rep.layers.bmxnet import PopCount
from larq_rep.layers.frac_bnn import PrecisionGate, ThermometerEncoding
from larq_rep.layers.mirror import Mirror
from larq_rep.layers.repeat import RepConv2D, RepDense, Repeat, RepQuantConv2D, RepQuantDense
from larq_rep.layers.shifted_scale import ShiftedScale
from larq_rep.layers.shuffle import ChannelShuffle, GroupNormShuffle
from larq_rep.layers.xnor import XNORScale

__all__ = [
    "BatchNormalization",
    "BiasedPReLU",
    "ChannelShuffle",
    "GroupNormShuffle",
    "Mirror",
    "PopCount",
    "PrecisionGate",
    "RPReLU",
    "RepConv2D",
    "RepDense",
    "RepQuantConv2D",
    "RepQuantDense",
    "Repeat",
    "ShiftedScale",
    "ThermometerEncoding",
    "XNORScale",
]
