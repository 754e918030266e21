"""Fused operators: each does in one pass over memory what eager PyTorch does in five to fifty.

``fastadv.reference`` has the same functions in plain PyTorch. All are registered as ``torch.ops.fastadv.*``, work under
``torch.compile(fullgraph=True)``, and take float32, float64, bfloat16 and float16 tensors, contiguous or channels_last
(other layouts are copied to a dense one, once). Half precision is computed in float32 and rounded once.
:func:`from_pixels` converts uint8 images to such tensors.

``alpha`` and ``eps`` are in pixel values, a number or one per example. Operators with a trailing ``_`` mutate their
first argument in place; it must not require grad, because autograd does not see the mutation.
"""

from __future__ import annotations

import re
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastadv._types import ScaledKLGrad, ScaledTargetGrad, TargetGrad
from fastadv.pixels import MOST_CHANNELS, PixelSpace, check_space

try:
    from fastadv import _C as _C  # registers torch.ops.fastadv
except ImportError as error:
    raise ImportError(
        f"the compiled operators of fastadv cannot be loaded ({error}). Python imported the package from "
        f"{Path(__file__).parent}; if that is the source tree, start Python elsewhere to use the installed package, "
        "or build in place: pip install --no-build-isolation --editable ."
    ) from error

__all__ = [
    "ScaledKLGrad",
    "ScaledTargetGrad",
    "TargetGrad",
    "apgd_step_",
    "from_pixels",
    "from_pixels_",
    "keep_best_",
    "mixed_cross_entropy",
    "noise_step_",
    "normalized_step_",
    "row_losses",
    "sample_eps",
    "scaled_kl_grad",
    "scaled_target_grad",
    "sign_step_",
    "target_grad",
    "trades_loss",
    "truncated_normal_",
]

_ops = torch.ops.fastadv


def __dir__() -> list[str]:
    return sorted(__all__)


