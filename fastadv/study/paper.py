"""The paper's own numbers, shown next to the measured ones."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from fastadv.utils.optional_deps import require

EPS = (2.0, 4.0, 8.0, 16.0)  # in all its tables


@cache
def numbers() -> dict[str, Any]:
    """The content of ``paper.yaml``, by table."""
    text = (resources.files("fastadv.study") / "paper.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = require("yaml", extra="train").safe_load(text)
    return content


def accuracies(table: str, row: Any, top: int = 1) -> tuple[float, ...] | None:
    """A row of an accuracy table in percent: clean, then at each :data:`EPS`; None if the paper has no such row."""
    values = numbers()[table].get(row)
    if isinstance(values, dict):
        values = values.get(f"top{top}")
    elif top != 1:
        return None
    return None if values is None else tuple(values)


def transfer(table: str, attack: str, top: int) -> list[list[int]]:
    """Percentages of "table4" or "table6" for an attack: a row for each source, a column for each target, A to D."""
    matrix: list[list[int]] = numbers()[table][attack][f"top{top}"]
    return matrix
