"""GradientAttack: the one loop behind every method that follows the gradient of a cost."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fastadv import ops
from fastadv.attacks.base import Attack
from fastadv.attacks.isolation import isolated, raw_module
from fastadv.callers import caller_level
from fastadv.heads import split_heads


class GradientAttack(Attack):
    """A cost (``rule`` and ``ascend``), a step rule (:meth:`_step_`) and a schedule (:meth:`_alphas`).

    Each iteration is one forward and one backward to the input alone: the target is chosen from the logits of the same
    forward, the cost's derivative with respect to them is known in closed form, and no gradient of a weight is made.

    Args:
        model: as in :class:`Attack`, like all other options.
        aux_weight: weight of the same cost at the model's auxiliary logits, with the target that the logits choose; 0.4
            is that of the paper authors' code. Asks for a model with a method ``forward_with_aux``, from images to a
            named tuple of logits and auxiliary logits in evaluation mode too, as ``inception_v3`` has. It is called in
            the model's place: hooks of the whole model do not run.

    Attributes:
        rule: which class the cost is about, one of :func:`fastadv.ops.target_grad`; a target that depends on the
            prediction is chosen once, from the first image.
        ascend: whether the attack increases the cost (away from the class) or decreases it (towards the target).
        starts_elsewhere: whether :meth:`_start_` moves adv.
    """

    rule: ClassVar[str]
    ascend: ClassVar[bool]
    starts_elsewhere: bool = False
    _outputs_seen = False

    def __init__(self, model: Callable[..., Any], *, aux_weight: float = 0.0, **options: Any) -> None:
        super().__init__(model, **options)
        if not 0 <= aux_weight < float("inf"):
            raise ValueError(f"aux_weight must be zero or more and finite, got {aux_weight}")
        if aux_weight and not hasattr(raw_module(model), "forward_with_aux"):
            raise ValueError(
                f"aux_weight={aux_weight} needs a model with a method forward_with_aux, as inception_v3 has, "
                f"got {type(raw_module(model)).__name__}; aux_weight=0 follows the logits alone"
            )
        self.aux_weight = aux_weight

    @abstractmethod
    def _alphas(self, eps: float | Tensor) -> Sequence[float | Tensor]:
        """Length of each step in pixel values: a number or [N]; eps is a number or [N]."""

    def _step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        """Move adv in place along grad, both [N, C, ...] like clean; alpha and eps are numbers or [N]."""
        ops.sign_step_(adv, clean, grad, alpha, eps, self.space)

    def _start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int, offset: int) -> None:
        """Where the first step starts from; adv [N, C, ...] is a copy of clean, or clean itself."""

    def _direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        """What a step follows, from the gradient [N, C, ...] and the previous step's direction (None at first)."""
        return grad

    def _run_(self, adv: Tensor, labels: Tensor | None, eps: float | Tensor, seed: int, offset: int) -> None:
        alphas = self._alphas(eps)
        # A single step from the clean image needs no second copy of it.
        clean = adv.clone() if len(alphas) > 1 or self.starts_elsewhere else adv  # [N, C, ...]
        model = raw_module(self.model)
        rule, target, direction = self.rule, labels, None
        try:
            with isolated(model, self.bn):
                self._start_(adv, clean, eps, seed, offset)
                for alpha in alphas:
                    chosen, grad = self._input_gradient(model, adv, rule, target, seed, offset)
                    direction = self._direction(grad, direction)
                    self._step_(adv, clean, direction, alpha if self.ascend else -alpha, eps)
                    if rule != "entropy":
                        rule, target = "label", chosen
        except BaseException:
            if clean is not adv:
                adv.copy_(clean)
            raise

    def _input_gradient(
        self, model: Callable[..., Any], adv: Tensor, rule: str, labels: Tensor | None, seed: int, offset: int
    ) -> tuple[Tensor, Tensor]:
        """(target [N], gradient of the summed cost with respect to adv [N, C, ...])."""
        images = adv.detach().requires_grad_()
        with torch.enable_grad():
            logits, auxiliary = self._heads(model, images)  # [N, K], list of [N, K]
        fits = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
        if not fits or not logits.requires_grad:
            raise ValueError(
                f"{self.name}: the model must return differentiable logits [{len(images)}, K], got {_describe(logits)}"
                f"{'; make a batch of a single image by images[None]' if images.dim() == 3 else ''}"
            )
        if self.validate != "never" and not self._outputs_seen:
            _warn_of_outputs(self.name, logits.detach())
            self._outputs_seen = True
        target, dlogits = ops.target_grad(logits, rule, labels, self.label_smoothing, seed, offset)
        derivatives = [dlogits]
        for aux in auxiliary:
            same_cost = "entropy" if rule == "entropy" else "label"
            derivatives.append(self.aux_weight * ops.target_grad(aux, same_cost, target, self.label_smoothing).dlogits)
        (grad,) = torch.autograd.grad([logits, *auxiliary], images, derivatives, allow_unused=True)
        if grad is None:
            raise ValueError(f"{self.name}: the model's logits do not depend on the images")
        return target, grad

    def _heads(self, model: Callable[..., Any], images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the model makes of images [N, C, ...]: logits [N, K], and auxiliary ones if the cost has them."""
        if not self.aux_weight:
            return model(images), []
        logits, auxiliary = split_heads(model.forward_with_aux(images))  # type: ignore[attr-defined]
        if not auxiliary:
            raise ValueError(
                f"{self.name}: aux_weight={self.aux_weight}, but forward_with_aux gave no auxiliary logits"
            )
        return logits, auxiliary

    def _options(self) -> dict[str, Any]:
        return {**super()._options(), "aux_weight": self.aux_weight}


def _describe(output: object) -> str:
    if not isinstance(output, Tensor):
        return type(output).__name__
    return f"a tensor {list(output.shape)}{'' if output.requires_grad else ' without a gradient'}"


def _warn_of_outputs(attack: str, logits: Tensor) -> None:  # [N, K]
    """Outputs with which an attack runs, and does little: the model looks robust, and is not."""
    probabilities = (logits >= 0).all() & ((logits.sum(dim=1, dtype=torch.float32) - 1).abs() < 1e-3).all()
    if not logits.isfinite().all():
        problem = "are not all finite, and where they are not there is no gradient to follow"
    elif logits.shape[1] > 1 and probabilities:
        problem = "look like probabilities, whose gradient vanishes: return the logits, without softmax"
    else:
        return
    warnings.warn(
        f"{attack}: the model's outputs [{len(logits)}, {logits.shape[1]}] {problem}", stacklevel=caller_level()
    )
