"""RandomStream: an attack's random numbers, independent of all other generators in the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import torch
from torch import Tensor

from fastadv.utils.recorded_number import RecordedNumber

_SEED_LIMIT = 2**63 - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: its multiples are far apart


def nth_seed(seed: int | Tensor, number: int) -> int:
    """Return the seed of one of several streams that a seed stands for, the first of which is its own.

    Raises:
        TypeError: if the seed is a tensor, which a CUDA graph reads.
    """
    if isinstance(seed, Tensor):
        raise TypeError("an attack with several random starts cannot be recorded as a CUDA graph")
    return (seed + number * _GOLDEN) % 2**63


class RecordedDraws:
    """A place from which recorded work reads its position in a stream of random numbers.

    Args:
        device: the device of the work.

    Attributes:
        pair: [2] int64, the seed and the offset of the first example.
        examples: number of examples that the work draws for.
    """

    def __init__(self, device: torch.device) -> None:
        self.pair = torch.zeros(2, dtype=torch.int64, device=device)
        self.examples = 0
        self._seed, self._offset = (RecordedNumber(place) for place in self.pair)

    def set(self, seed: int, offset: int) -> None:
        self._seed.set(seed)
        self._offset.set(offset)


class RandomStream:
    """Hands out (seed, offset) pairs; row i of a call draws from example index ``offset + i`` of stream ``seed``.

    With a ``seed`` the stream advances by the number of examples taken, so that two batches of 16 draw what one
    batch of 32 would. Without one, each call takes a new seed from ``generator`` (torch's default generator if
    None), so that ``torch.manual_seed`` makes a run reproducible. Neither reseeds anyone else's generator.

    After :meth:`split`, several processes that take equal parts of a minibatch share one stream: together they draw
    what one process would draw for the whole minibatch, in the order of the ranks.

    Args:
        seed: an integer that fixes the stream.
        generator: a CPU ``torch.Generator`` to take seeds from; not together with ``seed``.

    Raises:
        ValueError: if both are given, or the generator is on a GPU.
        TypeError: if seed or generator has the wrong type.
    """

    def __init__(self, *, seed: int | None = None, generator: torch.Generator | None = None) -> None:
        if seed is not None and generator is not None:
            raise ValueError("pass seed or generator, not both")
        if seed is not None and not isinstance(seed, Integral):
            raise TypeError(f"seed must be an integer, got {seed!r}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"generator must be on the CPU: reading a seed from {generator.device} would synchronise")
        self.seed: int | None = seed
        self.offset = 0
        self._generator = generator
        self._rank, self._world_size = 0, 1
        self._recorded: RecordedDraws | None = None

    def split(self, rank: int, world_size: int) -> None:
        """Make this the stream of process ``rank`` of ``world_size``."""
        self._rank, self._world_size = rank, world_size

    def take(self, examples: int) -> tuple[int | Tensor, int]:
        """Return (seed, offset) for the next ``examples`` examples of this process.

        While work is recorded, the seed is a tensor [2] with both: see :meth:`recorded`.
        """
        if self._recorded is not None:
            self._recorded.examples += examples
            return self._recorded.pair, 0
        return self._next(examples)

    def _next(self, examples: int) -> tuple[int, int]:
        before = self._rank * examples  # of lower ranks
        if self.seed is None:
            fresh = torch.randint(_SEED_LIMIT, (), generator=self._generator, device="cpu")
            return int(fresh), before
        offset, self.offset = self.offset, self.offset + self._world_size * examples
        return self.seed, offset + before

    @contextmanager
    def recorded(self, draws: RecordedDraws) -> Iterator[None]:
        """Within the block :meth:`take` does not advance the stream: a CUDA graph that is recorded there draws from
        ``draws.pair``, which :meth:`replay` sets before each replay."""
        self._recorded, draws.examples = draws, 0
        try:
            yield
        finally:
            self._recorded = None

    def replay(self, draws: RecordedDraws) -> None:
        """Take numbers for the recorded examples, and write their seed and offset to ``draws.pair``."""
        if draws.examples:
            draws.set(*self._next(draws.examples))

    def state_dict(self) -> dict[str, int | None]:
        """Return what a checkpoint needs to continue the stream."""
        return {"seed": self.seed, "offset": self.offset}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Continue from the result of :meth:`state_dict`."""
        self.seed, self.offset = state["seed"], int(state["offset"] or 0)

    def __repr__(self) -> str:
        return f"RandomStream(seed={self.seed}, offset={self.offset})"
