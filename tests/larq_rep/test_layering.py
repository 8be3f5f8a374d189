"""Who may import whom, read from the source; `docs/design.md` explains the rooms.

Imports inside functions count as well. `test_import` checks in fresh interpreters what an import loads.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# The folders of the sources, and the packages that they are.
PACKAGES = {
    "larq_rep": "larq_rep",
    "zoo": "larq_rep.zoo",
    "converters": "larq_rep.converters",
    "runtime/larq_rep_runtime": "larq_rep_runtime",
    "larq_rep_cli": "larq_rep_cli",
}
GROUND = {"_keras", "checks", "datasets", "files", "graph", "images", "lazy", "record"}
NETWORKS = {"ground", "quantizers", "layers"}
CORE = {*NETWORKS, "cost", "losses", "reptran", "signs"}
# What a room may import besides itself. A new module of `larq_rep/` needs a row, or a place in GROUND.
ALLOWED = {
    "ground": set(),
    "quantizers": {"ground"},
    "layers": {"ground"},
    "cost": NETWORKS,
    "losses": NETWORKS,
    "reptran": NETWORKS,
    "signs": NETWORKS,
    "accuracy": {"ground"},
    "data": {"ground"},
    "plots": CORE,
    "training": {*CORE, "accuracy", "data", "plots"},
    "zoo": CORE,
    # The figure of a benchmark is drawn there.
    "converters": {*CORE, "plots", "runtime"},
    "runtime": set(),
    "larq_rep": CORE,  # its own __init__.py; all others are imported on use
    "cli": {*CORE, "accuracy", "converters", "data", "plots", "runtime", "training", "zoo"},
}
# Imported inside functions only, and why.
ON_USE = {
    ("ground", "zoo"): "a model's record tells its published form, which the zoo knows",
    ("zoo", "training"): "a checkpoint of step 1 has real weights, and training makes such a network; it reads runs",
    ("converters", "zoo"): "a name of the zoo, or a run, stands for a network there",
}
# The runtime runs where TensorFlow is not installed.
NOT_IN_RUNTIME = {"keras", "larq", "larq_compute_engine", "larq_zoo", "tensorflow", "tf_keras"}


def room_of(module: str) -> str:
    """The room of a module of ours."""
    package, *rest = module.split(".")
    if package != "larq_rep":
        return {"larq_rep_cli": "cli", "larq_rep_runtime": "runtime"}[package]
    if not rest:
        return "larq_rep"
    return "ground" if rest[0] in GROUND else rest[0]


def is_module(name: str) -> bool:
    for folder, package in PACKAGES.items():
        if name == package:
            return True
        if name.startswith(package + "."):
            path = ROOT / folder / name.removeprefix(package + ".").replace(".", "/")
            if path.is_dir() or path.with_suffix(".py").is_file():
                return True
    return False


def imports(source: str, package: str) -> Iterator[tuple[int, str, bool]]:
    """For each import its line, the module, and whether it is inside a function, or for type checkers only."""

    def visit(node, inside):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, inside
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package, each further one its parent.
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                # A name of a package is a module or a part of its `__init__.py`.
                yield node.lineno, f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module, inside
        for child in ast.iter_child_nodes(node):
            on_use = isinstance(node, ast.FunctionDef) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            )
            yield from visit(child, inside or on_use)

    return visit(ast.parse(source), False)


def problems(source: str, module: str, file: str = "x.py", package: str | None = None) -> list[str]:
    """The imports of a module that its room may not have, with file and line."""
    room, found = room_of(module), []
    if room not in ALLOWED:
        return [f"{file}:1: ALLOWED has no row for {room}"]
    for line, imported, inside in imports(source, package or module.rpartition(".")[0]):
        top = imported.split(".")[0]
        if top in ("larq_rep", "larq_rep_cli", "larq_rep_runtime"):
            other = room_of(imported)
            # `import larq_rep` alone is for its version.
            fine = other in {room, *ALLOWED[room]} or ((room, other) in ON_USE and inside)
            fine = fine or (other == "larq_rep" and room != "runtime")
        else:
            fine = not (room == "runtime" and top in NOT_IN_RUNTIME)
        if not fine:
            found.append(f"{file}:{line}: {room} may not import {imported}")
    return found


def sources() -> Iterator[tuple[Path, str, str]]:
    """Each file, its module and the package that its relative imports start from."""
    for folder, package in PACKAGES.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            # `larq_rep/zoo` and `larq_rep/converters` are links.
            if path.resolve().is_relative_to((ROOT / folder).resolve()):
                parts = path.relative_to(ROOT / folder).with_suffix("").parts
                parent = ".".join([package, *parts[:-1]])
                yield path, parent if parts[-1] == "__init__" else f"{parent}.{parts[-1]}", parent


def test_rooms_import_what_they_may():
    found, rooms = [], set()
    for path, module, package in sources():
        rooms.add(room_of(module))
        found += problems(path.read_text(), module, str(path.relative_to(ROOT)), package)
    assert not found, "\n".join(found)
    assert {"ground", "quantizers", "layers", "training", "zoo", "converters", "runtime", "cli", "larq_rep"} <= rooms


@pytest.mark.parametrize(
    "module, source, line",
    [
        ("larq_rep.new", "", 1),
        ("larq_rep.layers.mirror", "import numpy\nfrom larq_rep.training import train", 2),
        ("larq_rep.layers.mirror", "def f():\n  import larq_rep.zoo", 2),
        ("larq_rep.layers.mirror", "from larq_rep import __version__, quantizers", 1),
        ("larq_rep.layers.mirror", "from ..quantizers import RSign", 1),
        ("larq_rep.layers.mirror", "from .. import zoo", 1),
        ("larq_rep.graph", "if True:\n  from larq_rep import layers", 2),
        ("larq_rep.zoo.resnet18", "from larq_rep.converters import convert", 1),
        ("larq_rep.zoo.resnet18", "from larq_rep import training", 1),
        ("larq_rep.converters.lce", "from larq_rep.zoo import get_model", 1),
        ("larq_rep.converters.lce", "def f():\n  from larq_rep import training", 2),
        ("larq_rep.training.run", "from larq_rep import zoo", 1),
        ("larq_rep.plots.file", "import larq_rep.training.run as run", 1),
        ("larq_rep.plots.file", "import larq_rep_cli", 1),
        ("larq_rep_runtime.profile", "import tensorflow.lite as lite", 1),
        ("larq_rep_runtime.profile", "def f():\n  import larq_rep", 2),
    ],
)
def test_what_is_refused(module, source, line):
    (problem,) = problems(source, module)
    assert problem.startswith(
        f"x.py:{line}: {room_of(module)} may not import " if source else "x.py:1: ALLOWED has no row"
    )


def test_what_is_allowed():
    for module, source in (
        ("larq_rep.layers.mirror", "from larq_rep import __version__, graph\nfrom .repeat import Repeat\nimport larq"),
        ("larq_rep.zoo.resnet18", "def f():\n  from larq_rep.training.phases import transfer"),
        ("larq_rep.converters.loading", "def f():\n  from larq_rep.zoo import get_model"),
        ("larq_rep_cli.lce", "from larq_rep import zoo, converters, training\nimport larq_rep_runtime"),
    ):
        assert problems(source, module) == []
