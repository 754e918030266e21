"""benchmarks.agreement: the attacks of an evaluation reach torchattacks' verdicts, and a second call continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")

SMALL = {"limit": 600, "epochs": 3, "images": 40, "piece": 20, "steps": 10, "queries": 20, "eps": 6}
NAMES = ["apgd_ce", "apgd_dlr", "apgd_t", "fab_t", "square", "autoattack"]
OWN_NUMBERS = {"square", "autoattack"}  # their random numbers are not torchattacks'


def verdicts(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    from benchmarks.agreement import records

    return records(folder)


def compare(folder: Path, **more: int) -> None:
    from benchmarks.agreement import main

    words = [word for name, value in {**SMALL, **more}.items() for word in (f"--{name}", str(value))]
    main(["--data-set", "digits", "--out", str(folder), *words])


@pytest.mark.filterwarnings("ignore")
def test_verdicts_are_those_of_torchattacks(tmp_path: Path) -> None:
    compare(tmp_path)
    found = verdicts(tmp_path)
    assert list(found) == [(name, piece) for piece in range(2) for name in NAMES]
    for name in NAMES:
        ours, theirs = (found[name, 0][who] + found[name, 1][who] for who in ("ours", "theirs"))
        assert sum(a != b for a, b in zip(ours, theirs, strict=True)) <= (2 if name in OWN_NUMBERS else 1), name
        assert 4 < sum(theirs) < 36, name
    lines = (tmp_path / "agreement.md").read_text().splitlines()
    assert [name for name in NAMES if any(line.startswith(f"| {name} | 40 |") for line in lines)] == NAMES


@pytest.mark.filterwarnings("ignore")
def test_a_second_call_compares_the_pieces_that_are_left(tmp_path: Path) -> None:
    compare(tmp_path, images=20)
    path = tmp_path / "verdicts.jsonl"
    marked = [{**json.loads(line), "ours_s": -1.0} for line in path.read_text().splitlines()[:-1]]
    path.write_text("".join(json.dumps(record) + "\n" for record in marked))
    compare(tmp_path, images=20)
    seconds = [record["ours_s"] for record in verdicts(tmp_path).values()]
    assert seconds[:-1] == [-1.0] * 5 and seconds[-1] >= 0
