"""RecordableCalls: what a task needs for its calls to be recorded as a CUDA graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from fastadv.train.tasks.base import AttackTask
from fastadv.utils.rng import RecordedDraws


class RecordableCalls(AttackTask):
    """An attack task whose calls may be recorded: they launch the same work each time."""

    def recorded(self, draws: RecordedDraws) -> AbstractContextManager[None]:
        """Context for a call that a CUDA graph records; it does not count. Call :meth:`replay` before each replay."""
        return self._recorded(draws)

    @contextmanager
    def _recorded(self, draws: RecordedDraws) -> Iterator[None]:
        iteration = self.iteration
        try:
            with self.attack.stream.recorded(draws):
                yield
        finally:
            self.iteration = iteration

    def replay(self, draws: RecordedDraws) -> None:
        """Count a call whose work is replayed from a graph, and set the random numbers for its examples."""
        self.iteration += 1
        self.attack.stream.replay(draws)
