"""The Square attack: its windows, bumps and schedule by hand, what it tries, and what it keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks.engine.pixel_box import PixelBox
from fastadv.attacks.engine.square_l2 import L2Squares, bumps
from fastadv.attacks.engine.square_windows import Windows, window_side
from tests.attacks.models import assert_in_range

UNIT = PixelSpace.unit()
SHAPE = (3, 9, 11)
EPS = {"linf": 6.0, "l2": 60.0}
ORDERS = {"linf": math.inf, "l2": 2.0}
NORMS = pytest.mark.parametrize("norm", EPS)


class Waves(nn.Module):
    """Five classes, with boundaries that are far from flat, of images in any space; it keeps what it was shown."""

    def __init__(self, space: PixelSpace = UNIT) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.space = space
        self.inward = nn.Buffer(0.7 * torch.randn(math.prod(SHAPE), 8, generator=generator, dtype=torch.float64))
        self.outward = nn.Buffer(torch.randn(8, 5, generator=generator, dtype=torch.float64))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 9, 11] -> [N, 5]
        assert not images.requires_grad and not torch.is_grad_enabled()
        self.seen.append(images.clone())
        pixels = self.space.to_pixels(images).double().flatten(1) / 255 - 0.5
        # Not by matrices, whose products round differently in a batch of another size.
        hidden = (pixels[:, :, None] * self.inward).sum(1).sin()  # [N, 8]
        return (hidden[:, :, None] * self.outward).sum(1)


def images_of(space: PixelSpace = UNIT, n: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return space.from_pixels(torch.randint(-20, 276, (n, *SHAPE), generator=generator).clamp_(0, 255), dtype)


def labelled(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


def distances(adv: Tensor, images: Tensor, norm: str, space: PixelSpace = UNIT) -> Tensor:
    """[N], in pixel values."""
    return (space.to_pixels(adv.double()) - space.to_pixels(images.double())).flatten(1).norm(ORDERS[norm], dim=1)


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "side"),
    [
        *((1, 25), (6, 25), (7, 18), (26, 18), (27, 13), (101, 13), (102, 9), (251, 9), (252, 6), (501, 6), (502, 4)),
        *((1001, 4), (1002, 3), (2001, 3), (2002, 2), (3001, 2), (3002, 2), (4001, 2), (4002, 1), (4999, 1)),
    ],
)
def test_sides_for_28_pixels_and_5000_queries(query: int, side: int) -> None:
    """Query q is the authors' iteration i = q - 1; i = 6 counts as 12 of 10,000, and is the first that is over 10."""
    halvings = sum(int((query - 1) / 5000 * 10_000) > end for end in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    assert side == round(math.sqrt(0.8 / 2**halvings * 784))
    assert window_side(0.8, query, 5000, 28, 28) == side


def test_sides_fit_the_image() -> None:
    assert window_side(1.0, 1, 100, 4, 50) == 4
    assert window_side(0.001, 99, 100, 4, 5) == 1


def test_windows_lie_everywhere_and_never_outside() -> None:
    ends = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [0.0, 0.0]])
    windows = Windows(ends, 3, 9, 11)
    images = torch.zeros(4, 2, 99)
    windows.fill_(images, torch.ones(4, 2, 9))
    grids = images.view(4, 2, 9, 11)
    for grid, (row, column) in zip(grids, [(0, 0), (6, 8), (0, 8), (3, 4)], strict=True):
        expected = torch.zeros(2, 9, 11)
        expected[:, row : row + 3, column : column + 3] = 1
        assert torch.equal(grid, expected)
    uniform = torch.linspace(-1, 1, 7001)[:, None].expand(-1, 2)
    first = Windows(uniform, 3, 9, 11).of(torch.arange(99.0).expand(7001, 1, 99))[:, 0, 0]
    rows = (first // 11).to(torch.int64).bincount()
    assert len(rows) == 7 and (rows - 1000).abs().max() <= 1
    numbered = torch.arange(99.0).expand(4, 1, 99)
    assert windows.of(numbered)[1, 0].tolist() == [74, 75, 76, 85, 86, 87, 96, 97, 98]


def test_what_is_outside_another_window() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (Windows(torch.rand(50, 2, generator=generator) * 2 - 1, 4, 9, 11) for _ in range(2))
    marked = torch.zeros(50, 1, 99)
    other.fill_(marked, torch.ones(50, 1, 16))
    assert torch.equal(one.outside(other), one.of(marked) == 0)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9])
