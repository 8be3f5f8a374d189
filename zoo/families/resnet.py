"""ResNet-20 and -18 of IR-Net, RBNN, ReCU and FracBNN, and real ones."""

from __future__ import annotations

from typing import Any

from larq_rep.zoo.checkpoint import CheckpointError
from larq_rep.zoo.families import aresbnet
from larq_rep.zoo.keys import Choice, Keys, rep
from larq_rep.zoo.mapping import Importer

NETWORKS = ("ResNet18", "ResNet20")

_TWO, _EACH = "a shortcut around each two convolutions", "a shortcut around each convolution"
_RBNN = Choice({"rbnn": _TWO, "rbnn_bireal": _EACH})
_REAL = Choice({"real": _TWO, "real_bireal": _EACH})
_IR_NET = {"irnet": "binary weights and activations", "irnet_1w32a": "binary weights, real activations"}
_IR_NET20 = Choice({**_IR_NET, "irnet_real": "real weights and activations"}, also={"real": "irnet_real"})
_BINARY_IR_NET = Choice(_IR_NET)


def recognises(keys: Keys) -> tuple[str, dict[str, Any]] | None:
    kernel = keys.shape("layer1.0.conv1.weight")
    if not kernel or aresbnet.has_its_blocks(keys):
        return None
    if keys.has(r"layer1\.0\.prelu\.weight") or keys.has(r"layer2\.0\.shortcut\.0\.tau"):
        raise CheckpointError(
            "its keys are those of ReCU's code before 2021-08-08, whose ResNets have other blocks than those of the "
            "current code and are not in the zoo. Take a checkpoint of the current code."
        )
    if keys.blocks() == (3, 3, 3):
        return rep("ResNet20", keys.width("layer1.0.bn1.weight") // 16, method=_method20(keys))
    if keys.blocks() == (2, 2, 2, 2) and len(kernel) == 4 and kernel[2:] == (3, 3):
        kind = method(keys, "layer1.0.conv1") if "bn2.weight" in keys else "real"
        known = _BINARY_IR_NET if kind == "irnet" else kind
        return rep("ResNet18", keys.width("layer1.0.bn1.weight") // 64, method=known, dataset=keys.dataset())
    raise keys.unknown_resnet()


def method(keys: Keys, conv: str) -> str:
    """The method of a binary convolution, by the keys beside its kernel."""
    if f"{conv}.rotate" in keys:
        return "rbnn"
    return "recu" if f"{conv}.alpha" in keys else "irnet"


def _method20(keys: Keys) -> str | Choice:
    if keys.has(r"layer1\.0\.rprelu1\..*"):
        return "fracbnn_gated" if "layer1.0.conv1.threshold" in keys else "fracbnn"
    if "bn2.weight" not in keys:
        return _REAL
    kind = method(keys, "layer1.0.conv1")
    ir_net = _BINARY_IR_NET if keys.signs(r"layer\d\..*") else _IR_NET20
    return {"rbnn": _RBNN, "irnet": ir_net}.get(kind, kind)


def port(weights: Importer) -> dict[str, str]:
    weights.conv("conv1", "conv1")
    weights.norm("bn1", "bn1")
    for block, key in weights.blocks():
        for number in (1, 2):
            weights.conv(f"{block}_conv{number}", f"{key}.conv{number}")
            if weights.has(f"{block}_conv{number}_gate"):
                weights.vector(f"{block}_conv{number}_gate", "threshold", f"{key}.conv{number}.threshold")
            if weights.has(f"{block}_rprelu{number}"):
                rprelu = f"{key}.rprelu{number}"
                weights.rprelu(f"{block}_rprelu{number}", f"{rprelu}.shift_x", f"{rprelu}.prelu", f"{rprelu}.shift_y")
        for number in range(1, 5):
            if weights.has(f"{block}_bn{number}"):
                weights.norm(f"{block}_bn{number}", f"{key}.bn{number}")
        for kind in ("shortcut", "downsample"):
            if weights.has(f"{block}_{kind}_0"):
                weights.conv(f"{block}_{kind}_0", f"{key}.{kind}.0")
                weights.norm(f"{block}_{kind}_1", f"{key}.{kind}.1")
    return {
        r"encoder\.placeholder": "scratch space of FracBNN's encoder",
        r"bn3\..*": "never used",
        r".*\.tau": "a threshold of ReCU's gradient",
        **weights.classifier("fc", "linear", norm=weights.has("bn2") or not weights.has("pool")),
    }
