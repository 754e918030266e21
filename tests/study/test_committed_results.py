"""The study in docs/results: its pages can be made again from its compressed records.

If this fails after a change of a table, a text or the configuration's fields, run ``fastadv report FOLDER`` and review
what changed. Figures and verdicts must not change: a new field of the configuration must not orphan the records
(``_EARLIER_DEFAULTS`` in fastadv/study/networks.py).
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fastadv.study.report import collect_report, write_report

RESULTS = Path(__file__).parents[2] / "docs" / "results"
STUDIES = sorted(path.parent for path in RESULTS.glob("*/study.json"))
SOURCES = ("study.json", "notes.yaml", "times.jsonl", "records")
NOT_COMMITTED = {".png", ".html"}  # larger copies of the SVG figures and of report.md


def test_there_are_committed_studies() -> None:
    assert STUDIES


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_a_committed_report_is_made_again_from_compressed_records(study: Path, tmp_path: Path) -> None:
    for name in SOURCES:
        copy = shutil.copytree if (study / name).is_dir() else shutil.copy
        copy(study / name, tmp_path / name)
    assert {path.suffix for path in (tmp_path / "records").iterdir()} == {".gz"}
    sources = {path for path in tmp_path.rglob("*") if path.is_file()}
    write_report(collect_report(tmp_path), tmp_path)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    made -= {path.relative_to(tmp_path) for path in sources}
    made = {path for path in made if path.suffix not in NOT_COMMITTED}
    committed = {path.relative_to(study) for path in study.rglob("*") if path.is_file()}
    committed = {path for path in committed if path.suffix not in NOT_COMMITTED and path.parts[0] not in SOURCES}
    assert made == committed
    assert any(path.suffix == ".svg" for path in made)
    for path in sorted(made):
        assert (tmp_path / path).read_text("utf-8") == (study / path).read_text("utf-8"), f"{path} differs"
