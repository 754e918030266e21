"""GradientAttack: the one loop behind every method that follows the gradient of a cost."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.base import Attack
from fastadv.attacks.engine.bn_folding_cache import FoldingCache
from fastadv.attacks.engine.bn_folding_search import memory_of
from fastadv.attacks.engine.compiled import CompiledGradient
from fastadv.attacks.engine.cost import Cost
from fastadv.attacks.engine.cuda_graphs import CapturedIterations
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.state import AttackState
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.steps import Steps
from fastadv.attacks.engine.zero_gradients import without_gradient
from fastadv.attacks.options import AttackOptions
from fastadv.utils.input_hints import refuse_func_transforms
from fastadv.utils.module_modes import mixes_examples, raw_module
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.validation import check_aux_weight, check_switches

_READ_ANEW = ("eps", "alpha", "steps")


class GradientAttack(Attack):
    """Steps that follow the gradient of a cost; for attacks of one's own, most of which override one method.

    Each iteration is one forward and one backward pass to the input alone: the target is chosen from the logits of the
    same forward pass, and no gradient of a weight is made. Methods to override, each with its shapes in its docstring:

    - :meth:`loss`, the cost of each example, if it is neither the cross-entropy nor the entropy;
    - :meth:`step_sizes`, the number of steps and their lengths, which ``OneStepAttack`` and ``IterBasic`` have;
    - :meth:`start_`, where the first step starts from, if not from the clean image;
    - :meth:`direction`, what a step follows, such as an average of gradients;
    - :meth:`step_`, how it moves the images, if not along the sign;
    - :meth:`options`, further options, if there are any.

    An attack with a loss of its own, the lead of the best other class over the true one (Carlini and Wagner, 2017)::

        class Margin(fastadv.attacks.PGD):
            name = "margin"

            def loss(self, logits, target):  # [N, K], [N] -> [N]
                true = logits.gather(1, target[:, None])  # [N, 1]
                others = logits.scatter(1, target[:, None], -torch.inf)  # [N, K]
                return (others.amax(dim=1, keepdim=True) - true)[:, 0]

        adv = Margin(model, eps=8, steps=20)(images, labels)

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
    """

    rule: ClassVar[str]
    ascend: ClassVar[bool]
    _labels_ignored = False

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        aux_weight: float = 0.0,
        fold_bn: bool = False,
        compile: bool = False,
        capture: bool = False,
        **options: Unpack[AttackOptions],
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
        self._first_batch = FirstBatch()
        self._folding = FoldingCache()
        self._compiled = CompiledGradient()
        self._captured = CapturedIterations()

    @property
    def targeted(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`. Of a loss of its own it is not known where its descent leads."""
        return self.needs_labels and not self.ascend and not self._has_own_loss

    def _check(self, images: Tensor, labels: Tensor | None) -> None:
        refuse_func_transforms(self.name)
        super()._check(images, labels)
        if labels is not None and not (self.needs_labels or self.ascend or self._labels_ignored):
            self._labels_ignored = True
            warnings.warn(
                f"{self.name} ignores the labels that it is called with: it chooses the class that it steps towards, "
                f"and has no option for another. Call it with images alone",
                stacklevel=user_stacklevel(),
            )

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """The cost of each example, which the attack increases if ``ascend`` and decreases otherwise.

        That of an attack that does not override it, the cross-entropy with the target or, by the rule ``"entropy"``,
        the entropy, is differentiated in closed form. Another is differentiated with respect to the logits by autograd;
        like the model it must not read values back from a GPU if it is to be compiled or captured.

        Args:
            logits: [N, K]; float32 where the model's are in half precision. With ``aux_weight`` the auxiliary logits
                come in another call.
            target: [N] int64, the class that ``rule`` chose.

        Returns:
            [N], differentiable; its scale does not matter, for only the direction of an example's gradient does.
        """
        if self.rule == "entropy":
            log_p = logits.log_softmax(dim=1)  # [N, K]
            return -(log_p.exp() * log_p).sum(dim=1)
        return nn.functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)

    @abstractmethod
    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        """The length of each step, in pixel values: at least one.

        Args:
            size: of the perturbation; ``size.eps`` is a number, or [N] on the images' device.

        Returns:
            Numbers or tensors [N], zero or more, for attacks that descend too.
        """

    def step_counts(self, size: Size) -> Sequence[int] | None:
        """How many of :meth:`step_sizes` each example takes, from the first on; None if all take all of them.

        An example that is done leaves the batch, if its gradient does not depend on the others (``bn="eval"``), and if
        nothing has fixed the shape of the batch (``compile``, ``capture``).

        Args:
            size: of the perturbation, as for :meth:`step_sizes`.

        Returns:
            N numbers, 1 or more each.
        """
        return None

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        """Move adv in place to where the first step starts from; without an override, the clean image.

        Args:
            adv: [N, C, ...], a copy of clean.
            clean: [N, C, ...].
            eps: radius of the ball in pixel values, a number or [N].
            seed, offset: for :func:`fastadv.ops.noise_step_` and the like, if the class sets ``draws``.
        """

    def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        """What a step follows; without an override, the gradient.

        Args:
            grad: [N, C, ...], of each example's cost up to a power of two: its length says nothing. It is not ours to
                write, as a model may keep it.
            previous: [N, C, ...], what this method returned in the step before, and may be written; None at first.
        """
        return grad

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        """Move adv in place, and keep it in the eps ball and the pixel range; without an override, along the sign.

        Args:
            adv: [N, C, ...].
            clean: [N, C, ...]; adv itself in a single step from the clean image.
            grad: [N, C, ...], the direction.
            alpha: length of the step in pixel values, a number or [N]; negative if the attack descends.
            eps: radius of the ball in pixel values, a number or [N].
        """
        ops.sign_step_(adv, clean, grad, alpha, eps, self.space)

    def gradients(self, eps: float) -> int:
        """How many gradients of each image a call of this size asks the model for: one a step."""
        return len(self.step_sizes(Size(eps)))

    @property
    def _has_own_loss(self) -> bool:
        return type(self).loss is not GradientAttack.loss

    @property
    def starts_elsewhere(self) -> bool:
        """Whether :meth:`start_` moves the images."""
        return type(self).start_ is not GradientAttack.start_

    @property
    def remembers(self) -> bool:
        """Whether a step's direction depends on the previous one's, which is kept only then."""
        return type(self).direction is not GradientAttack.direction

    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        alphas = [alpha if self.ascend else -alpha for alpha in self.step_sizes(size)]
        gradient = self._input_gradient()
        steps = Steps(
            partial(self._first_, gradient),
            partial(self._next_, gradient),
            keeps_clean=len(alphas) > 1 or self.starts_elsewhere,
            several=len(alphas) > 1,
            options=self._captured_options(),
        )

        def run() -> Tensor:
            start = gradient.in_layout(adv)  # [N, C, ...]
            state = AttackState(start, start, size.eps, alphas[0], labels, seed, offset)
            if not (self._captures(adv) and self._captured.run_(gradient, steps, state, alphas)):
                steps.run_(state, alphas, self._counts(gradient, size))
            self.without_gradient = state.without_gradient
            return state.adv

        made = gradient.run(adv, run)  # [N, C, ...]
        if made is not adv:
            adv.copy_(made)

    def _counts(self, gradient: InputGradient, size: Size) -> Sequence[int] | None:
        return None if gradient.cost.mixes_examples or self.compile else self.step_counts(size)

    def _first_(self, gradient: InputGradient, state: AttackState) -> None:
        """The start and the first step, which chooses the target."""
        gradient.refresh()
        self.start_(state.adv, state.clean, state.eps, state.seed, state.offset)
        chosen, grad = gradient.first(state.adv, state.target, state.seed, state.offset)
        if self.rule != "label":
            state.target = chosen
        state.without_gradient = without_gradient(grad) if self.counting else None
        self._follow_(state, grad)

    def _next_(self, gradient: InputGradient, state: AttackState) -> None:
        """A further step, for the target that was chosen."""
        self._follow_(state, gradient.further(state.adv, state.target))

    def _follow_(self, state: AttackState, grad: Tensor) -> None:
        grad = _own_memory(grad, state.adv)
        direction = self.direction(grad, state.direction)
        state.direction = _own_memory(direction, grad) if self.remembers else None
        self.step_(state.adv, state.clean, direction, state.alpha, state.eps)

    def _input_gradient(self) -> InputGradient:
        """How a call makes its gradients, by the options and the modules as they are now."""
        model = raw_module(self.model)
        return InputGradient(
            Forward(model, self.name, auxiliary=self.aux_weight > 0),
            self.cost(self.bn),
            self.bn,
            first_batch=None if self.validate == "never" else self._first_batch,
            folding=self._folding if self._folds_bn() else None,
            compiled=self._compiled if self.compile else None,
        )

    def cost(self, bn: str) -> Cost:
        """What the attack increases or decreases, for a network whose BatchNorm runs in the mode ``bn``."""
        return Cost(
            self.rule,
            self.label_smoothing,
            self.aux_weight,
            mixes_examples(raw_module(self.model), bn),
            self.loss if self._has_own_loss else None,
        )

    def _folds_bn(self) -> bool:
        if self.fast and not self.fold_bn and self.bn != "eval":
            self._folding.log_left_out(self.name, f"bn={self.bn!r} takes the statistics from the images")
        return self.fold_bn or (self.fast and self.bn == "eval")

    def _captures(self, images: Tensor) -> bool:
        by_fast = self.fast and images.is_cuda
        if by_fast and self.compile:
            self._leave_out_capture("compile=True is another way of the same")
        return self.capture or (by_fast and not self.compile)

    def _leave_out_capture(self, reason: str) -> None:
        self._captured.leave_out(self.name, reason, by_fast=not self.capture)

    def _captured_options(self) -> Hashable:
        """What a captured iteration has fixed of the options; sizes and steps are read anew in each call."""
        fixed = sorted((name, value) for name, value in self.options().items() if name not in _READ_ANEW)
        return (self.counting, *fixed)

    @property
    def warned(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`."""
        return self._first_batch.warned

    def options(self) -> dict[str, Any]:
        own = {"aux_weight": self.aux_weight, "fold_bn": self.fold_bn, "compile": self.compile, "capture": self.capture}
        return {**super().options(), **own}


def _own_memory(tensor: Tensor, other: Tensor) -> Tensor:
    """The tensor, copied if it lies in the memory of one that somebody else writes or keeps."""
    return tensor.clone() if memory_of(tensor) == memory_of(other) else tensor
