"""fastadv/attacks/engine computes gradients for attacks, and imports none of them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fastadv.attacks import engine

FILES = sorted(Path(engine.__file__).parent.glob("*.py"))
BELOW = ("eps", "ops", "pixels", "reference", "utils")


def imported(file: Path) -> set[str]:
    """List the package's modules that a file imports, also those imported only for types."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("fastadv.")}


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_file_of_the_engine_imports_what_lies_below_it(file: Path) -> None:
    allowed = ("fastadv.attacks.engine.", *(f"fastadv.{name}" for name in BELOW))
    assert all(name.startswith(allowed) for name in imported(file))


def test_the_imports_have_no_circle() -> None:
    modules = {f"fastadv.attacks.engine.{file.stem}": file for file in FILES}
    left = {
        name: {module for module in modules if any(f"{one}.".startswith(f"{module}.") for one in imported(file))}
        for name, file in modules.items()
    }
    assert any(left.values())
    while free := {name for name, needs in left.items() if not needs & left.keys()}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert not left
