"""Bi-Real-Net-50, whose code numbers its blocks consecutively."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.keys import Keys
from larq_rep.zoo.mapping import Importer

NETWORKS = ("BiRealNet50",)


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    return ("BiRealNet50", {}) if keys.has(r"layers\.15\.conv3\.weight") else None


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in weights.blocks():
        for number in (1, 2, 3):
            weights.conv(f"{block}_conv{number}", f"{key}.conv{number}")
            weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
        if weights.has(f"{block}_down_conv1x1"):
            weights.conv(f"{block}_down_conv1x1", f"{key}.down_conv1x1")
        if weights.has(f"{block}_downsample_1"):
            weights.conv(f"{block}_downsample_1", f"{key}.downsample.1")
            weights.norm(f"{block}_downsample_2", f"{key}.downsample.2")
    return {r"layers\.0\.down_conv1x1\.weight": "never used", **weights.classifier("fc")}
