"""PGD in the L2 norm: its start, its steps and its ball."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from fastadv import PixelSpace, attacks
from fastadv.evaluate.attack_specs import parse_attack
from tests.attacks.models import DTYPES, SPACES, ConvNet, PixelLogits, assert_in_range, batch
from tests.attacks.test_agreement import HANDFUL, elements_that_differ

RAW = PixelSpace.raw()
WIDE = PixelSpace(0.0, 1.0, -1000.0, 1000.0)  # whose range clips nothing
DIFFERING = PixelSpace(mean=(20, 100, 200), std=(10, 60, 255))


def distances(adv: Tensor, clean: Tensor, space: PixelSpace) -> Tensor:  # [N]
    return (space.to_pixels(adv.double()) - space.to_pixels(clean.double())).flatten(1).norm(dim=1)


@pytest.mark.parametrize("start", [False, True])
def test_in_plain_pytorch(start: bool) -> None:
    images, labels = batch(dtype=torch.float64)
    model = ConvNet().double().eval()
    common: dict[str, Any] = {"norm": "l2", "eps": 200, "seed": 5, "random_start": start}
    adv = attacks.PGD(model, alpha=0, steps=1, **common)(images, labels)  # the start alone
    assert torch.equal(adv, images) != start
    for _ in range(4):
        adv.requires_grad_()
        (grad,) = torch.autograd.grad(functional.cross_entropy(model(adv), labels, reduction="sum"), adv)
        adv = adv.detach() + 60 / 255 * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        delta = adv - images
        length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        adv = torch.where(length > 200 / 255, images + 200 / 255 / length * delta, adv).clamp(0, 1)
    made = attacks.PGD(model, alpha=60, steps=4, **common)(images, labels)
    torch.testing.assert_close(made, adv, rtol=0, atol=1e-12)


def test_a_step_by_hand() -> None:
    """The logits are two pixels, so that the gradient is along (-1, 1), and a step of 5 sqrt(2) moves each by 5."""
    images = torch.tensor([100.0, 100.0], dtype=torch.float64).view(1, 2, 1, 1)
    attack = attacks.PGD(PixelLogits(RAW), norm="l2", eps=30, alpha=5 * 2**0.5, steps=2, random_start=False, space=RAW)
    adv = attack(images, torch.tensor([0]))
    torch.testing.assert_close(adv.flatten(), torch.tensor([90.0, 110.0], dtype=torch.float64))
    projected = attack(images, torch.tensor([0]), eps=7 * 2**0.5)
    torch.testing.assert_close(projected.flatten(), torch.tensor([93.0, 107.0], dtype=torch.float64))


def test_the_default_step_is_that_of_linf() -> None:
    images, labels = batch()
    default, same = (
        attacks.PGD(ConvNet(), norm="l2", eps=200, steps=5, seed=0, **own) for own in ({}, {"alpha": 2.5 * 200 / 5})
    )
    assert torch.equal(default(images, labels), same(images, labels))


def test_the_start_is_uniform_in_the_ball() -> None:
    """In three dimensions: the distance to the power of three is uniform, and so is each coordinate's direction."""
    clean = torch.zeros(4000, 3, 1, 1, dtype=torch.float64)
    attack = attacks.PGD(PixelLogits(WIDE), norm="l2", eps=50, alpha=0, steps=1, space=WIDE, seed=1)
    delta = attack(clean, torch.zeros(4000, dtype=torch.int64)).flatten(1)  # [4000, 3]
    lengths = delta.norm(dim=1)
    assert lengths.max() <= 50 * (1 + 1e-12)
    assert stats.kstest((lengths / 50) ** 3, "uniform").pvalue > 0.001
    for axis in range(3):  # uniform on [-1, 1], by Archimedes
        assert stats.kstest((delta / lengths[:, None])[:, axis], stats.uniform(-1, 2).cdf).pvalue > 0.001
    assert np.abs(np.corrcoef(lengths, delta[:, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("space", [*SPACES.values(), DIFFERING], ids=[*SPACES, "differing"])
def test_ball_and_range(space: PixelSpace, dtype: torch.dtype) -> None:
    images, labels = batch(space=space, dtype=dtype)
    eps = torch.tensor([0.0, 20.0, 100.0, 300.0, 1000.0, 5000.0])
    model = ConvNet().to(dtype)
    attack = attacks.PGD(model, norm="l2", eps=eps, steps=3, space=space, seed=0)
    adv = attack(images, labels)
    assert_in_range(adv, space)
    rounding = 3000 * torch.finfo(dtype).eps  # of 192 elements in pixel values
    assert (distances(adv, images, space) <= eps + rounding).all()
    assert torch.equal(adv[0], images[0]) and not torch.equal(adv[1], images[1])


def test_the_space_does_not_show() -> None:
    images, labels = batch(16, DIFFERING, torch.float64)
    model = ConvNet().double().eval()
    std, mean = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (DIFFERING.std, DIFFERING.mean))
    common: dict[str, Any] = {"norm": "l2", "eps": 200, "steps": 4, "seed": 0}
    adv = attacks.PGD(model, space=DIFFERING, **common)(images, labels)
    on_raw = attacks.PGD(lambda x: model((x - mean) / std), space=RAW, **common)
    difference = DIFFERING.to_pixels(adv) - on_raw(DIFFERING.to_pixels(images), labels)
    assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("steps", [{"alpha": 0, "steps": 1}, {"steps": 3}], ids=["start", "steps"])
def test_examples_draw_the_same_in_any_batch_and_layout(steps: dict[str, Any]) -> None:
    images, labels = batch(10, dtype=torch.float64)
    whole, parts, last = (
        attacks.PGD(ConvNet().double(), norm="l2", eps=200, seed=2, **steps) for _ in ("whole", "parts", "last")
    )
    made = whole(images, labels)
    in_parts = torch.cat([parts(images[part], labels[part]) for part in (slice(0, 3), slice(3, 10))])
    in_last = last(images.to(memory_format=torch.channels_last), labels)
    # The network rounds otherwise in other batches, and the step is along its gradient itself.
    tolerance = 1e-12 if steps["steps"] > 1 else 1e-15
    torch.testing.assert_close(in_parts, made, rtol=0, atol=tolerance)
    torch.testing.assert_close(in_last, made, rtol=0, atol=tolerance)


def test_captured(used: Counter[str]) -> None:
    captured, eager = (attacks.PGD(ConvNet(), norm="l2", eps=200, steps=3, seed=2, capture=on) for on in (True, False))
    for seed in range(3):
        images, labels = batch(seed=seed)
        assert torch.equal(captured(images, labels), eager(images, labels))
    assert used["capture"] > 0


def test_torchattacks() -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")
    images, labels = batch(16)
    model = ConvNet().eval()
    theirs = torchattacks.PGDL2(model, eps=200 / 255, alpha=50 / 255, steps=6, random_start=False)(images, labels)
    adv = attacks.PGD(model, norm="l2", eps=200, alpha=50, steps=6, random_start=False)(images, labels)
    assert elements_that_differ(255 * adv, 255 * theirs) <= HANDFUL


def test_options() -> None:
    assert attacks.PGD(ConvNet(), norm="l2", eps=1000).ball == "l2" and attacks.PGD(ConvNet()).ball == "linf"
    assert "norm='l2'" in repr(attacks.PGD(ConvNet(), norm="l2"))
    assert parse_attack("pgd:norm=l2:steps=20") == ("pgd", {"norm": "l2", "steps": 20})
    with pytest.raises(ValueError, match=r"^norm must be one of linf, l2, got 'l1'"):
        attacks.PGD(ConvNet(), norm="l1")
    with pytest.raises(ValueError, match=r"^eps must be at most 255"):
        attacks.PGD(ConvNet(), eps=1000)
