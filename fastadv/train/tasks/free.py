"""FreeTask: adversarial training at about the cost of standard training, by repeating each minibatch."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastadv import ops
from fastadv.attacks.engine.step_sizes import check_step, checked_alpha, checked_eps, checked_single_eps
from fastadv.attacks.engine.zero_gradients import count_zero_gradients, warn_of_zero_gradients
from fastadv.pixels import PixelSpace, check_space
from fastadv.pixels.range_watch import VALIDATE, RangeWatch
from fastadv.train.tasks.base import MinibatchTask, check_minibatch, check_state
from fastadv.utils.validation import check_integer, check_one_of

_MOST_WAITING = 2  # calls
_NOT_UPDATED = (
    "a perturbation was not updated between two calls, for the second time: no backward pass has reached the images. "
    "Call backward() on the returned loss before the next call, without inputs=, instead of torch.autograd.grad; to "
    "accumulate gradients over several minibatches, pass their number as accumulate="
)


class FreeTask(MinibatchTask):
    """One backward pass for weights and images: "Adversarial Training for Free!" (Shafahi et al., 2019, Algorithm 1).

    Each image is trained on with a perturbation, and the backward pass that computes the gradient of the weights also
    computes that of the images: the perturbation takes a step along its sign before the minibatch is repeated. ::

        task = FreeTask(model, eps=8, space=space)
        for images, labels in loader:
            for _ in range(4):
                loss = task(images, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    Each replay is an iteration, so a pass over the data has that many times the iterations: divide the epochs by the
    number of replays, as the paper does, which uses 8 for CIFAR-10 and 4 for ImageNet. After the last replay, the
    perturbation is carried over to the image at the same place of the next minibatch. :class:`Replayed` wraps a loader
    for this.

    As in Wong et al.'s version of the method, a perturbation is clipped to the pixel range before it takes its step.
    The step follows the sign of the gradient, so a positive factor of the loss, such as a GradScaler's, has no effect.

    The model may be wrapped by ``DistributedDataParallel`` or ``torch.compile``. With several processes, each has its
    own perturbations.

    Args:
        model: [m, C, H, W] -> logits [m, K]; or a named tuple, a dictionary or an object that holds
            ``logits``, and possibly auxiliary logits ``aux...``, as Inception v3's does.
        eps: largest perturbation of a pixel, in pixel values; one number for all examples.
        space: how the images were normalised.
        alpha: length of a step in pixel values; None takes eps, as the paper does.
        accumulate: minibatches whose gradients are added up before the weights are updated. They are replayed as a
            group, 1, 2, ..., accumulate, 1, 2, ..., and each has its own perturbation.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1). It also changes the
            perturbations: an example is moved towards its class if the network is more confident than the target.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any; 0.4 is
            Inception's.
        validate: which minibatches must lie in the space, as for :class:`fastadv.attacks.Attack`.

    Raises:
        ValueError: if eps or alpha is not positive and finite, accumulate is not an integer of at least 1, aux_weight
            is negative, or label_smoothing is outside [0, 1).
        TypeError: if eps is not a number, the model is not callable, or the space is not a PixelSpace.

    Warns:
        UserWarning: if eps or alpha seems to be on a [0, 1] scale instead of in pixel values, or images of the first
            minibatch have a gradient of zero. Also, once, if a perturbation was not updated in two consecutive calls;
            a single one may be a loss that was only computed for information, or skipped.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        eps: float,
        space: PixelSpace,
        alpha: float | None = None,
        accumulate: int = 1,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.4,
        validate: str = "always",
    ) -> None:
        super().__init__(model, label_smoothing=label_smoothing, aux_weight=aux_weight)
        check_space(space)
        check_one_of("validate", validate, VALIDATE)
        self.validate = validate
        self.eps = checked_single_eps(checked_eps(eps, space))
        self.alpha = self.eps if alpha is None else checked_alpha(alpha, space)
        check_step(self.alpha)
        check_integer("accumulate", accumulate, least=1)
        self.space = space
        self.accumulate = accumulate
        # A space for perturbations: mean 0 and range [-eps, eps], so that its range is the ball. Its unit is larger
        # than the range, because PixelSpace would take a small std for one on a [0, 1] scale, and a power of two, so
        # that dividing by it rounds nothing.
        self._unit = math.ldexp(1.0, math.frexp(2 * self.eps)[1])
        radius = self.eps / self._unit
        self._ball = PixelSpace(0.0, [std / self._unit for std in space.std], -radius, radius)
        self._perturbations: list[Tensor | None] = [None] * accumulate  # [m, C, H, W] each
        self._waiting: Counter[int] = Counter()  # calls of each since its last update
        self._warned_not_updated = False
        self._gradient_seen = False
        self._watch = RangeWatch(space, one=f"{type(self).__name__} call", waits=False)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one minibatch; call ``backward()`` on it, without ``inputs``, to update the perturbations too.

        Args:
            images: [m, C, H, W], clean; they are not modified and can be passed again.
            labels: [m] int64, or soft labels, probabilities [m, K] such as Mixup's.

        Raises:
            TypeError: if images are not floating point, labels are neither int64 nor soft, or the model returns neither
                logits nor something that holds them as ``logits``.
            ValueError: if images are empty, require a gradient, lie outside the space (on a GPU, after the first
                minibatch, the next call raises it) or have another shape than before, there is not one label per image,
                or the logits are of a single class.
        """
        check_minibatch(images, labels)
        self._watch.look(images, self.validate)
        place = self.iteration % self.accumulate
        if self._waiting[place] == _MOST_WAITING and not self._warned_not_updated:
            warnings.warn(_NOT_UPDATED, stacklevel=2)
            self._warned_not_updated = True
        delta = self._perturbation(place, images)  # [m, C, H, W]
        shown = images + delta  # [m, C, H, W]
        # A step of length 0 only clips to the ball and the range.
        ops.sign_step_(shown, images, delta, 0.0, self.eps, self.space)
        torch.sub(shown, images, out=delta)
        shown.requires_grad_()
        shown.register_post_accumulate_grad_hook(partial(self._step_, place, delta))  # type: ignore[no-untyped-call]
        loss = self._loss(shown, labels, k=len(images), lambda_=1.0)
        if loss.requires_grad:
            self._waiting[place] += 1
        return loss

    def _step_(self, place: int, delta: Tensor, shown: Tensor) -> None:  # [m, C, H, W] each
        """Update the perturbation, when the backward pass has reached the images."""
        assert shown.grad is not None
        self._waiting[place] = 0
        if not self._gradient_seen:
            self._gradient_seen = True
            # Count zeros only: a GradScaler's first gradients may not be finite while it searches for its scale.
            finite = torch.nan_to_num(shown.grad, nan=1.0, posinf=1.0, neginf=1.0)
            warn_of_zero_gradients("free training", int(count_zero_gradients(finite)), len(finite))
        # Clipped to the range of its space, which is the ball around 0.
        alpha = self.alpha / self._unit
        ops.sign_step_(delta, delta, shown.grad, alpha, alpha, self._ball)
        shown.grad = None

    def _perturbation(self, place: int, images: Tensor) -> Tensor:
        """The stored perturbations of images [m, C, H, W], as a view [m, C, H, W]; new ones are zero."""
        kept = self._perturbations[place]
        if kept is None:
            kept = torch.zeros_like(images)
        elif kept.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"images must have the shape [C, H, W] of those before, {list(kept.shape[1:])}, whose perturbations "
                f"are carried over, got {list(images.shape[1:])}"
            )
        kept = kept.to(images.device, images.dtype)
        if len(kept) < len(images):
            kept = torch.cat([kept, torch.zeros_like(images[len(kept) :])])
        self._perturbations[place] = kept
        return kept[: len(images)]

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: the iteration, and the perturbations, which are as large as the minibatches."""
        kept = [None if delta is None else delta.to("cpu", copy=True) for delta in self._perturbations]
        return {"iteration": self.iteration, "perturbations": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`; if ``accumulate`` is larger now, additional perturbations are 0.

        Raises:
            ValueError: if it is the state of another kind of object.
        """
        check_state(type(self).__name__, ("iteration", "perturbations"), state)
        self.iteration = state["iteration"]
        self._waiting.clear()
        kept = [None if delta is None else delta.clone() for delta in state["perturbations"]]
        self._perturbations = (kept + [None] * self.accumulate)[: self.accumulate]

    def __repr__(self) -> str:
        return (
            f"FreeTask(eps={self.eps}, alpha={self.alpha}, space={self.space}, accumulate={self.accumulate}, "
            f"label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, iteration={self.iteration})"
        )
