"""The verdicts that ``fastadv study`` and ``fastadv report`` print."""

from __future__ import annotations

import pytest

from fastadv.cli.verdicts import print_verdicts
from fastadv.study.claims import CLAIMS
from fastadv.study.verdicts import FAILS, HOLDS, MARKS, NOT_APPLICABLE, NOT_MEASURED, UNCLEAR, Finding

VERDICTS = (HOLDS, FAILS, UNCLEAR, NOT_APPLICABLE, NOT_MEASURED)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_claim_has_a_line_of_at_most_80_columns(
    verdict: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_verdicts([Finding(claim, verdict) for claim in CLAIMS])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    for claim in CLAIMS:
        short = verdict.removesuffix(" at this scale")
        assert [claim.name, *claim.source.split(), MARKS[verdict], *short.split()] in rows
    assert f"{len(CLAIMS)} claims. {MARKS[verdict]} {verdict}: {len(CLAIMS)}." in " ".join(lines)


def test_the_counts_follow_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_verdicts([Finding(claim, verdict) for claim, verdict in zip(CLAIMS, VERDICTS, strict=False)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "5 claims. ✓ holds: 1; ✗ does not hold at this scale: 1; ? inconclusive: 1;" in shown


def test_a_study_without_claims_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_verdicts([])
    assert capsys.readouterr().out == ""
