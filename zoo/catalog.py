"""Costs of all networks, counted once and kept beside the records, and the page that shows both.

`python -m larq_rep.zoo.catalog` counts all networks and writes `zoo/costs.json` and `docs/zoo.md`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from larq_rep.cost import count
from larq_rep.zoo.records import DATASETS, Network, Result, Variant, get_network, list_models
from larq_rep.zoo.survey import SURVEY

_COSTS = files("larq_rep.zoo") / "costs.json"
_COUNTED = ("trainable_params", "binary_params", "bops", "flops", "ops", "trainable_bits")
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
SOURCES = {
    "code": "the authors' code",
    "paper": "the paper",
    "inferred": "inferred, see the constructor",
    "larq_zoo": "larq_zoo",
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


def stored_costs() -> dict[str, dict[str, float]]:
    """The costs of every form of every network at its published size, as `larq_rep.cost.count` found them.

    The keys of each are attributes of `larq_rep.cost.Cost`.
    """
    return json.loads(_COSTS.read_text(encoding="utf-8"))


def counted(network: Network, variant: Variant) -> dict[str, float]:
    """Counts one form of a network."""
    cost = count(network.constructor(**variant.arguments)).to_dict()
    return {attribute: cost[attribute] for attribute in _COUNTED}


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
                    "; ".join(map(accuracy, variant.results)) or "–",
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


def accuracy(result: Result) -> str:
    """A published accuracy in words: top-1, top-5 if known, and where."""
    top5 = f" / {result.top5}" if result.top5 else ""
    return f"{result.top1}{top5} ({result.source})"


def write(root: Path, report: Callable[[str], None] = print) -> None:
    """Counts every network and writes both files into a checkout."""
    known = stored_costs() if _COSTS.is_file() else {}
    costs = {}
    for name in list_models():
        network = get_network(name)
        for variant in network.variants:
            try:
                costs[key(name, variant)] = counted(network, variant)
                report(key(name, variant))
            except ImportError:
                if key(name, variant) not in known:
                    raise
                costs[key(name, variant)] = known[key(name, variant)]
                report(f"{key(name, variant)}: as before, larq_zoo is not installed")
    (root / "zoo/costs.json").write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")
    (root / "docs").mkdir(exist_ok=True)
    (root / "docs/zoo.md").write_text(page(costs), encoding="utf-8")


if __name__ == "__main__":
    write(Path.cwd())
