"""OneStepAttack: a single step of length eps along the gradient's sign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastadv.attacks.engine.result_check import check_in_place
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.zero_gradients import count_zero_gradients
from fastadv.attacks.gradient import GradientAttack


class Draw(NamedTuple):
    """The random numbers of one call, and the size of its perturbations.

    Args:
        size: ``size.eps`` is a number in pixel values, or [N].
        seed, offset: see :func:`fastadv.ops.target_grad`.
    """

    size: Size
    seed: int | Tensor
    offset: int


class OneStepAttack(GradientAttack):
    """X_adv = X + eps * sign(gradient of the cost), or minus towards a target: the one-step methods of appendix A."""

    one_gradient = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if cls.start_ is not GradientAttack.start_ or cls.run_ is not GradientAttack.run_:
            cls.one_gradient = False

    @property
    def stops_early(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`; between restarts alone, since there is no step to leave out."""
        return self.restarts > 1

    @property
    def _leaves_between_steps(self) -> bool:
        return False

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        return [size.eps]

    def draw(self, images: Tensor, labels: Tensor | None = None) -> Draw:
        """Check images [N, C, ...], N > 0, and labels [N] as a call does, and draw what a call would draw for them.

        With :meth:`step_along_` this is :meth:`perturb_` in two parts, for a gradient that is computed elsewhere, such
        as by a training pass that needs most of it anyway.

        Raises:
            ValueError: if the attack does not start from the clean images, or as a call does.
            TypeError: as a call does.
        """
        if self.starts_elsewhere:
            raise ValueError(f"{self.name} needs the gradient at its random start, not the one at the clean images")
        if type(self).run_ is not GradientAttack.run_:
            raise ValueError(f"{self.name} overrides run_, so it is not one step along a gradient")
        self._check(images, labels)
        with torch.inference_mode(False), torch.no_grad():
            return Draw(*self._draw(images, None))

    def check_logits(self, logits: Tensor) -> None:
        """Warn on the first batch of logits [N, K] with which the attack has little effect, such as probabilities."""
        if self.validate != "never" and not self._first_batch.passed:
            self._first_batch.check_logits(self.name, logits)

    def step_along_(self, images: Tensor, grad: Tensor, draw: Draw) -> None:
        """Overwrite clean images [N, C, ...] by their adversarial versions.

        Args:
            images: those that were given to :meth:`draw`.
            grad: [N, C, ...], the gradient at the images of the cost (see :meth:`cost`), up to a positive factor.
            draw: what :meth:`draw` returned.
        """
        if self.validate != "never" and not self._first_batch.passed:
            # Zeros alone: a GradScaler finds its scale by gradients that are not finite at first.
            self._first_batch.check_gradient(self.name, torch.nan_to_num(grad, nan=1.0, posinf=1.0, neginf=1.0))
            self._first_batch.passed = True
        with torch.inference_mode(False), torch.no_grad():
            clean = images.clone() if self._checks_result() else None  # [N, C, ...]
            self._step_along_(images, self._direction(grad, None), draw.size)
            if clean is not None:
                self._check_result(images, clean, draw.size.eps)

    def _step_along_(self, images: Tensor, direction: Tensor, size: Size) -> None:  # [N, C, ...] each
        alpha, *further = self.step_sizes(size)
        if further:
            raise ValueError(
                f"{self.name} is a one-step attack with {1 + len(further)} steps: derive it from IterativeAttack"
            )
        moved = self.step_(images, images, direction, alpha if self.ascend else -alpha, size.eps)  # type: ignore[func-returns-value]
        check_in_place(self, "step_", images, moved)

    def _run_each(
        self, clean: Tensor, labels: Tensor | None, sizes: Sequence[Size], seed: int | Tensor, offset: int
    ) -> Iterator[Tensor]:
        """Compute one gradient for all sizes, since eps only scales the step. Not captured: no iteration runs twice."""
        own_run = type(self).run_ is not GradientAttack.run_
        if self.starts_elsewhere or own_run or self.restarts > 1:  # the gradient then depends on the size
            yield from super()._run_each(clean, labels, sizes, seed, offset)
            return
        if self._captures(clean):
            self._log_no_capture("at_each computes one gradient for all sizes, so there is nothing to replay")
        gradient = self._input_gradient()

        def first() -> Tensor:  # [N, C, ...]
            gradient.refresh()
            return gradient.first(gradient.in_layout(clean), labels, seed, offset).grad

        with torch.inference_mode(False), torch.no_grad():
            grad = gradient.run(clean, first)
            self.image_gradients += self.eot * len(clean)
            self.without_gradient = count_zero_gradients(grad) if self.counting else None
            direction = self._direction(grad, None)  # [N, C, ...]
        for size in sizes:
            with torch.inference_mode(False), torch.no_grad():
                adv = clean.clone()
                self._step_along_(adv, direction, size)
                if self._checks_result():
                    self._check_result(adv, clean, size.eps)
            yield adv
