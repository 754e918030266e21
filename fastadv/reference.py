"""Every operator of :mod:`fastadv.ops` in plain PyTorch: the specification, the tests' oracle, the baseline.

Names and signatures are those of ``fastadv.ops``. Written for readability: it allocates freely and checks nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fastadv._types import ScaledKLGrad, ScaledTargetGrad, TargetGrad
from fastadv.pixels import PixelSpace

__all__ = [
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

RULES = ("label", "predicted", "least_likely", "random", "entropy")
MARGINS = ("margin", "dlr", "targeted_dlr")  # rules of target_grad as well
LOSSES = ("ce", "log_odds", *MARGINS)
NOISES = ("sign", "truncated_normal", "normal", "uniform")
NORMS = ("l2", "linf")

# Purpose of a Philox block, the last word of its counter: draws for different purposes are independent.
PURPOSE_NOISE, PURPOSE_EPS, PURPOSE_TARGET = 0, 1, 2

# Exponents of scaled derivatives: for a row of zeros, and the lowest for any other row.
EXPONENT_OF_ZERO, LOWEST_EXPONENT = -(2**30), -(2**20)

# Added to the denominator of the DLR losses, as in the authors' code.
DLR_OFFSET = 1e-12


def __dir__() -> list[str]:
    return sorted(__all__)


# --- steps -----------------------------------------------------------------------------------------------------------


def sign_step_(
    adv: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    grad: Tensor,  # [N, C, ...]
    alpha: float | Tensor,  # number or [N]
    eps: float | Tensor,  # number or [N]
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """adv <- clamp_range(clip_{clean, eps}(adv + alpha * sign(grad)))  (equation 1; section 2.2)."""
    compute = _compute_dtype(adv)
    std = _channels(space.std, adv)
    alpha, eps = _examples(alpha, adv) / std, _examples(eps, adv) / std  # [N or 1, C or 1, 1...]
    sign = torch.sign(torch.nan_to_num(grad.to(compute), nan=0.0))
    moved = adv.to(compute) + alpha * sign
    return adv.copy_(_clip(moved, clean.to(compute), eps, space, adv.dtype))


def normalized_step_(
    adv: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    grad: Tensor,  # [N, C, ...]
    alpha: float | Tensor,  # number or [N]
    eps: float | Tensor,  # number or [N]
    norm: str,
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """Step along grad / ||grad||, with one norm per example, over pixels ("fast grad. L2 / Linf", appendix A).

    The gradient with respect to pixels is grad / std. Elements that are not finite count as zero. The ball is the L2
    ball in pixel values for ``l2``, the Linf ball for ``linf``.
    """
    std = _channels(space.std, adv)
    alpha, eps = _examples(alpha, adv), _examples(eps, adv)  # [N or 1, 1, 1...]
    base = clean.to(_compute_dtype(adv))
    moved = _along_unit(adv.to(base.dtype), grad, alpha, std, norm)
    return adv.copy_(_project(moved, base, eps, std, norm, space, adv.dtype))


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
    """previous, adv <- adv, P(adv + momentum (z - adv) + (1 - momentum) (adv - previous))  (Croce & Hein, Algorithm 1).

    z is P(adv + alpha sign(grad)) or, for ``l2``, P(adv + alpha grad / ||grad||_2), where P projects onto the ball
    around clean, and then onto the pixel range.
    """
    std = _channels(space.std, adv)
    alpha, eps = _examples(alpha, adv), _examples(eps, adv)  # [N or 1, 1, 1...]
    here, before, base = (images.to(_compute_dtype(adv)) for images in (adv, previous, clean))
    if norm == "linf":
        stepped = here + alpha / std * torch.sign(torch.nan_to_num(grad.to(here.dtype), nan=0.0))
    else:
        stepped = _along_unit(here, grad, alpha, std, norm)
    z = _project(stepped, base, eps, std, norm, space, adv.dtype)
    moved = here + momentum * (z - here) + (1 - momentum) * (here - before)
    previous.copy_(adv)
    return adv.copy_(_project(moved, base, eps, std, norm, space, adv.dtype))


def keep_best_(
    best: Tensor,  # [N, ...]
    best_grad: Tensor | None,  # [N, ...]
    candidate: Tensor,  # [N, ...]
    grad: Tensor | None,  # [N, ...]
    better: Tensor,  # [N] bool
) -> Tensor:
    """Copy the examples of candidate that are better to best, and those of grad to best_grad."""
    best[better] = candidate[better]
    if best_grad is not None and grad is not None:
        best_grad[better] = grad[better]
    return best


def noise_step_(
    adv: Tensor,  # [N, C, ...]
    clean: Tensor,  # [N, C, ...]
    eps: float | Tensor,  # number or [N]
    kind: str,
    seed: int | Tensor,
    offset: int = 0,
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """adv <- clamp_range(clean + noise): the random perturbations of appendix A, and the starts of other attacks.

    ``sign``: eps * sign(N(0, 1)). ``truncated_normal``: std 0.5 eps on [-eps, eps]. ``normal``: std eps on
    [-6 eps, 6 eps]. ``uniform``: on [-eps, eps].
    """
    compute = _compute_dtype(adv)
    n, size = adv.shape[0], adv[0].numel() if adv.shape[0] else 0
    if kind == "sign":
        bits = _words(n, size, seed, offset, PURPOSE_NOISE, bits_per_word=32)  # [N, size] of 0 or 1
        noise = 1.0 - 2.0 * bits.double()
    else:
        words = _words(n, size, seed, offset, PURPOSE_NOISE)  # [N, size] 32-bit
        sign = 1.0 - 2.0 * (words & 1).double()
        fraction = ((words >> 1).double() + 0.5) * 2.0**-31  # in (0, 1)
        sizes = {
            "truncated_normal": lambda: half_normal_quantile(fraction, 2.0) / 2.0,
            "normal": lambda: half_normal_quantile(fraction, 6.0),
            "uniform": lambda: fraction,
        }
        noise = sign * sizes[kind]()
    eps = _examples(eps, adv) / _channels(space.std, adv)
    moved = clean.to(compute) + eps * noise.to(compute).view(adv.shape).to(adv.device)
    return adv.copy_(_clamp_range(moved, space, adv.dtype))


# --- pixels ----------------------------------------------------------------------------------------------------------


def from_pixels(
    pixels: Tensor,  # [N, C, ...] uint8
    mirrored: Tensor | None = None,  # [N] bool or uint8
    dtype: torch.dtype = torch.float32,
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """clamp_range((pixels - mean) / std); examples in ``mirrored`` are flipped along the last dimension."""
    images = space.from_pixels(pixels.double(), dtype)
    if mirrored is None:
        return images
    return torch.where(mirrored.bool().view(-1, *[1] * (pixels.dim() - 1)), images.flip(-1), images)


def from_pixels_(
    images: Tensor,  # [N, C, ...]
    pixels: Tensor,  # [N, C, ...] uint8
    mirrored: Tensor | None = None,  # [N] bool or uint8
    space: PixelSpace = PixelSpace.raw(),
) -> Tensor:
    """Fill images with the result of from_pixels."""
    return images.copy_(from_pixels(pixels, mirrored, images.dtype, space))


# --- per-example eps -------------------------------------------------------------------------------------------------


def sample_eps(
    n: int,
    sigma: float = 8.0,
    upper: float = 16.0,
    seed: int | Tensor = 0,
    offset: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw |N(0, sigma)| truncated to [0, upper]: [N] float32 (section 3)."""
    return truncated_normal_(torch.empty(n, dtype=torch.float32, device=device), sigma, upper, seed, offset)


