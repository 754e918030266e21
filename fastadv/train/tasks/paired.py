"""PairedTask: train on clean and adversarial versions of the same images, at the cost of training on both."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.step_sizes import Eps
from fastadv.attacks.one_step import Draw
from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.base import AttackTask, check_minibatch, checked_options
from fastadv.train.tasks.batch_reuse import AGAIN, tracked_overwrite
from fastadv.train.tasks.passes import Passes
from fastadv.utils.input_hints import explain_gradient_errors
from fastadv.utils.module_modes import without_tracking
from fastadv.utils.modules_behind import modules_behind, runs_compiled
from fastadv.utils.validation import check_one_of, check_real

_BN = ("shared", "split")
WITHOUT_EFFECT = ("bn", "fast", "fold_bn", "compile", "capture", "eot")


BackwardFn: TypeAlias = Callable[[Tensor], None]  # takes a loss, a scalar


class _Half(NamedTuple):
    """Results of the forward and backward pass of k images.

    Args:
        logits: [k, K], detached.
        loss: mean over the images, a detached scalar.
        model_writes: True if the model overwrote its input.
    """

    logits: Tensor
    loss: Tensor
    model_writes: bool = True


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


class PairedTask(AttackTask):
    """Trains on clean images and on adversarial versions of the same images (Goodfellow et al., 2014, section 6).

    The backward pass of the clean images, which training needs anyway, also computes their gradient, so FGSM needs no
    pass of its own. On k images, :meth:`backward` runs

    1. the forward and backward pass of the clean images,
    2. one step of the attack, which overwrites the images,
    3. the forward and backward pass of the adversarial images.

    That is as many passes over examples as a clean iteration of 2k images. Fast AdvProp (Mei et al., 2022) trains for
    accuracy this way. Call :meth:`backward` instead of ``loss.backward()``::

        task = PairedTask(model, attack="fgsm", eps=8, space=space)
        for images, labels in loader:
            optimizer.zero_grad()
            loss = task.backward(images, labels)
            optimizer.step()

    The attack sees the network in training mode: BatchNorm uses the batch's statistics, and dropout is on. FGSM and the
    fast gradient methods follow the training loss itself, including auxiliary logits, and add nothing to the cost if
    their ``label_smoothing`` equals the task's. Any other cost (step l.l., step rnd., FGSM-pred, entropy, another
    smoothing) takes an additional backward pass to the images through the same activations, a sixth of the iteration.
    If torch.compile has compiled the network, it takes a separate forward and backward pass without dropout, a third.

    The model may be wrapped by ``DistributedDataParallel``: gradients are exchanged once, in the second backward pass.
    With autocast, make the whole call in its context. Gradients accumulate in ``.grad`` as usual, so call
    ``optimizer.zero_grad()`` before it, not after.

    The training loss of an image that the network is certain of can have a gradient of zero in the precision of the
    training pass; FGSM then leaves the image unchanged. Other costs are scaled so that they do not underflow.

    Args:
        model: [k, C, H, W] -> logits [k, K]; or a named tuple, a dictionary or an object that holds
            ``logits``, and possibly auxiliary logits ``aux...``, as Inception v3's does.
        attack: name of a method that takes one step along a gradient from the clean image, or your own class derived
            from ``fastadv.attacks.OneStepAttack``.
        lambda_: weight of an adversarial example in the loss; a clean one weighs 1.
        eps: size of the perturbation in pixel values: a number, or a distribution to draw from for each example.
        space: how the images were normalised.
        bn: which images update BatchNorm's running statistics: ``"shared"``, clean and adversarial ones, for a network
            that will see both; ``"split"``, only clean ones, for accuracy on clean images (AdvProp, Xie et al., 2020,
            also separates the layers' weights and biases). During training, each half is normalised by its own
            statistics either way.
        start_after: iterations on clean examples only before adversarial training starts.
        eps_warmup: iterations from then on in which eps grows linearly from 0: the first has 1 / eps_warmup of it.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the loss.
        aux_weight: weight of the same loss at each of the model's auxiliary logits, if it returns any.
        seed: fixes the attack's random draws; None draws from PyTorch's default generator.
        attack_options: further keyword arguments of ``fastadv.attacks.create``, such as ``label_smoothing``.

    Raises:
        ValueError: if ``lambda_``, start_after, eps_warmup or aux_weight is negative, label_smoothing is outside
            [0, 1), the attack is unknown, takes several steps or steps towards the labels, or attack_options sets what
            the task has arguments for or what does not apply to the training pass.
        TypeError: if start_after or eps_warmup is not an integer, or the attack is neither a name nor a class.

    Warns:
        UserWarning: if a minibatch comes a second time: the first call overwrote it, so train on fresh copies.
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
        eps_warmup: int = 0,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.4,
        seed: int | None = None,
        attack_options: dict[str, Any] | None = None,
    ) -> None:
        check_one_of("bn", bn, _BN)
        check_real("lambda_", lambda_, least=0)
        given = checked_options(attack_options, WITHOUT_EFFECT, "the gradient comes from the training pass")
        super().__init__(
            model,
            attack,
            eps=eps,
            space=space,
            start_after=start_after,
            eps_warmup=eps_warmup,
            label_smoothing=label_smoothing,
            aux_weight=aux_weight,
            seed=seed,
            attack_options={**given, "bn": "batch"},
        )
        made = self.attack
        if not isinstance(made, attacks.OneStepAttack) or not made.one_gradient or made.gradients(1.0) != 1:
            raise ValueError(
                f"attack must be a one-step method that starts from the clean image, such as fgsm or step_ll, got "
                f"{made.name}: for others use AdversarialTask or fast_task (attack.training algorithm1 or fast)"
            )
        self.attack: attacks.OneStepAttack = made
        self.bn = bn
        self.lambda_ = lambda_
        if bn == "split" and any(isinstance(module, torch.jit.ScriptModule) for module in _modules(model)):
            raise ValueError("bn='split' does not work with modules of TorchScript, whose statistics cannot be frozen")
        cost = made.cost("batch")
        self._follows_the_loss = (
            (made.rule, made.ascend, made.label_smoothing) == ("label", True, label_smoothing)
            and made.aux_weight in (0, aux_weight)
            and (cost.loss, cost.name) == (None, "ce")
        )

    def __call__(self, images: Tensor, labels: Tensor) -> NoReturn:
        raise TypeError(
            "PairedTask runs the backward passes itself: call loss = task.backward(images, labels) instead of "
            "task(images, labels) and loss.backward()"
        )

    def backward(self, images: Tensor, labels: Tensor, backward_fn: BackwardFn = _backward) -> Tensor:
        """Add the gradients of the paper's loss over both halves to the parameters' ``.grad``.

        Args:
            images: [k, C, H, W] clean images; overwritten by their adversarial versions.
            labels: [k] int64, or soft labels, probabilities [k, K], for an attack that does not use the true label.
            backward_fn: called instead of ``loss.backward()`` with the loss of each half, a scalar: for a gradient
                scaler, for accumulation, or for another library, such as ``lambda loss: scaler.scale(loss).backward()``
                or ``accelerator.backward``.

        Returns:
            The loss of all 2k images, a detached scalar; before ``start_after``, that of the k clean images.

        Raises:
            TypeError: if images are not floating point, labels are neither int64 nor soft, or the model returns neither
                logits nor something that holds them as ``logits``.
            ValueError: if images are empty, require a gradient, lie outside the space or do not fit the model, there is
                not one label per image, or soft labels are not distributions or the attack uses the true label.
            RuntimeError: under ``no_grad`` or ``inference_mode``.
        """
        check_minibatch(images, labels)
        self._check_true_labels(labels)
        if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            raise RuntimeError("PairedTask.backward needs gradients: call it outside no_grad and inference_mode")
        self._join_processes()
        if self.iteration < self.start_after:
            clean = self._half(images, labels, 1.0, backward_fn)
            self._count_iteration(clean.logits, labels, 0)
            return clean.loss
        self._set_size()
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
        """Run the clean half on images [k, C, H, W], and make them adversarial."""
        true_labels = self.attack.true_labels(labels)
        if not self._follows_the_loss and self._needs_own_pass:
            return self._clean_half_apart_(images, labels, weight, backward_fn)
        draw = self.attack.draw(images, true_labels)
        source = images.detach().requires_grad_()  # [k, C, H, W], in the same memory
        copy = source.clone()  # the model may overwrite its input
        outputs = self._outputs(copy)
        self.attack.check_logits(outputs[0].detach())
        grad = None if self._follows_the_loss else self._gradient_of_the_cost(outputs, source, true_labels, draw)
        clean = self._backward_half(outputs, labels, weight, backward_fn)
        if source.grad is None:
            raise ValueError(
                "no gradient has arrived at the images: backward_fn must call .backward() on the loss that it gets, "
                "and the model's logits must depend on the images"
            )
        self.attack.step_along_(images, source.grad if grad is None else grad, draw)
        return clean._replace(model_writes=copy._version > 0)

    def _clean_half_apart_(self, images: Tensor, labels: Tensor, weight: float, backward_fn: BackwardFn) -> _Half:
        """The same for networks whose activations serve one backward pass only: the attack makes passes of its own."""
        with self._counted(self.attack):
            adv = self.attack(images, self.attack.true_labels(labels))  # [k, C, H, W]
        clean = self._half(images.clone(), labels, weight, backward_fn)
        images.copy_(adv)
        return clean

    @cached_property
    def _needs_own_pass(self) -> bool:
        """True for compiled code, whose backward pass computes all gradients, once; and FSDP, which frees weights."""
        sharded = any(type(module).__name__ == "FullyShardedDataParallel" for module in _modules(self.model))
        return sharded or runs_compiled(self.model)

    def _expected_generation(self, k: int, eps: Eps) -> Passes:
        if self._follows_the_loss:
            return Passes()
        return super()._expected_generation(k, eps) if self._needs_own_pass else Passes(to_images=k)

    def _gradient_of_the_cost(self, outputs: list[Tensor], source: Tensor, labels: Tensor | None, draw: Draw) -> Tensor:
        """The gradient [k, C, H, W] of the attack's cost; keeps the activations for the backward pass of the loss."""
        cost = self.attack.cost("batch")
        used = outputs if cost.aux_weight else outputs[:1]
        with torch.no_grad():
            derivatives = cost.derivatives(used[0], used[1:], labels, draw.seed, draw.offset).outputs
        with explain_gradient_errors(self.attack.name), _without_autocast(source), _explain_compiled_parts():
            (grad,) = torch.autograd.grad(used, source, derivatives, retain_graph=True, allow_unused=True)
        if grad is None:
            raise ValueError(f"{self.attack.name}: the model's logits do not depend on the images")
        self.add_passes(Passes(to_images=len(source)))
        return grad

    def _half(self, images: Tensor, labels: Tensor, weight: float, backward_fn: BackwardFn) -> _Half:
        """Run both passes on images [k, C, H, W], with ``weight`` times their mean loss."""
        return self._backward_half(self._outputs(images), labels, weight, backward_fn)

    def _backward_half(self, outputs: list[Tensor], labels: Tensor, weight: float, backward_fn: BackwardFn) -> _Half:
        loss = self._loss_of(outputs, labels, 0, 1.0)
        with _without_autocast(loss):
            backward_fn(weight * loss)
        return _Half(outputs[0].detach().clone(), loss.detach())  # a CUDA graph may overwrite its outputs

    def __repr__(self) -> str:
        return (
            f"PairedTask(attack={self.attack}, lambda_={self.lambda_}, bn={self.bn!r}, start_after={self.start_after}, "
            f"label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, iteration={self.iteration})"
        )


