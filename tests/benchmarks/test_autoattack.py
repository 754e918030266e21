"""benchmarks.autoattack: verdicts equal to torchattacks' from its own starts, and the tables that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")

SMALL = {"limit": 600, "epochs": 3, "images": 20, "steps": 20, "queries": 10, "rounds": 1, "eps": 16, "eps-l2": 90}


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the table below a title, without its heading."""
    table = text.partition(f"## {title}")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_verdicts_from_the_same_starts(tmp_path: Path) -> None:
    """One image may differ: torchattacks compares the first loss of DLR with 0, not with the loss of the start."""
    from benchmarks.autoattack import main

    out = tmp_path / "autoattack.md"
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    main(["--data-set", "digits", "--out", str(out), *options])
    text = out.read_text()
    apgd = rows_of(text, "The same starts, 20 steps")
    assert [(name, norm) for name, norm, *_ in apgd] == [
        (name, norm) for norm in ("linf", "l2") for name in ("apgd_ce", "apgd_dlr", "apgd_t")
    ]
    for _, _, _, ours, theirs, equal, *_ in apgd:
        assert int(equal.removesuffix(" of 20")) >= 19 and 0 < int(ours) <= int(theirs) + 1 < 20
    whole = rows_of(text, "AutoAttack, standard, 20 steps, 10 queries")
    assert [name for _, _, name, *_ in whole] == ["torchattacks", "fastadv", "fastadv, fast=True"] * 2
    for _, _, _, correct, unlike, *_ in whole:
        assert 0 < int(correct) < 20 and int(unlike) <= 1  # with other random starts
