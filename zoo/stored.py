"""The published forms of all networks and the layers of each network, as `larq_rep.zoo.catalog` stored them.

`lce zoo` prints them, without building a network and without TensorFlow.
"""

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

FORMS, LAYERS = (Path(__file__).with_name(name) for name in ("forms.json", "layers.json"))
SOURCES = {
    "code": "the authors' code",
    "paper": "the paper",
    "inferred": "inferred, see the constructor",
    "larq_zoo": "larq_zoo",
}


def forms() -> dict[str, dict[str, Any]]:
    """Every published form by the call that builds it, such as `"ResNet20(method='recu')"`.

    Each has the `name` and `family` of its network, its `record` as `catalog.record` says it, and its `costs` as
    `catalog.counted` found them. The first form of a network is that of its default arguments.
    """
    return json.loads(FORMS.read_text(encoding="utf-8"))


def costs() -> dict[str, dict[str, float]]:
    """The costs of every form at its published size, by the call that builds it.

    The keys of each are attributes of `larq_rep.cost.Cost`.
    """
    return {call: form["costs"] for call, form in forms().items()}


def layers(name: str) -> dict[str, Any] | None:
    """A network with default arguments as `catalog.counted` found it; `None` for those of larq_zoo."""
    cost = json.loads(LAYERS.read_text(encoding="utf-8")).get(name)
    if cost is None:
        return None
    columns = cost.pop("columns")
    # Zeros at the end of a row are not stored.
    return {**cost, "rows": [dict(zip_longest(columns, row, fillvalue=0)) for row in cost["rows"]]}


def accuracy(result: dict[str, Any]) -> str:
    """A published accuracy in words: top-1, top-5 if known, and where."""
    top5 = f" / {result['top5']}" if result["top5"] else ""
    return f"{result['top1']}{top5} ({result['source']})"
