"""Layers of the published networks that Keras and Larq do not have. All work on NHWC tensors (`channels_last`)."""

from larq_rep.layers.activations import RPReLU
from larq_rep.layers.repeat import RepConv2D, Repeat, RepQuantConv2D

__all__ = ["RPReLU", "RepConv2D", "RepQuantConv2D", "Repeat"]
