"""InputGradient: computes the gradient of an attack's cost with respect to the images, for one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from fastadv.attacks.engine.bn_folding import FoldedModel
from fastadv.attacks.engine.bn_folding_cache import FoldingCache
from fastadv.attacks.engine.compiled import CompiledGradient
from fastadv.attacks.engine.cost import Cost
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.gradient_scale import add_scaled
from fastadv.attacks.engine.training_mode import TrainingWatch
from fastadv.utils.input_hints import (
    batch_dim_hint,
    explain_gradient_errors,
    explain_label_errors,
    explain_model_errors,
)
from fastadv.utils.model_outputs import logits_hint
from fastadv.utils.module_modes import isolated
from fastadv.utils.stacklevel import user_stacklevel

T = TypeVar("T")


class Gradient(NamedTuple):
    """A gradient, and what the forward pass found on its way.

    Args:
        target: [N] int64, the class that the cost is about; or, as given, another goal of the cost with N rows.
        grad: [N, C, ...], the gradient of each example's cost times an arbitrary power of two.
        logits: [N, K], without a graph.
        exponent: [N] int32; the gradient is ``grad`` times 2**exponent.
    """

    target: Tensor
    grad: Tensor
    logits: Tensor
    exponent: Tensor

    def plus(self, other: Gradient) -> Gradient:
        """The sum of the gradients, and of the logits, of two passes for the same target."""
        grad, exponent = add_scaled(self.grad, self.exponent, other.grad, other.exponent)
        return Gradient(self.target, grad, self.logits + other.logits, exponent)

    def mean(self, samples: int, dtype: torch.dtype) -> Gradient:
        """The mean of so many gradients, of which this is the sum."""
        return self._replace(grad=(self.grad / samples).to(dtype), logits=self.logits / samples)


@dataclass(frozen=True, eq=False)
class InputGradient:
    """Computes the target and the gradient of each example's cost, with one forward pass and one backward pass.

    The backward pass leads to the images only: no gradients of weights are computed. Each example's gradient is
    multiplied by a positive factor, so that it does not underflow.

    A call uses it within :meth:`run`: :meth:`refresh` first, then :meth:`first` for the first step, which chooses the
    target, and :meth:`further` for each further step.

    Args:
        forward: the model's forward pass.
        cost: of the logits.
        bn: BatchNorm uses its running statistics (``"eval"``) or the batch's (``"batch"``).
        first_batch: checks the outputs and the gradient until a batch has passed; None checks nothing.
        folding: the model's folded forms; None runs the model unfolded.
        compiled: runs both passes as one compiled function, from the second gradient on; None runs them eagerly.
        samples: number of passes whose gradients, and whose logits, are averaged, for a model that draws.
    """

    forward: Forward
    cost: Cost
    bn: str = "eval"
    first_batch: FirstBatch | None = None
    folding: FoldingCache | None = None
    compiled: CompiledGradient | None = None
    samples: int = 1

    @property
    def user(self) -> str:
        """The attack's name, for messages."""
        return self.forward.user

    @property
    def model(self) -> Callable[..., Any]:
        """The raw module, or another callable."""
        return self.forward.model

    @property
    def checks_outputs(self) -> bool:
        """True while the model's outputs are still to be checked, which waits for the device."""
        return self.first_batch is not None and not self.first_batch.passed

    def run(self, images: Tensor, work: Callable[[], T]) -> T:
        """Return the result of ``work``, run with the model in evaluation mode and, if requested, folded.

        If the folded model turns out to differ, ``work`` runs again from the start with the unfolded one.

        Args:
            images: [N, C, ...], a batch like those whose gradients are computed.
            work: computes gradients; calls :meth:`in_layout` for its images and :meth:`refresh` first.
        """
        with isolated(self.model, self.bn):
            return work() if self.folding is None else self.folding.run(self.forward, images, work)

    @property
    def _folded(self) -> FoldedModel | None:
        return None if self.folding is None else self.folding.current

    def in_layout(self, images: Tensor) -> Tensor:  # [N, C, ...]
        """Return the images in the memory layout that is fastest for the model; copies them only if necessary."""
        return images if self._folded is None else self._folded.in_layout(images)

    def refresh(self) -> None:
        """Fold the current weights."""
        if self._folded is not None:
            self._folded.refresh()

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that a gradient reads besides the images: weights, buffers and folded weights."""
        own = chain(self.model.parameters(), self.model.buffers()) if isinstance(self.model, nn.Module) else iter(())
        return chain(own, iter(()) if self._folded is None else self._folded.tensors())

    def modes(self) -> Hashable:
        """Return the modules' modes during the call, if these may differ from call to call."""
        watched = self.bn == "batch" and isinstance(self.model, nn.Module)
        return tuple(module.training for module in self.model.modules()) if watched else ()  # type: ignore[attr-defined]

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits [N, K] of images [N, C, ...], without a graph.

        Raises:
            ValueError: if the outputs are not logits [N, K].
        """
        logits = self._outputs(images.detach())[0]
        if self.samples == 1:
            return logits
        return torch.stack([logits, *(self._outputs(images.detach())[0] for _ in range(self.samples - 1))]).mean(dim=0)

    def first(self, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int) -> Gradient:
        """Return the gradient for the target that the cost's rule chooses.

        Args:
            images: [N, C, ...].
            labels: [N] int64, for a rule that needs them; for ``"kl"``, the logits of the clean images [N, K].
            seed, offset: of a random target, see :func:`fastadv.ops.target_grad`.

        Raises:
            ValueError: if the outputs are not differentiable logits [N, K] or do not depend on the images, or a label
                is out of range.
        """
        checks = self.checks_outputs
        with explain_label_errors(self.user):
            found = self._gradient(self.cost, images, labels, seed, offset)
        if checks and self.first_batch is not None:
            self.first_batch.check_gradient(self.user, found.grad)
            self.first_batch.passed = True
        return found

    def further(self, images: Tensor, target: Tensor | None) -> Gradient:
        """Return the gradient at images [N, C, ...] for the target [N] that :meth:`first` chose."""
        return self._gradient(self._further_cost, images, target, 0, 0)

    def further_if(
        self, images: Tensor, target: Tensor | None, wanted: Callable[[Tensor, Tensor], bool]
    ) -> Gradient | None:
        """Like :meth:`further`, but ask between the two passes whether the gradient is still wanted; None if not.

        With several samples, or a compiled function for both passes, the gradient is computed in any case.

        Args:
            images, target: see :meth:`further`.
            wanted: is told of the images and their logits [N, K].
        """
        if self.samples > 1 or self.compiled is not None:
            found = self.further(images, target)
            wanted(images, found.logits)
            return found
        images = images.detach().requires_grad_()
        logits, auxiliary = self._outputs(images)
        if not wanted(images.detach(), logits.detach()):
            return None
        return self._derived(self._further_cost, images, logits, auxiliary, target)

    def each(self, images: Tensor, targets: Sequence[Tensor]) -> Iterator[Gradient]:
        """Yield the gradient at images [N, C, ...] for each of several targets [N], from one forward pass."""
        if not targets:
            return
        images = images.detach().requires_grad_()
        logits, auxiliary = self._outputs(images)
        for left, target in zip(reversed(range(len(targets))), targets, strict=True):
            _, derivatives, exponent = self._further_cost.derivatives(logits, auxiliary, target)
            grad = self._backward([logits, *auxiliary], images, derivatives, again=left > 0)
            yield Gradient(target, grad, logits.detach(), exponent)

    @cached_property
    def _further_cost(self) -> Cost:
        return self.cost.for_known_target()

    def _gradient(self, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int) -> Gradient:
        checks = self.checks_outputs
        found = self._sample(cost, images, labels, seed, offset)
        if self.samples == 1:
            return found
        for number in range(1, self.samples):
            further = self._sample(self._further_cost, images, found.target, 0, 0)
            if number == 1 and checks and torch.equal(found.logits, further.logits):
                warnings.warn(
                    f"{self.user}: eot={self.samples} averages the same gradient {self.samples} times: the model gave "
                    f"the same logits in two passes",
                    stacklevel=user_stacklevel(),
                )
            found = found.plus(further)
        return found.mean(self.samples, images.dtype)

    def _sample(self, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int) -> Gradient:
        if self.compiled is None:
            return self._eager_gradient(cost, images, labels, seed, offset)
        if not self.checks_outputs:  # the checks need an eager run
            found = self.compiled(self.forward, cost, images.detach(), labels, seed, offset)
            if found is not None:
                return Gradient(*found)
        result = self._eager_gradient(cost, images, labels, seed, offset)
        self.compiled.eager_worked(self.user)
        return result

    def _eager_gradient(
        self, cost: Cost, images: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int
    ) -> Gradient:
        images = images.detach().requires_grad_()
        training = TrainingWatch(self.user, self.model, images) if self.checks_outputs else None
        with training or nullcontext():
            logits, auxiliary = self._outputs(images)
        if self.first_batch is not None and self.checks_outputs:
            if labels is not None and cost.rule == "label":
                self.first_batch.check_labels(self.user, labels, logits.shape[1])
            self.first_batch.check_logits(self.user, logits.detach())
        cost.check_classes(self.user, logits.shape[1])
        found = self._derived(cost, images, logits, auxiliary, labels, seed, offset)
        if training is not None and self.first_batch is not None:
            seen = training.warn(logits.detach(), None if self.samples > 1 else lambda: self._outputs(images)[0])
            self.first_batch.steady = not seen
        return found

    def _derived(
        self,
        cost: Cost,
        images: Tensor,
        logits: Tensor,
        auxiliary: Sequence[Tensor],
        labels: Tensor | None,
        seed: int | Tensor = 0,
        offset: int = 0,
    ) -> Gradient:
        """Return the gradient at images [N, C, ...], from the graph of their logits [N, K] and auxiliary ones."""
        target, derivatives, exponent = cost.derivatives(logits, auxiliary, labels, seed, offset)
        grad = self._backward([logits, *auxiliary], images, derivatives)
        return Gradient(target, grad, logits.detach(), exponent)

    def _backward(
        self, outputs: Sequence[Tensor], images: Tensor, derivatives: Sequence[Tensor], *, again: bool = False
    ) -> Tensor:
        """Return the gradient [N, C, ...], for derivatives with respect to the outputs; ``again`` keeps the graph."""
        with explain_gradient_errors(self.user):
            (grad,) = torch.autograd.grad(outputs, images, derivatives, retain_graph=again, allow_unused=True)
        if self._folded is not None:
            self._folded.check_backward()
        if grad is None:
            raise ValueError(f"{self.user}: the model's logits do not depend on the images")
        return grad

    def _outputs(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return logits [N, K] and auxiliary ones, each with its graph back to images [N, C, ...] that require grad."""
        watched = nullcontext() if self._folded is None else self._folded.watched()
        differentiable = images.requires_grad
        with watched, torch.set_grad_enabled(differentiable), explain_model_errors(self.model, images, user=self.user):
            # The model may write to its input, and the step reads the images afterwards.
            logits, auxiliary = self.forward(images.clone())
        fits = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
        if not fits or (differentiable and not logits.requires_grad):
            kind = "differentiable logits" if differentiable else "logits"
            raise ValueError(
                f"{self.user}: the model must return {kind} [{len(images)}, K], got {_describe(logits, differentiable)}"
                f"{batch_dim_hint(images)}"
            )
        return logits, auxiliary


def _describe(output: object, differentiable: bool) -> str:
    if not isinstance(output, Tensor):
        hint = "; convert it with torch.from_numpy" if isinstance(output, np.ndarray) else logits_hint(output)
        return f"{type(output).__name__}{hint}"
    shape = f"a tensor {list(output.shape)}"
    if output.requires_grad or not differentiable:
        return shape
    return f"{shape} without a gradient: call the model with gradients enabled, or use square, which needs none"
