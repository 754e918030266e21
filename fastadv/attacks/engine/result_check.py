"""Checks that an attack's results lie in the eps ball and in the pixel range."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from fastadv.pixels import PixelSpace
from fastadv.pixels.range_check import channel_extremes, pixel_extremes, rounding_slack
from fastadv.utils import devices
from fastadv.utils.stacklevel import user_stacklevel

NORMS = {"linf": "Linf", "l2": "L2"}
_CHECKED = ("run_", "step_")  # the methods of an attack that have to stay in both


def has_own_code(attack: Any) -> bool:
    """True if a class outside this package moves the images: the package's own operators stay in the ball."""
    return any(is_foreign(getattr(attack, method, None)) for method in _CHECKED)


def is_foreign(method: Any) -> bool:
    """True of code outside this package."""
    return method is not None and str(getattr(method, "__module__", "")).partition(".")[0] != "fastadv"


def check_in_place(attack: Any, method: str, images: Tensor, returned: object) -> None:
    """Refuse what a method returned if it is not the images that it should have changed.

    Raises:
        TypeError: if it is neither None nor ``images``.
    """
    if returned is not None and returned is not images:
        raise TypeError(
            f"{attack.name}: {type(attack).__name__}.{method} must change its first argument in place and return "
            f"nothing, got a {type(returned).__name__}: end it with adv.copy_(...)"
        )


def check_result(attack: Any, adv: Tensor, clean: Tensor, eps: float | Tensor) -> None:
    """Refuse results outside the eps ball or the pixel range by more than rounding, and warn if no image has moved.

    Waits for a GPU.

    A batch inside a CUDA graph that the caller captures cannot be read, and is not checked.

    Args:
        attack: has a ``name``, a ``space`` and a ``ball``, see :class:`fastadv.attacks.Attack`.
        adv: [N, C, ...], N > 0.
        clean: [N, C, ...], inside the pixel range.
        eps: radius of the ball in pixel values, a number or [N].

    Raises:
        ValueError: if a value is not finite or lies outside.
    """
    check = _check
    if torch.compiler.is_compiling():  # the graph ends here anyway, and no message can hold its symbolic numbers
        check = torch.compiler.disable(check)  # type: ignore[no-untyped-call]
    check(attack, adv, clean, eps)


def _check(attack: Any, adv: Tensor, clean: Tensor, eps: float | Tensor) -> None:
    if devices.is_captured(adv):
        return
    space: PixelSpace = attack.space
    slack = rounding_slack(space, adv.dtype)
    low, high = pixel_extremes(channel_extremes(adv, space).cpu(), space)
    if not math.isfinite(high - low):
        raise ValueError(f"{_made_by(attack)} are not all finite: as pixels they span [{low:g}, {high:g}]")
    moves = bool((eps > 0).any()) if isinstance(eps, Tensor) else eps > 0
    if moves and not attack.stops_early and torch.equal(adv, clean):  # which stay where they fool the model already
        warnings.warn(
            f"{_made_by(attack)} are the clean images: the method must write to adv in place, as by adv.copy_(...), "
            f"not assign another tensor to the name",
            stacklevel=user_stacklevel(),
        )
    excess = max(space.lower - low, high - space.upper)
    if excess > slack:
        raise ValueError(
            f"{_made_by(attack)} leave the pixel range [{space.lower:g}, {space.upper:g}] of {space} by {excess:.3g}: "
            f"as pixels they span [{low:.6g}, {high:.6g}]. {_advice(attack)}"
        )
    if attack.ball is None:
        return
    distance = _distances(adv, clean, attack.ball, space)  # [N]
    allowed = slack * (math.sqrt(adv[0].numel()) if attack.ball == "l2" else 1.0)
    beyond = distance - torch.as_tensor(eps, dtype=distance.dtype, device=adv.device)  # [N]
    worst = int(beyond.argmax())
    if beyond[worst] > allowed:
        radius = float(distance[worst] - beyond[worst])
        raise ValueError(
            f"{_made_by(attack)} leave the eps ball: image {worst} of this batch is {float(distance[worst]):.4g} pixel "
            f"values from its clean image in the {NORMS[attack.ball]} norm, and eps is {radius:g}. {_advice(attack)}, "
            f"or set ball = None in the class if it leaves the ball on purpose"
        )


def _made_by(attack: Any) -> str:
    own = [f"{type(attack).__name__}.{name}" for name in _CHECKED if is_foreign(getattr(attack, name, None))]
    return f"{attack.name}: the images that {' and '.join(own)} made"


def _advice(attack: Any) -> str:
    return (
        "A step has to end inside both: call super().step_, or an operator such as fastadv.ops.sign_step_, with the "
        "clean images and eps (alpha and eps are in pixel values, the images in the model's input space)"
    )


def _distances(adv: Tensor, clean: Tensor, norm: str, space: PixelSpace) -> Tensor:  # [N, C, ...] -> [N]
    wide = torch.promote_types(adv.dtype, torch.float32)
    std = torch.tensor(space.std, dtype=wide, device=adv.device)  # [C] or [1]
    shape = [-1, *[1] * (adv.dim() - 2)] if len(std) > 1 else [1]
    delta = (adv.to(wide) - clean.to(wide)).mul_(std.view(shape)).flatten(1)  # in pixels
    distances: Tensor = torch.linalg.vector_norm(delta, 2 if norm == "l2" else math.inf, dim=1)
    return distances
