"""The shortest move within a box onto a hyperplane: what FAB computes twice in each of its steps."""

from __future__ import annotations

import torch
from torch import Tensor


def move_onto_hyperplane(normal: Tensor, gap: Tensor, down: Tensor, up: Tensor, norm: str, std: Tensor) -> Tensor:
    """Return the move of least norm that raises ``normal . x`` by ``gap``, or as far as the box allows.

    Each element moves towards the hyperplane or not at all. With its speed v_i, 1 / std_i in Linf and |w_i| / std_i^2
    in L2, and the room r_i before its bound, the shortest move has the lengths m_i = min(r_i, t v_i), for the t with
    sum_i |w_i| m_i = |gap| (Croce and Hein, 2020a, section 3.1 and appendix A: the Lagrange conditions of equations 6
    and 7).

    Args:
        normal: [N, C, ...], w. An example whose normal is zero or not finite stays where it is.
        gap: [N].
        down: [N, C, ...], how far each element may fall, at least 0.
        up: [N, C, ...], how far it may rise.
        norm: ``"linf"`` or ``"l2"``, of the move times ``std``.
        std: broadcasts over an example; the pixel values in a unit of its channel.

    Returns:
        [N, C, ...]: within [-down, up], exactly.
    """
    every = tuple(range(1, normal.dim()))
    per_example = (-1, *[1] * len(every))
    largest = torch.linalg.vector_norm(normal, torch.inf, every, keepdim=True)  # [N, 1, ...]
    usable = (largest > 0) & (largest < torch.inf)
    gap = torch.where(usable, gap.view(per_example) / largest, 0)
    # Relative to the largest, so that products of two do not underflow; a zero gap keeps those in place that stay.
    normal = torch.where(usable, normal / largest, 0)
    rises = normal * gap.sign() > 0
    weight = normal.abs()
    room = torch.where(rises, up, down).where(weight > 0, 0)
    speed = weight / std**2 if norm == "l2" else 1 / std
    length = torch.minimum(room, _time(weight, room, speed, gap.abs(), every) * speed)
    return torch.where(rises, length, -length)


def _time(weight: Tensor, room: Tensor, speed: Tensor, gap: Tensor, every: tuple[int, ...]) -> Tensor:  # [N, 1, ...]
    """Return the t at which elements that run at their speeds until their room ends have closed the gap.

    The weighted sum of the lengths is piecewise linear and concave in t. Newton's method from the left meets each piece
    at most once, so it ends at the exact t, after a few steps where sorting all ends of pieces would cost more than a
    pass of a small network.
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
