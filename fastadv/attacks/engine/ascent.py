"""Ascent: APGD's climb from one start, with a step size for each image that the climb itself finds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fastadv import ops
from fastadv.pixels import PixelSpace

_MOMENTUM = 0.75  # the share of the gradient's step in a step; the rest repeats the step before
_FIRST_STEP = 2.0  # times eps


@dataclass
class Ascent:
    """The state of n climbs between two steps (Croce and Hein, 2020, Algorithm 1).

    Args:
        place: [n] int64, the places of the images in their batch.
        goal: [n], or [n, 2]: what the loss is about.
        clean: [n, C, ...].
        adv: [n, C, ...], the iterates.
        previous: [n, C, ...], those before them.
        grad: [n, C, ...], the gradients at the iterates, which the model may keep, so that they are never written to.
        eps: radius of the ball in pixel values, a number or [n].
        alpha: [n], the length of the next step in pixel values.
        loss: [n], the losses of the iterates.
        best: [n, C, ...], the iterates with the highest loss.
        best_grad: [n, C, ...], the gradients there.
        best_loss: [n].
        loss_at_check: [n], the highest losses when the step size was last checked.
        rises: [n] int64, the steps since then that made the loss rise.
        halved: [n] bool, whether the step size was halved then.
    """

    place: Tensor
    goal: Tensor
    clean: Tensor
    adv: Tensor
    previous: Tensor
    grad: Tensor
    eps: float | Tensor
    alpha: Tensor
    loss: Tensor
    best: Tensor
    best_grad: Tensor
    best_loss: Tensor
    loss_at_check: Tensor
    rises: Tensor
    halved: Tensor

    @classmethod
    def begin(
        cls,
        place: Tensor,
        goal: Tensor,
        clean: Tensor,
        start: Tensor,
        grad: Tensor,
        loss: Tensor,
        eps: float | Tensor,
    ) -> Ascent:
        """The state at the start [n, C, ...], which later steps move in place."""
        alpha = _FIRST_STEP * torch.ones_like(loss) * eps  # [n]
        return cls(
            *(place, goal, clean, start, start.clone(), grad, eps, alpha, loss),
            *(start.clone(), grad.clone(), loss, loss),
            rises=torch.zeros_like(place),
            halved=torch.ones_like(place, dtype=torch.bool),  # so that the first check asks for rises alone
        )

    def step_(self, norm: str, space: PixelSpace, *, first: bool) -> None:
        """Move the iterates along their gradients and their momentum, which the first step has not."""
        amounts = self.alpha, self.eps, space
        momentum = 1.0 if first else _MOMENTUM
        ops.apgd_step_(self.adv, self.previous, self.clean, self.grad, *amounts, norm=norm, momentum=momentum)

    def observe(self, loss: Tensor, grad: Tensor | None) -> None:
        """Take note of the loss [n] and the gradient [n, C, ...] at the iterates; None after the last step."""
        self.rises += loss > self.loss
        better = loss > self.best_loss  # [n]
        ops.keep_best_(self.best, None if grad is None else self.best_grad, self.adv, grad, better)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.loss = loss
        self.grad = self.grad if grad is None else grad

    def check(self, window: int, rho: float) -> None:
        """Halve the steps that are too long, and go on from the best iterates there (conditions 1 and 2).

        A step is too long if it made the loss rise in no more than a share ``rho`` of the last ``window`` steps, or if
        it was not halved at the last check and nothing better has been found since.
        """
        stalls = ~self.halved & (self.best_loss <= self.loss_at_check)  # [n]
        self.halved = (self.rises <= rho * window) | stalls
        self.alpha = torch.where(self.halved, self.alpha / 2, self.alpha)
        self.grad = torch.where(self.halved.view(-1, *[1] * (self.grad.dim() - 1)), self.best_grad, self.grad)
        ops.keep_best_(self.adv, None, self.best, None, self.halved)
        self.loss_at_check = self.best_loss
        self.rises = torch.zeros_like(self.rises)

    def rows(self, index: Tensor) -> Ascent:
        """The state of some of the images, by their rows [r]."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: v[index] for name, v in values.items() if isinstance(v, Tensor)})


def check_windows(steps: int) -> dict[int, int]:
    """After which of so many steps their size is checked, and how many steps each check looks back on.

    The first window is 22 % of the steps, and each further one 3 % shorter, down to 6 % (section 3.2); all are at least
    one step, as in the authors' code.
    """
    window, shrink, least = (max(1, int(share * steps)) for share in (0.22, 0.03, 0.06))
    windows, step = {}, window
    while step < steps:
        windows[step] = window
        window = max(least, window - shrink)
        step += window
    return windows
