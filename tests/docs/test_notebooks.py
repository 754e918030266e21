"""The notebooks run from the first cell to the last, and are stored without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.data.pictures import write_data_set

pytestmark = pytest.mark.slow

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))


def executed(notebook: Path, folder: Path) -> str:
    """What its cells printed."""
    read = nbformat.read(notebook, as_version=4)
    NotebookClient(read, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return "".join(output.get("text", "") for cell in read.cells for output in cell.get("outputs", []))


@pytest.fixture(autouse=True)
def sources_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel imports the package that is tested."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TUTORIALS.parents[1]), os.environ.get("PYTHONPATH", "")]))


def test_there_are_notebooks() -> None:
    assert {notebook.stem for notebook in NOTEBOOKS} == {"first-attack", "adversarial-training", "robust-accuracy"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    assert "pgd" in executed(notebook, tmp_path)


def test_photographs_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "photographs", per_class=12, classes=3)
    monkeypatch.setenv("PHOTOGRAPHS", str(tmp_path / "photographs"))
    assert "largest change: 4.0 of 255" in executed(TUTORIALS / "first-attack.ipynb", tmp_path)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=[notebook.stem for notebook in NOTEBOOKS])
def test_a_notebook_is_stored_without_outputs(notebook: Path) -> None:
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
