"""PresB-Net."""

from __future__ import annotations

import re
from typing import Any

from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.keys import NAME_IT, RESIDUAL, Keys
from larq_rep.zoo.mapping import Importer

NETWORKS = ("PresBNet10", "PresBNet18", "PresBNet34")
# The blocks of all stages stand in one list.
_DEPTHS = {sum(blocks): depth for blocks, depth in RESIDUAL.items()}


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    blocks = len({key.split(".")[1] for key in keys if re.match(r"feature\.\d+\.Grouped3x3\.", key)})
    if not blocks:
        return None
    if blocks not in _DEPTHS:
        raise CheckpointError(
            f"it is a PresB-Net with {blocks} blocks, expected {', '.join(map(str, _DEPTHS))}. {NAME_IT}."
        )
    return f"PresBNet{_DEPTHS[blocks]}", {"dataset": keys.dataset("feature.0.conv")}


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "feature.0.conv")
    weights.norm("bn1", "feature.0.bn")
    for position, (block, _) in enumerate(weights.blocks(), start=1):
        key = f"feature.{position}"
        for unit, number, order in (("Grouped3x3", 1, 1), ("Grouped1x1", 3, 2)):
            for group in (0, 1):
                conv = f"{block}_{unit}_conv_list_{group}"
                weights.conv(conv, f"{key}.{unit}.conv_list.{group}")
                weights.shift(conv, f"{key}.move{number}_1", half=group)
            groups = [[f"{key}.{unit}.{part}.{group}" for group in (0, 1)] for part in ("leanable", "active", "bn")]
            weights.biased_prelu(f"{block}_{unit}_active", groups[0], groups[1])
            weights.norm(f"{block}_{unit}_bn", *groups[2])
            weights.biased_prelu(f"{block}_prelu{number}", [f"{key}.act_bias{order}"], [f"{key}.prelu{number}"])
            weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
        for number in (2, 4):
            slope = f"{key}.prelu{number}"
            weights.rprelu(f"{block}_rprelu{number}", f"{key}.move{number}_1", slope, f"{key}.move{number}_2")
        if weights.has(f"{block}_res_layer_1"):
            weights.conv(f"{block}_res_layer_1", f"{key}.res_layer.1")
            weights.norm(f"{block}_res_layer_2", f"{key}.res_layer.2")
        weights.norm(f"{block}_bn_bottom", f"{key}.bn_bottom")
    return {
        r"feature\.\d+\.(bn0|bn_mid|move5_1|move5_2|prelu5)\..*": "never used",
        **weights.classifier("fc"),
    }
