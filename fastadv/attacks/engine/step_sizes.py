"""eps and alpha in pixel values: what an attack accepts, and warnings for values on another scale."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from numbers import Real

import torch
from torch import Tensor

from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.suggestions import unit_scale_hint
from fastadv.utils.validation import is_number

Eps = float | Tensor | TruncatedNormalEps


@dataclass(frozen=True)
class Size:
    """The eps of a call's examples, in pixel values.

    Args:
        eps: a number, or [N] on the images' device.
        host: returns the same numbers on the CPU, [N], if that needs no wait for a GPU.
    """

    eps: float | Tensor
    host: Callable[[], Tensor] | None = None

    @classmethod
    def given(cls, eps: float | Tensor, images: Tensor, space: PixelSpace, ball: str | None = "linf") -> Size:
        """Create the size from a number, or from one per image [N, C, ...].

        Raises:
            ValueError: if the shape is not [N], or, on the CPU, if a value is out of range, see ``checked_eps``.
        """
        if not isinstance(eps, Tensor):
            return cls(eps)
        wide = eps_per_example(eps, images, space, ball)  # [N], where eps is
        return cls(wide.to(images.device), None if wide.is_cuda else lambda: wide)

    @classmethod
    def drawn(cls, eps: TruncatedNormalEps, images: Tensor, *, seed: int | Tensor, offset: int) -> Size:
        """Draw one eps per image [N, C, ...]; the draws are the same on every device."""
        draw = partial(eps.sample, len(images), seed=seed, offset=offset)
        return cls(draw(device=images.device), cache(draw))

    def rows(self, index: Tensor) -> Size:
        """The size of some of the examples, by their rows [r]."""
        if not isinstance(self.eps, Tensor):
            return self
        host = self.host
        return Size(self.eps[index], None if host is None else lambda: host()[index.cpu()])

    def on_host(self) -> float | Tensor:
        """Return a number, or [N] on the CPU; waits for a GPU only if the caller's numbers lie there."""
        if not isinstance(self.eps, Tensor):
            return self.eps
        return self.eps.cpu() if self.host is None else self.host()


def checked_eps(eps: Eps, space: PixelSpace, ball: str | None = "linf") -> Eps:
    """Return eps as a float, a tensor [N] or a distribution; warn if even its largest value is below one grey level.

    Args:
        eps: in pixel values.
        space: of the images.
        ball: the norm that eps bounds, see :class:`fastadv.attacks.Attack`. An L2 norm has no largest useful value.

    Raises:
        ValueError: if eps is negative, not finite, or larger than the whole pixel range.
        TypeError: if eps is of another type.
    """
    if isinstance(eps, Tensor) and eps.dim() > 0:
        return eps  # its values are checked together with its length
    if isinstance(eps, TruncatedNormalEps):
        largest = eps.upper
    else:
        if not isinstance(eps, (Real, Tensor)) or isinstance(eps, bool):
            raise TypeError(
                f"eps must be a number, a tensor [N] or a TruncatedNormalEps, in pixel values, "
                f"got {type(eps).__name__}{unit_scale_hint(eps)}"
            )
        eps = largest = float(eps)
        if not 0 <= largest < float("inf"):
            raise ValueError(f"eps must be zero or more and finite, in pixel values of [0, 255], got {eps}")
    _check_largest(largest, space, ball)
    _warn_below("eps", largest, 1.0, space)
    return eps


def checked_single_eps(eps: Eps) -> float:
    """Return a checked eps that must be one positive number for all examples.

    Raises:
        ValueError: if it is zero.
        TypeError: if it is a tensor [N] or a distribution.
    """
    if not isinstance(eps, float):
        raise TypeError(f"eps must be one number for all examples, in pixel values, got {type(eps).__name__}")
    if eps == 0:
        raise ValueError("eps must be positive: without a perturbation this is standard training")
    return eps


def checked_alpha(alpha: float, space: PixelSpace) -> float:
    """Return alpha as a float; 0 leaves images in place. Warn if it is below a tenth of a grey level.

    Half a grey level is a step that people take; 1 / 255 is probably meant for images in [0, 1].

    Raises:
        ValueError: if alpha is negative, not finite or not a number.
    """
    if not is_number(alpha) or alpha < 0:
        got = f"a tensor {list(alpha.shape)}" if isinstance(alpha, Tensor) else repr(alpha)
        raise ValueError(f"alpha must be zero or more and finite, in pixel values, got {got}{unit_scale_hint(alpha)}")
    _warn_below("alpha", float(alpha), 0.1, space)
    return float(alpha)


def are_equal(sizes: Sequence[float | Tensor], counts: Sequence[int]) -> bool:
    """True if each example's steps, of which it takes so many, all have the same length. Waits for the device.

    Args:
        sizes: of each step, numbers or [N].
        counts: number of steps of each of the N examples.
    """
    if not any(isinstance(size, Tensor) for size in sizes):
        return len(set(sizes)) == 1
    first, taken = torch.as_tensor(sizes[0]), torch.tensor(counts)
    return all(
        size is sizes[0] or bool((torch.as_tensor(size) == first).cpu().logical_or(taken <= step).all())
        for step, size in enumerate(sizes)
    )


def check_step(alpha: float) -> None:
    """Refuse a training method whose examples would not move.

    Raises:
        ValueError: if alpha is 0.
    """
    if alpha == 0:
        raise ValueError("alpha must be positive: without a step no example of this training is adversarial")


def eps_per_example(eps: Tensor, images: Tensor, space: PixelSpace, ball: str | None = "linf") -> Tensor:
    """Return eps [N] in the dtype that the operators compute in.

    Raises:
        ValueError: if the shape is not [N], or, on the CPU, if a value is out of range, see ``checked_eps``.
    """
    if eps.shape != images.shape[:1]:
        raise ValueError(f"eps per example must have shape [{images.shape[0]}], got {list(eps.shape)}")
    if eps.device.type == "cpu":  # reading values from a GPU would wait for it
        if not (eps.isfinite() & (eps >= 0)).all():
            raise ValueError(f"eps must be zero or more and finite for every example, got {eps.tolist()}")
        largest = float(eps.max())
        _check_largest(largest, space, ball)
        _warn_below("eps", largest, 1.0, space)
    return eps.detach().to(torch.float64 if images.dtype == torch.float64 else torch.float32)


def _check_largest(largest: float, space: PixelSpace, ball: str | None) -> None:
    width = space.upper - space.lower
    if largest > width and ball != "l2":
        raise ValueError(
            f"eps must be at most {width:g}, the whole pixel range [{space.lower:g}, {space.upper:g}] of {space}, "
            f"got {largest:g}"
        )


def _warn_below(name: str, largest: float, grey_levels: float, space: PixelSpace) -> None:
    width = space.upper - space.lower
    if 0 < largest < grey_levels * width / 255:
        scale, factor = ("[0, 1]", width) if largest <= 1 else ("[0, 255]", width / 255)
        warnings.warn(
            f"{name} = {largest:g} is in pixel values of [{space.lower:g}, {space.upper:g}], so it is less than "
            f"{'one grey level' if grey_levels == 1 else f'{grey_levels:g} grey levels'} of 255; "
            f"an {name} of {largest:g} on a {scale} scale is {name} = {factor * largest:g} here",
            stacklevel=user_stacklevel(),
        )