def test_bumps_are_nested_rectangles(side: int) -> None:
    """Of height 1 / k^2, the k-th reaching k - 1 pixels from the middle; the lower half is the negative."""
    expected = np.zeros((side, side))
    for sign, top, height in ((1, 0, side // 2), (-1, side // 2, side - side // 2)):
        half = np.zeros((height, side))
        for k in range(1, max(height, side) // 2 + 2):
            for row in range(height):
                for column in range(side):
                    if max(abs(row - height // 2), abs(column - side // 2)) < k:
                        half[row, column] += 1 / k**2
        if height:
            expected[top : top + height] = sign * half / np.linalg.norm(half)
    expected /= np.linalg.norm(expected)
    bump, turned = bumps(side, torch.zeros((), dtype=torch.float64)).numpy()
    np.testing.assert_allclose(bump, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(turned, expected.T, rtol=0, atol=1e-12)


# --- what is tried, and what is kept ---------------------------------------------------------------------------------


class Never(Waves):
    """Of the first class, whatever it is shown; the margin is the mean of the pixels of a checkerboard."""

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 9, 11] -> [N, 2]
        self.seen.append(images.clone())
        mean = images.flatten(1)[:, ::2].mean(1)  # [N]
        return torch.stack((mean + 1, torch.zeros_like(mean)), dim=1)


def tried(model: Waves, images: Tensor, **options: Any) -> list[Tensor]:
    """What the model was asked about, after the clean images."""
    attacks.Square(model, eps=EPS[options.get("norm", "linf")], seed=0, **options)(
        images, torch.zeros(len(images)).long()
    )
    assert torch.equal(model.seen[0], images)
    return model.seen[1:]


def test_linf_starts_from_stripes() -> None:
    images = images_of().clamp(0.1, 0.9)
    (start,) = tried(Never(), images, queries=1)
    change = (start - images) * 255
    torch.testing.assert_close(change.abs(), torch.full_like(change, 6.0))
    columns = change.sign()  # [N, 3, 9, 11]
    assert torch.equal(columns, columns[:, :, :1].expand_as(columns))
    assert len({tuple(image[:, 0].flatten().tolist()) for image in columns}) == len(images)


def test_linf_changes_one_window_at_a_time_and_keeps_what_is_better() -> None:
    images = images_of()
    high, low = (images + 6 / 255).clamp(0, 1), (images - 6 / 255).clamp(0, 1)
    model = Never()
    shown = tried(model, images, queries=60)
    assert len(shown) == 60
    best, margin = shown[0], model(shown[0])[:, 0]
    kept = 0
    for query, images_tried in enumerate(shown[1:], start=1):
        side = window_side(0.8, query, 60, 9, 11)
        raised, lowered = images_tried == high, images_tried == low
        assert (raised | lowered).all()
        for changed, up, down in zip(images_tried != best, raised, lowered, strict=True):
            assert changed.any()  # no query is wasted
            rows, columns = changed.any(0).any(1).nonzero(), changed.any(0).any(0).nonzero()
            assert rows.max() - rows.min() < side and columns.max() - columns.min() < side
            for channel in range(3):  # one sign in a window and channel
                assert up[channel][changed[channel]].all() or down[channel][changed[channel]].all()
        now = model(images_tried)[:, 0]
        better = now < margin
        kept += int(better.sum())
        best = torch.where(better.view(-1, 1, 1, 1), images_tried, best)
        margin = torch.where(better, now, margin)
    assert 100 < kept < 600
    assert margin.mean() < model(images)[:, 0].mean() - 2 / 255


@pytest.mark.parametrize("space", [UNIT, PixelSpace((0, 9, 99), (1, 30, 900))], ids=["unit", "uneven"])
def test_l2_uses_the_whole_ball_and_keeps_what_is_better(space: PixelSpace) -> None:
    images = space.from_pixels(torch.full((12, *SHAPE), 127.0), torch.float64)
    model = Never()
    shown = tried(model, images, norm="l2", queries=60, space=space)
    for images_tried in shown:
        torch.testing.assert_close(distances(images_tried, images, "l2", space), torch.full((12,), 60.0).double())
    margins = torch.stack([model(one)[:, 0] for one in shown])  # [60, 12]
    changed = torch.stack([(one != shown[0]).flatten(1).any(1) for one in shown[1:]])
    assert changed.all()
    if space is UNIT:
        assert (margins.cummin(0).values[-1] < margins[0]).all()


def test_l2_starts_from_bumps_over_the_image() -> None:
    images = torch.full((12, 3, 28, 30), 0.5, dtype=torch.float64)
    space = PixelBox.of(UNIT, images.flatten(2))
    squares = L2Squares(space, (3, 28, 30))
    assert squares.numbers_to_start == (4, 5, 6)
    numbers = torch.rand(12, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    eps = torch.full((12, 1, 1), 60.0, dtype=torch.float64)
    change = (squares.start(images.flatten(2), eps, numbers) - 0.5).view(12, 3, 28, 30) * 255
    pair = bumps(5, change)
    for row in range(5):
        for column in range(6):
            tile = change[:, :, 1 + 5 * row : 6 + 5 * row, 5 * column : 5 * column + 5]
            sign = numbers[:, :3, row, column].sign()[..., None, None]
            expected = sign * pair[(numbers[:, 3, row, column] > 0).long()][:, None] * 60 / math.sqrt(3 * 30)
            torch.testing.assert_close(tile, expected)
    assert (change[:, :, 0] == 0).all() and (change[:, :, 26:] == 0).all()


def test_a_window_gives_its_share_to_another() -> None:
    """Of four columns of windows, all but two are as before, up to the factor that restores the norm."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((1, 1, 81), 127.0, dtype=torch.float64)
    box = PixelBox.of(PixelSpace.raw(), clean)
    squares = L2Squares(box, (1, 9, 9))
    delta = torch.randn(1, 1, 81, generator=generator, dtype=torch.float64)
    eps = delta.norm().view(1, 1, 1)
    numbers = torch.tensor([[-1.0, -1.0, 1.0, 1.0, 1.0, 1.0]])  # the first corner takes over from the last one
    moved = (squares.propose(clean, clean + delta, eps, 3, numbers) - clean).view(9, 9)
    before = delta.view(9, 9)
    here, there = before[:3, :3], before[6:, 6:]
    mixed = bumps(3, delta)[1] + here / here.norm()
    expected = before.clone()
    expected[6:, 6:] = 0
    expected[:3, :3] = mixed / mixed.norm() * (here.square().sum() + there.square().sum()).sqrt()
    torch.testing.assert_close(moved, expected)


@NORMS
@pytest.mark.parametrize("space", [PixelSpace.raw(), PixelSpace.imagenet()], ids=["raw", "imagenet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_inside_the_ball_and_the_range(dtype: torch.dtype, space: PixelSpace, norm: str) -> None:
    model, images = Waves(space), images_of(space, dtype=dtype)
    labels = labelled(model, images)
    labels[0] = (labels[0] + 1) % 5  # misclassified without an attack
    eps = torch.linspace(0, 2 * EPS[norm], len(images), dtype=torch.float64)
    model.seen.clear()
    adv = attacks.Square(model, eps=eps, norm=norm, space=space, queries=60, seed=0)(images, labels)
    ulp = max(torch.finfo(dtype).eps * 256, 1e-9)  # of a pixel value
    limit = eps + ulp * (math.sqrt(math.prod(SHAPE)) if norm == "l2" else 1)
    assert (distances(adv, images, norm, space) <= limit).all()
    for shown in model.seen:
        assert_in_range(shown, space)
    with torch.no_grad():
        fooled = model(adv).argmax(1) != labels
    assert 2 < fooled.sum() < 12
    assert torch.equal(adv[~fooled], images[~fooled]) and torch.equal(adv[0], images[0])


@NORMS
def test_fooled_images_leave(norm: str) -> None:
    model, images = Waves(), images_of()
    labels = labelled(model, images)
    labels[::2] = (labels[::2] + 1) % 5  # misclassified without an attack
    model.seen.clear()
    attack = attacks.Square(model, eps=2 * EPS[norm], norm=norm, queries=300, seed=0)
    adv = attack(images, labels)
    assert (labelled(model, adv) != labels).all()
    asked = [len(shown) for shown in model.seen[:-1]]
    assert asked[:2] == [12, 6] and asked == sorted(asked, reverse=True) and len(asked) < 300
    assert attack.image_queries == sum(asked) and attack.image_gradients == 0


@NORMS
def test_the_split_into_batches_does_not_show(norm: str) -> None:
    model, images = Waves(), images_of(n=24)
    labels = labelled(model, images)
    labels[1::3] = (labels[1::3] + 1) % 5
    options = {"eps": EPS[norm], "norm": norm, "queries": 80, "restarts": 2, "seed": 3}
    whole = attacks.Square(model, **options)(images, labels)
    fooled = labelled(model, whole) != labels
    assert 8 < fooled.sum() < len(images)
    attack = attacks.Square(model, **options)
    parts = [attack(images[at], labels[at]) for at in (slice(0, 1), slice(1, 14), slice(14, None))]
    assert torch.equal(torch.cat(parts), whole)
    other = attacks.Square(model, **{**options, "seed": 4})(images, labels)
    assert not torch.equal(other, whole)


@NORMS
def test_restarts_draw_anew_for_those_that_are_left(norm: str) -> None:
    model, images = Never(), images_of()
    shown = tried(model, images, norm=norm, queries=3, restarts=2)
    assert len(shown) == 6 and not torch.equal(shown[0], shown[3])


@NORMS
def test_better_than_noise(norm: str) -> None:
    model, images = Waves(), images_of(n=40)
    labels = labelled(model, images)
    adv = attacks.Square(model, eps=EPS[norm], norm=norm, queries=200, seed=0)(images, labels)
    noise = attacks.RandomSign(model, eps=6, seed=0)(images)
    if norm == "l2":
        change = noise - images
        noise = (images + change * 60 / 255 / change.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(0, 1)
    fooled, by_noise = ((labelled(model, one) != labels).sum() for one in (adv, noise))
    assert fooled >= by_noise + 15


def test_a_model_that_has_no_gradient() -> None:
    images = images_of(dtype=torch.float32)
    weights = np.random.default_rng(0).normal(size=(math.prod(SHAPE), 4))

    def model(x: Tensor) -> Tensor:
        return torch.from_numpy((x.numpy().reshape(len(x), -1) - 0.5) @ weights)

    labels = model(images).argmax(1)
    adv = attacks.Square(model, eps=40, queries=200, seed=0)(images, labels)
    assert (model(adv).argmax(1) != labels).all()


def test_images_stay_together_if_they_depend_on_each_other() -> None:
    class Together(Waves):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3).double()

        def forward(self, images: Tensor) -> Tensor:
            assert len(images) == 12
            return super().forward(self.norm(images) / 4)

    model, images = Together(), images_of()
    labels = labelled(model, images)
    adv = attacks.Square(model, eps=20, bn="batch", queries=20, seed=0)(images, labels)
    assert not torch.equal(adv, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm must be one of linf, l2, got 'l1'"),
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"p_init": 0}, "p_init must be a number above 0 and at most 1, got 0"),
        ({"p_init": 1.5}, "p_init must be a number above 0 and at most 1, got 1.5"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create("square", Waves(), **options)


def test_images_without_a_height() -> None:
    model = Waves()
    with pytest.raises(ValueError, match=r"square needs images \[N, C, H, W\], .*, got \[2, 297\]"):
        attacks.Square(model)(torch.zeros(2, 297), torch.tensor([0, 1]))
    assert not model.seen


@NORMS
def test_torchattacks_fools_as_many(norm: str) -> None:
    """With other random numbers."""
    torchattacks = pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")
    model, images = Waves(), images_of(n=60, dtype=torch.float32)
    model.weight = nn.Parameter(torch.zeros(1))  # torchattacks takes the device of the first one
    labels = labelled(model, images)
    theirs = torchattacks.Square(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=EPS[norm] / 2 / 255, n_queries=150)
    ours = attacks.Square(model, eps=EPS[norm] / 2, norm=norm, queries=150, seed=0)
    with torch.no_grad():
        fooled = [int((labelled(model, attack(images, labels)) != labels).sum()) for attack in (theirs, ours)]
    assert 10 < fooled[0] < 55 and abs(fooled[0] - fooled[1]) <= 6


def test_images_of_one_pixel_in_l2() -> None:
    """There a new bump may be the opposite of the perturbation, and leave nothing to scale to the norm eps."""
    model = nn.Flatten()  # the class is the largest of four channels
    images = torch.rand(40, 4, 1, 1, generator=torch.Generator().manual_seed(0))
    labels = images.flatten(1).argmax(dim=1)
    adv = attacks.Square(model, eps=10, norm="l2", queries=60, seed=0)(images, labels)
    assert adv.isfinite().all()
