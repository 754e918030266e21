"""GradientAttack: the loop shared by all methods that follow the gradient of a cost."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack  # which torch requires

from fastadv import ops, reference
from fastadv.attacks.base import Attack
from fastadv.attacks.engine.bn_folding_cache import FoldingCache
from fastadv.attacks.engine.bn_folding_search import memory_of
from fastadv.attacks.engine.compiled import CompiledGradient
from fastadv.attacks.engine.cost import KL, MARGINS, Cost, label_and_target
from fastadv.attacks.engine.cuda_graphs import CapturedIterations
from fastadv.attacks.engine.cycles import Cycles
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.leaving import Leaving
from fastadv.attacks.engine.result_check import check_in_place, is_foreign
from fastadv.attacks.engine.state import AttackState
from fastadv.attacks.engine.step_sizes import Eps, Size, are_equal
from fastadv.attacks.engine.steps import Steps
from fastadv.attacks.engine.zero_gradients import count_zero_gradients
from fastadv.attacks.goal import Goal, checked_loss, goal_of, has_fixed_cost, has_goal_of_its_own
from fastadv.attacks.options import AttackOptions
from fastadv.attacks.restarts import run_restarts_
from fastadv.eps import TruncatedNormalEps
from fastadv.utils.input_hints import refuse_func_transforms
from fastadv.utils.module_modes import mixes_examples, raw_module
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.validation import check_aux_weight, check_count, check_switches

_QUANTILES = 1000  # that stand for a distribution of eps
_LONG_RUN = 40  # steps; in shorter runs, few images come back to an iterate, and for few steps
_READ_IN_EACH_CALL = ("eps", "alpha", "steps")  # a captured iteration follows their changes


class GradientAttack(Attack):
    """Takes steps along the gradient of a cost. Base class for your own attacks, most of which override one method.

    An iteration is one forward pass and one backward pass to the input only: the target is chosen from the logits of
    the same forward pass, and no gradients of weights are computed. A subclass sets ``name``, ``rule``, ``ascend`` and,
    if it uses the true label, ``needs_labels``, unless its base does. It may override these methods, whose docstrings
    have the shapes; only :meth:`step_sizes` has no default here, but the bases ``OneStepAttack``, ``PGD`` and
    ``IterBasic`` implement it:

    - :meth:`loss`: the cost of each example, instead of the cross-entropy or the entropy;
    - :meth:`step_sizes`: the number of steps and their lengths;
    - :meth:`start_`: where the first step starts, instead of the clean image;
    - :meth:`direction`: what a step follows, instead of the gradient, such as an average of gradients;
    - :meth:`step_`: how a step moves the images, instead of along the sign;
    - :meth:`options`: the values of options that the subclass adds.

    An attack whose cost is by how much the true class's logit is below the mean of all::

        class BelowMean(fastadv.attacks.PGD):
            name = "below_mean"

            def loss(self, logits, target):  # [N, K], [N] -> [N]
                return logits.mean(dim=1) - logits.gather(1, target[:, None])[:, 0]

        adv = BelowMean(model, eps=8, steps=20)(images, labels)

    Args:
        aux_weight: weight of the same cost at the model's auxiliary logits, with the target that the main logits
            choose; the paper's authors use 0.4 in their code. The model needs a method ``forward_with_aux`` that
            returns logits and auxiliary logits for images, also in evaluation mode, as ``inception_v3`` has: a named
            tuple, a dictionary or an object with ``logits`` and ``aux...``. It is called instead of the model, so hooks
            on the model as a whole do not run.
        fold_bn: during generation, fold each BatchNorm layer that follows a convolution into it: the same function up
            to rounding, without BatchNorm's passes over the activations. Needs ``bn="eval"``. Weights are folded again
            in each call; the first call runs the model twice more to find the layers. Layers with hooks, with their own
            ``forward`` or with a weight that the model computes or writes (pruning, weight normalisation) are left
            alone. The model runs unfolded, and a warning says why, if it has no such layers, if folding makes it fail
            or changes its logits, if there is a custom gradient between the two layers (a ``torch.autograd.Function``,
            a hook on a tensor), or if a later call connects layers differently or with other weights. A later call like
            that is not noticed with ``compile`` and ``capture``, or if it writes through ``.data``. On a CPU the model
            also runs in channels_last if it can.
        compile: compile forward pass, target and gradient to the images as one function with torch.compile, from the
            second gradient on. Compiling takes minutes and saves passes over the activations. If it fails, the attack
            runs without it, and a warning says why.
        capture: on CUDA, record an iteration as a CUDA graph when images of a shape come for the second time, and
            replay it from then on; helps if the model's kernels are shorter than their launches. Graphs are kept for
            the last four shapes, each with the memory of an iteration and of its images; a warning says once if there
            are more shapes. Weights may change in place; anything else that the model reads from Python stays as it was
            during recording. If a model cannot be captured, and for :meth:`at_each` of one-step attacks, the attack
            runs without a graph, and a warning says why.
        targeted: step towards the labels that a call is given, which are targets then: ``attack(images, targets)``.
        targets: the class that the cost is about: ``"label"``, the labels of a call; ``"predicted"``, the class that
            the model predicts, to step away from; ``"least_likely"`` or ``"random"``, a class that the model finds
            least likely or does not predict, to step towards. All but the first are called without labels. None is the
            method's own choice; methods that are defined by their class take no other, nor ``targeted``.
        loss: of attacks on a class, the cost of each example: ``"ce"``, the cross-entropy; ``"margin"``, the largest
            logit of the other classes minus that of the class (Carlini and Wagner, 2017); or ``"dlr"``, the difference
            of logits ratio, the margin over the difference between the largest and the third largest logit (Croce and
            Hein, 2020, equation 6), for three classes or more. The last two take no ``label_smoothing``.
        restarts: of attacks that draw random numbers, number of runs. Images that are misclassified after a run, or
            have their targets, keep that result; only the others go into the next run, and keep the result with the
            highest loss. A call needs the true labels, also if the attack chooses its class, or the targets. Images are
            judged by their logits after each run, which is another forward pass; on a GPU, that waits for it.
        eot: number of passes whose gradients are averaged for each step, for a model that draws random numbers also in
            evaluation mode ("expectation over transformation", Athalye et al., 2018).
        early_stop: an image that is misclassified at one of the iterates, or has its target there, is decided: that
            iterate is its result, and no more gradients are computed for it. A call needs the true labels, also if the
            attack chooses its class, or the targets. The iterates are judged by the logits that their gradients need
            anyway, the first one included; the last one, which has no gradient, is a result in any case. Decided images
            leave the batch, unless an example's gradient depends on the others or with ``compile``; so do, whether or
            not images are judged, those whose iterates come round again, as docs/attacks.md explains.
            ``capture`` is skipped, and a warning says so; on a GPU, each step waits for the verdicts. One-step attacks
            take the option and have nothing to leave out; attacks such as ``apgd_ce`` stop in any case.

    Attributes:
        rule: the class that the cost is about, one of the rules of :func:`fastadv.ops.target_grad`; a target that
            depends on the prediction is chosen once, for the clean image (or the start). ``"kl"`` is about no class:
            the cost is the divergence of the prediction from that for the clean image, as in TRADES, for one more
            forward pass.
        ascend: true to increase the cost (away from the class), false to decrease it (towards the class).
        fixed_goal: true for a class that is defined by its cost, and takes none of ``targeted``, ``targets`` and
            ``loss``.
    """

    rule: str
    ascend: bool
    fixed_goal: ClassVar[bool] = False
    _labels_ignored = False

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        aux_weight: float = 0.0,
        fold_bn: bool = False,
        compile: bool = False,
        capture: bool = False,
        targeted: bool = False,
        targets: str | None = None,
        loss: str = "ce",
        restarts: int = 1,
        eot: int = 1,
        early_stop: bool = False,
        **options: Unpack[AttackOptions],
    ) -> None:
        super().__init__(model, **options)
        check_aux_weight(aux_weight)
        check_switches(fold_bn=fold_bn, compile=compile, capture=capture, targeted=targeted, early_stop=early_stop)
        if aux_weight and not hasattr(raw_module(model), "forward_with_aux"):
            raise ValueError(
                f"aux_weight={aux_weight} needs a model with a method forward_with_aux, as inception_v3 has, "
                f"got {type(raw_module(model)).__name__}; aux_weight=0 uses the main logits only"
            )
        if fold_bn and self.bn != "eval":
            raise ValueError("fold_bn=True needs bn='eval': a batch's statistics are not known beforehand")
        if compile and capture:
            raise ValueError("compile=True and capture=True cannot be combined: choose one")
        self.aux_weight = aux_weight
        self.fold_bn = fold_bn
        self.compile = compile
        self.capture = capture
        self._targets = targets
        self._towards_labels = targeted
        if targeted or targets is not None:
            self._set_goal(goal_of(self, targets, targeted))
        self.loss_name = checked_loss(self, loss, has_own=self._has_own_loss)
        self._restarts = restarts
        self._check_restarts()
        check_count("eot", eot, least=1)
        self.eot = eot
        self._early_stop = early_stop
        self._check_early_stop()
        self._first_batch = FirstBatch()
        self._folding = FoldingCache()
        self._compiled = CompiledGradient()
        self._captured = CapturedIterations()

    @classmethod
    def refused_options(cls) -> set[str]:
        refused = super().refused_options()
        if not (hasattr(cls, "rule") and hasattr(cls, "ascend")):  # a base class
            return refused
        if has_goal_of_its_own(cls):
            refused |= {"targeted", "targets"}
        if has_fixed_cost(cls) or cls.loss is not GradientAttack.loss:
            refused.add("loss")
        may_draw = cls.draws or cls.start_ is not GradientAttack.start_ or not has_goal_of_its_own(cls)
        if not may_draw or cls.run_ is not GradientAttack.run_:
            refused.add("restarts")
        return refused

    def _check_restarts(self) -> None:
        check_count("restarts", self.restarts, least=1)
        if self.restarts == 1:
            return
        if type(self).run_ is not GradientAttack.run_:
            raise ValueError(f"{self.name} overrides run_, which has no restarts: restarts must be 1")
        if not self.draws:
            raise ValueError(
                f"{self.name} draws no random numbers here, so each of its restarts would give the same images: "
                f"restarts must be 1, got {self.restarts}; pgd starts at a random point"
            )
        self.needs_labels = True
        self.one_gradient = False

    def _check_early_stop(self) -> None:
        if not self._leaves_between_steps:
            return
        if type(self).run_ is not GradientAttack.run_:
            raise ValueError(f"{self.name} overrides run_, which takes all of its steps: early_stop must be False")
        self.needs_labels = True

    def _set_goal(self, goal: Goal) -> None:
        self.rule, self.ascend = goal
        self.needs_labels = self.rule == "label"
        if self.rule == "random":
            self.draws = True

    @property
    def targets(self) -> str | None:
        """The option of this name, which another attack would have to be created with."""
        return self._targets

    @property
    def restarts(self) -> int:
        """The option of this name, which another attack would have to be created with."""
        return self._restarts

    @property
    def early_stop(self) -> bool:
        """The option of this name, which another attack would have to be created with."""
        return self._early_stop

    @property
    def stops_early(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`; with restarts, an image is left alone after a run."""
        return self.early_stop or self.restarts > 1

    @property
    def _leaves_between_steps(self) -> bool:
        return self.early_stop and self.stops_early

    @property
    def targeted(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`; of a class with an own loss, whose descent may lead anywhere, only if it is set."""
        by_definition = self.rule == "label" and self.needs_labels and not self.ascend and not self._has_own_loss
        return self._towards_labels or by_definition

    def _check(self, images: Tensor, labels: Tensor | None) -> None:
        refuse_func_transforms(self.name)
        super()._check(images, labels)
        if labels is not None and not (self.needs_labels or self.ascend or self._labels_ignored):
            self._labels_ignored = True
            warnings.warn(
                f"{self.name} ignores the labels that it is called with: it chooses the class that it steps towards. "
                f"Call it with images alone, or call an attack such as pgd or fgsm, with targeted=True, for targets",
                stacklevel=user_stacklevel(),
            )

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cost of each example, which the attack increases if ``ascend``, and otherwise decreases.

        The default is differentiated in closed form: the option ``loss`` with the target, the entropy or the divergence
        for the rules ``"entropy"`` and ``"kl"``, or the loss of :func:`fastadv.ops.row_losses` that the rule names. An
        override is differentiated with respect to the logits by autograd; like the model, it must not read values back
        from a GPU if it is compiled or captured.

        Args:
            logits: [N, K]; float32 if the model's are in half precision. With ``aux_weight``, the auxiliary logits are
                passed in another call.
            target: [N] int64, the class that ``rule`` chose; for ``"kl"``, the logits of the clean images [N, K]; for
                ``"targeted_dlr"``, the true class and the target [N, 2].

        Returns:
            [N], differentiable. Its scale does not matter, because only the direction of an example's gradient does.
        """
        if self.rule == "entropy":
            log_p = logits.log_softmax(dim=1)  # [N, K]
            return -(log_p.exp() * log_p).sum(dim=1)
        if self.rule == KL:
            log_q, log_p = logits.log_softmax(dim=1), target.log_softmax(dim=1)  # [N, K]
            return nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=1)
        if self.loss_name != "ce":
            return reference.row_losses(logits, target, self.loss_name)
        if self.rule in MARGINS:
            labels, targets = label_and_target(target)
            return reference.row_losses(logits, labels, self.rule, targets)
        return nn.functional.cross_entropy(logits, target, reduction="none", label_smoothing=self.label_smoothing)

    def height(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return by what the results of restarts are compared, the higher the better: the loss, or what grows with it.

        In place of the cross-entropy these are the log-odds of the class being wrong, which do not round to zero.

        Args:
            logits: [N, K].
            labels: [N] int64, the true classes, or the targets.

        Returns:
            [N].
        """
        if self._has_own_loss and self.rule == "label":
            height = self.loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
            return height if self.ascend else -height
        height = ops.row_losses(logits, labels, "log_odds" if self.loss_name == "ce" else self.loss_name)
        return -height if self.targeted else height

    @abstractmethod
    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        """Return the length of each step, in pixel values; the number of steps is their number, at least one.

        Args:
            size: of the perturbation; ``size.eps`` is a number, or [N] on the images' device.

        Returns:
            Numbers or tensors [N], zero or more, also for attacks that descend.
        """

    def step_counts(self, size: Size) -> Sequence[int] | None:
        """How many of :meth:`step_sizes` each example takes, from the first on; None if all take all of them.

        An example that is done leaves the batch, if its gradient does not depend on the others (``bn="eval"``), and if
        nothing has fixed the shape of the batch (``compile``, ``capture``).

        :meth:`step_sizes` must give these examples steps of length 0 from then on, for the cases in which they stay.

        Args:
            size: of the perturbation, as for :meth:`step_sizes`.

        Returns:
            N numbers, 1 or more each.
        """
        return None

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        """Move adv in place to where the first step starts; by default, the clean image.

        Args:
            adv: [N, C, ...], a copy of clean.
            clean: [N, C, ...].
            eps: radius of the ball in pixel values, a number or [N].
            seed, offset: for :func:`fastadv.ops.noise_step_` and the like, if the class sets ``draws``.
        """

    def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        """Return what a step follows; by default, the gradient.

        Args:
            grad: [N, C, ...], the gradient of each example's cost times an arbitrary power of two. Do not write to it:
                a model may keep it.
            previous: [N, C, ...], what this method returned in the previous step, which it may overwrite; None at
                first.
        """
        return grad

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: float | Tensor, eps: float | Tensor) -> None:
        """Move adv in place, and keep it in the eps ball and the pixel range; by default, along the sign.

        The results of an override are checked in the first batch, see ``ball`` of :class:`Attack`.

        Args:
            adv: [N, C, ...].
            clean: [N, C, ...]; adv itself in a single step from the clean image.
            grad: [N, C, ...], the result of :meth:`direction`.
            alpha: length of the step in pixel values, a number or [N]; negative if the attack descends.
            eps: radius of the ball in pixel values, a number or [N].
        """
        ops.sign_step_(adv, clean, grad, alpha, eps, self.space)

    @property
    def runs(self) -> int:
        """How often an image is attacked at most."""
        return self.restarts

    def gradients(self, eps: float) -> int:
        """Return how many gradients per image a call of this size computes at most: ``eot`` per step of each run."""
        return self.eot * self.runs * len(self.step_sizes(Size(eps)))

    def forwards(self, eps: float) -> int:
        judged = self.restarts if self.restarts > 1 else 0  # the images after each run
        predicted = self.restarts if self.rule == KL else 0  # the clean ones before it
        return self.eot * (judged + predicted)

    def expected_gradients(self, n: int, eps: Eps) -> float:
        """See :class:`Attack`; with several runs, the number for images that need all of them."""
        return self.eot * self.runs * self._expected_steps(n, eps)

    def _expected_steps(self, n: int, eps: Eps) -> float:
        if not isinstance(eps, TruncatedNormalEps):
            return len(self.step_sizes(Size(eps)))
        size = Size(eps.quantiles(_QUANTILES))
        counts = self.step_counts(size)
        if counts is None:
            return len(self.step_sizes(size))
        in_order = torch.tensor(sorted(counts), dtype=torch.float64)  # [_QUANTILES]
        if self.examples_leave:
            return float(in_order.mean())
        # All take as many steps as the one that takes most: P(the largest of n is one of the first i) = (i / Q)^n.
        up_to = (torch.arange(_QUANTILES + 1, dtype=torch.float64) / _QUANTILES) ** n  # [_QUANTILES + 1]
        return float((in_order * up_to.diff()).sum())

    @property
    def examples_leave(self) -> bool:
        """True if examples that are done leave the batch; see :meth:`step_counts` and ``early_stop``."""
        model = raw_module(self.model)
        weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        on_gpu = weight is not None and weight.is_cuda
        captures = not self.early_stop and (self.capture or (self.fast and on_gpu))
        return not (self.compile or captures or mixes_examples(model, self.bn))

    @property
    def _has_own_loss(self) -> bool:
        return type(self).loss is not GradientAttack.loss

    @property
    def starts_elsewhere(self) -> bool:
        """True if :meth:`start_` moves the images."""
        return type(self).start_ is not GradientAttack.start_

    @property
    def remembers(self) -> bool:
        """True if a step's direction depends on the previous one, which is kept only then."""
        return type(self).direction is not GradientAttack.direction

    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        if self.restarts == 1:
            self.run_once_(adv, labels, size, seed, offset)
        else:
            assert labels is not None  # which restarts need
            run_restarts_(self, adv, labels, size, seed, offset)

    def run_once_(
        self,
        adv: Tensor,
        labels: Tensor | None,
        size: Size,
        seed: int | Tensor,
        offset: int,
        start: Tensor | None = None,
    ) -> None:
        """Do what :meth:`run_` does without restarts; ``start`` [N, C, ...] replaces what :meth:`start_` makes."""
        start_ = self.start_ if start is None else partial(_copy_start_, start)
        alphas = [alpha if self.ascend else -alpha for alpha in self.step_sizes(size)]
        gradient = self._input_gradient()
        steps = Steps(
            partial(self._first_, gradient, start_),
            partial(self._next_, gradient),
            keeps_clean=len(alphas) > 1 or self.starts_elsewhere,
            several=len(alphas) > 1,
            options=self._captured_options(),
        )

        def run() -> Tensor:
            start = gradient.in_layout(adv)  # [N, C, ...]
            state = AttackState(start, start, size.eps, alphas[0], labels, seed, offset)
            if self._captures(adv) and self._captured.run_(gradient, steps, state, alphas):
                taken = len(alphas) * len(adv)
            else:
                counts = self._counts(gradient, size, len(adv))
                leaving = self._leaving(gradient, state, alphas, counts)
                taken = steps.run_(state, alphas, counts, leaving)
                self.image_queries += leaving.queries if leaving is not None else 0
            self.image_gradients += self.eot * taken
            self.image_queries += self.eot * len(adv) if self.rule == KL else 0
            self.without_gradient = state.without_gradient
            return state.adv

        made = gradient.run(adv, run)  # [N, C, ...]
        if made is not adv:
            adv.copy_(made)

    def _counts(self, gradient: InputGradient, size: Size, n: int) -> Sequence[int] | None:
        if gradient.cost.mixes_examples or self.compile:
            return None
        counts = self.step_counts(size)
        if counts is not None and (len(counts) != n or min(counts) < 1):
            raise ValueError(f"step_counts must return {n} numbers, one per image and at least 1, got {list(counts)}")
        return counts

    def _leaving(
        self,
        gradient: InputGradient,
        state: AttackState,
        alphas: Sequence[float | Tensor],
        counts: Sequence[int] | None,
    ) -> Leaving | None:
        """Create what says when an image is done; None if each takes all of its steps."""
        n, stays = len(state.adv), gradient.cost.mixes_examples or self.compile
        # On a GPU, looking for cycles would wait for each step, which judging does in any case.
        only_cycles = len(alphas) >= _LONG_RUN and self.examples_leave and not state.adv.is_cuda
        if not self._leaves_between_steps and not only_cycles:
            return None
        counts = [len(alphas)] * n if counts is None else counts

        def cycles() -> Cycles | None:
            steady = not stays and self._steps_are_steady() and are_equal(alphas, counts)
            return Cycles(n, len(alphas), state.adv.device) if steady else None

        labels = state.target if self._leaves_between_steps else None
        return Leaving(
            self.name,
            state.adv,
            labels,
            counts,
            targeted=self.targeted,
            cycles=cycles,
            logits=gradient.logits,
            stays=stays,
        )

    def _steps_are_steady(self) -> bool:
        """True if a step from the same image, by the same length, leads to the same image."""
        methods = (self.loss, self.direction, self.step_)
        own_code = any(is_foreign(method) for method in methods)  # which may draw, or remember
        return self._first_batch.steady and not (own_code or self.remembers or self.eot > 1)

    def _first_(self, gradient: InputGradient, start_: Callable[..., None], state: AttackState) -> None:
        """Run the start and the first step, which chooses the target."""
        gradient.refresh()
        if self.rule == KL:
            state.target = gradient.logits(state.adv)  # [N, K]
        moved = start_(state.adv, state.clean, state.eps, state.seed, state.offset)  # type: ignore[func-returns-value]
        check_in_place(self, "start_", state.adv, moved)
        found = gradient.first(state.adv, state.target, state.seed, state.offset)
        if self.rule != "label":
            state.target = found.target
        if state.judge is not None:
            state.judge(state.adv, found.logits)
        state.without_gradient = count_zero_gradients(found.grad) if self.counting else None
        self._follow_(state, found.grad)

    def _next_(self, gradient: InputGradient, state: AttackState) -> bool:
        """Run a further step, for the target that the first one chose; return false if too few images need it."""
        if state.judge is None:
            found = gradient.further(state.adv, state.target)
        else:
            judged = gradient.further_if(state.adv, state.target, state.judge)
            if judged is None:
                return False
            found = judged
        self._follow_(state, found.grad)
        return True

    def _follow_(self, state: AttackState, grad: Tensor) -> None:
        grad = _own_memory(grad, state.adv)
        direction = self._direction(grad, state.direction)
        state.direction = _own_memory(direction, grad) if self.remembers else None
        moved = self.step_(state.adv, state.clean, direction, state.alpha, state.eps)  # type: ignore[func-returns-value]
        check_in_place(self, "step_", state.adv, moved)

    def _direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        direction = self.direction(grad, previous)
        if not isinstance(direction, Tensor):
            raise TypeError(
                f"{self.name}: direction must return a tensor like the gradient, got {type(direction).__name__}"
            )
        return direction

    def _input_gradient(self) -> InputGradient:
        """Create what computes this call's gradients, from the current options and modules."""
        model = raw_module(self.model)
        return InputGradient(
            Forward(model, self.name, auxiliary=self.aux_weight > 0),
            self.cost(self.bn),
            self.bn,
            first_batch=None if self.validate == "never" else self._first_batch,
            folding=self._folding if self._folds_bn() else None,
            compiled=self._compiled if self.compile else None,
            samples=self.eot,
        )

    def cost(self, bn: str) -> Cost:
        """What the attack increases or decreases, for a network whose BatchNorm runs in the mode ``bn``."""
        return Cost(
            self.rule,
            self.label_smoothing,
            self.aux_weight,
            mixes_examples(raw_module(self.model), bn),
            self.loss if self._has_own_loss else None,
            self.loss_name,
        )

    def _folds_bn(self) -> bool:
        if self.fast and not self.fold_bn and self.bn != "eval":
            self._folding.log_skipped(self.name, f"bn={self.bn!r} uses the batch's statistics")
        return self.fold_bn or (self.fast and self.bn == "eval")

    def _captures(self, images: Tensor) -> bool:
        by_fast = self.fast and images.is_cuda
        if by_fast and self.compile:
            self._log_no_capture("it cannot be combined with compile=True")
        if self._leaves_between_steps and (self.capture or by_fast):
            self._log_no_capture("early_stop=True reads verdicts between the steps, and images leave the batch")
            return False
        return self.capture or (by_fast and not self.compile)

    def _log_no_capture(self, reason: str) -> None:
        self._captured.log_skipped(self.name, reason, by_fast=not self.capture)

    def _captured_options(self) -> Hashable:
        """Return the options that a captured iteration cannot follow; sizes and steps are read in each call."""
        fixed = sorted((name, value) for name, value in self.options().items() if name not in _READ_IN_EACH_CALL)
        return (self.counting, *fixed)

    @property
    def warned(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`."""
        return self._first_batch.warned

    def options(self) -> dict[str, Any]:
        own = {"aux_weight": self.aux_weight, "fold_bn": self.fold_bn, "compile": self.compile, "capture": self.capture}
        goal = {"targeted": self.targeted, "targets": self.targets, "loss": self.loss_name}
        work = {"restarts": self.restarts, "eot": self.eot, "early_stop": self.early_stop}
        return {**super().options(), **own, **goal, **work}


def _copy_start_(start: Tensor, adv: Tensor, *_: Any) -> None:  # [N, C, ...] each
    adv.copy_(start)


def _own_memory(tensor: Tensor, other: Tensor) -> Tensor:
    """Return the tensor, copied if it shares memory with another one that may be written or kept."""
    return tensor.clone() if memory_of(tensor) == memory_of(other) else tensor


def refuse_costs_options(attack: GradientAttack) -> None:
    """Refuse options of the cross-entropy, for an attack whose cost has none.

    Raises:
        ValueError: if one is set.
    """
    for name in ("label_smoothing", "aux_weight"):
        if getattr(attack, name):
            raise ValueError(f"{name} must be 0 for {attack.name}, whose cost has none, got {getattr(attack, name)}")
