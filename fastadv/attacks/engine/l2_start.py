"""Random starts in the L2 ball."""

from __future__ import annotations

import torch
from torch import Tensor

from fastadv import ops
from fastadv.pixels import PixelSpace

_UNIT = PixelSpace.symmetric()  # 0 is in the middle of its range, so that nothing clips normal noise of one pixel value


def uniform_in_l2_ball_(
    adv: Tensor,
    clean: Tensor,
    eps: float | Tensor,
    seed: int | Tensor,
    offset: int,
    space: PixelSpace,
) -> None:
    """Move adv to a uniform random point of the L2 ball around clean, and clip it to the pixel range.

    The first n of n + 2 coordinates of a uniform point on a sphere are uniform in the ball (Voelker et al., 2017). In
    many dimensions, nearly all of the ball is near its surface, and so is the point, before it is clipped.

    Args:
        adv: [N, C, ...], a copy of clean, mutated in place.
        clean: [N, C, ...].
        eps: radius of the ball in pixel values, a number or [N].
        seed, offset: see :func:`fastadv.ops.noise_step_`.
        space: how pixels map to the images.
    """
    size = clean[0].numel()
    wide = torch.promote_types(clean.dtype, torch.float32)
    normal = torch.zeros(len(clean), size + 2, dtype=wide, device=clean.device)
    ops.noise_step_(normal, normal, 1.0, "normal", seed, offset, _UNIT)
    inside = normal[:, :size]  # [N, C * ...]
    lengths = torch.linalg.vector_norm(inside, dim=1) / torch.linalg.vector_norm(normal, dim=1)  # [N], at most 1
    direction = inside.view(clean.shape)
    if len(set(space.std)) > 1:  # the step is along the gradient with respect to pixels, which is this one over std
        for channel, std in zip(direction.unbind(1), space.std, strict=True):  # numbers: a CUDA graph copies no tensor
            channel.mul_(std)
    ops.normalized_step_(adv, clean, direction.to(clean.dtype), eps * lengths, eps, "l2", space)
