"""ReActNet-A as in the code of ReActNet, AdamBNN and Rep_AdamBNN."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.keys import Keys, rep
from larq_rep.zoo.mapping import Importer

NETWORKS = ("ReActNetA",)


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    if not keys.has(r"feature\.1\.move11\.bias"):
        return None
    return rep("ReActNetA", keys.width("feature.1.move11.bias") // 32)


def port(weights: Importer) -> dict[str, str]:
    weights.conv("stem_conv", "feature.0.conv1")
    weights.norm("stem_bn", "feature.0.bn1")
    for number in range(1, 14):
        block, key = f"block{number}", f"feature.{number}"
        weights.shift(f"{block}_rsign1", f"{key}.move11")
        weights.conv(f"{block}_conv3x3", f"{key}.binary_3x3")
        weights.norm(f"{block}_bn1", f"{key}.bn1")
        weights.rprelu(f"{block}_rprelu1", f"{key}.move12", f"{key}.prelu1", f"{key}.move13")
        weights.shift(f"{block}_rsign2", f"{key}.move21")
        if weights.has(f"{block}_concat"):
            for branch in (1, 2):
                weights.conv(f"{block}_down{branch}_conv", f"{key}.binary_pw_down{branch}")
                weights.norm(f"{block}_down{branch}_bn", f"{key}.bn2_{branch}")
        else:
            weights.conv(f"{block}_conv1x1", f"{key}.binary_pw")
            weights.norm(f"{block}_bn2", f"{key}.bn2")
        weights.rprelu(f"{block}_rprelu2", f"{key}.move22", f"{key}.prelu2", f"{key}.move23")
    return weights.classifier("fc")
