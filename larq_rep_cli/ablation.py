"""The papers' comparisons in miniature: the networks that `lqr ablate` trains, and its evaluation of them."""

from __future__ import annotations

import fnmatch
import math
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from larq_rep_cli import runs, terminal

SIZE = 16
# For the training of every row. They are small so that the rows can differ: a network of the published size and
# length of training classifies practically all digits correctly.
EPOCHS = 20
_COMMON = {"batch_size": 32}


@dataclass(frozen=True)
class Row:
    """A network and its recipe."""

    name: str
    network: str
    recipe: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A claim: `better` is more accurate than `worse`, by `published` points in the paper."""

    claim: str
    better: str
    worse: str
    published: float
    source: str


def _repbnn(method: str, title: str, points: Sequence[float]) -> tuple[list[Row], list[Comparison]]:
    """The rows of RepBNN's Tables 2 to 5 for one method, and their differences in the paper."""
    common = {"method": method, "width": 8}
    rep: dict[str, Any] = {**common, "beta": 2}
    vgg = {"method": method, "width": 8}
    forms = [
        ("ResNet-20", "ResNet20", common),
        ("Rep, beta 2", "RepResNet20", rep),
        ("Rep, beta 4", "RepResNet20", {**common, "beta": 4}),
        ("Rep, BN before repeat", "RepResNet20", {**rep, "bn": "before"}),
        ("Rep, last layer 2", "RepResNet20", {**rep, "last_layer": 2}),
        ("Rep, last layer 3", "RepResNet20", {**rep, "last_layer": 3}),
        ("VGG-small", "VGGSmall", vgg),
        ("Rep-VGG-small", "RepVGGSmall", {**vgg, "beta": 2}),
    ]
    recipes = {"VGGSmall": "irnet-vgg" if method == "irnet" else method}
    rows = [
        Row(f"{title}: {name}", network, recipes.get(network.removeprefix("Rep"), method), arguments, _COMMON)
        for name, network, arguments in forms
    ]
    raw, two, four, before, last2, last3, plain, rep_plain = (row.name for row in rows)
    claims = [
        ("repeat, beta 2", two, raw, "Table 3"),
        ("repeat, beta 4", four, raw, "Table 3"),
        ("batch normalisation behind the repeat", two, before, "Table 4"),
        ("last layer 1 rather than 2", two, last2, "Table 2"),
        ("last layer 1 rather than 3", two, last3, "Table 2"),
        ("repeat without shortcuts", rep_plain, plain, "Table 5"),
    ]
    comparisons = [
        Comparison(f"{title}: {claim}", better, worse, by, f"RepBNN, {table}")
        for (claim, better, worse, table), by in zip(claims, points, strict=True)
    ]
    return rows, comparisons


def _rows() -> tuple[list[Row], list[Comparison]]:
    irnet, of_irnet = _repbnn("irnet", "IR-Net", (1.09, 1.57, 4.85, 0.09, 0.09, -3.45))
    recu, of_recu = _repbnn("recu", "ReCU", (1.47, 2.09, 3.67, 0.05, 0.15, 0.19))
    adam = {**_COMMON, "learning_rate": 2e-3}
    narrow = {"width": 4}
    others = [
        Row(
            "ReActNet-18: Sign, PReLU",
            "ReActNet18",
            "presbnet",
            {**narrow, "sign": "sign", "activation": "prelu"},
            adam,
        ),
        Row("ReActNet-18: RSign, RPReLU", "ReActNet18", "presbnet", narrow, adam),
        Row("PresB-Net-10: without layer normalisation", "PresBNet10", "presbnet", {**narrow, "norm1": None}, adam),
        Row("PresB-Net-10", "PresBNet10", "presbnet", narrow, adam),
    ]
    of_others = [
        Comparison("RSign and RPReLU", others[1].name, others[0].name, 3.9, "ReActNet, Table 2"),
        Comparison("layer normalisation of the groups", others[3].name, others[2].name, 1.81, "PresB-Net, Table 5"),
    ]
    return [*irnet, *recu, *others], [*of_irnet, *of_recu, *of_others]


ROWS, COMPARISONS = _rows()


def chosen(*patterns: str) -> list[Row]:
    """The rows whose name matches one of the shell patterns, ignoring case."""
    return [row for row in ROWS if any(fnmatch.fnmatchcase(row.name.lower(), p.lower()) for p in patterns)]


def folder(out: Path, row: Row, seed: int) -> Path:
    """The folder of the run of a row with a seed."""
    name = "".join(letter if letter.isalnum() else "-" for letter in row.name.lower())
    return out / name / f"seed{seed}"


