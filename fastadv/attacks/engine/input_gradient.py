"""InputGradient: how one call of an attack gets the gradient of its cost with respect to the images."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastadv.attacks.engine.bn_folding import FoldedModel
from fastadv.attacks.engine.bn_folding_cache import FoldingCache
from fastadv.attacks.engine.compiled import CompiledGradient
from fastadv.attacks.engine.cost import Cost
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.training_mode import TrainingWatch
from fastadv.utils.input_hints import (
    batch_dim_hint,
    explain_gradient_errors,
    explain_label_errors,
    explain_model_errors,
)
from fastadv.utils.model_outputs import logits_hint
from fastadv.utils.module_modes import isolated

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class InputGradient:
    """The target and the gradient of each example's cost, by one forward and one backward pass to the images alone.

    No gradient of a weight is made. An example's gradient is multiplied by a positive factor.

    Args:
        forward: the model's forward pass.
        cost: of the logits.
        bn: whether BatchNorm uses its running statistics (``"eval"``) or the batch's (``"batch"``).
        first_batch: looks at the outputs and the gradient until a batch has passed; None does not look.
        folding: the model's folded forms, to run one of them; None runs the model as it is.
        compiled: both passes as one compiled function, from the second gradient on; None runs them one by one.
    """

    forward: Forward
    cost: Cost
    bn: str = "eval"
    first_batch: FirstBatch | None = None
    folding: FoldingCache | None = None
    compiled: CompiledGradient | None = None

    @property
    def user(self) -> str:
        """Who follows the gradient, for messages."""
        return self.forward.user

    @property
    def model(self) -> Callable[..., Any]:
        """The raw module, or another callable."""
        return self.forward.model

    @property
    def looks(self) -> bool:
        """Whether the model's outputs are still to be looked at, for which a call waits."""
        return self.first_batch is not None and not self.first_batch.passed

    def run(self, images: Tensor, work: Callable[[], T]) -> T:
        """What ``work`` returns, which makes gradients: with the model in evaluation mode and, where asked for, folded.

        It is done again from its start, with the model as it is, if the model turns out to be another one when folded.

        Args:
            images: [N, C, ...], as those whose gradients are made.
            work: takes the images anew from :meth:`in_layout`, and begins with :meth:`refresh`.
        """
        with isolated(self.model, self.bn):
            return work() if self.folding is None else self.folding.run(self.forward, images, work)

    @property
    def _folded(self) -> FoldedModel | None:
        return None if self.folding is None else self.folding.current

    def in_layout(self, images: Tensor) -> Tensor:  # [N, C, ...]
        """The images in the memory layout that the model runs fastest with; themselves where they are."""
        return images if self._folded is None else self._folded.in_layout(images)

    def refresh(self) -> None:
        """Fold the weights as they are now."""
        if self._folded is not None:
            self._folded.refresh()

    def tensors(self) -> Iterator[Tensor]:
        """What a gradient reads besides the images: weights, buffers and folded weights."""
        own = chain(self.model.parameters(), self.model.buffers()) if isinstance(self.model, nn.Module) else iter(())
        return chain(own, iter(()) if self._folded is None else self._folded.tensors())

    def modes(self) -> Hashable:
        """The modes of the modules while they run, where these may differ from call to call."""
        watched = self.bn == "batch" and isinstance(self.model, nn.Module)
        return tuple(module.training for module in self.model.modules()) if watched else ()  # type: ignore[attr-defined]

    def first(self, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int) -> tuple[Tensor, Tensor]:
        """(the target [N] that the cost's rule chooses, the gradient [N, C, ...]).

        Args:
            images: [N, C, ...].
            labels: [N] int64, for a rule that needs them.
            seed, offset: of a random target, see :func:`fastadv.ops.target_grad`.

        Raises:
            ValueError: outputs that are no differentiable logits [N, K], or do not depend on the images.
        """
        looks = self.looks
        with explain_label_errors(self.user):
            target, grad = self._gradient(self.cost, images, labels, seed, offset)
        if looks and self.first_batch is not None:
            self.first_batch.look_at_gradient(self.user, grad)
            self.first_batch.passed = True
        return target, grad

    def further(self, images: Tensor, target: Tensor | None) -> Tensor:
        """The gradient [N, C, ...] at images [N, C, ...] for the target [N] that the first chose; raises like it."""
        return self._gradient(self._further_cost, images, target, 0, 0)[1]

    @cached_property
    def _further_cost(self) -> Cost:
        return self.cost.for_known_target()

    def _gradient(
        self, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int
    ) -> tuple[Tensor, Tensor]:
        if self.compiled is None:
            return self._eager_gradient(cost, images, labels, seed, offset)
        if not self.looks:  # the first batch is looked at on the way
            found = self.compiled(self.forward, cost, images.detach(), labels, seed, offset)
            if found is not None:
                return found
        result = self._eager_gradient(cost, images, labels, seed, offset)
        self.compiled.eager_worked(self.user)
        return result

    def _eager_gradient(
        self, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int
    ) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_()
        training = TrainingWatch(self.user, self.model, images) if self.looks else None
        with training or nullcontext():
            logits, auxiliary = self._outputs(images)
        if self.first_batch is not None and self.looks:
            if labels is not None and cost.rule == "label":
                self.first_batch.look_at_labels(self.user, labels, logits.shape[1])
            self.first_batch.look_at_logits(self.user, logits.detach())
        target, derivatives = cost.derivatives(logits, auxiliary, labels, seed, offset)
        with explain_gradient_errors(self.user):
            (grad,) = torch.autograd.grad([logits, *auxiliary], images, derivatives, allow_unused=True)
        if self._folded is not None:
            self._folded.check_backward()
        if grad is None:
            raise ValueError(f"{self.user}: the model's logits do not depend on the images")
        if training is not None:
            training.warn(logits.detach(), lambda: self._outputs(images)[0])
        return target, grad

    def _outputs(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K] and auxiliary ones, each with its graph back to images [N, C, ...]."""
        watched = nullcontext() if self._folded is None else self._folded.watched()
        with watched, torch.enable_grad(), explain_model_errors(self.model, images, user=self.user):
            # The model may write to what it is given, and the step reads the images after it.
            logits, auxiliary = self.forward(images.clone())
        fits = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
        if not fits or not logits.requires_grad:
            raise ValueError(
                f"{self.user}: the model must return differentiable logits [{len(images)}, K], got {_describe(logits)}"
                f"{batch_dim_hint(images)}"
            )
        return logits, auxiliary


def _describe(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"{type(output).__name__}{logits_hint(output)}"
    return f"a tensor {list(output.shape)}{'' if output.requires_grad else ' without a gradient'}"
