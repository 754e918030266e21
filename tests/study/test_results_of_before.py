"""The study that is in docs/results: fields that the configuration gains since must not orphan its records."""

from __future__ import annotations

from pathlib import Path

from fastadv.study import manifest
from fastadv.study.claims import findings
from fastadv.study.report import claims_json
from fastadv.study.runner import Place

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_the_claims_of_a_finished_study_stay_as_they_are() -> None:
    for claims in RESULTS.glob("*/claims.json"):
        about = manifest.read(claims.parent)
        assert about is not None
        found = findings(about.create_scale(), Place(claims.parent).results(), about.studies)
        assert claims_json(found) == claims.read_text(encoding="utf-8")
    assert [*RESULTS.glob("*/claims.json")]
