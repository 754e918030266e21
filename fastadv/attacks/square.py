"""The Square attack (Andriushchenko et al., 2020), which asks the model for logits only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv.attacks.engine.logit_difference import margin
from fastadv.attacks.engine.pixel_box import PixelBox
from fastadv.attacks.engine.square_l2 import L2Squares
from fastadv.attacks.engine.square_linf import LinfSquares
from fastadv.attacks.engine.square_windows import window_side
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.attacks.options import SearchAttackOptions
from fastadv.attacks.search import SearchAttack, SearchCall
from fastadv.utils.validation import check_count, check_real

_SQUARES: dict[str, type[LinfSquares] | type[L2Squares]] = {"linf": LinfSquares, "l2": L2Squares}
_CHUNK = 64  # queries whose random numbers are drawn at once


@dataclass(frozen=True)
class _Walk:
    """Some of the images of a batch, and where the search for each is.

    Args:
        place: [n] int64, of the images in the batch.
        labels: [n] int64.
        clean: [n, C, H * W].
        eps: [n, 1, 1], in pixel values.
        best: [n, C, H * W], the images with the least margins so far.
        margin: [n], those margins.
    """

    place: Tensor
    labels: Tensor
    clean: Tensor
    eps: Tensor
    best: Tensor
    margin: Tensor

    def rows(self, index: Tensor) -> _Walk:
        """The search for some of the images: [r] int64."""
        return _Walk(*(getattr(self, field.name)[index] for field in fields(self)))


class Square(SearchAttack):
    """Random search: changes a square window at a time, and keeps what lowers the margin of the true class.

    The model is asked for logits alone: it needs no gradient, and a masked one does not mislead. In Linf each pixel
    changes by eps or -eps, clipped to the pixel range; the search starts from vertical stripes. In L2 it moves the
    perturbation from one window to another, where it has the form of two bumps of opposite signs. Windows shrink on a
    schedule.

    Args:
        queries: number of perturbations that the model is asked about for each image, in each restart.
        p_init: share of an image's pixels that the first windows have.
    """

    name = "square"
    draws = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        queries: int = 5000,
        p_init: float = 0.8,
        **options: Unpack[SearchAttackOptions],
    ) -> None:
        super().__init__(model, **options)
        check_count("queries", queries, least=1)
        check_real("p_init", p_init, above=0, most=1)
        self.queries = queries
        self.p_init = float(p_init)

    def search(self, given: Undecided, size: Size, seed: int | Tensor, offset: int) -> Tensor:
        if given.clean.dim() != 4:
            shape = list(given.clean.shape)
            raise ValueError(f"square needs images [N, C, H, W], of which it changes squares, got {shape}")
        return super().search(given, size, seed, offset)

    def attack(self, call: SearchCall) -> None:
        for restart in range(self.restarts):
            if len(call.undecided.left):
                self._run(call, restart * self.queries)

    def _run(self, call: SearchCall, number: int) -> None:
        """Ask the queries of one restart; ``number`` is that of its first random numbers."""
        undecided = call.undecided
        channels, height, width = undecided.clean.shape[1:]
        clean, eps = undecided.clean.flatten(2), call.eps.view(-1, 1, 1)  # [N, C, H * W], [N, 1, 1]
        squares = _SQUARES[self.norm](PixelBox.of(self.space, clean), (channels, height, width))
        start = squares.start(clean, eps, call.noise(squares.numbers_to_start, "uniform", number))  # [N, C, H * W]
        margins = torch.full_like(call.eps, torch.inf)  # [N]
        every = torch.arange(len(clean), device=clean.device)  # [N]
        walk = _Walk(every, undecided.labels, clean, eps, start, margins).rows(call.place)
        walk = self._ask(call, walk, walk.best, (height, width))
        numbers = clean  # [N, _CHUNK, R]
        for query in range(1, self.queries):
            if not len(walk.place):
                return
            step = (query - 1) % _CHUNK
            if step == 0:
                numbers = call.noise((_CHUNK, squares.numbers), "uniform", number + query)
            side = window_side(self.p_init, query, self.queries, height, width)
            drawn = numbers[walk.place, step]  # [n, R]
            candidate = squares.propose(walk.clean, walk.best, walk.eps, side, drawn)  # [n, C, H * W]
            walk = self._ask(call, walk, candidate, (height, width))

    def _ask(self, call: SearchCall, walk: _Walk, candidate: Tensor, size: tuple[int, int]) -> _Walk:
        """Ask the model about candidates [n, C, H * W], keep those that are better, and let decided images leave."""
        images = candidate.view(*candidate.shape[:2], *size)  # [n, C, H, W]
        logits = call.logits(images)  # [n, K]
        call.undecided.look(walk.place, images, logits)
        margins = margin(logits, walk.labels)  # [n]
        better = margins < walk.margin
        best = torch.where(better[:, None, None], candidate, walk.best)
        walk = replace(walk, best=best, margin=torch.where(better, margins, walk.margin))
        rows = call.rows_left(walk.place)
        return walk if rows is None else walk.rows(rows)

    def forwards(self, eps: float) -> int:
        return 1 + self.restarts * self.queries

    def options(self) -> dict[str, Any]:
        return {**super().options(), "queries": self.queries, "p_init": self.p_init}
