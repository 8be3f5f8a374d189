"""AresB-Net."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.keys import RESIDUAL, Keys
from larq_rep.zoo.mapping import Importer

NETWORKS = ("AresBNet10", "AresBNet18", "AresBNet34")


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    if not has_its_blocks(keys):
        return None
    if keys.blocks() not in RESIDUAL:
        raise keys.unknown_resnet()
    return f"AresBNet{RESIDUAL[keys.blocks()]}", {"dataset": keys.dataset()}


def has_its_blocks(keys: Keys) -> bool:
    """Whether the blocks have a third normalisation, and are not those of FracBNN or of a bottleneck."""
    return (
        keys.shape("layer1.0.conv1.weight")[2:] == (3, 3)
        and keys.has(r"layer1\.0\.bn3\..*")
        and not keys.has(r"layer1\.0\.rprelu1\..*")
    )


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    # For ImageNet there is one more, between convolution and concatenation.
    for layer, key in (("bn0", "bn1"), ("bn1", "bn2")) if weights.has("bn0") else (("bn1", "bn1"),):
        weights.norm(layer, key)
    for block, key in weights.blocks():
        for conv in ("conv1", "conv2"):
            for half in (0, 1):
                weights.conv(f"{block}_{conv}_{half}", f"{key}.{conv}", half=half)
        for number in (1, 2, 3):
            weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
    return {r"bn2\..*": "never used", **weights.classifier("fc", "linear")}
