"""What lies between the host and a pretended GPU: launches, waits, copies, streams, random numbers and graphs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

INVALIDATED = "CUDA error: operation failed due to a previous error during capture"
GENERATOR_LEFT_CAPTURING = "Offset increment outside graph capture encountered unexpectedly."


@dataclass
class Counts:
    """What a block of code made the host and the device do, by operator or by call."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    blocking_copies: Counter[str] = field(default_factory=Counter)

    @property
    def launched(self) -> int:
        return self.launches.total()


class Generator:
    """The device's, which a failed capture leaves in a state that refuses to draw, as torch 2.11 does."""

    def __init__(self) -> None:
        self.stuck = False

    def clone_state(self) -> Generator:
        return Generator()

    def graphsafe_set_state(self, state: Generator) -> None:
        self.stuck = state.stuck


class Runtime:
    """One pretended GPU.

    A copy to the host that does not block delivers its values at the next synchronisation, and nonsense before.
    """

    def __init__(self) -> None:
        self.stream = Stream(self)
        self.generator = Generator()
        self.restart()

    def restart(self) -> None:
        """Nothing has happened yet."""
        self.counts = Counts()
        self.generator.stuck = False
        self.recording: Graph | None = None
        self._late: list[tuple[Tensor, Tensor]] = []  # (where to, what) of copies under way

    def launch(self, name: str) -> None:
        self.counts.launches[name] += 1

    def wait(self, what: str) -> None:
        """The host waits for the device, which a graph cannot hold."""
        if self.recording is not None:
            self.recording.invalidate(f"CUDA error: operation not permitted when stream is capturing ({what})")
        self.counts.waits[what] += 1
        self.deliver()

    def deliver(self) -> None:
        for place, values in self._late:
            place.copy_(values)
        self._late.clear()

    def copy_later(self, values: Tensor) -> Tensor:
        """A copy in the host's memory, which holds the values after the next wait."""
        place = torch.empty_like(values)
        poison(place)
        self._late.append((place, values.clone()))
        return place

    def count_draw(self) -> None:
        """An operator draws random numbers."""
        if self.recording is None and self.generator.stuck:
            raise RuntimeError(GENERATOR_LEFT_CAPTURING)


def poison(values: Tensor) -> None:
    """Fill with what nobody expects to read: NaN, and classes and numbers that the CPU's operators do not refuse."""
    values.fill_(float("nan") if values.is_floating_point() else 0)


class Stream:
    """In order with every other: what a GPU would run out of order is not shown."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.cuda_stream = id(self)

    def synchronize(self) -> None:
        self._runtime.wait("Stream.synchronize")

    def wait_stream(self, other: Stream) -> None: ...

    def wait_event(self, event: Event) -> None: ...


class Event:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def record(self, stream: Stream | None = None) -> None: ...

    def synchronize(self) -> None:
        self._runtime.wait("Event.synchronize")


class Graph:
    """Operators with their tensors and numbers, run again as they were."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._steps: list[Callable[[], None]] = []
        self._broken = False

    def record(self, step: Callable[[], None]) -> None:
        self._steps.append(step)

    def invalidate(self, reason: str) -> None:
        self._broken = True
        raise RuntimeError(reason)

    def replay(self) -> None:
        self._runtime.launch("graph")
        with torch.no_grad():
            for step in self._steps:
                step()

    @contextmanager
    def capturing(self) -> Iterator[None]:
        runtime = self._runtime
        runtime.counts.waits["synchronize"] += 1  # as torch.cuda.graph does before it begins
        runtime.recording = self
        try:
            yield
        finally:
            runtime.recording = None
            if self._broken:
                runtime.generator.stuck = True
        if self._broken:
            raise RuntimeError(INVALIDATED)
