"""Counts every network and writes what is stored of it, and the page that shows it.

`python -m larq_rep.zoo.catalog` counts all networks and writes `zoo/forms.json`, `zoo/layers.json` and `docs/zoo.md`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow as tf

from larq_rep.cost import count
from larq_rep.zoo.records import DATASETS, Network, Variant, get_network, list_models
from larq_rep.zoo.stored import FORMS, LAYERS, SOURCES, accuracy
from larq_rep.zoo.stored import costs as stored_costs
from larq_rep.zoo.survey import SURVEY

_STORED = ("trainable_params", "binary_params", "bops", "flops", "ops", "trainable_bits")
_TITLES = {
    "reactnet": "ReActNet",
    "bireal": "Bi-Real-Net",
    "recu": "ReCU's ResNets of two stages",
    "vgg": "VGG-small",
    "resnet20": "ResNet-20",
    "resnet18": "ResNet-18 and -34",
    "quantized_weights": "Real activations: BWN, TWN, TTQ, INQ",
    "binary_connect": "BinaryConnect",
    "presbnet": "PresB-Net",
    "aresbnet": "AresB-Net",
    "binarydensenet": "BinaryDenseNet",
    "resnet_e": "ResNetE",
    "meliusnet": "MeliusNet",
    "abc_net": "ABC-Net",
    "group_net": "Group-Net",
    "cbcn": "CBCN",
    "ensemble": "Ensembles",
    "dorefa": "DoReFa-Net's ResNet-18",
    "hwgq": "HWGQ",
    "lq_net": "LQ-Nets",
    "syq": "SYQ",
    "tbn": "TBN",
    "sibnn": "SiBNN",
    "references": "Real networks",
    "larq_zoo": "Networks of larq_zoo",
}


def key(name: str, variant: Variant) -> str:
    """The key of a form of a network in the table of costs: the call that builds it."""
    return f"{name}({variant.label})"


def record(variant: Variant) -> dict[str, Any]:
    """The facts about a form of a network, as plain numbers, strings, lists and dictionaries."""
    assert variant.paper and variant.preprocessing
    return {
        **asdict(variant),
        "paper": {**variant.paper._asdict(), "url": variant.paper.url},
        "preprocessing": variant.preprocessing._asdict(),
        "weights": variant.weights and variant.weights.page,
        "results": [result._asdict() for result in variant.results],
        "rep_results": [result._asdict() for result in variant.rep_results],
        "input_shape": DATASETS[variant.dataset].input_shape,
        "num_classes": DATASETS[variant.dataset].num_classes,
    }


def counted(network: Network, variant: Variant) -> dict[str, Any]:
    """The `input_shape` of a form of a network, and `larq_rep.cost.Cost.to_dict`."""
    # Keras numbers layers without a name: as in a process that builds nothing else.
    tf.keras.backend.reset_uids()
    model = network.constructor(**variant.arguments)
    return {"input_shape": list(model.input_shape[1:]), **count(model).to_dict()}


def costs(cost: Mapping[str, Any]) -> dict[str, float]:
    """What is stored for each form of what `counted` found."""
    return {attribute: cost[attribute] for attribute in _STORED}


def page(costs: Mapping[str, Mapping[str, float]]) -> str:
    """The page of all networks, in Markdown."""
    lines = [
        "# The networks",
        "",
        "Written by `make docs` from the records in `zoo/`. Parameters are the trainable ones; OPs are FLOPs + BOPs / "
        "64 for one image of the published size, without batch normalisation; the size is that of the trainable "
        "weights, each in the bits of its quantizer, or 32 without one. Top-1 accuracies are the published ones, none "
        "was measured here.",
        "",
        "`larq_rep.zoo.NAME(...)` builds a network, `lce zoo show NAME` counts it layer by layer. The networks of "
        "larq_zoo need the extra `larq-rep[zoo]`.",
    ]
    for family in dict.fromkeys([*_TITLES, *(get_network(name).family for name in list_models())]):
        networks = [get_network(name) for name in list_models() if get_network(name).family == family]
        if not networks:
            continue
        papers = dict.fromkeys(variant.paper for network in networks for variant in network.variants)
        lines += ["", f"## {_TITLES.get(family, family)}", ""]
        lines += [f"- [{paper.title}]({paper.url})" for paper in papers if paper]
        lines += ["", "| network | data | parameters | binary | OPs | MiB | top-1 % | structure from |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for network in networks:
            for variant in network.variants:
                cost = costs[key(network.name, variant)]
                cells = [
                    f"`{key(network.name, variant)}`",
                    variant.dataset,
                    f"{cost['trainable_params']:,}",
                    f"{cost['binary_params']:,}",
                    f"{cost['ops']:,.0f}",
                    f"{cost['trainable_bits'] / 2**23:.3f}",
                    "; ".join(accuracy(result._asdict()) for result in variant.results) or "–",
                    SOURCES[variant.source],
                ]
                lines.append(f"| {' | '.join(cells)} |")
        float_layers = {reason for n in networks for v in n.variants for reason in v.left_float.values()}
        lines += [f"\nStays float in a flatbuffer: {reason.rstrip('.')}." for reason in sorted(float_layers)]
    lines += [
        "",
        "## Every row of the papers' tables",
        "",
        "What the tables of BinaryDenseNet, ReActNet, RepBNN and PresB-Net print, top-1 and top-5 accuracies in "
        "percent, and the network here or the reason why there is none.",
        "",
        "| table | row | printed | here |",
        "|---|---|---|---|",
    ]
    for row in SURVEY:
        called = " or ".join(f"`{network}`" for network in row.network.split(" or ") if network)
        here = "; ".join(filter(None, (called, row.note)))
        lines.append(f"| {row.table} | {row.row} | {row.printed} | {here} |")
    return "\n".join(lines) + "\n"


def write(root: Path, report: Callable[[str], None] = print) -> None:
    """Counts every network and writes all files into a checkout."""
    known = stored_costs() if FORMS.is_file() else {}
    forms: dict[str, dict[str, Any]] = {}
    layers = {}
    for name in list_models():
        network = get_network(name)
        for variant in network.variants:
            call = key(name, variant)
            try:
                cost = counted(network, variant)
                report(call)
            except ImportError:
                if call not in known:
                    raise
                cost = known[call]
                report(f"{call}: as before, larq_zoo is not installed")
            forms[call] = {
                "name": name,
                "family": network.family,
                "record": record(variant),
                "costs": costs(cost),
            }
            # The layers of larq_zoo's networks depend on its version.
            if variant is network.variants[0] and network.family != "larq_zoo":
                layers[name] = _packed(cost)
    (root / "zoo" / FORMS.name).write_text(_lines(forms), encoding="utf-8")
    (root / "zoo" / LAYERS.name).write_text(_lines(layers), encoding="utf-8")
    (root / "docs").mkdir(exist_ok=True)
    text = page({call: form["costs"] for call, form in forms.items()})
    (root / "docs/zoo.md").write_text(text, encoding="utf-8")


def _packed(cost: Mapping[str, Any]) -> dict[str, Any]:
    """What `counted` found with rows of values alone, without the zeros at their ends."""
    rows = []
    for row in cost["rows"]:
        values = list(row.values())
        while values[-1] == 0:
            values.pop()
        rows.append(values)
    return {**cost, "columns": list(cost["rows"][0]), "rows": rows}


def _lines(values: Mapping[str, Any]) -> str:
    """JSON with a line for each value."""
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()) + "\n}\n"


if __name__ == "__main__":
    write(Path.cwd())
