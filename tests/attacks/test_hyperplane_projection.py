"""The shortest move within the pixel range onto a hyperplane: it gets there, and no shorter one does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace
from fastadv.attacks.engine.hyperplane_projection import move_onto_hyperplane
from fastadv.attacks.engine.pixel_box import PixelBox

SPACES = {"unit": PixelSpace.unit(), "imagenet": PixelSpace.imagenet(), "uneven": PixelSpace((0, 9, 99), (1, 30, 900))}
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


def reach(images: Tensor, normal: Tensor, gap: Tensor, box: PixelBox) -> tuple[Tensor, Tensor]:
    """Return the room that each element has towards the hyperplane, and how much of the gap that closes: [n]."""
    rises = normal * gap.sign().view(-1, 1, 1, 1) > 0
    room = torch.where(rises, box.upper - images, images - box.lower)
    return room, (normal.abs() * room).flatten(1).sum(1)


def problems(space: PixelSpace, n: int = 400, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return (images [n, 3, 2, 2], many at the ends of the range, normals with zeros, gaps [n], some out of reach)."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(-99, 355, (n, 3, 2, 2), generator=generator).clamp_(0, 255)
    normal = torch.randn(n, 3, 2, 2, generator=generator, dtype=torch.float64)
    normal[torch.rand(normal.shape, generator=generator) < 0.2] = 0
    images = space.from_pixels(pixels, torch.float64)
    towards = (torch.rand(n, generator=generator) < 0.5) * 2.0 - 1  # [n]
    most = reach(images, normal, towards, PixelBox.of(space, images))[1]  # [n]
    gap = towards * most * 1.5 * torch.rand(n, generator=generator, dtype=torch.float64) ** 2
    return images.to(dtype), normal.to(dtype), gap.to(dtype)


@NORMS
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_it_ends_on_the_hyperplane_or_in_the_corner_next_to_it(space: PixelSpace, norm: str) -> None:
    images, normal, gap = problems(space)
    box = PixelBox.of(space, images)
    move = move_onto_hyperplane(images, normal, gap, box, norm)
    room, most = reach(images, normal, gap, box)
    assert 40 < (most < gap.abs()).sum() < 360
    assert (move.abs() <= room).all()
    torch.testing.assert_close((normal * move).flatten(1).sum(1), gap.sign() * torch.minimum(gap.abs(), most))
    beyond = (most < gap.abs()).view(-1, 1, 1, 1) & (normal != 0)
    assert (move.abs() == room)[beyond].all()
    assert (move[normal == 0] == 0).all()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_no_shorter_move_in_linf(space: PixelSpace) -> None:
    """All elements that move by slightly less than the largest does, where they have the room, do not get there."""
    images, normal, gap = problems(space)
    box = PixelBox.of(space, images)
    longest = box.length(move_onto_hyperplane(images, normal, gap, box, "linf"), "linf")
    room, most = reach(images, normal, gap, box)
    shorter = torch.minimum(room, (longest * (1 - 1e-9)).view(-1, 1, 1, 1) / box.std)
    closed = (normal.abs() * shorter).flatten(1).sum(1)
    within = (most >= gap.abs()) & (gap != 0)
    assert within.sum() > 40 and (closed < gap.abs())[within].all()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_no_shorter_move_in_l2(space: PixelSpace) -> None:
    """The conditions of Lagrange, which prove a minimum of a convex function: one multiplier for all elements."""
    images, normal, gap = problems(space)
    box = PixelBox.of(space, images)
    move = move_onto_hyperplane(images, normal, gap, box, "l2")
    room, most = reach(images, normal, gap, box)
    multiplier = (move.abs() * box.std**2 / normal.abs()).nan_to_num(0).flatten(1)  # of elements that move freely
    free = (move.abs() < room * (1 - 1e-12)).flatten(1) & (normal != 0).flatten(1)
    within = (most > gap.abs()) & free.any(1)
    assert within.sum() > 40
    largest = multiplier.masked_fill(~free, 0).amax(1, keepdim=True)
    least = multiplier.masked_fill(~free, torch.inf).amin(1, keepdim=True)
    torch.testing.assert_close(least[within], largest[within], rtol=1e-9, atol=0)
    stopped = (~free & (normal != 0).flatten(1)) & within[:, None]
    assert (multiplier <= largest * (1 + 1e-9))[stopped].all()


@NORMS
def test_many_elements_in_float32(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, 64, 64, generator=generator).mul_(1.4).sub_(0.2).clamp_(0, 1)
    normal, gap = torch.randn(8, 3, 64, 64, generator=generator), torch.randn(8, generator=generator) * 500
    space = PixelSpace.unit()
    exact = move_onto_hyperplane(
        images.double(), normal.double(), gap.double(), PixelBox.of(space, images.double()), norm
    )
    move = move_onto_hyperplane(images, normal, gap, PixelBox.of(space, images), norm)
    torch.testing.assert_close(move.double(), exact, rtol=1e-4, atol=1e-6)


@NORMS
@pytest.mark.parametrize("scale", [1e-35, 1e-25, 1e30])
def test_the_length_of_the_normal_does_not_matter(norm: str, scale: float) -> None:
    images, normal, gap = problems(PixelSpace.unit(), dtype=torch.float32)
    box = PixelBox.of(PixelSpace.unit(), images)
    expected = move_onto_hyperplane(images, normal.double(), gap.double(), box, norm)
    move = move_onto_hyperplane(images, (normal.double() * scale).float(), (gap.double() * scale).float(), box, norm)
    torch.testing.assert_close(move.double(), expected, rtol=1e-4, atol=1e-5)


@NORMS
def test_images_without_a_usable_normal_stay(norm: str) -> None:
    images = torch.full((5, 1, 1, 3), 0.5)
    normal = torch.tensor([[0.0, 0, 0], [1, torch.nan, 1], [torch.inf, 1, 1], [1, 2, 3], [1, 2, 3]]).view(5, 1, 1, 3)
    gap = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.5])
    move = move_onto_hyperplane(images, normal, gap, PixelBox.of(PixelSpace.unit(), images), norm)
    assert (move[:4] == 0).all() and (move[4] > 0).any()


@NORMS
def test_each_image_by_itself(norm: str) -> None:
    images, normal, gap = problems(PixelSpace.imagenet(), 50)
    box = PixelBox.of(PixelSpace.imagenet(), images)
    whole = move_onto_hyperplane(images, normal, gap, box, norm)
    each = [move_onto_hyperplane(images[i : i + 1], normal[i : i + 1], gap[i : i + 1], box, norm) for i in range(50)]
    assert torch.equal(torch.cat(each), whole)
