"""Which network a state dict belongs to, by its keys and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from larq_rep.datasets import PUBLISHED
from larq_rep.zoo.checkpoint.tensors import CheckpointError

# Blocks of the four stages.
_RESIDUAL: dict[tuple[int, ...], int] = {(1, 1, 1, 1): 10, (2, 2, 2, 2): 18, (3, 4, 6, 3): 34}
_BIREAL: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 10, (4, 4, 4, 4): 18, (6, 8, 12, 6): 34}


def identify(arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]]:
    """The constructor of a network of the zoo, and its arguments, that a state dict belongs to.

    # Arguments
        arrays: What `read_state_dict` returns.

    # Raises
        CheckpointError: If its keys are those of no network here, or of several.
    """
    shapes = {key.removeprefix("module."): array.shape for key, array in arrays.items()}
    return _Keys(shapes).network()


class _Keys:
    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self.shapes = shapes

    def has(self, pattern: str) -> bool:
        return any(re.fullmatch(pattern, key) for key in self.shapes)

    def network(self) -> tuple[str, dict[str, Any]]:
        kernel = next(
            (self.shapes[f"{name}.weight"] for name in ("fc", "linear") if f"{name}.weight" in self.shapes), ()
        )
        classes = kernel[0] if kernel else None
        name, arguments = self._name(classes)
        base = name.removeprefix("Rep")
        default = arguments.get("dataset", "cifar10" if base in ("VGGSmall", "ResNet20") else "imagenet")
        if classes not in (None, PUBLISHED[default].num_classes):
            arguments["num_classes"] = int(classes)
        return name, arguments

    def blocks(self) -> tuple[int, ...]:
        """The number of blocks of each stage."""
        found = [re.match(r"layer(\d+)\.(\d+)\.", key) for key in self.shapes]
        pairs = {(int(match[1]), int(match[2])) for match in found if match}
        return tuple(sum(stage == s for s, _ in pairs) for stage in sorted({stage for stage, _ in pairs}))

    def width(self, key: str) -> int:
        return max(self.shapes.get(key, (0,)), default=0)

    def _dataset(self, classes: int | None) -> str:
        """That of a network with one stem for ImageNet and one for CIFAR."""
        if self.shapes.get("conv1.weight", ())[2:] == (7, 7):
            return "imagenet"
        return "cifar10" if classes == 10 else "cifar100"

    def _name(self, classes: int | None) -> tuple[str, dict[str, Any]]:
        if self.has(r"feature\.1\.move11\.bias"):
            return _rep("ReActNetA", self.width("feature.1.move11.bias") // 32)
        if self.has(r"layers\.15\.conv3\.weight"):
            return "BiRealNet50", {}
        if self.has(r"layer1\.0\.binary_conv\.weights?"):
            return self._bireal(classes)
        if self.has(r"layer1\.0\.Grouped3x3\..*") and self.blocks() in _RESIDUAL:
            return f"PresBNet{_RESIDUAL[self.blocks()]}", {"dataset": self._dataset(classes)}
        if self.has(r"conv5\.weight") and self.has(r"bn0\..*"):
            beta = self.width("bn1.weight") // 128
            return _rep("VGGSmall", beta, method=self._method(r"conv1"))
        if self.has(r"layer1\.0\.prelu\.weight") or self.has(r"layer2\.0\.shortcut\.0\.tau"):
            raise CheckpointError(
                "its keys are those of ReCU's code before 2021-08-08, whose ResNets have other blocks than those of "
                "the current code and are not in the zoo. Take a checkpoint of the current code"
            )
        if self.has(r"layer1\.0\.conv1\.weight"):
            return self._resnet(classes)
        listed = ", ".join(list(self.shapes)[:6])
        raise CheckpointError(f"its keys, such as {listed}, are those of no network here. Name it with --network NAME")

    def _bireal(self, classes: int | None) -> tuple[str, dict[str, Any]]:
        depth = _BIREAL.get(self.blocks())
        beta = self.width("layer1.0.bn1.weight") // 64
        react = self.has(r"layer1\.0\.move0\.bias")
        dataset = self._dataset(classes)
        if depth is None or (not react and (depth == 10 or dataset != "imagenet")):
            raise CheckpointError(
                f"it is a Bi-Real-Net with {self.blocks()} binary convolutions in its stages, expected one for "
                f"ImageNet with {' or '.join(map(str, list(_BIREAL)[1:]))}. Name it with --network NAME"
            )
        return _rep(f"{'ReActNet' if react else 'BiRealNet'}{depth}", beta, **({"dataset": dataset} if react else {}))

    def _method(self, conv: str) -> str:
        if self.has(rf"{conv}\.rotate"):
            return "rbnn"
        return "recu" if self.has(rf"{conv}\.alpha") else "irnet"

    def _resnet(self, classes: int | None) -> tuple[str, dict[str, Any]]:
        blocks = self.blocks()
        kernel = self.shapes["layer1.0.conv1.weight"]
        if kernel[2:] == (3, 3) and self.has(r"layer1\.0\.bn3\..*") and not self.has(r"layer1\.0\.rprelu1\..*"):
            if blocks in _RESIDUAL:
                return f"AresBNet{_RESIDUAL[blocks]}", {"dataset": self._dataset(classes)}
        elif blocks == (3, 3, 3):
            beta = self.width("layer1.0.bn1.weight") // 16
            if self.has(r"layer1\.0\.rprelu1\..*"):
                gated = self.has(r"layer1\.0\.conv1\.threshold")
                return _rep("ResNet20", beta, method="fracbnn_gated" if gated else "fracbnn")
            if not self.has(r"bn2\.weight"):
                self._undecided("ResNet20", ("real", "real_bireal"))
            method = self._method(r"layer1\.0\.conv1")
            if method == "rbnn":
                self._undecided("ResNet20", ("rbnn", "rbnn_bireal"))
            return _rep("ResNet20", beta, method=method)
        elif blocks == (2, 2, 2, 2) and len(kernel) == 4 and kernel[2:] == (3, 3):
            beta = self.width("layer1.0.bn1.weight") // 64
            method = self._method(r"layer1\.0\.conv1") if self.has(r"bn2\.weight") else "real"
            return _rep("ResNet18", beta, method=method, dataset=self._dataset(classes))
        raise CheckpointError(
            f"its keys are those of a ResNet with {blocks} blocks in its stages, which is not in the zoo. Name its "
            "network with --network NAME if it is another"
        )

    def _undecided(self, network: str, methods: tuple[str, ...]) -> None:
        either = " or ".join(f"--set method={method}" for method in methods)
        raise CheckpointError(
            f"its keys are those of {network} with either of {len(methods)} methods, which have the same weights. Say "
            f"which it is: --network {network} and {either}"
        )


def _rep(name: str, beta: int, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return (f"Rep{name}", {"beta": beta, **arguments}) if beta > 1 else (name, arguments)