def truncated_normal_(
    eps: Tensor,  # [N]
    sigma: float = 8.0,
    upper: float = 16.0,
    seed: int | Tensor = 0,
    offset: int = 0,
) -> Tensor:
    """Fill eps [N] with draws of |N(0, sigma)| truncated to [0, upper]; row i depends only on (seed, offset + i)."""
    words = _words(eps.shape[0], 1, seed, offset, PURPOSE_EPS)[:, 0]  # [N]
    fraction = ((words >> 1).double() + 0.5) * 2.0**-31
    return eps.copy_(sigma * half_normal_quantile(fraction, upper / sigma))


def half_normal_quantile(fraction: Tensor, bound: float) -> Tensor:
    """Quantile of |N(0, 1)| truncated to [0, bound]: solves erf(x / sqrt 2) = fraction * erf(bound / sqrt 2)."""
    mass, outside = math.erf(bound / math.sqrt(2.0)), math.erfc(bound / math.sqrt(2.0))
    inner = math.sqrt(2.0) * torch.erfinv(fraction * mass)  # exact for small x
    complement = (1.0 - fraction) + fraction * outside  # erfc(x / sqrt 2), exact in the tail
    quantile = torch.where(fraction * mass < 0.5, inner, -torch.special.ndtri(complement / 2.0))
    return quantile.clamp(max=bound)


