"""Interleaved timing: variants are measured in turns, so that changes in a machine's speed affect all alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch


@dataclass
class Table:
    """Rows of a report, collected while the benchmarks run.

    Args:
        title: the title.
        header: column headings.
        rows: one cell per column.
        notes: paragraphs below the table.
        wanted: rows of a complete table, each given by some of its cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """The wanted rows that are missing."""
        return [", ".join(cells) for cells in self.wanted if not any(set(cells) <= set(row) for row in self.rows)]

    def markdown(self) -> str:
        """The table with its notes below."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"## {self.title}", table, *self.notes])


TABLES: list[Table] = []
# Limit in seconds for launches that are queued ahead. A launch takes the host over 2 us, and the host blocks when the
# queue of about 1,000 launches is full.
ISSUING = 2e-3


Kind = TypeVar("Kind", bound="Spread")


@dataclass(frozen=True)
class Spread:
    """The median over rounds, and the quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls: type[Kind], values: Sequence[float]) -> Kind:
        """The spread of one value per round."""
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
        return cls(statistics.median(values), low, high)


class Timing(Spread):
    """Seconds per call."""

    @property
    def text(self) -> str:
        """In milliseconds, with the quartiles."""
        return f"{1e3 * self.median:.3g} ({1e3 * self.low:.3g}-{1e3 * self.high:.3g})"


class Ratio(Spread):
    """Ratio of the times of two variants."""

    @property
    def text(self) -> str:
        """With the quartiles."""
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"

    @property
    def percent(self) -> str:
        """As a percentage."""
        return f"{100 * self.median:.3g} % ({100 * self.low:.3g}-{100 * self.high:.3g})"


Work = Callable[[], object]


class Interleaved:
    """Times variants of the same work. A round times each variant once, over as many calls as fill ``quantum``.

    Args:
        variants: maps names to functions that do the work once.
        quantum: minimum seconds per variant in a round; 0 for a single call.
        clock: returns the seconds that a number of calls take.
        run_up: calls of each variant before timing starts.
    """

    def __init__(
        self,
        variants: Mapping[str, Work],
        *,
        quantum: float = 0.02,
        clock: Callable[[Work, int], float] | None = None,
        run_up: int = 3,
    ) -> None:
        self.variants = variants
        self.seconds: dict[str, list[float]] = {name: [] for name in variants}
        self._order = random.Random(0)
        self._clock = clock or host_seconds
        self._run_up = run_up
        self.calls = {name: self._calls_per_quantum(function, quantum) for name, function in variants.items()}

    def round(self) -> None:
        """Time each variant once, in random order, so that none always follows the same one."""
        for name in self._order.sample(list(self.variants), len(self.variants)):
            function = self.variants[name]
            if self.calls[name] > 1:
                function()  # a short call must not pay for what the previous variant left in the caches
            self.seconds[name].append(self._clock(function, self.calls[name]) / self.calls[name])

    def run(self, seconds: float, *, least: int = 3, most: int = 15) -> None:
        """Run rounds until the time is up, but at least ``least`` and at most ``most``."""
        end = time.perf_counter() + seconds
        while self.rounds < least or (self.rounds < most and time.perf_counter() < end):
            self.round()

    @property
    def rounds(self) -> int:
        """Number of rounds so far."""
        return min(map(len, self.seconds.values()))

    def timings(self) -> dict[str, Timing]:
        """Timing of each variant over the rounds so far."""
        return {name: Timing.of(seconds) for name, seconds in self.seconds.items()}

    def ratio(self, of: str, to: str) -> Ratio:
        """Time of ``of`` relative to ``to``, by ratios within a round, which cancel changes in the machine's speed."""
        return Ratio.of([a / b for a, b in zip(self.seconds[of], self.seconds[to], strict=True)])

    def _calls_per_quantum(self, function: Work, quantum: float) -> int:
        for _ in range(self._run_up):  # compiles, allocates, warms caches
            function()
        return max(1, round(quantum / max(self._clock(function, 1), 1e-7))) if quantum else 1


def host_seconds(function: Work, calls: int) -> float:
    """Host time, for work that is complete when the call returns."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def whole_seconds(function: Work, calls: int) -> float:
    """Host time until the GPU, if there is one, is idle: what a caller waits for, including launches."""
    _wait_for_gpu()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    _wait_for_gpu()
    return time.perf_counter() - start


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_seconds(function: Work, calls: int) -> float:
    """Device time by events on the current CUDA stream, which is kept busy while the calls are issued.

    Otherwise kernels shorter than their launches would be timed as their launches. If too many launches would be
    queued, fewer calls are timed and the time is scaled.
    """
    torch.cuda.synchronize()
    issuing = host_seconds(function, 1)
    timed = max(1, min(calls, int(ISSUING / issuing)))
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    kilohertz = torch.cuda.get_device_properties().clock_rate  # the maximum; at a lower clock the sleep is longer
    torch.cuda._sleep(int(1.5 * timed * issuing * 1e3 * kilohertz))
    start.record()
    for _ in range(timed):
        function()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 * calls / timed
