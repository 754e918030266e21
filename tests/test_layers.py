"""The rooms of the package are layers: modules import from their own room and from those below, never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fastadv

ROOT = Path(fastadv.__file__).parent
# From the bottom up. A file at the root, such as ops.py, is a room of its own; a room's __init__ belongs to it.
LAYERS = (
    *("utils", "_types", "pixels", "ops", "reference", "eps", "distributed"),
    *("attacks.engine", "attacks"),
    *("data.transforms", "data.config", "data.sources", "data.in_memory", "data.loaders", "data"),
    *("models", "evaluate", "train.tasks", "train", "study", "cli", "__main__"),
)
# PixelSpace.from_pixels runs the fused operator, whose module takes a PixelSpace: imported when it is called.
ALLOWED = {("fastadv.pixels.space", "fastadv.ops")}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in ROOT.rglob("*.py")}


def imports_of(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, also within functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fastadv":
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in MODULES else str(node.module)


def layer_of(module: str) -> int | None:
    """The highest layer of the most specific name; None for the package itself, which has the version."""
    inner = module.removeprefix("fastadv").removeprefix(".")
    while inner:
        if inner in LAYERS:
            return LAYERS.index(inner)
        inner = inner.rpartition(".")[0]
    return None


def upward(module: str, imported: str) -> bool:
    """Whether an import leads to a higher layer; a package may gather what is in the rooms below it."""
    one, other = layer_of(module), layer_of(imported)
    return (module, imported) not in ALLOWED and one is not None and other is not None and other > one


def test_every_module_has_a_layer() -> None:
    assert [module for module in MODULES if module != "fastadv" and layer_of(module) is None] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_lead_down(module: str) -> None:
    assert [imported for imported in imports_of(MODULES[module]) if upward(module, imported)] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {
        module: {name for name in imports_of(path) if name not in (module, "fastadv") and (module, name) not in ALLOWED}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_an_upward_import_and_a_circle_are_found() -> None:
    assert upward("fastadv.data.sources.scan", "fastadv.train.config")
    assert not upward("fastadv.train.config", "fastadv.data.sources.scan")
    with pytest.raises(CycleError):
        TopologicalSorter({"one": {"other"}, "other": {"one"}}).prepare()