# --- targets and losses ----------------------------------------------------------------------------------------------


def target_grad(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None = None,  # [N] int64
    label_smoothing: float = 0.0,
    seed: int | Tensor = 0,
    offset: int = 0,
    targets: Tensor | None = None,  # [N] int64
) -> TargetGrad:
    """Return each example's target class, and d(sum over examples of the cost) / d logits.

    The cost is the cross-entropy with the target or, for ``entropy``, the entropy of the predicted distribution. That
    of ``margin``, ``dlr`` and ``targeted_dlr`` is the loss of :func:`row_losses`.
    """
    if rule in MARGINS:
        target, derivative = _margin_grad(logits, rule, labels, targets)
        return TargetGrad(target, derivative.to(logits.dtype))
    target, relative, log_unit = _relative_grad(logits, rule, labels, label_smoothing, seed, offset)
    return TargetGrad(target, (relative * log_unit.exp()).to(logits.dtype))


def scaled_target_grad(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None = None,  # [N] int64
    label_smoothing: float = 0.0,
    seed: int | Tensor = 0,
    offset: int = 0,
    targets: Tensor | None = None,  # [N] int64
) -> ScaledTargetGrad:
    """Return target_grad as dlogits * 2**exponent; the largest element of each row of dlogits is in [0.5, 1)."""
    if rule in MARGINS:
        target, relative = _margin_grad(logits, rule, labels, targets)
        log_unit = torch.zeros_like(relative[:, :1])
    else:
        target, relative, log_unit = _relative_grad(logits, rule, labels, label_smoothing, seed, offset)
    dlogits, exponent = _scaled(relative, log_unit)
    return ScaledTargetGrad(target, dlogits.to(logits.dtype), exponent)


def _scaled(relative: Tensor, log_unit: Tensor) -> tuple[Tensor, Tensor]:
    """Return a derivative [N, K], in units with logs [N, 1], with rows times powers of two, and exponents [N]."""
    largest = relative.abs().amax(dim=1, keepdim=True)  # [N, 1]
    log2 = log_unit / math.log(2.0) + largest.log2()
    usual = largest.isfinite() & (largest > 0)
    exponent = torch.where(usual, log2.floor() + 1, 0.0).clamp(min=LOWEST_EXPONENT)
    # Exponents below the lowest are clamped: there only the unit matters.
    log_factor = torch.where(log2 < LOWEST_EXPONENT, -(2 * largest).log(), log_unit - exponent * math.log(2.0))
    scaled = relative * torch.where(usual, log_factor.exp(), 1.0)
    exponent = torch.where(largest == 0, EXPONENT_OF_ZERO, exponent)
    return scaled, exponent[:, 0].to(torch.int32)