def config(row: Row, seed: int, epochs: int) -> Any:
    from larq_rep import training
    from larq_rep.training.recipe import changed

    recipe = training.get_recipe(row.recipe)
    # Each phase of a recipe with two gets half of the epochs.
    for key, value in {**row.changes, "epochs": epochs // len(recipe.phases)}.items():
        new = changed(recipe, key, value)
        assert new is not None, key
        recipe = new
    return training.Config(row.network, "digits", recipe, {**row.arguments, "input_size": [SIZE, SIZE]}, seed=seed)


def accuracy(path: Path, wanted: Any) -> float | None:
    """Test accuracy after the last epoch of a run, in percent; `None` if it has not got that far.

    # Raises
        ValueError: If the run was started with other values.
    """
    from larq_rep.training import folder as folders
    from larq_rep.training import read_metrics

    if not runs.is_run(path):
        return None
    if not folders.holds(path, wanted):
        raise ValueError(f"{path} was started with other epochs or values. Give another folder with --out.")
    rows, phases = read_metrics(path), wanted.recipe.phases
    done = bool(rows) and (rows[-1]["phase"], rows[-1]["epoch"]) == (len(phases), phases[-1].epochs)
    return 100 * rows[-1]["val_accuracy"] if done else None


def train(row: Row, seed: int, epochs: int, out: Path) -> float:
    """Trains a row with a seed, or resumes its run if it was stopped, and returns its accuracy."""
    terminal.quiet_tensorflow()
    from larq_rep import training

    path, wanted = folder(out, row, seed), config(row, seed, epochs)
    training.train(runs.network, path, wanted, resume=runs.is_run(path), report=lambda line: None)
    result = accuracy(path, wanted)
    assert result is not None
    return result


def _one_core() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The process that waits for this one ends it.
    os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")


def train_all(rows: Sequence[Row], seeds: int, epochs: int, out: Path, jobs: int) -> Iterator[tuple[Row, int, float]]:
    """Trains all rows with seeds 0 to `seeds - 1`, each run on one core; yields each result when it is done."""
    waiting = []
    for seed in range(seeds):
        for row in rows:
            found = accuracy(folder(out, row, seed), config(row, seed, epochs))
            if found is None:
                waiting.append((row, seed))
            else:
                yield row, seed, found
    # TensorFlow does not free everything of a network, so a process ends after some of them.
    with multiprocessing.get_context("spawn").Pool(jobs, _one_core, maxtasksperchild=10) as pool:
        yield from pool.imap_unordered(_train, [(row, seed, epochs, out) for row, seed in waiting])


def _train(job: tuple[Row, int, int, Path]) -> tuple[Row, int, float]:
    return job[0], job[1], train(*job)


def summary(results: Mapping[tuple[str, int], float]) -> dict[str, list[dict[str, Any]]]:
    """Mean and deviation of each row, and for each claim the paired difference with its 95 % confidence interval."""
    from scipy import stats

    names = list(dict.fromkeys(name for name, _ in results))
    by_row = {name: {seed: value for (row, seed), value in results.items() if row == name} for name in names}
    rows = [
        {
            "name": name,
            "seeds": len(values),
            "mean": mean(values.values()),
            "std": stdev(values.values()) if len(values) > 1 else math.nan,
        }
        for name, values in by_row.items()
    ]
    comparisons = []
    for comparison in COMPARISONS:
        better, worse = by_row.get(comparison.better, {}), by_row.get(comparison.worse, {})
        differences = [better[seed] - worse[seed] for seed in sorted(better.keys() & worse.keys())]
        if len(differences) < 2:
            continue
        centre, deviation = mean(differences), stdev(differences)
        half = float(stats.t.ppf(0.975, len(differences) - 1)) * deviation / math.sqrt(len(differences))
        comparisons.append(
            {
                **vars(comparison),
                "difference": centre,
                "low": centre - half,
                "high": centre + half,
                "shows": "not decided" if centre - half <= 0 <= centre + half else _ordering(centre, comparison),
            }
        )
    return {"rows": rows, "comparisons": comparisons}


_VERDICTS = {
    "yes": "Orderings of the papers that show at this size",
    "no, the opposite": "Orderings that are the opposite here",
    "not decided": "Not decided by so many seeds",
}


def _ordering(difference: float, comparison: Comparison) -> str:
    return "yes" if (difference > 0) == (comparison.published > 0) else "no, the opposite"


def page(found: Mapping[str, list[dict[str, Any]]], versions: Mapping[str, str], command: str, epochs: int) -> str:
    """The page of the results, in Markdown."""
    lines = [
        "# The papers' comparisons in miniature",
        "",
        f"Printed by `{command}` on {date.today().isoformat()}: "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
        "",
        f"Real data, but small: 1,437 handwritten digits of scikit-learn to train on, 360 to test, at {SIZE}x{SIZE} "
        f"pixels; {epochs} epochs in all, batches of 32, the published recipes otherwise (Adam at 2e-3 in those of two "
        "phases). Networks are so narrow that they do not read all digits. Accuracies are of the last epoch, in "
        "percent; a seed chooses initial values, order of the images and augmentation, the same in all rows. Runs that "
        "end at chance count like the others. ResNet-20 is 8 channels wide: with beta 4 the convolutions of its first "
        "stage have two filters.",
        "",
        "| network | seeds | mean | standard deviation |",
        "|---|---|---|---|",
        *(f"| {row['name']} | {row['seeds']} | {row['mean']:.2f} | {row['std']:.2f} |" for row in found["rows"]),
        "",
        "Differences of the same seeds, with the 95 % confidence interval of their mean (Student's t). An ordering of "
        "the paper shows if the interval lies on its side of 0.",
        "",
        "| claim | difference | 95 % interval | in the paper | shows here |",
        "|---|---|---|---|---|",
        *(
            f"| {c['claim']} | {c['difference']:+.2f} | {c['low']:+.2f} to {c['high']:+.2f} | "
            f"{c['published']:+.2f} ({c['source']}) | {c['shows']} |"
            for c in found["comparisons"]
        ),
        "",
        *(
            f"{introduction}: {'; '.join(c['claim'] for c in found['comparisons'] if c['shows'] == shows) or 'none'}.  "
            for shows, introduction in _VERDICTS.items()
        ),
    ]
    return "\n".join(lines) + "\n"
