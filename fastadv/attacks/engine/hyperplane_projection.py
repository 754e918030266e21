"""The shortest move within the pixel range onto a hyperplane, which FAB computes twice in each of its steps."""

from __future__ import annotations

import torch
from torch import Tensor

from fastadv.attacks.engine.pixel_box import PixelBox


def move_onto_hyperplane(images: Tensor, normal: Tensor, gap: Tensor, box: PixelBox, norm: str) -> Tensor:
    """Return the least moves within the box that raise ``(normal * images).sum()`` by ``gap``, or as far as it allows.

    Elements move towards the hyperplane or not at all. With a speed v_i, which is 1 / std_i in Linf and |w_i| / std_i^2
    in L2, and the room r_i up to its bound, the least move has the lengths min(r_i, t v_i), for the t at which
    sum_i |w_i| min(r_i, t v_i) = |gap|, as the conditions of Lagrange say.

    Args:
        images: [N, C, ...], inside the box.
        normal: [N, C, ...], w. An example whose w is zero or not finite stays where it is.
        gap: [N].
        box: the pixel range.
        norm: of the move in pixel values, ``"linf"`` or ``"l2"``.

    Returns:
        [N, C, ...], in float32 or float64.
    """
    every = tuple(range(1, normal.dim()))
    largest = torch.linalg.vector_norm(normal, torch.inf, every, keepdim=True)  # [N, 1, ...]
    usable = (largest > 0) & (largest < torch.inf)
    gap = torch.where(usable, gap.view_as(largest) / largest, 0)
    normal = torch.where(usable, normal / largest, 0)  # so that products of two elements do not underflow
    rises = normal * gap.sign() > 0
    room = torch.where(rises, box.upper - images, images - box.lower).masked_fill_(normal == 0, 0)
    weight = normal.abs()
    speed = weight / box.std**2 if norm == "l2" else 1 / box.std
    length = torch.minimum(room, _time(weight, room, speed, gap.abs(), every) * speed)
    return torch.where(rises, length, -length)


def _time(weight: Tensor, room: Tensor, speed: Tensor, gap: Tensor, every: tuple[int, ...]) -> Tensor:  # [N, 1, ...]
    """Return the t at which elements that run at their speeds, each until its room ends, have closed the gap.

    The sum of the weighted lengths is a piecewise linear and concave function of t. Newton's method from the left meets
    each piece at most once and ends at the exact t, mostly after a few passes, which cost less than to sort the pieces.
    """
    gain, spent = weight * speed, weight * room  # [N, C, ...] each
    most = torch.finfo(gap.dtype).max
    time = torch.zeros_like(gap)
    while True:
        running = room > time * speed  # [N, C, ...]
        left = gap - spent.masked_fill(running, 0).sum(every, keepdim=True)  # [N, 1, ...]
        reached = (left / (gain * running).sum(every, keepdim=True)).nan_to_num_(0, most).clamp_(max=most)
        if not (reached > time).any():
            return time
        time = torch.maximum(time, reached)
