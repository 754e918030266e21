"""The calls before timing, in which libraries choose kernels, graphs are recorded and warnings are issued."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

from benchmarks.device import DEVICE
from benchmarks.harness import Table
from benchmarks.memory import peak

WITHOUT = re.compile("(runs|goes on|continues) without")


def first_calls(table: Table, what: str, call: Callable[[], object]) -> str:
    """Make the first three calls, in which libraries choose kernels and graphs are recorded; returns peak memory in MB.

    A warning that something runs without an option becomes a note of the table.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        peak_bytes = peak(lambda: [call() for _ in range(3)], DEVICE.type)
    notes = [f"{what}: {warning.message}." for warning in said if WITHOUT.search(str(warning.message))]
    table.notes += [note for note in dict.fromkeys(notes) if note not in table.notes]
    return f"{peak_bytes / 1e6:.0f}"
