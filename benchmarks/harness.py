"""Interleaved timing: what is compared is measured in turn, so that a machine's moods fall on all alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch


@dataclass
class Table:
    """Rows of a report, collected while the benchmarks run."""

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table with its notes below."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join([f"## {self.title}", table, *self.notes])


TABLES: list[Table] = []
# Seconds of the host's launches that may wait. A launch takes it over 2 us, and a queue that holds about 1,000 of them
# makes it wait when full.
ISSUING = 2e-3


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median over rounds, and the middle half's spread."""

    median: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """In milliseconds, with the quartiles."""
        return f"{1e3 * self.median:.3g} ({1e3 * self.low:.3g}-{1e3 * self.high:.3g})"


Work = Callable[[], object]


class Interleaved:
    """Variants of one piece of work. Each round times every variant once, over as many calls as fill ``quantum``.

    Args:
        variants: name to a function that does the work once.
        quantum: seconds that a variant's share of a round lasts at least.
        clock: seconds that so many calls of a function take.
        run_up: calls of each variant before any is timed.
    """

    def __init__(
        self,
        variants: dict[str, Work],
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

    def timings(self) -> dict[str, Timing]:
        """Median and quartiles of each variant over the rounds so far."""
        result = {}
        for name, seconds in self.seconds.items():
            low, _, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
            result[name] = Timing(statistics.median(seconds), low, high)
        return result

    def _calls_per_quantum(self, function: Work, quantum: float) -> int:
        for _ in range(self._run_up):  # compiles, allocates, warms caches
            function()
        return max(1, round(quantum / max(self._clock(function, 1), 1e-7)))


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
