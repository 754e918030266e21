"""benchmarks.masking_checks: the tables that it writes, of networks that have hardly been trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.masking_checks import MASKS, main

pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
pytest.importorskip("timm", reason="the vision transformer is timm's")

SMALL = {"limit": 600, "epochs": 2, "width": 0.25, "images": 24, "seeds": 1, "draws": 2, "draws-of-masks": 1}


def rows_of(text: str, title: str) -> list[list[str]]:
    """The cells of the table below a title, without its heading."""
    table = text.partition(f"## {title}")[2].partition("\n## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_tables(tmp_path: Path) -> None:
    out = tmp_path / "checks.md"
    options = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    main(["--data-set", "digits", "--out", str(out), *options])
    text = out.read_text()
    said = {name: cells for name, *cells in rows_of(text, "What the checks said")}
    assert list(said) == ["standard", *MASKS, "Algorithm 1", "fast", "PGD", "ViT"]
    causes = {check for check, _ in MASKS.values()}
    for name, (_, samples, right, found) in said.items():
        spoke = {one.split()[0] for one in found.split(", ")} & causes
        if name in MASKS:
            assert (samples, right) == ("1", "1") and MASKS[name][0] in spoke
        else:
            assert (samples, right, spoke) == ("2", "", set())
    evidence = rows_of(text, "Evidence, from the first sample in which it was found")
    assert ["zero-gradient layer", "no_gradient", "24 of 24 gradients are zero or not finite"] in evidence
    cost = {name: cells for name, *cells in rows_of(text, "Cost for 24 images")}
    assert cost["standard"][0] == str(21 * 24 + 1)
