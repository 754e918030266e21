"""benchmarks.pairs: the table it writes."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pairs import main


def test_the_table(tmp_path: Path) -> None:
    options = "--m 4 8 --network small_cnn --size 16 --rounds 1"
    main([*options.split(), "--out", str(tmp_path / "table.md")])
    lines = (tmp_path / "table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    header, _, *body = rows
    assert header == ["m", "iteration", "ms", "over clean", "by pass count"]
    assert [row[0] for row in body] == ["4"] * 5 + ["8"] * 5
    assert [row[4] for row in body[:5]] == ["1", "1", "1.17", "1.33", "1.33"]
    assert body[0][3].startswith("1.00")
