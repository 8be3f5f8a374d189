"""ReCU's ResNet-18 and -34 that are trained in two stages."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.keys import NAME_IT, Keys, rep
from larq_rep.zoo.mapping import Importer

NETWORKS = ("ReCUResNet18", "ReCUResNet34")
# By the binary convolutions of the four stages.
_DEPTHS: dict[tuple[int, ...], int] = {(4, 4, 4, 4): 18, (6, 8, 12, 6): 34}


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    if not keys.has(r"layer1\.0\.nonlinear\.weight") or not keys.has(r"layer1\.0\.conv\.weight"):
        return None
    if keys.blocks() not in _DEPTHS:
        raise CheckpointError(
            f"it is a ResNet of ReCU with {keys.blocks()} binary convolutions in its stages, expected "
            f"{' or '.join(map(str, _DEPTHS))}. {NAME_IT}."
        )
    return rep(f"ReCUResNet{_DEPTHS[keys.blocks()]}", keys.width("layer1.0.bn.weight") // 64)


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv")
    weights.norm("bn1", "bn")
    for block, key in weights.blocks():
        weights.shift(f"{block}_conv", f"{key}.move0")
        weights.conv(f"{block}_conv", f"{key}.conv")
        weights.norm(f"{block}_bn1", f"{key}.bn")
        weights.rprelu(f"{block}_rprelu", f"{key}.move1", f"{key}.nonlinear", f"{key}.move2")
        if weights.has(f"{block}_downsample_1"):
            weights.conv(f"{block}_downsample_1", f"{key}.downsample.1")
            weights.norm(f"{block}_downsample_2", f"{key}.downsample.2")
    return {
        r"layer\d\.\d+\.conv\.tau": "a threshold of ReCU's gradient",
        r"layer\d\.\d+\.conv\.alpha": "a scale of the binary weights, which the first stage does not have",
        **weights.classifier("fc"),
    }
