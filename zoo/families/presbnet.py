"""PresB-Net."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.keys import RESIDUAL, Keys
from larq_rep.zoo.mapping import Importer

NETWORKS = ("PresBNet10", "PresBNet18", "PresBNet34")


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    depth = RESIDUAL.get(keys.blocks())
    if depth is None or not keys.has(r"layer1\.0\.Grouped3x3\..*"):
        return None
    return f"PresBNet{depth}", {"dataset": keys.dataset()}


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in weights.blocks():
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
        r"layer\d\.\d+\.(bn0|bn_mid|move5_1|move5_2|prelu5)\..*": "never used",
        **weights.classifier("fc", "linear"),
    }
