"""Keep a loss that is not finite from changing the weights, before the host knows of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from fastadv.train.run import Run


class UpdateGuard:
    """From the first loss that is not finite, undoes every update of the weights on the device: no host waits for it.

    Undone are changes to the weights, their averages and the optimiser's state. This costs a copy of all of them and
    the memory for it, except that fused optimisers skip the step themselves. State that an optimiser creates in a step
    is undone from the next one: check the loss of the first iteration before its update.

    Args:
        run: the run, on a GPU.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._all_finite = torch.ones((), device=run.device)  # 1.0 until there is another loss, then 0.0
        self._copies: list[Tensor] = []

    @contextmanager
    def over(self, not_finite: Tensor) -> Iterator[None]:
        """Context for an update of the weights; a CUDA graph can record it.

        Args:
            not_finite: how many of the iteration's losses are not finite, a scalar on the device.
        """
        torch.gt(self._all_finite, not_finite, out=self._all_finite)
        kept = self._kept()
        if len(self._copies) != len(kept):
            self._copies = [torch.empty_like(tensor) for tensor in kept]
        if kept:
            torch._foreach_copy_(self._copies, kept)
        with self._skipped_step() if self._step_is_fused else nullcontext():
            yield
        _copy_unless(self._all_finite, self._copies, kept)

    def reset(self) -> None:
        """Forget earlier losses and the copies: the run continues from another state."""
        self._all_finite.fill_(1.0)
        self._copies = []

    @property
    def _step_is_fused(self) -> bool:
        return all(group.get("fused") for group in self._run.optimizer.param_groups)

    @contextmanager
    def _skipped_step(self) -> Iterator[None]:
        """Context in which a fused optimiser takes no step after a loss that is not finite."""
        optimizer: Any = self._run.optimizer
        optimizer.found_inf = 1 - self._all_finite
        try:
            yield
        finally:
            del optimizer.found_inf

    def _kept(self) -> list[Tensor]:
        """Averages and, unless the step is skipped, weights and the optimiser's state on the device.

        That excludes counters on the host.
        """
        model, *averages = self._run.modules()
        kept = [parameter.detach() for module in averages for parameter in module.parameters()]
        if not self._step_is_fused:
            values = [value for state in self._run.optimizer.state.values() for value in state.values()]
            states = [value for value in values if isinstance(value, Tensor) and value.device == self._run.device]
            kept += [*(parameter.detach() for parameter in model.parameters()), *states]
        return kept


def _copy_unless(flag: Tensor, sources: Sequence[Tensor], places: Sequence[Tensor]) -> None:
    """Copy each source to its place unless the flag, a scalar on the device, is 1.

    PyTorch has no such operator for lists of tensors, but the first step of its fused SGD is one: it copies gradients
    to momentum buffers, unless ``found_inf`` is 1. The learning rate 0 leaves the parameters as they are. A product
    with the flag, as in ``lerp``, would turn values that are not finite into NaN.
    """
    by_kind: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for source, place in zip(sources, places, strict=True):
        of_kind = by_kind.setdefault(source.dtype, ([], []))
        of_kind[0].append(source)
        of_kind[1].append(place)
    for of_sources, of_places in by_kind.values():
        torch._fused_sgd_(
            of_sources,
            of_sources,
            of_places,
            weight_decay=0.0,
            momentum=1.0,
            lr=0.0,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=True,
            found_inf=flag,
        )