def _modules(model: Callable[..., Any]) -> Iterator[nn.Module]:
    return (module for whole in modules_behind(model) for module in whole.modules())


@contextmanager
def _gradients_stay_here(model: Callable[..., Any]) -> Iterator[None]:
    """Context in which data-parallel wrappers do not exchange gradients.

    Raises:
        ValueError: for a wrapper that supports a single backward pass per iteration.
    """
    with ExitStack() as stack:
        inside: set[nn.Module] = set()  # parts of a wrapper that has been entered
        for module in _modules(model):
            if module in inside or not hasattr(module, "no_sync"):
                continue
            if getattr(module, "static_graph", False):
                raise ValueError("DistributedDataParallel must not have static_graph=True: an iteration has two passes")
            inside.update(module.modules())
            no_sync: Callable[[], AbstractContextManager[None]] = module.no_sync  # type: ignore[assignment]
            stack.enter_context(no_sync())
        yield


@contextmanager
def _explain_compiled_parts() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "donated buffer" not in str(error):
            raise
        raise RuntimeError(
            "a part of the model is compiled by torch.compile, whose backward pass can run only once: compile the "
            "whole model instead, or train on fgsm"
        ) from error


def _without_autocast(tensor: Tensor) -> AbstractContextManager[None]:
    """Context for backward passes, which should not run under autocast."""
    return torch.autocast(tensor.device.type, enabled=False)
