"""State dicts: making one with random values, and reading one in a forward."""

import numpy as np


class Writer:
    """Collects the tensors of a state dict in the order in which PyTorch lists them.

    All values are random, those that a fresh network has equal or zero too. With `zeros` some latent weights of binary
    convolutions are exactly 0, and every binary kernel that is centred has a filter whose mean is exactly 0.
    """

    def __init__(self, seed=0, zeros=False):
        self.rng = np.random.default_rng(seed)
        self.zeros = zeros
        self.state = {}

    def add(self, name, values, dtype=np.float32):
        assert name not in self.state, name
        self.state[name] = np.asarray(values, dtype)

    def normal(self, shape, mean=0.0, deviation=1.0):
        return mean + deviation * self.rng.standard_normal(shape, np.float32)

    def conv(self, name, *shape):
        """A convolution with real weights, (out, in, height, width)."""
        self.add(f"{name}.weight", self.normal(shape, deviation=(2 / np.prod(shape[1:])) ** 0.5))

    def binary_conv(self, name, *shape, key="weight", flat=False):
        # Latent weights are small; some of those of trained networks are beyond 1.
        values = self.normal(shape, deviation=0.1)
        values[self.rng.random(shape, np.float32) < 1e-3] *= 20
        if self.zeros:
            values = np.where(self.rng.random(shape, np.float32) < 0.05, np.float32(0), values)
            # Multiples of 2^-20: no sum of them is rounded in float64, so the mean of the first filter is 0 exactly.
            first = np.rint(values[0].ravel() * 2**20) / 2**20
            half = len(first) // 2
            first[half : 2 * half] = -first[:half]
            first[2 * half :] = 0
            values[0] = first.reshape(shape[1:])
        self.add(f"{name}.{key}", values.reshape(-1, 1) if flat else values)

    def norm(self, name, channels, pairs=1):
        """A batch norm, behind a convolution that sums so many products of signs if `pairs` is given.

        Its outputs are about 1, as else a hard tanh behind it made nearly all of them constant.
        """
        deviation = pairs**0.5
        self.affine(name, channels, 1 / deviation)
        self.add(f"{name}.running_mean", self.normal(channels, deviation=deviation))
        self.add(f"{name}.running_var", self.rng.uniform(0.5, 2, channels))
        self.add(f"{name}.num_batches_tracked", self.rng.integers(1, 10**6), np.int64)

    def affine(self, name, channels, scale=1.0):
        """The part of a norm that is trained: factors of both signs, and offsets."""
        self.add(f"{name}.weight", scale * self.normal(channels, mean=0.7, deviation=0.7))
        self.add(f"{name}.bias", self.normal(channels))

    def bias(self, name, channels):
        """A learnable bias, which has the shape (1, C, 1, 1)."""
        self.add(f"{name}.bias", self.normal((1, channels, 1, 1), deviation=0.5))

    def prelu(self, name, channels):
        self.add(f"{name}.weight", self.normal(channels, mean=0.25, deviation=0.4))

    def linear(self, name, outputs, inputs):
        self.add(f"{name}.weight", self.normal((outputs, inputs), deviation=inputs**-0.5))
        self.add(f"{name}.bias", self.normal(outputs))

    def orthogonal(self, name, size):
        q, r = np.linalg.qr(self.rng.standard_normal((size, size)))
        self.add(name, q * np.sign(np.diag(r)))

    def done(self, module):
        """The state dict, with the prefix that DataParallel gives to all keys if `module`."""
        return {f"module.{name}": values for name, values in self.state.items()} if module else self.state


class Tensors:
    """The tensors of a state dict below a name, in float64; a prefix "module." does not matter."""

    def __init__(self, state, name=""):
        self.state, self.name = state, name
        if not name:
            self.state = {key.removeprefix("module."): values for key, values in state.items()}

    def __getitem__(self, key):
        return np.asarray(self.state[self.name + key], np.float64)

    def __contains__(self, key):
        return self.name + key in self.state

    def at(self, name):
        return Tensors(self.state, f"{self.name}{name}.")

    def children(self, name):
        """The tensors below `name.0`, `name.1` and so on."""
        prefix = f"{self.name}{name}."
        numbers = {int(key[len(prefix) :].split(".")[0]) for key in self.state if key.startswith(prefix)}
        return [self.at(f"{name}.{i}") for i in sorted(numbers)]
