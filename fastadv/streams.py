"""RandomStream: where an attack's random numbers come from, apart from every other generator in the process."""

from __future__ import annotations

import torch

_SEED_LIMIT = 2**63 - 1


class RandomStream:
    """Hands out (seed, offset) pairs; row i of a call draws from example index ``offset + i`` of stream ``seed``.

    With a ``seed`` the stream advances by the number of examples taken, so that two batches of 16 draw what one
    batch of 32 would. Without one, each call takes a fresh seed from ``generator`` (torch's default generator if
    None), which makes ``torch.manual_seed`` reproduce a run. Neither reseeds a generator that belongs to others.

    Args:
        seed: an integer that fixes the stream.
        generator: a CPU ``torch.Generator`` to take seeds from; not together with ``seed``.
    """

    def __init__(self, *, seed: int | None = None, generator: torch.Generator | None = None) -> None:
        if seed is not None and generator is not None:
            raise ValueError("pass seed or generator, not both")
        if generator is not None and generator.device.type != "cpu":
            raise ValueError(f"generator must be on the CPU: reading a seed from {generator.device} would synchronise")
        self.seed = seed
        self.offset = 0
        self._generator = generator

    def take(self, examples: int) -> tuple[int, int]:
        """The (seed, offset) for the next ``examples`` examples."""
        if self.seed is None:
            fresh = torch.randint(_SEED_LIMIT, (), generator=self._generator, device="cpu")
            return int(fresh), 0
        offset, self.offset = self.offset, self.offset + examples
        return self.seed, offset

    def state_dict(self) -> dict[str, int | None]:
        """What a checkpoint needs to continue the stream where it stands."""
        return {"seed": self.seed, "offset": self.offset}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Continue from :meth:`state_dict`."""
        self.seed, self.offset = state["seed"], int(state["offset"] or 0)

    def __repr__(self) -> str:
        return f"RandomStream(seed={self.seed}, offset={self.offset})"
