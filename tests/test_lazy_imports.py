"""Packages that import their public names on first use."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fastadv import data, train


@pytest.mark.parametrize("package", [data, train])
def test_names_are_imported_from_where_type_checkers_find_them(package: ModuleType) -> None:
    assert package.__file__ is not None
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {name.name: node.module for node in imports for name in node.names} == package._MODULES
    assert list(package._MODULES) == package.__all__ and all(hasattr(package, name) for name in package.__all__)


def test_a_configuration_can_be_described_without_pytorch() -> None:
    script = (
        "import sys; sys.argv[0] = 'fastadv'; from fastadv.train.config import TrainConfig; import fastadv.train; "
        "assert 'torch' not in sys.modules; assert fastadv.train.TrainConfig is TrainConfig; "
        "assert fastadv.train.Trainer and 'torch' in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("package", [data, train])
def test_an_unknown_name(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'Nothing'"):
        _ = package.Nothing
