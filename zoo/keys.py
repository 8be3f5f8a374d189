"""The keys and shapes of a state dict, as families ask for them to recognise a network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from larq_rep.zoo.checkpoint import CheckpointError

NAME_IT = "Name its network: network='...' (lce import: --network NAME)"

# Depth of a network by the blocks of its four stages.
RESIDUAL: dict[tuple[int, ...], int] = {(1, 1, 1, 1): 10, (2, 2, 2, 2): 18, (3, 4, 6, 3): 34}


class Choice(NamedTuple):
    """The values of an argument that give networks with the same keys and shapes, which only a person can choose.

    # Attributes
        values: What each value builds, in words.
        of_kernels: Whether they differ only in which kernels are binary, so that none of them is in a first phase.
        also: Other names of a value.
    """

    values: Mapping[str, str]
    of_kernels: bool = False
    also: Mapping[str, str] = {}


class Keys:
    """The keys without the prefix of `DataParallel`, in the order of the file."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._shapes = {key.removeprefix("module."): array.shape for key, array in arrays.items()}
        self._signs = {key.removeprefix("module.") for key, array in arrays.items() if array.dtype == np.int8}

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __contains__(self, key: str) -> bool:
        return key in self._shapes

    def has(self, pattern: str) -> bool:
        """Whether a regular expression matches a whole key."""
        return any(re.fullmatch(pattern, key) for key in self._shapes)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a key, `()` if there is none."""
        return self._shapes.get(key, ())

    def signs(self, pattern: str) -> bool:
        """Whether a regular expression matches the key of a kernel of +1 and -1, which are int8."""
        return any(re.fullmatch(pattern, key) for key in self._signs)

    def width(self, key: str) -> int:
        """The number of channels of a vector, whatever its axes; 0 if there is no such key."""
        return max(self.shape(key), default=0)

    def blocks(self) -> tuple[int, ...]:
        """The number of blocks of each stage, `layer<stage>.<block>`."""
        found = [re.match(r"layer(\d+)\.(\d+)\.", key) for key in self._shapes]
        pairs = {(int(match[1]), int(match[2])) for match in found if match}
        return tuple(sum(stage == s for s, _ in pairs) for stage in sorted({stage for stage, _ in pairs}))

    @property
    def step(self) -> tuple[int, str] | None:
        """The phase of a training in two phases that the keys tell, and by what; `None` if they may be of both."""
        for key, shape in self._shapes.items():
            if key.endswith(".weights") or (key.endswith(".weight") and len(shape) == 2 and shape[1] == 1):
                return 2, "binary kernels in it are called 'weights' or are columns"
        if self.signs(r".*\.weights?"):
            return 2, "binary kernels in it are signs, int8"
        if self.has(r"layer1\.0\.nonlinear\..*") and not self.has(r".*\.alpha"):
            return 1, "its kernels have no scales 'alpha'"
        return None

    @property
    def classes(self) -> int | None:
        """Outputs of the classifier, if there is one."""
        kernel = self.shape("fc.weight") or self.shape("linear.weight")
        return int(kernel[0]) if kernel else None

    def dataset(self, stem: str = "conv1") -> str:
        """The data set of a network with one stem for ImageNet and one for CIFAR."""
        if self.shape(f"{stem}.weight")[2:] == (7, 7):
            return "imagenet"
        return "cifar10" if self.classes == 10 else "cifar100"

    def unknown_resnet(self) -> CheckpointError:
        return CheckpointError(
            f"its keys are those of a ResNet with {self.blocks()} blocks in its stages, which is not in the zoo. "
            f"{NAME_IT} if it is another."
        )


def rep(name: str, beta: int, **arguments: Any) -> tuple[str, dict[str, Any]]:
    """A network, or for beta > 1 its Rep network, with the arguments of its constructor."""
    return (f"Rep{name}", {"beta": beta, **arguments}) if beta > 1 else (name, arguments)


# Keys that no network needs, in the files of any.
COUNTERS = {
    r"(.*\.)?num_batches_tracked": "a counter that only PyTorch's training uses",
    r"(.*\.)?total_(ops|params)": "a count of a profiler (thop)",
    r"n_averaged": "the number of weights that were averaged",
}


def counted(key: str) -> bool:
    """Whether a key is one that no network needs."""
    return any(re.fullmatch(pattern, key) for pattern in COUNTERS)
