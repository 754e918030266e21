"""TradesTask: a loss of the clean cross-entropy and of how far an attack can move the prediction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastadv import ops
from fastadv.attacks.base import options_of
from fastadv.attacks.engine.step_sizes import check_step, checked_single_eps
from fastadv.attacks.kl import KLAttack
from fastadv.pixels import PixelSpace
from fastadv.train.tasks.base import check_minibatch, checked_options
from fastadv.train.tasks.recordable import RecordableCalls
from fastadv.train.tasks.soft_labels import are_soft
from fastadv.utils.input_hints import explain_label_errors
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.validation import check_real

_ARGUMENTS = ("alpha", "steps")  # of the task, which are options of its attack


class TradesTask(RecordableCalls):
    """TRADES (Zhang et al., 2019): trades accuracy on clean images for robustness by a regulariser.

    The loss is the mean of ``cross_entropy(f(X), y) + beta * KL(p(X) || p(X_adv))``, where X_adv increases the same
    divergence: ``steps`` steps of length alpha along the gradient's sign, within the eps ball and the pixel range,
    from X plus normal noise of standard deviation 0.255 pixel values, the authors' 0.001 for images in [0, 1]. ::

        task = TradesTask(model, eps=8, space=space)
        for images, labels in loader:
            loss = task(images, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    Examples are generated in evaluation mode, with BatchNorm's running statistics, as in the authors' code. The clean
    prediction is the same for all steps, and is computed once, where that code computes it in each: n steps take n + 1
    forward passes and n backward passes to the images.

    In the training pass, clean and adversarial images go through the network one after the other, as in the authors'
    code, so that BatchNorm normalises each by its own statistics, and both update the running ones; in one batch of 2m
    images the statistics would be mixed. The authors' code passes the clean images twice, which updates the running
    statistics a second time and draws another dropout mask; here one pass serves both terms of the loss. The
    activations of both passes are kept until the backward pass.

    In half precision, the noise can be too small to change the logits: the gradient is then zero, an image stays at its
    start, and a warning says so in the first minibatch. A larger ``noise``, such as 2 pixel values, avoids that.

    The model may be wrapped by ``DistributedDataParallel`` or ``torch.compile``: examples are generated on the raw
    module, and both forward passes go through the wrapper. With several processes, m is per process, and each draws the
    noise of its part of the minibatch.

    Args:
        model: [m, C, H, W] -> logits [m, K]; or a named tuple, a dictionary or an object that holds
            ``logits``, and possibly auxiliary logits ``aux...``, as Inception v3's does.
        beta: weight of the divergence; 6 is the authors' for CIFAR-10.
        eps: size of the perturbation in pixel values; one number for all examples. The authors use 0.031 * 255 = 7.9
            for CIFAR-10.
        space: how the images were normalised.
        alpha: length of a step in pixel values; None takes 2.5 eps / steps, which for eps 8 is 2. The authors use
            0.007 * 255 = 1.8.
        steps: number of steps.
        start_after: iterations on clean images alone before adversarial training starts.
        eps_warmup: iterations from then on in which eps grows linearly from 0, and with it an alpha that is set.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1), in the cross-entropy.
        aux_weight: weight of the same loss, with both terms, at each of the model's auxiliary logits, if it returns
            any. Their predictions for the clean and the adversarial images are compared with each other; the attack
            follows the main logits alone.
        seed: fixes the noise; None draws from PyTorch's default generator.
        attack_options: further options of the attack as a dictionary: ``noise`` (the standard deviation of the start,
            in pixel values) and those of ``fastadv.attacks.GradientAttack``, such as ``{"fast": True}``.

    Raises:
        ValueError: if beta, start_after, eps_warmup or aux_weight is negative, eps or alpha is not positive and finite,
            steps is below 1, label_smoothing is outside [0, 1), or attack_options sets what the task has arguments for.
        TypeError: if steps, start_after or eps_warmup is not an integer, or eps is not a number.

    Warns:
        UserWarning: if eps or alpha seems to be on a [0, 1] scale instead of in pixel values, or images of the first
            minibatch have a gradient of zero.
    """

    attack: KLAttack

    def __init__(
        self,
        model: nn.Module,
        *,
        beta: float = 6.0,
        eps: float,
        space: PixelSpace,
        alpha: float | None = None,
        steps: int = 10,
        start_after: int = 0,
        eps_warmup: int = 0,
        label_smoothing: float = 0.0,
        aux_weight: float = 0.4,
        seed: int | None = None,
        attack_options: dict[str, Any] | None = None,
    ) -> None:
        check_real("beta", beta, least=0)
        given = checked_options(attack_options, _ARGUMENTS, "it is an argument of the task")
        _check_names(given)
        super().__init__(
            model,
            KLAttack,
            eps=eps,
            space=space,
            start_after=start_after,
            eps_warmup=eps_warmup,
            label_smoothing=label_smoothing,
            aux_weight=aux_weight,
            seed=seed,
            attack_options={"alpha": alpha, "steps": steps, **given},
        )
        checked_single_eps(self.attack.eps)
        if self.attack.alpha is not None:
            check_step(self.attack.alpha)
        self.beta = beta

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """The loss of one minibatch; call ``backward()`` on it.

        Args:
            images: [m, C, H, W], clean; they are not modified.
            labels: [m] int64.

        Raises:
            TypeError: if images are not floating point, labels are not int64, or the model returns neither logits nor
                something that holds them as ``logits``.
            ValueError: if images are empty, require a gradient, lie outside the space or do not fit the model, there is
                not one label per image, labels are soft or not among the model's classes, or the logits are of a single
                class.
        """
        check_minibatch(images, labels)
        if are_soft(labels):
            raise ValueError(
                f"TradesTask needs one class per image, [{len(images)}] int64, got soft labels {list(labels.shape)}: "
                f"for these use AdversarialTask"
            )
        self._join_processes()
        if not self.adversarial_of(len(images)):
            return self._loss(images, labels, 0, 1.0)
        self._set_size()
        with self._counted(self.attack):
            adv = self.attack(images)  # [m, C, H, W]
        (logits, *aux), (adv_logits, *adv_aux) = self._outputs(images), self._outputs(adv)  # [m, K] each
        with explain_label_errors(type(self).__name__):
            loss = self._trades_loss(logits, adv_logits, labels)
            for of_clean, of_adv in zip(aux, adv_aux, strict=True):
                loss = loss + self.aux_weight * self._trades_loss(of_clean, of_adv, labels)
        both = torch.cat([adv_logits.detach(), logits.detach()])  # [2m, K]
        self._count_iteration(both, torch.cat([labels, labels]), len(images))
        return loss

    def adversarial_of(self, m: int) -> int:
        """How many of the next minibatch's m examples get an adversarial version: all, or none at first."""
        return m if self.iteration >= self.start_after else 0

    def _trades_loss(self, logits: Tensor, adv_logits: Tensor, labels: Tensor) -> Tensor:  # [m, K], [m, K], [m]
        return ops.trades_loss(logits, adv_logits, labels, self.beta, self.label_smoothing)

    def __repr__(self) -> str:
        return (
            f"TradesTask(attack={self.attack}, beta={self.beta}, start_after={self.start_after}, "
            f"label_smoothing={self.label_smoothing}, aux_weight={self.aux_weight}, iteration={self.iteration})"
        )


def _check_names(options: dict[str, Any]) -> None:
    """Check that the attack has these options; it is no attack that users know by its name."""
    known = options_of(KLAttack) - {"eps", "space", "seed"}
    wrong = sorted(options.keys() - known)
    if not wrong:
        return
    close = nearest(wrong[0], known)
    meant = [f"{name}, an argument of the task" if name in _ARGUMENTS else name for name in close]
    raise ValueError(
        f"attack_options must not set {', '.join(wrong)}{did_you_mean(meant)}: the attack of TradesTask has "
        f"{', '.join(sorted(known - set(_ARGUMENTS) - KLAttack.refused_options()))}"
    )
