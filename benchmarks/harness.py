"""Interleaved timing: what is compared is measured in turn, so that a machine's moods fall on all alike."""

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
        title: of the table.
        header: of its columns.
        rows: a cell for each column.
        notes: paragraphs below it.
        wanted: rows that a complete table has, each by some of its cells.
    """

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wanted: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """The wanted rows that are not there."""
        return [", ".join(cells) for cells in self.wanted if not any(set(cells) <= set(row) for row in self.rows)]

    def markdown(self) -> str:
        """The table with its notes below."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"## {self.title}", table, *self.notes])


TABLES: list[Table] = []
# Seconds of the host's launches that may wait. A launch takes it over 2 us, and a queue that holds about 1,000 of them
# makes it wait when full.
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
        """That of one value a round."""
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else [*values] * 3
        return cls(statistics.median(values), low, high)


class Timing(Spread):
    """Seconds a call."""

    @property
    def text(self) -> str:
        """In milliseconds, with the quartiles."""
        return f"{1e3 * self.median:.3g} ({1e3 * self.low:.3g}-{1e3 * self.high:.3g})"


class Ratio(Spread):
    """How many times as long one piece of work takes as another."""

    @property
    def text(self) -> str:
        """With the quartiles."""
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"

    @property
    def percent(self) -> str:
        """The same as a share."""
        return f"{100 * self.median:.3g} % ({100 * self.low:.3g}-{100 * self.high:.3g})"


Work = Callable[[], object]


class Interleaved:
    """Variants of one piece of work. Each round times every variant once, over as many calls as fill ``quantum``.

    Args:
        variants: name to a function that does the work once.
        quantum: seconds that a variant's share of a round lasts at least; 0 is one call.
        clock: seconds that so many calls of a function take.
        run_up: calls of each variant before any is timed.
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
        """Time each variant once, in an order of its own: none always follows the same neighbour."""
        for name in self._order.sample(list(self.variants), len(self.variants)):
            function = self.variants[name]
            if self.calls[name] > 1:
                function()  # what its neighbour left in the caches is no part of a short call's time
            self.seconds[name].append(self._clock(function, self.calls[name]) / self.calls[name])

    def run(self, seconds: float, *, least: int = 3, most: int = 15) -> None:
        """Rounds until the time is over: ``most`` where they are short, ``least`` however long they are."""
        end = time.perf_counter() + seconds
        while self.rounds < least or (self.rounds < most and time.perf_counter() < end):
            self.round()

    @property
    def rounds(self) -> int:
        """How many there have been."""
        return min(map(len, self.seconds.values()))

    def timings(self) -> dict[str, Timing]:
        """Of each variant, over the rounds so far."""
        return {name: Timing.of(seconds) for name, seconds in self.seconds.items()}

    def ratio(self, of: str, to: str) -> Ratio:
        """How many times as long ``of`` takes as ``to``: a quotient a round, from which the machine's mood cancels."""
        return Ratio.of([a / b for a, b in zip(self.seconds[of], self.seconds[to], strict=True)])

    def _calls_per_quantum(self, function: Work, quantum: float) -> int:
        for _ in range(self._run_up):  # compiles, allocates, warms caches
            function()
        return max(1, round(quantum / max(self._clock(function, 1), 1e-7))) if quantum else 1


def host_seconds(function: Work, calls: int) -> float:
    """By the host's clock, for work that is over when the call returns."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return time.perf_counter() - start


def whole_seconds(function: Work, calls: int) -> float:
    """By the host's clock until a GPU, if there is one, has no work left: what a caller waits for, launches and all."""
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
    """By events on the current CUDA stream, behind work that keeps it busy while the calls are issued.

    Without that, kernels shorter than their launches would be timed as their launches. Where too much would be waiting
    in the queue, fewer calls are timed and their time is scaled.
    """
    torch.cuda.synchronize()
    issuing = host_seconds(function, 1)
    timed = max(1, min(calls, int(ISSUING / issuing)))
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    kilohertz = torch.cuda.get_device_properties().clock_rate  # the highest: at any other the sleep is longer
    torch.cuda._sleep(int(1.5 * timed * issuing * 1e3 * kilohertz))
    start.record()
    for _ in range(timed):
        function()
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop) / 1e3 * calls / timed