def sign_step_(
    adv: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    grad: Tensor,  # [N, C, ...]
    alpha: float | Tensor,  # number or [N]
    eps: float | Tensor,  # number or [N]
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """Step along the gradient's sign, and clip to the eps ball and the pixel range (equation 1; section 2.2).

    ``adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad)))``, with sign(0) = sign(NaN) = 0.

    Args:
        adv: [N, C, ...] model inputs, mutated in place.
        clean: the clean inputs, like ``adv``; pass ``adv`` itself for the first (or only) step.
        grad: the gradient of the cost with respect to ``adv``.
        alpha: step in pixel values, a number or [N]; a negative alpha descends.
        eps: radius of the Linf ball in pixel values, a number or [N].
        space: how pixels map to the model's input.

    Returns:
        ``adv``.

    Raises:
        ValueError: if shapes, devices or strides differ, memory overlaps, eps is negative or NaN, or adv requires grad.
            (Per-example values on a GPU are not read: a negative or NaN eps counts as 0 there.)
        TypeError: if dtypes are not floating or differ.
    """
    work = _dense(adv)
    base, grad = None if clean is adv else _like(work, "clean", clean), _like(work, "grad", grad)
    amounts = (*_amount("alpha", alpha, adv), *_amount("eps", eps, adv))
    _run(_ops.sign_step_.default, work, base, grad, *amounts, *_constants(space, adv))
    return _finish(adv, work)


def normalized_step_(
    adv: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    grad: Tensor,  # [N, C, ...]
    alpha: float | Tensor,  # number or [N]
    eps: float | Tensor,  # number or [N]
    norm: str,
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """Step along the gradient divided by its norm, per example ("fast grad. L2" and "Linf", appendix A).

    The norm and the ball are in pixel values: the gradient with respect to pixels is ``grad / std``. It is normalised
    exactly, however small it is; an all-zero gradient gives a zero step, and elements that are not finite count as 0.

    Args:
        norm: ``"l2"``, with the L2 ball of radius eps, or ``"linf"``, with the Linf ball.

    The other arguments, the result and the errors are those of :func:`sign_step_`.
    """
    work = _dense(adv)
    base, grad = None if clean is adv else _like(work, "clean", clean), _like(work, "grad", grad)
    amounts = (*_amount("alpha", alpha, adv), *_amount("eps", eps, adv))
    _run(_ops.normalized_step_.default, work, base, grad, *amounts, norm, *_constants(space, adv))
    return _finish(adv, work)


def apgd_step_(
    adv: Tensor,  # [N, C, ...]
    previous: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    grad: Tensor,  # [N, C, ...]
    alpha: float | Tensor,  # number or [N]
    eps: float | Tensor,  # number or [N]
    space: PixelSpace = PixelSpace.raw(),
    *,
    norm: str = "linf",
    momentum: float = 0.75,
) -> Tensor:
    """Step with momentum, and project onto the ball and the pixel range (APGD: Croce & Hein, 2020, Algorithm 1).

    ``previous, adv <- adv, P(adv + momentum * (z - adv) + (1 - momentum) * (adv - previous))``, where
    ``z = P(adv + alpha * sign(grad))``, or for ``norm="l2"``, ``z = P(adv + alpha * grad / ||grad||_2)``. P projects
    onto the ball of radius eps around ``clean``, and then clamps to the pixel range. In the Linf ball this is one pass,
    with four reads and two writes an element.

    Args:
        adv: [N, C, ...] model inputs, mutated in place.
        previous: the iterate before ``adv``, mutated in place: ``adv`` as it was before this step. At the first step a
            copy of ``adv``.
        clean: the clean inputs, like ``adv`` but in memory of their own.
        grad: the gradient of the loss with respect to ``adv``. For ``l2``, elements that are not finite count as 0,
            and an all-zero gradient gives ``z = P(adv)``, as in :func:`normalized_step_`.
        alpha: step in pixel values, a number or [N]; a negative alpha descends.
        eps: radius of the ball in pixel values, a number or [N].
        space: how pixels map to the model's input.
        norm: ``"linf"`` or ``"l2"``, of the ball and the step.
        momentum: weight of the new step, in [0, 1]; what is left is the weight of the previous one. The authors' is
            0.75, and 1 at the first step.

    The result and the errors are those of :func:`sign_step_`; an unknown norm or another momentum raises ValueError.
    """
    work = _dense(adv)
    _refuse_grad("previous", previous)
    before, base, grad = (
        _like(work, name, other) for name, other in (("previous", previous), ("clean", clean), ("grad", grad))
    )
    amounts = (*_amount("alpha", alpha, adv), *_amount("eps", eps, adv))
    _run(_ops.apgd_step_.default, work, before, base, grad, *amounts, norm, momentum, *_constants(space, adv))
    _finish(previous, before)
    return _finish(adv, work)


def keep_best_(
    best: Tensor,  # [N, ...]
    best_grad: Tensor | None,  # [N, ...]
    candidate: Tensor,  # [N, ...]
    grad: Tensor | None,  # [N, ...]
    better: Tensor,  # [N] bool
) -> Tensor:
    """Copy the examples that are better from ``candidate`` to ``best``, and from ``grad`` to ``best_grad``.

    An attack keeps its best iterate by this, and returns to it with the arguments exchanged. Examples that are not
    better are neither read nor written.

    Args:
        best: [N, ...], mutated in place.
        best_grad: the gradient at ``best``, mutated in place, or None.
        candidate: like ``best``.
        grad: the gradient at ``candidate``, or None.
        better: which examples to copy.

    Returns:
        ``best``.

    Raises:
        ValueError: if shapes, devices or strides differ, memory overlaps, one of the gradients is missing, or a
            tensor to be mutated requires grad.
        TypeError: if dtypes are not floating or differ, or ``better`` is not bool.
    """
    work = _dense(best, "best")
    candidate = _like(work, "candidate", candidate)
    _require_tensor("better", better, best)
    work_grad = best_grad
    if best_grad is not None:
        _refuse_grad("best_grad", best_grad)
        work_grad = _like(work, "best_grad", best_grad)
    if grad is not None:
        grad = _like(work, "grad", grad)
    _run(_ops.keep_best_.default, work, work_grad, candidate, grad, better.contiguous())
    if best_grad is not None and work_grad is not None:
        _finish(best_grad, work_grad)
    return _finish(best, work)


def noise_step_(
    adv: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    eps: float | Tensor,  # number or [N]
    kind: str,
    seed: int | Tensor | None = None,
    offset: int = 0,
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """``adv <- clamp_range(clean + noise)``: the random perturbations of appendix A, and starts of other attacks.

    The kernel generates the noise with Philox 4x32-10. The noise of row i depends only on (seed, offset + i) and the
    position in the image: it is the same on CPU and GPU, in either layout, for any split of the batch.

    Args:
        adv: [N, C, ...] model inputs, overwritten in place.
        clean: the clean inputs; ``adv`` itself is allowed.
        eps: size of the noise in pixel values, a number or [N].
        kind: ``"sign"``: eps * sign(N(0, 1)); ``"truncated_normal"``: standard deviation 0.5 eps, truncated to
            [-eps, eps]; ``"normal"``: standard deviation eps, truncated to [-6 eps, 6 eps], which keeps all but 2e-9
            of the distribution; ``"uniform"`` on [-eps, eps].
        seed: the stream of random numbers; None draws one from torch's default generator. A tensor [2], int64 on the
            device of ``adv``, has a seed and a number to add to ``offset``. The kernel reads it, so that a captured
            CUDA graph draws new numbers on each replay if the tensor has changed.
        offset: index of the first example in the stream.
        space: how pixels map to the model's input.

    The result and the errors are those of :func:`sign_step_`; an unknown kind raises ValueError.
    """
    work = _dense(adv)
    base = None if clean is adv else _like(work, "clean", clean)
    amount, constants = _amount("eps", eps, adv), _constants(space, adv)
    _run(_ops.noise_step_.default, work, base, *amount, kind, *_stream(seed, offset, adv.device), *constants)
    return _finish(adv, work)


def from_pixels(
    pixels: Tensor,  # [N, C, ...] uint8
    mirrored: Tensor | None = None,  # [N] bool or uint8
    dtype: torch.dtype = torch.float32,
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """Convert decoded images to a model's input: normalise, clamp to the pixel range and mirror in one pass.

    The 256 values of a channel are computed once, in float64, and looked up: the result equals that of
    :meth:`PixelSpace.from_pixels` to the last bit. On the CPU, one thread computes each example.

    Args:
        pixels: [N, C, ...] uint8, values in 0..255.
        mirrored: [N] bool or uint8, which examples to flip along their last dimension, the images' width; None flips
            none.
        dtype: floating dtype of the result.
        space: how pixels map to the model's input; at most 32 channels with different constants.

    Returns:
        [N, C, ...] of ``dtype``, channels_last if the pixels are, else contiguous.

    Raises:
        ValueError: if the space does not describe the channels, ``mirrored`` has the wrong shape or device, or the
            images to mirror have no width.
        TypeError: if pixels are not uint8, ``mirrored`` is neither bool nor uint8, or the dtype is not floating.
    """
    _require_tensor("pixels", pixels)
    pixels = pixels if _is_dense(pixels) else pixels.contiguous()
    return from_pixels_(torch.empty_like(pixels, dtype=dtype), pixels, mirrored, space)


def from_pixels_(
    images: Tensor,  # [N, C, ...]
    pixels: Tensor,  # [N, C, ...] uint8
    mirrored: Tensor | None = None,  # [N] bool or uint8
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """Fill ``images`` [N, C, ...] in place with the result of :func:`from_pixels` for ``pixels``.

    Raises:
        ValueError: as for :func:`from_pixels`, or if shapes or devices differ, memory overlaps, or images require grad.
        TypeError: as for :func:`from_pixels`.
    """
    work = _dense(images, "images")
    pixels = _like(work, "pixels", pixels)
    if mirrored is not None:
        _require_tensor("mirrored", mirrored, images)
        mirrored = mirrored.contiguous()
    std, *bounds = _constants(space, images)
    _run(_ops.from_pixels_.default, work, pixels, mirrored, space.mean[: len(std)], std, *bounds)
    return _finish(images, work)


def sample_eps(
    n: int,
    sigma: float = 8.0,
    upper: float = 16.0,
    seed: int | Tensor | None = None,
    offset: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw a perturbation size per example: ``|N(0, sigma)|`` truncated to [0, upper] (section 3).

    The distribution is exact: draws use the inverse distribution function, without rejection.

    Args:
        n: number of examples.
        sigma: standard deviation of the underlying normal distribution, in pixel values.
        upper: the largest eps, in pixel values.
        seed: the stream of random numbers, None, or a tensor [2], as for :func:`noise_step_`.
        offset: index of the first example: row i depends only on (seed, offset + i).
        device: where to draw; the numbers are the same on all devices.

    Returns:
        [N] float32.

    Raises:
        ValueError: if n or offset is negative, or sigma or upper is not positive and finite.
    """
    device = torch.device(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    eps: Tensor = _run(_ops.sample_eps.default, n, sigma, upper, *_stream(seed, offset, device), device=device)
    return eps


def truncated_normal_(
    eps: Tensor,  # [N]
    sigma: float = 8.0,
    upper: float = 16.0,
    seed: int | Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Fill ``eps`` [N] with the draws of :func:`sample_eps`, in place; the errors are the same."""
    _refuse_grad("eps", eps)
    _run(_ops.truncated_normal_.default, eps, sigma, upper, *_stream(seed, offset, eps.device))
    return _finish(eps, eps)


def target_grad(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None = None,  # [N] int64
    label_smoothing: float = 0.0,
    seed: int | Tensor | None = None,
    offset: int = 0,
    targets: Tensor | None = None,  # [N] int64
) -> TargetGrad:
    """Choose each example's target class and differentiate its cost with respect to the logits, in one pass.

    The cost is the cross-entropy with the target (or the entropy of the prediction), summed over the batch rather
    than averaged, so that an example's gradient does not depend on its batch. The target's ``p - 1`` is computed as a
    sum over the other classes, so that it does not cancel to zero for a confident network. float16 still rounds
    derivatives below 3e-8 to zero: if only the gradient's direction matters, use :func:`scaled_target_grad`.

    ``"margin"``, ``"dlr"`` and ``"targeted_dlr"`` differentiate the loss of :func:`row_losses`, which is zero but for
    the label, the other class of the margin, and the first, third and fourth largest logits. Among equal logits the
    lower class is the larger. The row is NaN if one of these logits is not finite.

    Args:
        logits: [N, K].
        rule: ``"label"``, ``"predicted"`` (argmax), ``"least_likely"`` (argmin), ``"random"`` (uniform over the
            classes that are not predicted), ``"entropy"`` (its target is the predicted class), ``"margin"``, ``"dlr"``
            or ``"targeted_dlr"``.
        labels: [N] int64; required by ``"label"``, ``"margin"``, ``"dlr"`` and ``"targeted_dlr"``, ignored by the other
            rules.
        label_smoothing: in [0, 1), of the cross-entropy.
        seed, offset: the random numbers for ``"random"``, as for :func:`noise_step_`.
        targets: [N] int64; required by ``"targeted_dlr"``, ignored by the other rules.

    Returns:
        ``target`` [N] int64 (of ``"margin"`` and ``"dlr"``, the label) and ``dlogits`` [N, K] in the logits' dtype.

    Raises:
        ValueError: if the rule is unknown, there are fewer classes than it needs (2 for ``"margin"``, 3 for ``"dlr"``,
            4 for ``"targeted_dlr"``), labels or targets are missing or out of range, or shapes are wrong. (On a GPU
            neither is read beforehand: one out of range gives a gradient of NaN.)
        TypeError: if logits are not floating, or labels or targets are not int64.
    """
    operator = _ops.target_grad.default
    return TargetGrad(*_target_grad(operator, logits, rule, labels, label_smoothing, seed, offset, targets))


def scaled_target_grad(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None = None,  # [N] int64
    label_smoothing: float = 0.0,
    seed: int | Tensor | None = None,
    offset: int = 0,
    targets: Tensor | None = None,  # [N] int64
) -> ScaledTargetGrad:
    """Compute :func:`target_grad` with each row times a power of two, so that it does not underflow.

    The largest element of each row is between 0.5 and 1. The sign and the direction of the gradient are unchanged,
    however confident the network is: exponentials that would underflow are taken relative to the largest of the other
    classes.

    Returns:
        ``target`` and ``dlogits`` as for :func:`target_grad`, and ``exponent`` [N] int32: the derivative is
        ``dlogits * 2**exponent``. A row of zeros has the exponent -2^30, a row that is not finite has 0. If the
        derivative itself is subnormal, its largest element stays below 0.5.

    The arguments and the errors are those of :func:`target_grad`.
    """
    operator = _ops.scaled_target_grad.default
    return ScaledTargetGrad(*_target_grad(operator, logits, rule, labels, label_smoothing, seed, offset, targets))


def row_losses(
    logits: Tensor,  # [N, K]
    labels: Tensor,  # [N] int64
    rule: str,
    targets: Tensor | None = None,  # [N] int64
) -> Tensor:
    """Compute the loss of each example, in one pass: what an attack that keeps its best iterate compares.

    With z_1 >= z_2 >= ... the logits in order, and y the label:

    - ``"ce"``: the cross-entropy. That of a confident network does not vanish until it underflows.
    - ``"log_odds"``: logsumexp of the other classes' logits minus z_y, or log((1 - p_y) / p_y). The cross-entropy is
      log(1 + exp(log_odds)): they increase together, but this never rounds to zero.
    - ``"margin"``: the largest of the other classes' logits minus z_y, positive if y is not predicted.
    - ``"dlr"``: that over (z_1 - z_3), the difference of logits ratio (Croce & Hein, 2020, equation 6).
    - ``"targeted_dlr"``: (z_t - z_y) / (z_1 - (z_3 + z_4) / 2), t the target (equation 7).

    As in the authors' code, 1e-12 is added to the denominators: where all of the largest logits are equal, they are
    that.

    Args:
        logits: [N, K].
        labels: [N] int64.
        rule: which loss.
        targets: [N] int64; required by ``"targeted_dlr"``, ignored by the others.

    Returns:
        [N] float32, or float64 for float64 logits. A row that has NaN or +infinity gives NaN. Not differentiable:
        :func:`target_grad` and :func:`scaled_target_grad` compute the derivatives.

    Raises:
        ValueError: if the rule is unknown, there are fewer classes than it needs (2 for ``"margin"``, 3 for ``"dlr"``,
            4 for ``"targeted_dlr"``), targets are missing, labels or targets are out of range, or shapes are wrong.
            (On a GPU, a label or target out of range gives NaN.)
        TypeError: if logits are not floating, or labels or targets are not int64.
    """
    _require_tensor("logits", logits)
    _require_tensor("labels", labels, logits)
    logits, targets = logits.detach().contiguous(), _classes("targets", targets, logits)
    losses: Tensor = _run(_ops.row_losses.default, logits, labels.contiguous(), rule, targets)
    return losses


def mixed_cross_entropy(
    logits: Tensor,  # [m, K]
    labels: Tensor,  # [m] int64
    k: int,
    lambda_: float = 0.3,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the paper's loss of a minibatch of m examples, whose first k are adversarial (section 3).

    ``(sum of the clean losses + lambda_ * sum of the adversarial losses) / ((m - k) + lambda_ * k)``

    Differentiable once, in reverse mode, with respect to the logits. The gradient is computed in the same pass, and
    kept in float32 for half-precision logits, so that scaling the loss does not make it overflow or underflow.

    Args:
        logits: [m, K].
        labels: [m] int64.
        k: number of adversarial examples, in the first rows; 0 gives the mean cross-entropy.
        lambda_: weight of an adversarial example, relative to a clean one.
        label_smoothing: in [0, 1).

    Returns:
        The loss, a scalar; float32 for half-precision logits.

    Raises:
        ValueError: if k is outside [0, m], ``lambda_`` is negative, no example has a weight, shapes are wrong, or
            labels are out of range (on a GPU this gives a loss of NaN).
        TypeError: if logits are not floating or labels are not int64.
        RuntimeError: for second derivatives and forward-mode differentiation.
    """
    _require_tensor("logits", logits)
    _refuse_forward_mode("mixed_cross_entropy", logits)
    _require_tensor("labels", labels, logits)
    loss, _ = _run(
        _ops.mixed_cross_entropy.default, logits.contiguous(), labels.contiguous(), k, lambda_, label_smoothing
    )
    return loss  # type: ignore[no-any-return]


def scaled_kl_grad(logits: Tensor, clean_logits: Tensor) -> ScaledKLGrad:  # [N, K] each
    """Differentiate KL(p || q) of each example with respect to logits, p = softmax(clean_logits), q = softmax(logits).

    This is the cost that TRADES increases (Zhang et al., 2019), summed over the batch. Its derivative ``q - p`` is
    computed from the differences of the logits, so that it is exact where q and p nearly agree, as at the attack's
    start, or where both round to 1. As in :func:`scaled_target_grad`, each row is multiplied by a power of two, so that
    it does not underflow.

    Args:
        logits: [N, K], of the adversarial images.
        clean_logits: [N, K], of the clean images, in the same dtype.

    Returns:
        ``dlogits`` [N, K] in the logits' dtype, whose rows have a largest element between 0.5 and 1, and ``exponent``
        [N] int32: the derivative is ``dlogits * 2**exponent``. Rows of zeros, such as those of equal logits, and rows
        that are not finite have the exponents of :func:`scaled_target_grad`.

    Raises:
        ValueError: if shapes or devices differ, or logits are not [N, K].
        TypeError: if logits are not floating, or dtypes differ.
    """
    _require_tensor("logits", logits)
    _require_tensor("clean_logits", clean_logits, logits)
    logits, clean_logits = logits.detach().contiguous(), clean_logits.detach().contiguous()
    return ScaledKLGrad(*_run(_ops.scaled_kl_grad.default, logits, clean_logits))


def trades_loss(
    logits: Tensor,  # [m, K]
    adv_logits: Tensor,  # [m, K]
    labels: Tensor,  # [m] int64
    beta: float = 6.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the loss of TRADES: the clean cross-entropy, and how far the prediction is moved (Zhang et al., 2019).

    ``mean(cross_entropy(logits, labels) + beta * KL(softmax(logits) || softmax(adv_logits)))``, a mean over the m
    images.

    Differentiable once, in reverse mode, with respect to both logits; as in the authors' code, the gradient also flows
    through the clean prediction in the divergence. It is computed in the same pass, and kept in float32 for
    half-precision logits, so that scaling the loss does not make it overflow or underflow. The divergence is a sum of
    terms that are never negative, so that it does not cancel for predictions that nearly agree.

    Args:
        logits: [m, K], of the clean images.
        adv_logits: [m, K], of their adversarial versions, in the same dtype.
        labels: [m] int64.
        beta: weight of the divergence; 6 is the authors' for CIFAR-10.
        label_smoothing: in [0, 1), of the cross-entropy.

    Returns:
        The loss, a scalar; float32 for half-precision logits.

    Raises:
        ValueError: if beta is negative or not finite, shapes are wrong, there is no example, or labels are out of range
            (on a GPU this gives a loss of NaN).
        TypeError: if logits are not floating, dtypes differ, or labels are not int64.
        RuntimeError: for second derivatives and forward-mode differentiation.
    """
    _require_tensor("logits", logits)
    _require_tensor("adv_logits", adv_logits, logits)
    _refuse_forward_mode("trades_loss", logits, adv_logits)
    _require_tensor("labels", labels, logits)
    both = logits.contiguous(), adv_logits.contiguous()
    loss, *_ = _run(_ops.trades_loss.default, *both, labels.contiguous(), beta, label_smoothing)
    return loss  # type: ignore[no-any-return]


def _target_grad(
    operator: Any,
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None,  # [N]
    label_smoothing: float,
    seed: int | Tensor | None,
    offset: int,
    targets: Tensor | None,  # [N]
) -> Any:
    _require_tensor("logits", logits)
    logits = logits.detach().contiguous()
    stream = _stream(seed, offset, logits.device) if rule == "random" else (0, 0, None)
    labels, targets = _classes("labels", labels, logits), _classes("targets", targets, logits)
    return _run(operator, logits, rule, labels, label_smoothing, *stream, targets)


def _classes(name: str, classes: Tensor | None, logits: Tensor) -> Tensor | None:
    if classes is None:
        return None
    _require_tensor(name, classes, logits)
    return classes.contiguous()


# --- arguments -------------------------------------------------------------------------------------------------------


def _dense(images: Tensor, name: str = "adv") -> Tensor:
    """Return images in a layout that the kernels support: a copy only if it is neither contiguous nor channels_last."""
    _refuse_grad(name, images)
    return images if _is_dense(images) else images.contiguous()


def _require_tensor(name: str, value: Tensor, beside: Tensor | None = None) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    # Checked here because the dispatcher's own error does not name the argument.
    if beside is not None and value.device != beside.device:
        raise ValueError(f"{name} must be on {beside.device}, got {value.device}")


def _refuse_forward_mode(op: str, *tensors: Tensor) -> None:
    if torch.compiler.is_compiling():
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):  # type: ignore[no-untyped-call]
        raise RuntimeError(f"{op} has no forward-mode derivative")


def _refuse_grad(name: str, tensor: Tensor) -> None:
    _require_tensor(name, tensor)
    if tensor.requires_grad:
        raise ValueError(f"{name} is mutated in place and must not require grad: pass {name}.detach()")


def _is_dense(tensor: Tensor) -> bool:
    if tensor.is_contiguous():
        return True
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.dim() in formats and tensor.is_contiguous(memory_format=formats[tensor.dim()])


def _like(work: Tensor, name: str, other: Tensor) -> Tensor:
    """Return ``other`` with the strides of ``work``; the operator reports a wrong shape itself."""
    _require_tensor(name, other, work)
    if other.requires_grad:
        other = other.detach()
    if other.shape != work.shape or _strides(other) == _strides(work):
        return other
    return torch.empty_like(work, dtype=other.dtype, device=other.device).copy_(other)


def _strides(tensor: Tensor) -> list[int]:
    """Return the strides of dimensions larger than 1: others are arbitrary, as after ``image[None]``."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1]


def _finish(adv: Tensor, work: Tensor) -> Tensor:
    """Report the mutation to autograd, which does not see what a C++ operator writes; copy back if adv was copied."""
    if work is not adv:
        return adv.copy_(work)
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(adv)
    return adv


def _amount(name: str, value: float | Tensor, adv: Tensor) -> tuple[float, Tensor | None]:
    """Return (number, None), or (1, one factor per example in the kernels' compute dtype)."""
    if not isinstance(value, Tensor):
        if not isinstance(value, Real):
            raise TypeError(f"{name} must be a number or a tensor of shape [N], got {type(value).__name__}")
        if not torch.compiler.is_compiling():
            return float(value), None
        # A number would be a constant of the compiled function, and each new value would recompile it.
        value = torch.ones((), dtype=torch.float64, device=adv.device) * value
    _require_tensor(name, value, adv)
    if value.is_complex():
        raise TypeError(f"{name} must be real, got {value.dtype}")
    if value.dim() == 0:
        value = value.expand(adv.shape[:1])
    return 1.0, value.detach().to(torch.float64 if adv.dtype == torch.float64 else torch.float32).contiguous()


def _constants(space: PixelSpace, adv: Tensor) -> tuple[tuple[float, ...], ...]:
    check_space(space)
    constants = (space.std, *space.bounds(adv.dtype))
    if not space.uniform or space.channels <= MOST_CHANNELS:  # with fewer, the operator checks the channels itself
        return constants
    space.check_form(adv)
    return tuple(values[:1] for values in constants)


def _stream(seed: int | Tensor | None, offset: int, device: torch.device) -> tuple[int, int, Tensor | None]:
    """Return (seed, offset, tensor [2] or None), as the operators take them."""
    if isinstance(seed, Tensor):
        if seed.device != device:
            raise ValueError(f"rng_state must be on {device}, got {seed.device}")
        return 0, offset, seed
    if torch.compiler.is_compiling():
        # Numbers would be constants of the compiled function, and each new offset would recompile it.
        return 0, 0, torch.stack((_number(seed, device), _number(offset, device)))
    if seed is None:
        seed = int(torch.randint(2**63 - 1, (), device="cpu"))
    elif isinstance(seed, Integral) and not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must fit into 64 bits, got {seed}")
    return seed, offset, None


def _number(value: int | None, device: torch.device) -> Tensor:
    """Return a scalar int64 tensor; random if there is no value."""
    if value is None:
        return torch.randint(2**63 - 1, (), device=device)
    return torch.full((), value, dtype=torch.int64, device=device)


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    if torch.compiler.is_compiling():
        return op(*args, **kwargs)
    try:
        return op(*args, **kwargs)
    except RuntimeError as error:
        _raise_python(error)


_MARKED = re.compile(r"^(ValueError|TypeError|RuntimeError|OutOfMemoryError): (.*)", re.DOTALL)
_EXCEPTIONS = {
    "ValueError": ValueError,
    "TypeError": TypeError,
    "RuntimeError": RuntimeError,
    "OutOfMemoryError": torch.OutOfMemoryError,
}
# Before 2.13 torch names the failed call but not the reason; creating an empty tensor can hardly fail otherwise.
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|^torch_call_dispatcher\(\s*\"aten::(new_)?empty\"", re.IGNORECASE
)
_OF_ANOTHER_TYPE = re.compile(
    r"^fastadv::(\w+)\(\) Expected a value of type '(.+?)' for argument '(\w+)' .*?^Value: (.*?)$",
    re.DOTALL | re.MULTILINE,
)


def _raise_python(error: RuntimeError) -> NoReturn:
    """Raise the exception that a check in csrc/checks named: all C++ exceptions reach Python as RuntimeError."""
    message = str(error)
    marked = _MARKED.match(message)
    if marked:
        raise _EXCEPTIONS[marked[1]](marked[2]) from None
    mismatch = _OF_ANOTHER_TYPE.match(message)  # the dispatcher's message, which shows the whole schema
    if mismatch:
        op, expected, argument, got = mismatch.groups()
        raise TypeError(f"fastadv.{op}: {argument} must be of type {expected}, got {got}") from None
    if _NO_MEMORY.search(message):
        raise torch.OutOfMemoryError(f"no memory for a result or a workspace: {message}") from None
    raise error


# --- fake implementations and autograd -------------------------------------------------------------------------------


@torch.library.register_fake("fastadv::sample_eps")  # type: ignore[untyped-decorator]
def _(
    n: int, sigma: float, upper: float, seed: int, offset: int, stream: Tensor | None, *, device: torch.device
) -> Tensor:
    return torch.empty(n, dtype=torch.float32, device=device)


@torch.library.register_fake("fastadv::target_grad")  # type: ignore[untyped-decorator]
def _(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    return logits.new_empty(logits.shape[0], dtype=torch.int64), torch.empty_like(logits)


@torch.library.register_fake("fastadv::scaled_target_grad")  # type: ignore[untyped-decorator]
def _(logits: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    target, exponent = (logits.new_empty(logits.shape[0], dtype=dtype) for dtype in (torch.int64, torch.int32))
    return target, torch.empty_like(logits), exponent


@torch.library.register_fake("fastadv::row_losses")  # type: ignore[untyped-decorator]
def _(logits: Tensor, *others: Any) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=_compute_dtype(logits))


@torch.library.register_fake("fastadv::scaled_kl_grad")  # type: ignore[untyped-decorator]
def _(logits: Tensor, clean_logits: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(logits), logits.new_empty(logits.shape[0], dtype=torch.int32)


@torch.library.register_fake("fastadv::mixed_cross_entropy")  # type: ignore[untyped-decorator]
def _(logits: Tensor, labels: Tensor, k: int, lambda_: float, label_smoothing: float) -> tuple[Tensor, Tensor]:
    wide = _compute_dtype(logits)
    return logits.new_empty((), dtype=wide), torch.empty_like(logits, dtype=wide)


@torch.library.register_fake("fastadv::trades_loss")  # type: ignore[untyped-decorator]
def _(
    logits: Tensor, adv_logits: Tensor, labels: Tensor, beta: float, label_smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    wide = _compute_dtype(logits)
    of_clean, of_adv = (torch.empty_like(each, dtype=wide) for each in (logits, adv_logits))
    return logits.new_empty((), dtype=wide), of_clean, of_adv


def _compute_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _register_loss(name: str, *, logits: int) -> None:
    """Register the backward pass of a loss that returns itself and its derivatives by its first arguments, logits."""

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, *derivatives = output
        ctx.dtype, ctx.others = inputs[0].dtype, len(inputs) - logits
        ctx.save_for_backward(*derivatives)
        ctx.mark_non_differentiable(*derivatives)

    def backward(ctx: Any, dloss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if (
            torch.is_grad_enabled()
        ):  # the saved derivative does not depend on the logits, so differentiating it would silently miss a term
            raise RuntimeError(f"{name} is differentiable once: it has no create_graph=True")
        return *((dloss * derivative).to(ctx.dtype) for derivative in ctx.saved_tensors), *[None] * ctx.others

    torch.library.register_autograd(f"fastadv::{name}", backward, setup_context=save)


_register_loss("mixed_cross_entropy", logits=1)
_register_loss("trades_loss", logits=2)
