"""The operations that PyTorch's networks are made of, on NCHW arrays in float64, as PyTorch defines them.

Each exists twice: in numpy, and as a call of `torch.nn.functional`. The networks call them through this module's
functions, so one text of a network serves both. `backend` chooses: "numpy", "torch", or None for PyTorch where it is
installed. `sign_of_zero` is +1 as everywhere in this project; PyTorch's own is 0.
"""

import importlib.util

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

backend: str | None = None
sign_of_zero = 1.0

EPSILON = 1e-5


def sign(x):
    return np.where(x == 0, sign_of_zero, np.sign(x))


class Numpy:
    @staticmethod
    def conv2d(x, weight, stride, padding, groups):
        batch, channels, *extent = x.shape
        filters, depth, *kernel = weight.shape
        assert channels == depth * groups, f"{channels} channels in {groups} groups meet kernels of depth {depth}"
        x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
        height, width = ((n + 2 * padding - k) // stride + 1 for n, k in zip(extent, kernel, strict=True))
        weight = weight.reshape(groups, filters // groups, depth, *kernel)
        out = np.zeros((batch, groups, filters // groups, height * width))
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                # Output row r meets padded row stride * r + i.
                rows = slice(i, i + (height - 1) * stride + 1, stride)
                columns = slice(j, j + (width - 1) * stride + 1, stride)
                pixels = x[:, :, rows, columns].reshape(batch, groups, depth, height * width)
                out += np.ascontiguousarray(weight[..., i, j]) @ pixels
        return out.reshape(batch, filters, height, width)

    @staticmethod
    def max_pool2d(x, size, stride, padding):
        x = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)], constant_values=-np.inf)
        return _windows(x, size, stride).max(axis=(-2, -1))

    @staticmethod
    def avg_pool2d(x, size, stride):
        return _windows(x, size, stride).mean(axis=(-2, -1))

    @staticmethod
    def batch_norm(x, mean, variance, gamma, beta, epsilon):
        mean, variance, gamma, beta = (_channelwise(v, x) for v in (mean, variance, gamma, beta))
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta

    @staticmethod
    def group_norm(x, groups, gamma, beta):
        parts = x.reshape(len(x), groups, -1)
        parts = parts - parts.mean(axis=-1, keepdims=True)
        parts = parts / np.sqrt((parts**2).mean(axis=-1, keepdims=True) + EPSILON)
        return parts.reshape(x.shape) * _channelwise(gamma, x) + _channelwise(beta, x)

    @staticmethod
    def linear(x, weight, bias):
        return x @ weight.T + bias

    @staticmethod
    def prelu(x, slope):
        return np.where(x > 0, x, x * _channelwise(slope, x))


def _windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    windows = sliding_window_view(x, (size, size), axis=(2, 3))
    return windows[:, :, ::stride, ::stride]


def _channelwise(vector, x):
    return vector.reshape(1, -1, *(1,) * (x.ndim - 2))


class Torch:
    @staticmethod
    def conv2d(x, weight, stride, padding, groups):
        return _functional("conv2d", x, weight, stride=stride, padding=padding, groups=groups)

    @staticmethod
    def max_pool2d(x, size, stride, padding):
        return _functional("max_pool2d", x, size, stride, padding)

    @staticmethod
    def avg_pool2d(x, size, stride):
        return _functional("avg_pool2d", x, size, stride)

    @staticmethod
    def batch_norm(x, mean, variance, gamma, beta, epsilon):
        return _functional("batch_norm", x, mean, variance, gamma, beta, eps=epsilon)

    @staticmethod
    def group_norm(x, groups, gamma, beta):
        return _functional("group_norm", x, groups, gamma, beta, eps=EPSILON)

    @staticmethod
    def linear(x, weight, bias):
        return _functional("linear", x, weight, bias)

    @staticmethod
    def prelu(x, slope):
        return _functional("prelu", x, slope)


def _functional(name, *arguments, **kwargs):
    import torch

    converted = (torch.tensor(a) if isinstance(a, np.ndarray) else a for a in arguments)
    return getattr(torch.nn.functional, name)(*converted, **kwargs).numpy()


def _implementation():
    chosen = backend or ("torch" if importlib.util.find_spec("torch") else "numpy")
    return {"numpy": Numpy, "torch": Torch}[chosen]


def conv2d(x, weight, stride=1, padding=0, groups=1):
    return _implementation().conv2d(x, weight, stride, padding, groups)


def max_pool2d(x, size, stride, padding=0):
    return _implementation().max_pool2d(x, size, stride, padding)


def avg_pool2d(x, size=2, stride=2):
    return _implementation().avg_pool2d(x, size, stride)


def global_average(x):
    return x.mean(axis=(2, 3))


def batch_norm(x, tensors, gamma="weight", beta="bias", epsilon=EPSILON):
    """`tensors` holds those of a BatchNorm1d or BatchNorm2d."""
    parameters = (tensors[name] for name in ("running_mean", "running_var", gamma, beta))
    return _implementation().batch_norm(x, *parameters, epsilon)


def group_norm(x, tensors, groups=1):
    return _implementation().group_norm(x, groups, tensors["weight"], tensors["bias"])


def linear(x, tensors):
    return _implementation().linear(x, tensors["weight"], tensors["bias"])


def prelu(x, tensors):
    return _implementation().prelu(x, tensors["weight"])


def leaky_relu(x, slope=0.01):
    return np.where(x > 0, x, slope * x)


def hardtanh(x):
    return np.clip(x, -1, 1)


def relu(x):
    return np.maximum(x, 0)
