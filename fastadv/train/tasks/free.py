"""FreeTask: adversarial training at the cost of ordinary training, by minibatches that come several times in turn."""

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
from fastadv.train.tasks.adversarial import MinibatchTask, check_minibatch, check_state
from fastadv.utils.validation import check_integer, check_one_of

_PATIENCE = 2  # calls
_STANDS_STILL = (
    "a perturbation has not moved between two calls, for the second time: no backward pass has arrived at the images. "
    "Call backward() on what the task returns before its next call, without inputs=, and not torch.autograd.grad; for "
    "several minibatches at once give the task their number, accumulate="
)


class FreeTask(MinibatchTask):
    """One backward pass for weights and images: "Adversarial Training for Free!" (Shafahi et al., 2019, Algorithm 1).

    Every image is shown with a perturbation, and the backward pass that gives the weights their gradient gives the
    image its own: the perturbation takes a step along the sign of that before the same minibatch comes again. ::

        task = FreeTask(model, eps=8, space=space)
        for images, labels in loader:
            for _ in range(4):
                loss = task(images, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    Each replay is an iteration, so that a pass over the data has as many times the iterations: divide the epochs by the
    number of replays, as the paper does, which takes 8 for CIFAR-10 and 4 for ImageNet. The perturbation of the last
    replay is carried on to the image in the same place of the next minibatch. :class:`Replayed` wraps a loader for it.

    As in Wong et al.'s version of the method, a step starts from what was shown: a perturbation that leads out of the
    pixel range is cut there. The step follows the sign of the loss's gradient, and so does not depend on a positive
    factor of the loss, such as a GradScaler's.

    The model may be wrapped by ``DistributedDataParallel`` or ``torch.compile``. Of several processes each has
    perturbations of its own.

    Args:
        model: [m, C, H, W] -> logits [m, K], or, like Inception v3, a named tuple of logits and auxiliary logits.
        eps: largest perturbation of a pixel, in pixel values; one number for all examples.
        space: how the images were normalised.
        alpha: length of a step in pixel values; None takes eps, as the paper does.
        accumulate: minibatches whose gradients are added up before the weights change. They are replayed together,
            1, 2, ..., accumulate, 1, 2, ..., and each has a perturbation of its own.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the loss and so in what moves
            the perturbations: an example that the network is surer of than its target is moved towards its class.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any; 0.4 is
            Inception's.
        validate: which minibatches must lie in the space, as for :class:`fastadv.attacks.Attack`.

    Raises:
        ValueError: an eps or alpha that is not positive and finite, accumulate that is not an integer of at least 1, a
            negative aux_weight, or label_smoothing outside [0, 1).
        TypeError: an eps that is not a number, a model that cannot be called, or a space that is none.

    Warns:
        UserWarning: an eps or alpha that is on a [0, 1] scale, where pixel values are expected; images of the first
            minibatch whose gradient is zero. Also, once, that a perturbation has not moved in two calls running; after
            one alone, a loss may have been looked at or skipped.
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
        # A perturbation has no mean, and eps for its range: in this space, to stay in the ball is to stay in the range.
        # It is in units that the range is shorter than, or a PixelSpace takes a small std for one of a [0, 1] scale;
        # of a power of two, for they must round nothing.
        self._unit = math.ldexp(1.0, math.frexp(2 * self.eps)[1])
        radius = self.eps / self._unit
        self._ball = PixelSpace(0.0, [std / self._unit for std in space.std], -radius, radius)
        self._perturbations: list[Tensor | None] = [None] * accumulate  # [m, C, H, W] each
        self._waiting: Counter[int] = Counter()  # how often each was shown and has not moved
        self._stood_still = False
        self._gradient_seen = False
        self._watch = RangeWatch(space, one=f"{type(self).__name__} call", waits=False)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one minibatch; call ``backward()`` on it, for all inputs, which also moves the perturbations.

        Args:
            images: [m, C, H, W], clean; they are left as they are, and may come again as they are.
            labels: [m] int64, or soft labels, probabilities [m, K] such as Mixup's.

        Raises:
            TypeError: images that are not floating point, labels that are neither int64 nor soft, a model that returns
                neither logits nor a named tuple that begins with them.
            ValueError: images that require a gradient, that lie outside the space (on a GPU those of a later minibatch
                than the first show in the next call) or have another shape than those before, none at all, or as many
                labels as there are not images; logits of one class.
        """
        check_minibatch(images, labels)
        self._watch.look(images, self.validate)
        place = self.iteration % self.accumulate
        if self._waiting[place] == _PATIENCE and not self._stood_still:
            warnings.warn(_STANDS_STILL, stacklevel=2)
            self._stood_still = True
        delta = self._perturbation(place, images)  # [m, C, H, W]
        shown = images + delta  # [m, C, H, W]
        ops.sign_step_(shown, images, delta, 0.0, self.eps, self.space)  # a step of no length: ball and range alone
        torch.sub(shown, images, out=delta)
        shown.requires_grad_()
        shown.register_post_accumulate_grad_hook(partial(self._step_, place, delta))  # type: ignore[no-untyped-call]
        loss = self._loss(shown, labels, k=len(images), lambda_=1.0)
        if loss.requires_grad:
            self._waiting[place] += 1
        return loss

    def _step_(self, place: int, delta: Tensor, shown: Tensor) -> None:  # [m, C, H, W] each
        """The perturbation's step, once the backward pass has arrived at the images."""
        assert shown.grad is not None
        self._waiting[place] = 0
        if not self._gradient_seen:
            self._gradient_seen = True
            # Zeros alone: a GradScaler finds its scale by gradients that are not finite at first.
            finite = torch.nan_to_num(shown.grad, nan=1.0, posinf=1.0, neginf=1.0)
            warn_of_zero_gradients("free training", int(count_zero_gradients(finite)), len(finite))
        # From delta itself, in a ball around 0 that is the range of its space.
        alpha = self.alpha / self._unit
        ops.sign_step_(delta, delta, shown.grad, alpha, alpha, self._ball)
        shown.grad = None

    def _perturbation(self, place: int, images: Tensor) -> Tensor:
        """Where the perturbations of images [m, C, H, W] are kept, [m, C, H, W]: zeros at first."""
        kept = self._perturbations[place]
        if kept is None:
            kept = torch.zeros_like(images)
        elif kept.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"images must have the shape [C, H, W] of those before, {list(kept.shape[1:])}, whose perturbations "
                f"are carried on, got {list(images.shape[1:])}"
            )
        kept = kept.to(images.device, images.dtype)
        if len(kept) < len(images):
            kept = torch.cat([kept, torch.zeros_like(images[len(kept) :])])
        self._perturbations[place] = kept
        return kept[: len(images)]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: the perturbations, as large as the minibatches, and which of them is next."""
        kept = [None if delta is None else delta.to("cpu", copy=True) for delta in self._perturbations]
        return {"iteration": self.iteration, "perturbations": kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; with a larger ``accumulate`` than it had, further perturbations are 0.

        Raises:
            ValueError: a dictionary that another object's ``state_dict`` made.
        """
        check_state("a FreeTask", ("iteration", "perturbations"), state)
        self.iteration = state["iteration"]
        self._waiting.clear()
        kept = [None if delta is None else delta.clone() for delta in state["perturbations"]]
        self._perturbations = (kept + [None] * self.accumulate)[: self.accumulate]

    def __repr__(self) -> str:
        return (
            f"FreeTask(eps={self.eps}, alpha={self.alpha}, space={self.space}, accumulate={self.accumulate}, "
            f"label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, iteration={self.iteration})"
        )
