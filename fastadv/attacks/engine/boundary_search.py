"""The step of FAB: towards the nearest boundary between two classes, drawn back to the clean image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from fastadv.attacks.engine.hyperplane_projection import move_onto_hyperplane
from fastadv.attacks.engine.input_gradient import Gradient
from fastadv.attacks.engine.logit_difference import logit_difference
from fastadv.attacks.engine.pixel_box import PixelBox

_DUAL_ORDERS = {"linf": 1.0, "l2": 2.0}


@dataclass(frozen=True)
class BoundarySearch:
    """Some of the images of a batch, and where the search for each is.

    Args:
        place: [n] int64, of the images in the batch.
        images: [n, C, ...], the iterates, in the pixel range.
        clean: [n, C, ...].
        labels: [n] int64.
        targets: [n, T] int64, the other classes whose boundaries are looked at.
        eps: [n], in pixel values.
    """

    place: Tensor
    images: Tensor
    clean: Tensor
    labels: Tensor
    targets: Tensor
    eps: Tensor

    def rows(self, index: Tensor) -> BoundarySearch:
        """The search for some of the images: [r] int64."""
        return BoundarySearch(*(getattr(self, field.name)[index] for field in fields(self)))

    def at(self, images: Tensor) -> BoundarySearch:
        """The same search at other iterates [n, C, ...]."""
        return replace(self, images=images)

    def pairs(self) -> list[Tensor]:
        """The true class and each of the T others: [n, 2] each."""
        return [torch.stack((self.labels, target), dim=1) for target in self.targets.unbind(1)]


@dataclass(frozen=True)
class Boundary:
    """The hyperplane on which two logits are equal, as far as they are linear around an image.

    Args:
        slope: [n, C, ...], the gradient of their difference, in float32 or float64.
        gap: [n], by how much the difference has to grow.
    """

    slope: Tensor
    gap: Tensor


def nearest_boundary(gradients: Iterable[Gradient], box: PixelBox, norm: str) -> Boundary:
    """Return each example's nearest boundary, of those that gradients of logit differences describe."""
    nearest: Boundary | None = None
    least: Tensor | None = None  # [n]
    for found in gradients:
        slope = found.grad.to(box.std.dtype)  # [n, C, ...]
        gap = -logit_difference(found.logits, found.target)  # [n]
        per_pixel = torch.linalg.vector_norm((slope / box.std).flatten(1), _DUAL_ORDERS[norm], dim=1)  # [n]
        distance = (gap.abs() / per_pixel).nan_to_num_(torch.inf)  # [n]
        if nearest is None or least is None:
            nearest, least = Boundary(slope, gap), distance
            continue
        nearer = distance < least
        slope = torch.where(nearer.view(-1, *[1] * (slope.dim() - 1)), slope, nearest.slope)
        nearest = Boundary(slope, torch.where(nearer, gap, nearest.gap))
        least = torch.minimum(distance, least)
    assert nearest is not None
    return nearest


def boundary_step(
    search: BoundarySearch, boundary: Boundary, box: PixelBox, norm: str, eta: float, alpha_max: float
) -> Tensor:
    """Return the next iterates [n, C, ...], in the pixel range.

    They lie between where the shortest moves onto the boundary lead from the iterates and from the clean images, times
    eta. The weight of the second grows with the length of the first's move, up to alpha_max.
    """
    dtype = box.std.dtype
    images, clean = search.images.to(dtype), search.clean.to(dtype)  # [n, C, ...] each
    between = (boundary.slope * (images - clean)).flatten(1).sum(1)  # [n]
    here = move_onto_hyperplane(images, boundary.slope, boundary.gap, box, norm)  # [n, C, ...]
    there = move_onto_hyperplane(clean, boundary.slope, boundary.gap + between, box, norm)  # [n, C, ...]
    tiny = torch.finfo(dtype).tiny  # so that two moves of length 0 have equal weights
    near, far = (box.length(move, norm).clamp_min(tiny) for move in (here, there))  # [n] each
    share = (near / (near + far)).clamp_max(alpha_max).view(-1, *[1] * (images.dim() - 1))
    moved = here.mul_(eta).add_(images).lerp_(there.mul_(eta).add_(clean), share)
    return box.clip(moved)
