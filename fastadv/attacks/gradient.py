"""GradientAttack: the one loop behind every method that follows the gradient of a cost."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from fastadv import ops
from fastadv.attacks.amounts import Size
from fastadv.attacks.base import Attack
from fastadv.attacks.capture import Captures
from fastadv.attacks.common_scale import to_common_scale
from fastadv.attacks.compiled import Compiled
from fastadv.attacks.foldable import memory_of
from fastadv.attacks.folding import FoldedModel
from fastadv.attacks.folds import Folds
from fastadv.attacks.isolation import isolated, mixes_examples, raw_module
from fastadv.attacks.iterate import Iterate
from fastadv.attacks.no_gradient import warn_without_gradient, without_gradient
from fastadv.attacks.training_mode import TrainingWatch
from fastadv.callers import caller_level
from fastadv.heads import check_classes, logits_hint, split_heads
from fastadv.misfits import batch_hint, explaining, explaining_gradient, refuse_transforms
from fastadv.options import check_aux_weight, check_switches

T = TypeVar("T")
_READ_ANEW = ("eps", "alpha", "steps")


class GradientAttack(Attack):
    """A cost (``rule`` and ``ascend``), a step rule (:meth:`_step_`) and a schedule (:meth:`_alphas`).

    Each iteration is one forward and one backward to the input alone: the target is chosen from the logits of the same
    forward, the cost's derivative with respect to them is known in closed form, and no gradient of a weight is made.

    Args:
        aux_weight: weight of the same cost at the model's auxiliary logits, with the target that the logits choose; 0.4
            is that of the paper authors' code. Asks for a model with a method ``forward_with_aux``, from images to a
            named tuple of logits and auxiliary logits in evaluation mode too, as ``inception_v3`` has. It is called in
            the model's place: hooks of the whole model do not run.
        fold_bn: while examples are generated, fold each BatchNorm layer that follows a convolution into it: the same
            function up to rounding, without BatchNorm's passes over the activations. Weights are folded anew in each
            call; the first runs the model twice more, to find the layers. Layers with hooks, a forward of their own or
            a weight that is computed or written by the model (pruning, weight normalisation) stay as they are. Needs
            ``bn="eval"``. A model without layers to fold, which fails or whose logits are others then, which has a
            gradient of its own between the two layers (a ``torch.autograd.Function``, a hook on a tensor), or which
            connects its layers in another way or with other weights in a later call, runs as it is, and a warning says
            so. Not noticed is such a later call with ``compile`` and ``capture``, and one that writes through
            ``.data``. On a CPU the model's passes are in channels_last then, where it takes that.
        compile: compile forward pass, target and gradient to the images as one function by torch.compile, from the
            second gradient on: for the minutes that this takes, passes over the activations are saved. Where it fails,
            the attack runs without, and a warning says why.
        capture: on CUDA, record an iteration as a CUDA graph the second time that images of one shape come, and replay
            it from then on: for models whose kernels are shorter than their launches. Kept for the four shapes that
            were used last, with the memory of an iteration and of the images each; a warning says once that more come.
            Weights may change, in place; what else the model reads from Python is as it was when captured. A model that
            cannot be captured runs without, and a warning says why, as does :meth:`at_each` of a one-step attack.

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
    _labels_ignored = False

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        aux_weight: float = 0.0,
        fold_bn: bool = False,
        compile: bool = False,
        capture: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        check_aux_weight(aux_weight)
        check_switches(fold_bn=fold_bn, compile=compile, capture=capture)
        if aux_weight and not hasattr(raw_module(model), "forward_with_aux"):
            raise ValueError(
                f"aux_weight={aux_weight} needs a model with a method forward_with_aux, as inception_v3 has, "
                f"got {type(raw_module(model)).__name__}; aux_weight=0 follows the logits alone"
            )
        if fold_bn and self.bn != "eval":
            raise ValueError("fold_bn=True needs bn='eval': the statistics of a batch are not known beforehand")
        if compile and capture:
            raise ValueError("compile=True and capture=True are two ways of the same: choose one")
        self.aux_weight = aux_weight
        self.fold_bn = fold_bn
        self.compile = compile
        self.capture = capture
        self._mixes_examples = False  # looked up in each call, as the modes of modules are
        self._folds = Folds()
        self._compiled = Compiled()
        self._captures = Captures()

    @property
    def targeted(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`. Of a cost of its own it is not known where its descent leads."""
        kind = type(self)
        own_cost = (
            kind._input_gradient is not GradientAttack._input_gradient
            or kind.derivatives is not GradientAttack.derivatives
        )
        return self.needs_labels and not self.ascend and not own_cost

    def _check(self, images: Tensor, labels: Tensor | None) -> None:
        refuse_transforms(self.name)
        super()._check(images, labels)
        if labels is not None and not (self.needs_labels or self.ascend or self._labels_ignored):
            self._labels_ignored = True
            warnings.warn(
                f"{self.name} ignores the labels that it is called with: it chooses the class that it steps towards, "
                f"and has no option for another. Call it with images alone",
                stacklevel=caller_level(),
            )

    def _run_folded(self, model: Callable[..., Any], images: Tensor, run: Callable[[FoldedModel | None], T]) -> T:
        """What run makes with the model folded, where that is asked for and possible, and else as it is."""
        if self.fold_bn or (self.fast and self.bn == "eval"):
            return self._folds.run(self, model, images, run)
        if self.fast:
            self._folds.leave_out(self, "bn='batch' takes the statistics from the images")
        return run(None)

    def _capturing(self, images: Tensor) -> bool:
        by_fast = self.fast and images.is_cuda
        if by_fast and self.compile:
            self._captures.leave_out(self, "compile=True is another way of the same")
        return self.capture or (by_fast and not self.compile)

    @abstractmethod
    def _alphas(self, size: Size) -> Sequence[float | Tensor]:
        """Length of each step in pixel values: a number or [N]."""

    def gradients(self, eps: float) -> int:
        """How many gradients of each image a call of this size asks the model for: one a step."""
        return len(self._alphas(Size(eps)))

    def _step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        """Move adv in place along grad, both [N, C, ...] like clean; alpha and eps are numbers or [N]."""
        ops.sign_step_(adv, clean, grad, alpha, eps, self.space)

    def _start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        """Where the first step starts from; adv [N, C, ...] is a copy of clean, or clean itself."""

    def _direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        """What a step follows, from the gradient [N, C, ...] and the previous step's direction (None at first).

        The length of an example's gradient says nothing: it is multiplied by a power of two. The gradient is not ours
        to write: a model may keep it. What is returned is the next step's ``previous``.
        """
        return grad

    @property
    def remembers(self) -> bool:
        """Whether a step's direction depends on the previous one's, which is kept only then."""
        return type(self)._direction is not GradientAttack._direction

    def _run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        alphas = [alpha if self.ascend else -alpha for alpha in self._alphas(size)]
        model = raw_module(self.model)
        # A single step from the clean image needs no second copy of it.
        apart = len(alphas) > 1 or self.starts_elsewhere

        def run(folded: FoldedModel | None) -> Tensor:
            start = adv if folded is None else folded.arranged(adv)  # [N, C, ...]
            at = Iterate(start, start, size.eps, alphas[0], labels, seed, offset)
            if not (self._capturing(adv) and self._captures.run_(self, model, at, alphas, apart, folded)):
                if folded is not None:
                    folded.refresh()
                self._run_eagerly_(model, at, alphas, apart)
            self.without_gradient = at.without_gradient
            return at.adv

        with isolated(model, self.bn):
            self._mixes_examples = mixes_examples(model, self.bn)
            made = self._run_folded(model, adv, run)  # [N, C, ...]
        if made is not adv:
            adv.copy_(made)

    def _run_eagerly_(
        self, model: Callable[..., Any], at: Iterate, alphas: Sequence[float | Tensor], apart: bool
    ) -> None:
        if apart:
            at.clean = at.adv.clone()  # [N, C, ...]
        try:
            self.first_(model, at)
            for at.alpha in alphas[1:]:
                self.next_(model, at)
        except BaseException:
            if apart:
                at.adv.copy_(at.clean)
            raise

    def first_(self, model: Callable[..., Any], at: Iterate) -> None:
        """The start and the first step, which chooses the target."""
        self._start_(at.adv, at.clean, at.eps, at.seed, at.offset)
        chosen, grad = self._first_gradient(model, at.adv, at.target, at.seed, at.offset)
        if self.rule != "label":
            at.target = chosen
        at.without_gradient = without_gradient(grad) if self.counting else None
        self._follow_(at, grad)

    def next_(self, model: Callable[..., Any], at: Iterate) -> None:
        """A further step, for the target that was chosen."""
        rule = "entropy" if self.rule == "entropy" else "label"
        self._follow_(at, self._input_gradient(model, at.adv, rule, at.target, at.seed, at.offset)[1])

    def _follow_(self, at: Iterate, grad: Tensor) -> None:
        grad = _apart(grad, at.adv)
        direction = self._direction(grad, at.direction)
        at.direction = _apart(direction, grad) if self.remembers else None
        self._step_(at.adv, at.clean, direction, at.alpha, at.eps)

    def _first_gradient(
        self, model: Callable[..., Any], adv: Tensor, labels: Tensor | None, seed: int | Tensor, offset: int
    ) -> tuple[Tensor, Tensor]:
        """:meth:`_input_gradient` of a call's first step; that of the first batch is looked at."""
        seen = self.outputs_seen
        target, grad = self._input_gradient(model, adv, self.rule, labels, seed, offset)
        if not (seen or self.warned):
            self.warned = warn_without_gradient(self.name, int(without_gradient(grad)), len(grad))
        self._outputs_seen = True
        return target, grad

    def _input_gradient(
        self, model: Callable[..., Any], adv: Tensor, rule: str, labels: Tensor | None, seed: int | Tensor, offset: int
    ) -> tuple[Tensor, Tensor]:
        """(target [N], gradient of each example's cost, up to a positive factor, with respect to adv [N, C, ...])."""
        if self.compile and self.outputs_seen:  # the first batch is looked at on the way
            found = self._compiled(self, model, adv.detach(), rule, labels, seed, offset)
            if found is not None:
                return found
        images = adv.detach().requires_grad_()
        training = None if self.outputs_seen else TrainingWatch(self.name, model, images)
        with training or nullcontext():
            logits, auxiliary = self._forward(model, images)
        fits = isinstance(logits, Tensor) and logits.dim() == 2 and len(logits) == len(images)
        if not fits or not logits.requires_grad:
            raise ValueError(
                f"{self.name}: the model must return differentiable logits [{len(images)}, K], got {_describe(logits)}"
                f"{batch_hint(images)}"
            )
        if not (self.outputs_seen or self.warned):
            self.warned = _warn_of_outputs(self.name, logits.detach())
        target, derivatives = self.derivatives(logits, auxiliary, rule, labels, seed, offset)
        with explaining_gradient(self.name):
            (grad,) = torch.autograd.grad([logits, *auxiliary], images, derivatives, allow_unused=True)
        self._folds.check_backward()
        if grad is None:
            raise ValueError(f"{self.name}: the model's logits do not depend on the images")
        if self.compile:
            self._compiled.eager_worked(self)
        if training is not None:
            training.warn(logits.detach(), lambda: self._forward(model, images)[0])
        return target, grad

    def _forward(self, model: Callable[..., Any], images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits [N, K] and auxiliary ones, each with its graph back to images [N, C, ...]."""
        with self._folds.watched(), torch.enable_grad(), explaining(model, images, user=self.name):
            # The model may write to what it is given, and the step reads the images after it.
            return self.heads(model, images.clone())

    def derivatives(
        self,
        logits: Tensor,
        auxiliary: Sequence[Tensor],
        rule: str,
        labels: Tensor | None,
        seed: int | Tensor,
        offset: int,
    ) -> tuple[Tensor, list[Tensor]]:
        """(target [N], the cost's derivatives with respect to logits [N, K] and each auxiliary [N, K]).

        Each example's are multiplied by a power of two: half precision would round those of a confident model to zero,
        and no step depends on the length of a gradient.
        """
        main = ops.scaled_target_grad(logits, rule, labels, self.label_smoothing, seed, offset)
        if not auxiliary and not self._mixes_examples:
            return main.target, [main.dlogits]
        same_cost = "entropy" if rule == "entropy" else "label"
        others = [ops.scaled_target_grad(aux, same_cost, main.target, self.label_smoothing) for aux in auxiliary]
        weights = [1.0] + [self.aux_weight] * len(others)
        # The costs of examples that depend on each other are added up as they are.
        return main.target, to_common_scale([main, *others], weights, whole_batch=self._mixes_examples)

    def heads(self, model: Callable[..., Any], images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the model makes of images [N, C, ...]: logits [N, K], and auxiliary ones if the cost has them."""
        if not self.aux_weight:
            output = model(images)
            check_classes(output, user=self.name)
            return output, []  # type: ignore[return-value]
        logits, auxiliary = split_heads(model.forward_with_aux(images))  # type: ignore[attr-defined]
        if not auxiliary:
            raise ValueError(
                f"{self.name}: aux_weight={self.aux_weight}, but forward_with_aux gave no auxiliary logits"
            )
        return logits, auxiliary

    def captured_options(self) -> Hashable:
        """What a captured iteration has fixed of the options; sizes and steps are read anew in each call."""
        fixed = sorted((name, value) for name, value in self._options().items() if name not in _READ_ANEW)
        return (self.counting, *fixed)

    @property
    def outputs_seen(self) -> bool:
        """Whether the model's outputs need no look any more, for which a call waits."""
        return self.validate == "never" or self._outputs_seen

    def _options(self) -> dict[str, Any]:
        own = {"aux_weight": self.aux_weight, "fold_bn": self.fold_bn, "compile": self.compile, "capture": self.capture}
        return {**super()._options(), **own}


def _apart(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor, copied if it lies in the memory of one that somebody else writes or keeps."""
    return tensor.clone() if memory_of(tensor) == memory_of(other) else tensor


def _describe(output: object) -> str:
    if not isinstance(output, Tensor):
        return f"{type(output).__name__}{logits_hint(output)}"
    return f"a tensor {list(output.shape)}{'' if output.requires_grad else ' without a gradient'}"


def _warn_of_outputs(attack: str, logits: Tensor) -> bool:  # [N, K]
    """Warn of outputs with which an attack runs, and does little: the model looks robust, and is not."""
    probabilities = (logits >= 0).all() & ((logits.sum(dim=1, dtype=torch.float32) - 1).abs() < 1e-3).all()
    if not logits.isfinite().all():
        problem = "are not all finite, and where they are not there is no gradient to follow"
    elif probabilities:
        problem = "look like probabilities, whose gradient vanishes: return the logits, without softmax"
    else:
        return False
    warnings.warn(
        f"{attack}: the model's outputs [{len(logits)}, {logits.shape[1]}] {problem}", stacklevel=caller_level()
    )
    return True
