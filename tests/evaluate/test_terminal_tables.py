"""Tables on terminals of any width: every column is printed, in parts if need be."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fastadv.evaluate.intervals import proportion
from fastadv.evaluate.tables import Table
from fastadv.evaluate.terminal_tables import print_table

SIZES = (2, 4, 8, 16, 32, 64, 128)
TABLE = Table(
    caption="Accuracy on fgsm adversarial images",
    header=("Model", "Metric", "Clean", *(f"eps = {size}" for size in SIZES)),
    rows=tuple(
        (name, "top 1", *(proportion(100 * row + 10 * column, 1000) for column in range(1 + len(SIZES))))
        for row, name in enumerate(("Std. training", "Adv. training"), start=1)
    ),
    labels=2,
    notes=("Over the 1,000 test images.",),
)


def printed(width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    with console.capture() as shown:
        print_table(TABLE, console)
    return shown.get()


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_column_is_cut_off(width: int) -> None:
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for row in (1, 2):
        for column in range(1 + len(SIZES)):
            assert f"{10 * row + column:.1f}%" in words
    assert all(str(size) in words for size in SIZES)
    assert words.count("Over the 1,000 test images.") == 1
    assert "training" in words  # no word of a row's name is broken


def test_parts_are_no_more_than_needed() -> None:
    assert printed(200).count("Accuracy on fgsm") == 1
    assert 2 <= printed(80).count("Accuracy on fgsm") <= 4
    assert "Accuracy on fgsm adversarial images (continued)" in printed(80)
