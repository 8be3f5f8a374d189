"""VGG-small of IR-Net, RBNN and ReCU."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.families.resnet import method
from larq_rep.zoo.keys import Keys, rep
from larq_rep.zoo.mapping import Importer

NETWORKS = ("VGGSmall",)


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    if not (keys.has(r"conv5\.weight") and keys.has(r"bn0\..*")):
        return None
    return rep("VGGSmall", keys.width("bn1.weight") // 128, method=method(keys, "conv1"))


def port(weights: Importer) -> dict[str, str]:
    for number in range(6):
        weights.conv(f"conv{number}", f"conv{number}")
        weights.norm(f"bn{number}", f"bn{number}")
    unused = {r"conv\d\.tau": "a threshold of ReCU's gradient"}
    if not weights.has("fc"):
        return unused | weights.classifier("fc")
    height, width, _ = weights.layer("flatten").input_shape[1:]
    weights.dense("fc", "fc", image=(height, width))
    return unused
