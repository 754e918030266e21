"""PairedTask: train on every image twice, clean and adversarial, at the cost of one pass over twice the images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.one_step import Draw
from fastadv.distributed import ALONE, current
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.adversarial import MinibatchTask, check_minibatch, check_state, checked_options
from fastadv.train.tasks.batch_reuse import AGAIN, tracked_overwrite
from fastadv.train.tasks.soft_labels import are_soft
from fastadv.utils.input_hints import explain_gradient_errors
from fastadv.utils.module_modes import without_tracking
from fastadv.utils.modules_behind import runs_compiled
from fastadv.utils.validation import check_count, check_one_of, check_real

_BN = ("shared", "split")
_WITHOUT_EFFECT = ("bn", "fast", "fold_bn", "compile", "capture")


BackwardFn: TypeAlias = Callable[[Tensor], None]  # of a loss []


class _Half(NamedTuple):
    """What is kept of the forward and backward pass of k images.

    Args:
        logits: [k, K], detached.
        loss: [], the mean over the images, detached.
        model_writes: whether the model overwrote its input.
    """

    logits: Tensor
    loss: Tensor
    model_writes: bool = True


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


class PairedTask(MinibatchTask):
    """Trains on clean images and on adversarial versions of the same images (Goodfellow et al., 2014, section 6).

    Training needs the backward pass of the clean images anyway, and that pass gives the gradient to the images as well:
    FGSM costs no pass of its own. :meth:`backward` runs, on k images,

    1. the forward and backward pass of the clean images,
    2. one step of the attack, which overwrites the images,
    3. the forward and backward pass of the adversarial images,

    as many passes over examples as a clean iteration of 2k images. Fast AdvProp (Mei et al., 2022) trains for accuracy
    in this way. Call it in place of ``loss.backward()``::

        task = PairedTask(model, attack="fgsm", eps=8, space=space)
        for images, labels in loader:
            optimizer.zero_grad()
            loss = task.backward(images, labels)
            optimizer.step()

    The attack sees the network as it trains: BatchNorm with the batch's statistics, dropout switched on. FGSM and the
    fast gradient methods follow the training loss itself, auxiliary logits included, and cost nothing more, if their
    ``label_smoothing`` is the task's. Every other cost (step l.l., step rnd., FGSM-pred, entropy, another smoothing)
    takes one more backward pass to the images, through the same activations: a sixth of the iteration. For a network
    that torch.compile has compiled it takes a forward and backward pass of its own, without dropout: a third.

    The model may be wrapped by ``DistributedDataParallel``: gradients travel once, in the second backward pass. Under
    autocast, call the whole method in the context. Gradients add up in ``.grad`` as always.

    Args:
        model: [k, C, H, W] -> logits [k, K], or, like Inception v3, a named tuple of logits and auxiliary logits.
        attack: name of a one-step method that follows a gradient from the clean image, or a class derived from
            ``fastadv.attacks.OneStepAttack``.
        lambda_: weight of an adversarial example in the loss; a clean one has weight 1.
        eps: size of the perturbation in pixel values: a number, or a distribution to draw from for each example.
        space: how the images were normalised.
        bn: which images move BatchNorm's running statistics: clean and adversarial ones (``"shared"``), for a network
            that will see both, or clean ones alone (``"split"``), for accuracy on clean images, as AdvProp (Xie et al.,
            2020) evaluates. In training each half is normalised by its own statistics either way.
        start_after: iterations on clean examples alone before adversarial training starts.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the loss.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any.
        seed: fixes the attack's random draws; None draws from PyTorch's default generator.
        attack_options: further keyword arguments of ``fastadv.attacks.create``, such as ``label_smoothing``.

    Raises:
        ValueError: if ``lambda_``, start_after or aux_weight is negative, label_smoothing is outside [0, 1), the attack
            is unknown, takes several steps or steps towards the labels, or attack_options has names that the task sets
            or that have no effect on the training pass.
        TypeError: if start_after is not an integer, or the attack is neither a name nor a class.

    Warns:
        UserWarning: if a minibatch comes a second time. The first call overwrote it: train on fresh copies.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        attack: str | type[attacks.Attack] = "fgsm",
        lambda_: float = 0.3,
        eps: float | TruncatedNormalEps = TruncatedNormalEps(),
        space: PixelSpace,
        bn: str = "shared",
        start_after: int = 0,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.4,
        seed: int | None = None,
        attack_options: dict[str, Any] | None = None,
    ) -> None:
        check_count("start_after", start_after, least=0)
        check_real("lambda_", lambda_, least=0)
        check_one_of("bn", bn, _BN)
        given = checked_options(attack_options, ("eps", "space", "seed"), "it is an argument of the task")
        checked_options(given, _WITHOUT_EFFECT, "it has no effect on the training pass, which makes the gradient")
        super().__init__(model, label_smoothing=label_smoothing, aux_weight=aux_weight)
        options: dict[str, Any] = {"eps": eps, "space": space, "seed": seed, "bn": "batch"}
        made = attacks.create(attack, model, **options | given)
        if not isinstance(made, attacks.OneStepAttack) or made.starts_elsewhere:
            raise ValueError(
                f"attack must be a one-step method that starts from the clean image, such as fgsm or step_ll, got "
                f"{made.name}: for others use AdversarialTask or fast_task"
            )
        made.true_labels(None)  # refuses targeted methods here rather than in the first call
        self.attack = made
        self._follows_the_loss = (
            (made.rule, made.ascend, made.label_smoothing) == ("label", True, label_smoothing)
            and made.aux_weight in (0, aux_weight)
            and made.cost("batch").loss is None
        )
        self.lambda_ = lambda_
        self.bn = bn
        self.start_after = start_after
        self._processes = ALONE
        self._join_processes()

    def __call__(self, images: Tensor, labels: Tensor) -> NoReturn:
        raise TypeError(
            "PairedTask runs its backward passes itself: call loss = task.backward(images, labels) in place of "
            "task(images, labels) and loss.backward()"
        )

    def backward(self, images: Tensor, labels: Tensor, backward_fn: BackwardFn = _backward) -> Tensor:
        """Add the gradients of the paper's loss of both halves to the parameters' ``.grad``.

        Args:
            images: [k, C, H, W], clean; overwritten by their adversarial versions.
            labels: [k] int64, or soft labels, probabilities [k, K], for an attack that does not use the true label.
            backward_fn: called in place of ``loss.backward()`` with the loss [] of each half, for a gradient scaler,
                accumulation or another library: ``lambda loss: scaler.scale(loss).backward()``,
                ``accelerator.backward``.

        Returns:
            The loss [] of all 2k images, detached; of the k clean ones before ``start_after``.

        Raises:
            TypeError: if images are not floating point, labels are neither int64 nor soft, or the model returns neither
                logits nor a named tuple that begins with them.
            ValueError: if images require a gradient, lie outside the space or do not fit the model, if there are none,
                or if the number of labels differs; for soft labels with an attack that uses the true label.
        """
        check_minibatch(images, labels)
        if self.attack.needs_labels and are_soft(labels):
            raise ValueError(
                f"{self.attack.name} uses the true label, and soft labels {list(labels.shape)} do not have one: choose "
                f"an attack that does without, such as step_ll"
            )
        self._join_processes()
        if self.iteration < self.start_after:
            clean = self._half(images, labels, 1.0, backward_fn)
            self._count_iteration(clean.logits, labels, 0)
            return clean.loss
        of_clean, of_adversarial = 1 / (1 + self.lambda_), self.lambda_ / (1 + self.lambda_)
        with tracked_overwrite(images) as again:
            if again:
                warnings.warn(AGAIN, stacklevel=2)
            with _gradients_stay_here(self.model):
                clean = self._clean_half_(images, labels, of_clean, backward_fn)
        with without_tracking(self.model) if self.bn == "split" else nullcontext():
            shown = images.clone() if clean.model_writes else images  # [k, C, H, W]
            adversarial = self._half(shown, labels, of_adversarial, backward_fn)
        both = torch.cat([adversarial.logits, clean.logits])  # [2k, K]
        self._count_iteration(both, torch.cat([labels, labels]), len(images))
        return of_clean * clean.loss + of_adversarial * adversarial.loss

    def _clean_half_(self, images: Tensor, labels: Tensor, weight: float, backward_fn: BackwardFn) -> _Half:
        """The clean half of images [k, C, H, W], which are adversarial afterwards."""
        true_labels = self.attack.true_labels(labels)
        if runs_compiled(self.model) and not self._follows_the_loss:
            clean = self._half(images.clone(), labels, weight, backward_fn)
            self.attack.perturb_(images, true_labels)
            return clean
        draw = self.attack.draw(images, true_labels)
        source = images.detach().requires_grad_()  # [k, C, H, W], another tensor in the same memory
        copy = source.clone()  # the model may overwrite what it is given
        outputs = self._outputs(copy)
        grad = None if self._follows_the_loss else self._gradient_of_the_cost(outputs, source, true_labels, draw)
        clean = self._backward_half(outputs, labels, weight, backward_fn)
        grad = source.grad if grad is None else grad
        if grad is None:
            raise ValueError(f"{self.attack.name}: the model's logits do not depend on the images")
        self.attack.step_along_(images, grad, draw)
        return clean._replace(model_writes=copy._version > 0)

    def _gradient_of_the_cost(self, outputs: list[Tensor], source: Tensor, labels: Tensor | None, draw: Draw) -> Tensor:
        """The gradient [k, C, H, W] of the attack's cost, which keeps the activations for the training loss."""
        cost = self.attack.cost("batch")
        used = outputs if cost.aux_weight else outputs[:1]
        with torch.no_grad():
            _, derivatives = cost.derivatives(used[0], used[1:], labels, draw.seed, draw.offset)
        with explain_gradient_errors(self.attack.name), _without_autocast(source):
            (grad,) = torch.autograd.grad(used, source, derivatives, retain_graph=True, allow_unused=True)
        return grad

    def _half(self, images: Tensor, labels: Tensor, weight: float, backward_fn: BackwardFn) -> _Half:
        """Forward and backward pass of images [k, C, H, W], whose mean loss weighs ``weight``."""
        return self._backward_half(self._outputs(images), labels, weight, backward_fn)

    def _backward_half(self, outputs: list[Tensor], labels: Tensor, weight: float, backward_fn: BackwardFn) -> _Half:
        loss = self._loss_of(outputs, labels, 0, 1.0)
        with _without_autocast(loss):
            backward_fn(weight * loss)
        return _Half(outputs[0].detach(), loss.detach())

    def _join_processes(self) -> None:
        """Split the attack's draws among the processes as they are now: the group may be younger than the task."""
        processes = current()
        if processes != self._processes:  # else a split of the user's own stays
            self._processes = processes
            self.attack.stream.split(processes.rank, processes.world_size)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs: where the delayed start and the attack's random draws stand.

        Without a ``seed`` draws follow PyTorch's default generator, which is not in it: save ``torch.get_rng_state()``.
        """
        return {"iteration": self.iteration, "stream": self.attack.stream.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: if another object's ``state_dict`` made it.
        """
        check_state("a PairedTask", ("iteration", "stream"), state)
        self.iteration = state["iteration"]
        self.attack.stream.load_state_dict(state["stream"])

    def __repr__(self) -> str:
        return (
            f"PairedTask(attack={self.attack}, lambda_={self.lambda_}, bn={self.bn!r}, start_after={self.start_after}, "
            f"label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, iteration={self.iteration})"
        )


def _gradients_stay_here(model: object) -> AbstractContextManager[None]:
    """A context in which a data-parallel wrapper, itself compiled or not, sends no gradients."""
    while not hasattr(model, "no_sync") and isinstance(getattr(model, "_orig_mod", None), nn.Module):
        model = model._orig_mod  # type: ignore[attr-defined]
    no_sync: Callable[[], AbstractContextManager[None]] = getattr(model, "no_sync", nullcontext)
    return no_sync()


def _without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """The caller's autocast is for forward passes."""
    return torch.autocast(tensor.device.type, enabled=False)
