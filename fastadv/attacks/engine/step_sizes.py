"""Sizes in pixel values, eps and alpha: what an attack accepts for them, and the commonest mistake in the field."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from numbers import Real

import torch
from torch import Tensor

from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.utils.stacklevel import caller_level
from fastadv.utils.validation import is_number

Eps = float | Tensor | TruncatedNormalEps


@dataclass(frozen=True)
class Size:
    """The eps of a call's examples, in pixel values.

    Args:
        eps: a number, or [N] on the images' device.
        host: gives the same numbers on the CPU, [N], where that takes no wait for a GPU.
    """

    eps: float | Tensor
    host: Callable[[], Tensor] | None = None

    @classmethod
    def given(cls, eps: float | Tensor, images: Tensor, space: PixelSpace) -> Size:
        """A number or one per image [N, C, ...].

        Raises:
            ValueError: a shape other than [N], or, on the CPU, a value that is negative or not finite.
        """
        if not isinstance(eps, Tensor):
            return cls(eps)
        wide = amount_per_example(eps, images, space)  # [N], where eps is
        return cls(wide.to(images.device), None if wide.is_cuda else lambda: wide)

    @classmethod
    def drawn(cls, eps: TruncatedNormalEps, images: Tensor, *, seed: int | Tensor, offset: int) -> Size:
        """One draw per image [N, C, ...], which is the same on every device."""
        draw = partial(eps.sample, len(images), seed=seed, offset=offset)
        return cls(draw(device=images.device), cache(draw))

    def on_host(self) -> float | Tensor:
        """A number or [N] on the CPU; waits for a GPU only if the caller's numbers lie there."""
        if not isinstance(self.eps, Tensor):
            return self.eps
        return self.eps.cpu() if self.host is None else self.host()


def checked_eps(eps: Eps, space: PixelSpace) -> Eps:
    """eps as a float, a tensor [N] or a distribution. Warns where none of it is as large as one grey level.

    Raises:
        ValueError: an eps that is negative or not finite.
        TypeError: an eps of another kind.
    """
    if isinstance(eps, Tensor) and eps.dim() > 0:
        return eps  # its values are looked at when its length can be, too
    if isinstance(eps, TruncatedNormalEps):
        largest = eps.upper
    else:
        if not isinstance(eps, (Real, Tensor)) or isinstance(eps, bool):
            raise TypeError(
                f"eps must be a number, a tensor [N] or a TruncatedNormalEps, in pixel values, got {type(eps).__name__}"
            )
        eps = largest = float(eps)
        if not 0 <= largest < float("inf"):
            raise ValueError(f"eps must be zero or more and finite, in pixel values of [0, 255], got {eps}")
    warn_below("eps", largest, 1.0, space)
    return eps


def checked_number(eps: Eps) -> float:
    """A checked eps that is one positive number, where sizes that differ have no place.

    Raises:
        ValueError: zero.
        TypeError: a tensor [N] or a distribution.
    """
    if not isinstance(eps, float):
        raise TypeError(f"eps must be one number for all examples, in pixel values, got {type(eps).__name__}")
    if eps == 0:
        raise ValueError("eps must be positive: without a perturbation this is standard training")
    return eps


def checked_alpha(alpha: float, space: PixelSpace) -> float:
    """alpha as a float; 0 stands still. Warns of a step below a tenth of a grey level: 1 / 255, not 0.5.

    Raises:
        ValueError: an alpha that is negative or not finite.
    """
    if not is_number(alpha) or alpha < 0:
        got = f"a tensor {list(alpha.shape)}" if isinstance(alpha, Tensor) else alpha
        raise ValueError(f"alpha must be zero or more and finite, in pixel values, got {got}")
    warn_below("alpha", float(alpha), 0.1, space)
    return float(alpha)


def check_step(alpha: float) -> None:
    """Refuse a training whose examples would not move.

    Raises:
        ValueError: an alpha of 0.
    """
    if alpha == 0:
        raise ValueError("alpha must be positive: without a step no example of this training is adversarial")


def amount_per_example(eps: Tensor, images: Tensor, space: PixelSpace) -> Tensor:
    """eps [N] in the dtype that the operators compute in.

    Raises:
        ValueError: a shape other than [N], or, on the CPU, a value that is negative or not finite.
    """
    if eps.shape != images.shape[:1]:
        raise ValueError(f"eps per example must have shape [{images.shape[0]}], got {list(eps.shape)}")
    if eps.device.type == "cpu":  # elsewhere a look would be a wait
        if not (eps.isfinite() & (eps >= 0)).all():
            raise ValueError(f"eps must be zero or more and finite for every example, got {eps.tolist()}")
        warn_below("eps", float(eps.max()), 1.0, space)
    return eps.detach().to(torch.float64 if images.dtype == torch.float64 else torch.float32)


def warn_below(name: str, largest: float, grey_levels: float, space: PixelSpace) -> None:
    width = space.upper - space.lower
    if 0 < largest < grey_levels * width / 255:
        scale, factor = ("[0, 1]", width) if largest <= 1 else ("[0, 255]", width / 255)
        warnings.warn(
            f"{name} = {largest:g} is in pixel values of [{space.lower:g}, {space.upper:g}], so it is less than "
            f"{'one grey level' if grey_levels == 1 else f'{grey_levels:g} grey levels'} of 255; "
            f"an {name} of {largest:g} on a {scale} scale is {name} = {factor * largest:g} here",
            stacklevel=caller_level(),
        )
