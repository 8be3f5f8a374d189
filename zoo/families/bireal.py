"""Bi-Real-Net-18 and -34, and ReActNet on them."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.keys import NAME_IT, Choice, Keys, rep
from larq_rep.zoo.mapping import Importer

NETWORKS = ("BiRealNet18", "BiRealNet34", "ReActNet10", "ReActNet18", "ReActNet34")
# By the binary convolutions of the four stages.
_DEPTHS: dict[tuple[int, ...], int] = {(2, 2, 2, 2): 10, (4, 4, 4, 4): 18, (6, 8, 12, 6): 34}

# The code for CIFAR is that of PresB-Net's authors, which has both.
_SHORTCUTS = Choice({"real": "real shortcut convolutions", "binary": "binary shortcut convolutions"}, of_kernels=True)


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    if not keys.has(r"layer1\.0\.binary_conv\.weights?"):
        return None
    depth = _DEPTHS.get(keys.blocks())
    beta = keys.width("layer1.0.bn1.weight") // 64
    react = keys.has(r"layer1\.0\.move0\.bias")
    dataset = keys.dataset()
    if depth is None or (not react and (depth == 10 or dataset != "imagenet")):
        raise CheckpointError(
            f"it is a Bi-Real-Net with {keys.blocks()} binary convolutions in its stages, expected one for ImageNet "
            f"with {' or '.join(map(str, list(_DEPTHS)[1:]))}. {NAME_IT}."
        )
    if not react:
        return rep(f"BiRealNet{depth}", beta)
    shortcut = "binary" if keys.signs(r"layer\d\.0\.downsample\.1\.weights?") else _SHORTCUTS
    cifar = {"shortcut": shortcut} if dataset != "imagenet" else {}
    return rep(f"ReActNet{depth}", beta, dataset=dataset, **cifar)


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in weights.blocks():
        weights.conv(f"{block}_binary_conv", f"{key}.binary_conv")
        weights.norm(f"{block}_bn1", f"{key}.bn1")
        if weights.has(f"{block}_rsign"):
            weights.shift(f"{block}_rsign", f"{key}.move0")
        if weights.has(f"{block}_rprelu"):
            weights.rprelu(f"{block}_rprelu", f"{key}.move1", f"{key}.prelu", f"{key}.move2")
        if weights.has(f"{block}_downsample_1"):
            weights.conv(f"{block}_downsample_1", f"{key}.downsample.1")
            weights.norm(f"{block}_downsample_2", f"{key}.downsample.2")
    return weights.classifier("fc")