def _relative_grad(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None,  # [N]
    label_smoothing: float,
    seed: int | Tensor,
    offset: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (target [N], the derivative [N, K] in a separate unit for each row, the unit's log [N, 1]), in float64.

    A row's derivatives add up to zero, so the target's follows from the others: for a confident network p - 1 would
    cancel to zero.
    """
    target = _target(logits, rule, labels, seed, offset)  # [N]
    z = logits.double()
    top = z.amax(dim=1, keepdim=True)  # [N, 1]
    log_sum = (z - top).logsumexp(dim=1, keepdim=True)
    log_p = z - top - log_sum  # [N, K]
    # Relative to the largest of the other classes, or their differences would vanish next to the top class.
    others = z.masked_fill(z == top, -math.inf) if rule == "entropy" else z.scatter(1, target[:, None], -math.inf)
    unit = others.amax(dim=1, keepdim=True)
    unit = torch.where(unit == -math.inf, top, unit)
    log_unit, log_q = unit - top - log_sum, z - unit  # log_p = log_unit + log_q
    if rule == "entropy":
        sign, log_size = _entropy_grad(z, top, log_p, log_q, log_unit)
    elif label_smoothing == 0:
        sign, log_size = torch.ones_like(log_p), log_q
    else:
        rest = log_p.exp() - label_smoothing / logits.shape[1]
        sign, log_size, log_unit = rest.sign(), rest.abs().log(), torch.zeros_like(log_unit)
    log_size = torch.where(log_sum.isnan(), math.nan, log_size)  # one NaN or infinity spoils the whole row
    log_size = log_size.scatter(1, target[:, None], -math.inf)
    largest = log_size.amax(dim=1, keepdim=True)
    largest = torch.where(largest == -math.inf, 0.0, largest)
    relative = sign * (log_size - largest).exp()
    return target, relative.scatter(1, target[:, None], -relative.sum(dim=1, keepdim=True)), log_unit + largest


def _entropy_grad(z: Tensor, top: Tensor, log_p: Tensor, log_q: Tensor, log_unit: Tensor) -> tuple[Tensor, Tensor]:
    """-p_j (log p_j + entropy) = p_j (d_j - sum_k p_k d_k), where d = top - z: (sign, log of its size in the unit)."""
    less = top - z  # [N, K], zero or more
    log_mean = (log_q + torch.where(z > -math.inf, less.log(), 0.0)).logsumexp(dim=1, keepdim=True)  # in the unit
    rest = less - (log_unit + log_mean).exp()
    # For the top class, or several equal ones, only the mean remains.
    log_size = torch.where(z == top, log_p + log_mean, log_q + torch.where(z > -math.inf, rest.abs().log(), 0.0))
    return torch.where(z == top, -1.0, rest.sign()), log_size


def _target(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None,  # [N]
    seed: int | Tensor,
    offset: int,
) -> Tensor:
    """Choose each example's target class, [N] int64."""
    predicted = _first_without_nan(logits)  # [N]
    if rule == "random":
        return _random_class_except(predicted, logits.shape[1], seed, offset)
    if rule == "label":
        assert labels is not None
        return labels.to(torch.int64)
    return _first_without_nan(-logits) if rule == "least_likely" else predicted


def row_losses(
    logits: Tensor,  # [N, K]
    labels: Tensor,  # [N] int64
    rule: str,
    targets: Tensor | None = None,  # [N] int64
) -> Tensor:
    """Return each example's loss [N]; a row that has NaN or +infinity gives NaN.

    ``ce``: the cross-entropy, log(1 + exp(log_odds)). ``log_odds``: log of (1 - p_y) / p_y, or logsumexp of the other
    classes' logits minus z_y. ``margin``: the largest of the other classes' logits minus z_y. ``dlr`` and
    ``targeted_dlr``: equations 6 and 7 of Croce & Hein (2020).
    """
    z = logits.double()
    if rule in MARGINS:
        gap, spread, _, _ = _margin_terms(z, labels, rule, targets)
        losses = -gap if rule == "margin" else -gap / (spread + DLR_OFFSET)
    else:
        others = z.scatter(1, labels[:, None], -math.inf).logsumexp(dim=1)  # [N]
        losses = others - z.gather(1, labels[:, None])[:, 0]
        if rule == "ce":
            losses = torch.logaddexp(losses, torch.zeros_like(losses))
    spoilt = (z.isnan() | (z == math.inf)).any(dim=1)
    return torch.where(spoilt, math.nan, losses).to(_compute_dtype(logits))


def _margin_grad(
    logits: Tensor,  # [N, K]
    rule: str,
    labels: Tensor | None,  # [N]
    targets: Tensor | None,  # [N]
) -> tuple[Tensor, Tensor]:
    """Return targets [N], or labels, and the derivative [N, K] of -gap or -gap / (spread + offset), in float64.

    A row whose gap or spread is not finite is NaN.
    """
    assert labels is not None
    target = labels if targets is None or rule != "targeted_dlr" else targets
    gap, spread, of_gap, of_spread = _margin_terms(logits.double(), labels, rule, targets)
    gap, spread = gap[:, None], spread[:, None]
    if rule == "margin":
        grad = -of_gap
    else:
        # The two products cancel exactly where the loss is constant but for the offset: only then does that count.
        numerator = (of_spread * gap - of_gap * spread) - of_gap * DLR_OFFSET
        grad = numerator / (spread + DLR_OFFSET) / (spread + DLR_OFFSET)
    return target, torch.where(gap.isfinite() & spread.isfinite(), grad, math.nan)


def _margin_terms(
    z: Tensor,  # [N, K]
    labels: Tensor,  # [N]
    rule: str,
    targets: Tensor | None,  # [N]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return z_y - z_t [N], the denominator of the DLR [N], and the derivatives of both [N, K].

    t is the target class or, if there is none, the largest of the others. Of equal logits the first comes first.
    """
    ranked = z.argsort(dim=1, descending=True, stable=True)  # [N, K]; NaN comes first
    if rule != "targeted_dlr":
        targets = torch.where(ranked[:, 0] == labels, ranked[:, 1], ranked[:, 0])
    assert targets is not None
    gap = (z.gather(1, labels[:, None]) - z.gather(1, targets[:, None]))[:, 0]
    of_gap = _one_hot(labels, z) - _one_hot(targets, z)
    if rule == "margin":
        return gap, torch.ones_like(gap), of_gap, torch.zeros_like(of_gap)
    top, low = ranked[:, :1], ranked[:, 2:3] if rule == "dlr" else ranked[:, 2:4]
    spread = (z.gather(1, top) - z.gather(1, low)).mean(dim=1)
    return gap, spread, of_gap, _one_hot(top[:, 0], z) - _one_hot(low, z).mean(dim=1)


def _one_hot(classes: Tensor, z: Tensor) -> Tensor:
    """Return classes [...] as [..., K]."""
    return torch.nn.functional.one_hot(classes, z.shape[1]).to(z.dtype)


def mixed_cross_entropy(
    logits: Tensor,  # [m, K]
    labels: Tensor,  # [m] int64
    k: int,
    lambda_: float = 0.3,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the paper's loss (section 3): rows [:k] are adversarial with weight lambda_, the other m - k are clean.

    Loss = (sum of clean losses + lambda_ * sum of adversarial losses) / ((m - k) + lambda_ * k)
    """
    m = logits.shape[0]
    wide = logits.to(_compute_dtype(logits))
    losses = torch.nn.functional.cross_entropy(wide, labels, reduction="none", label_smoothing=label_smoothing)  # [m]
    return (losses[k:].sum() + lambda_ * losses[:k].sum()) / ((m - k) + lambda_ * k)


def scaled_kl_grad(logits: Tensor, clean_logits: Tensor) -> ScaledKLGrad:  # [N, K] each
    """Differentiate KL(p || q) of each example with respect to logits, p = softmax(clean_logits), q = softmax(logits).

    The derivative q - p is returned as dlogits * 2**exponent; the largest element of each row is in [0.5, 1).
    """
    log_q, log_p = (z.double().log_softmax(dim=1) for z in (logits, clean_logits))  # [N, K]
    larger = torch.maximum(log_q, log_p)
    delta = torch.where(larger == -math.inf, 0.0, log_q - log_p)
    log_size = larger + (-torch.expm1(-delta.abs())).log()
    # A row adds up to zero, so the predicted class's element follows from the others: it would cancel if it is certain.
    predicted = _first_without_nan(clean_logits)[:, None]  # [N, 1]
    log_size = log_size.scatter(1, predicted, -math.inf)
    log_unit = log_size.amax(dim=1, keepdim=True)
    log_unit = torch.where(log_unit == -math.inf, 0.0, log_unit)
    relative = delta.sign() * (log_size - log_unit).exp()
    dlogits, exponent = _scaled(relative.scatter(1, predicted, -relative.sum(dim=1, keepdim=True)), log_unit)
    return ScaledKLGrad(dlogits.to(logits.dtype), exponent)


def trades_loss(
    logits: Tensor,  # [m, K]
    adv_logits: Tensor,  # [m, K]
    labels: Tensor,  # [m] int64
    beta: float = 6.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Compute the mean of cross-entropy(logits, label) + beta KL(softmax(logits) || softmax(adv_logits)) (TRADES)."""
    clean, adv = (z.to(_compute_dtype(z)) for z in (logits, adv_logits))
    cross_entropy = torch.nn.functional.cross_entropy(clean, labels, label_smoothing=label_smoothing)
    log_p, log_q = clean.log_softmax(dim=1), adv.log_softmax(dim=1)  # [m, K]
    return cross_entropy + beta * torch.nn.functional.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


# --- random words ----------------------------------------------------------------------------------------------------


def philox(counter: Tensor, seed: int) -> Tensor:
    """Philox 4x32-10 (Salmon et al., 2011): counter [..., 4] of 32-bit words in int64, to [..., 4] random words."""
    mask = 0xFFFFFFFF
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = seed & mask, (seed >> 32) & mask
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # 64-bit products; int64 overflow keeps their bits correct
        c0, c1, c2, c3 = (p1 >> 32 & mask) ^ c1 ^ k0, p1 & mask, (p0 >> 32 & mask) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return torch.stack((c0, c1, c2, c3), dim=-1)


def _words(n: int, size: int, seed: int | Tensor, offset: int, purpose: int, bits_per_word: int = 1) -> Tensor:
    """Return [N, size] random words, or bits if bits_per_word is 32: row i has those of example offset + i in order.

    A seed [2] is a seed and a number to add to the offset. Example indices are modulo 2^64.
    """
    if isinstance(seed, Tensor):
        seed, more = (int(number) for number in seed)
        offset = (offset + more + 2**63) % 2**64 - 2**63
    per_block = 4 * bits_per_word
    blocks = -(-size // per_block)
    counter = torch.empty(n, blocks, 4, dtype=torch.int64, device="cpu")
    example = offset + torch.arange(n, dtype=torch.int64, device="cpu")
    counter[..., 0] = torch.arange(blocks, device="cpu")
    counter[..., 1] = (example & 0xFFFFFFFF)[:, None]
    counter[..., 2] = (example >> 32 & 0xFFFFFFFF)[:, None]
    counter[..., 3] = purpose
    words = philox(counter, seed).flatten(1)  # [N, 4 * blocks]
    if bits_per_word == 32:
        words = (words[..., None] >> torch.arange(32, device="cpu") & 1).flatten(1)
    return words[:, :size]


def _first_without_nan(wide: Tensor) -> Tensor:
    """Return the first class [N] with the largest value that is not NaN; 0 if there is none."""
    largest = torch.where(wide.isnan(), -math.inf, wide).amax(dim=1, keepdim=True)
    return (wide == largest).to(torch.uint8).argmax(dim=1)


def _random_class_except(predicted: Tensor, classes: int, seed: int | Tensor, offset: int) -> Tensor:
    """Draw classes [N], uniform over all but the predicted one (with a single class, that class)."""
    if classes == 1:
        return torch.zeros_like(predicted)
    word = _words(predicted.shape[0], 1, seed, offset, PURPOSE_TARGET)[:, 0].to(predicted.device)  # [N]
    drawn = word * (classes - 1) >> 32
    return drawn + (drawn >= predicted).to(torch.int64)


# --- shapes and ranges -----------------------------------------------------------------------------------------------


def _compute_dtype(tensor: Tensor) -> torch.dtype:
    """Return float64 for float64; everything else is computed in float32 and rounded once."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _channels(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return per-channel constants [C, 1...], to broadcast over like [N, C, ...]."""
    constants = torch.tensor(values, dtype=_compute_dtype(like), device=like.device)
    return constants if len(values) == 1 else constants.view(-1, *[1] * (like.dim() - 2))


def _examples(values: float | Tensor, like: Tensor) -> Tensor:
    """Return a number, or one per example, as [1 or N, 1...], to broadcast over like [N, C, ...]."""
    constants = torch.as_tensor(values, dtype=_compute_dtype(like), device=like.device)
    return constants.view(-1, *[1] * (like.dim() - 1))


def _per_example(values: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Reduce over all dimensions but the first: [N, C, ...] to [N, 1, ...]."""
    if values[0:1].numel() == 0:
        return values.new_zeros([values.shape[0]] + [1] * (values.dim() - 1))
    return reduce(values.flatten(1), dim=1).view(-1, *[1] * (values.dim() - 1))


def _along_unit(here: Tensor, grad: Tensor, alpha: Tensor, std: Tensor, norm: str) -> Tensor:
    """Return here + alpha grad / ||grad||; alpha and the norm are in pixel values."""
    pixel_grad = grad.to(torch.float64) / std.double()  # [N, C, ...]
    pixel_grad = torch.where(pixel_grad.isfinite(), pixel_grad, 0.0)
    largest = _per_example(pixel_grad.abs(), torch.amax)  # [N, 1, 1...]
    unit = pixel_grad / torch.where(largest > 0, largest, 1.0)
    if norm == "l2":
        length = _per_example(unit.square(), torch.sum).sqrt()
        unit = unit / torch.where(length > 0, length, 1.0)
    return here + (alpha.double() * unit / std.double()).to(here.dtype)


def _project(
    moved: Tensor, clean: Tensor, eps: Tensor, std: Tensor, norm: str, space: PixelSpace, dtype: torch.dtype
) -> Tensor:
    """Project onto the ball of eps pixel values around clean, then onto the pixel range."""
    if norm == "linf":
        return _clip(moved, clean, eps / std, space, dtype)
    delta = (moved - clean).double() * std.double()  # in pixels
    distance = _per_example(torch.where(delta.isfinite(), delta, 0.0).square(), torch.sum).sqrt()
    shrink = torch.where(eps > 0, torch.where(distance > eps, eps / distance, 1.0), 0.0)
    moved = torch.where(shrink < 1, clean + (shrink * delta / std.double()).to(clean.dtype), moved)
    return _clamp_range(moved, space, dtype)


def _clip(moved: Tensor, clean: Tensor, eps: Tensor, space: PixelSpace, dtype: torch.dtype) -> Tensor:
    """Clip_{clean, eps} of section 2.1, then the pixel range."""
    return _clamp_range(torch.minimum(torch.maximum(moved, clean - eps), clean + eps), space, dtype)


def _clamp_range(moved: Tensor, space: PixelSpace, dtype: torch.dtype) -> Tensor:
    lower, upper = (_channels(bound, moved) for bound in space.bounds(dtype))
    return torch.minimum(torch.maximum(moved, lower), upper)
