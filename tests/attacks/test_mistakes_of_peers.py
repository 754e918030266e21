"""Fifteen mistakes that other packages made, one test each."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from tests.attacks.gradients import SEARCHES
from tests.attacks.models import ConvNet, PixelLogits, assert_in_range, batch

RAW = PixelSpace.raw()


class Fails(nn.Module):
    """Raises in the middle of a forward."""

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("the model failed")


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_01_frozen_batch_norm_thaws_and_an_exception_leaves_eval_mode(bn: str, raises: bool) -> None:
    model = ConvNet().train()
    model.features[1].eval()  # deliberately frozen
    if raises:
        model.features[5] = Fails().train()
    modes = {name: module.training for name, module in model.named_modules()}
    attack = attacks.create("iter_basic", model, eps=2, bn=bn)
    try:
        attack(*batch())
    except RuntimeError as error:
        assert raises and str(error) == "the model failed"
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert modes["features.1"] is False and modes["features.4"] is True


@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_02_ten_steps_update_running_statistics_ten_times(bn: str) -> None:
    model = ConvNet().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    attacks.create("pgd", model, eps=8, steps=10, bn=bn)(*batch())
    assert len(before) == 6
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_03_the_attacks_gradients_reach_the_weights() -> None:
    model = ConvNet()
    fresh, trained = list(model.head.parameters()), list(model.features.parameters())
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 7.0)
    attacks.create("iter_ll", model, eps=4)(batch()[0])
    assert all(parameter.grad is None for parameter in fresh)
    assert all((parameter.grad == 7.0).all() for parameter in trained)


def test_04_a_whole_training_runs_in_eval_mode() -> None:
    model = ConvNet().train()
    attack = attacks.create("step_ll", model, eps=8)
    modes = []
    model.features[4].register_forward_pre_hook(lambda dropout, _: modes.append(dropout.training))
    for step in range(3):
        adv = attack(batch(seed=step)[0])
        functional.cross_entropy(model(adv), batch(seed=step)[1]).backward()
    assert modes == [False, True] * 3  # off to generate, on to train
    assert model.features[1].num_batches_tracked.item() == 3


def test_05_a_mean_underflows_in_half_precision() -> None:
    """Confident by a margin of 12 in a batch of 256: 6e-6 / 256 is below the smallest float16."""
    direction = torch.tensor([1.0, -1.0] * 8)  # [16]; orthogonal to a constant image
    model = nn.Linear(16, 10).requires_grad_(False)
    model.weight.copy_(torch.cat((direction[None], -direction.expand(9, 16))) / 4)
    model.bias.copy_(torch.tensor([12.0] + [0.0] * 9))
    model.half()
    images, labels = torch.full((256, 16), 100.0, dtype=torch.float16), torch.zeros(256, dtype=torch.int64)

    leaf = images.clone().requires_grad_()
    functional.cross_entropy(model(leaf), labels).backward()
    assert (leaf.grad == 0).double().mean() > 0.99  # what happens to others

    attack = attacks.create("fgsm", model, eps=8, space=RAW)
    adv = attack(images, labels)
    assert torch.equal(adv - images, -8 * direction.half().expand(256, 16))
    assert torch.equal(attack(images[:1], labels[:1]), adv[:1])  # whatever the size of the batch


@pytest.mark.parametrize("magnitude", [1e-30, 1e-12, 1e-6, 1.0])
@pytest.mark.parametrize(("name", "length"), [("fast_grad_l2", 2), ("fast_grad_linf", float("inf"))])
def test_06_a_floor_under_the_norm_shortens_the_step(name: str, length: float, magnitude: float) -> None:
    images = torch.full((2, 3), 100.0)
    scale = torch.tensor([[magnitude], [0.0]])  # the second example has no gradient at all

    def model(x: Tensor) -> Tensor:  # [2, 3] -> [2, 3]
        return (x - 100.0) * scale * torch.tensor([1.0, 2.0, 3.0])

    change = attacks.create(name, model, eps=8, space=RAW)(images, torch.tensor([0, 0])) - images
    assert change[0].norm(length).item() == pytest.approx(8, rel=1e-5)
    assert (change[1] == 0).all()


def test_07_a_random_start_and_no_projection_reach_twice_eps() -> None:
    images, labels = batch(64, RAW, torch.float64)
    adv = attacks.create("pgd", PixelLogits(RAW), eps=8, alpha=8, steps=1, space=RAW, seed=0)(images, labels)
    assert (adv - images).abs().max() <= 8


@pytest.mark.parametrize("name", attacks.names())
def test_08_the_output_carries_a_graph_or_is_the_input_itself(name: str) -> None:
    images, labels = batch()
    images.requires_grad_()
    adv = attacks.create(name, ConvNet(), eps=0)(images, labels)
    assert not adv.requires_grad and adv.grad_fn is None and adv.is_leaf
    assert adv is not images and adv.data_ptr() != images.data_ptr()
    assert images.requires_grad and images.grad is None


def test_09_random_targets_exclude_the_label_and_not_the_prediction() -> None:
    """The target's pixel is the one that rises."""
    pixels = torch.tensor([100.0, 110.0, 120.0, 105.0]).expand(400, 4).reshape(400, 4, 1, 1)  # 2 is predicted
    labels = torch.zeros(400, dtype=torch.int64)  # 0 is true
    adv = attacks.create("step_rnd", PixelLogits(RAW), eps=8, space=RAW, seed=0)(pixels, labels)
    rises = (adv > pixels).flatten(1)
    assert (rises.sum(1) == 1).all()
    counts = rises.sum(0).tolist()
    assert counts[2] == 0
    assert all(90 < counts[target] < 180 for target in (0, 1, 3))  # 133 each, within five standard deviations


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", attacks.names())
def test_10_callers_without_gradients_crash(name: str, caller: Callable[[], Any]) -> None:
    model = ConvNet()
    expected = attacks.create(name, model, eps=4, seed=0)(*batch())
    with caller():
        assert torch.equal(attacks.create(name, model, eps=4, seed=0)(*batch()), expected)


@pytest.mark.parametrize("name", attacks.names())
def test_11_an_integer_eps_is_refused_and_zero_is_not_the_identity(name: str) -> None:
    images, labels = batch()
    by_int, by_float, none = (attacks.create(name, ConvNet(), eps=eps, seed=0)(images, labels) for eps in (4, 4.0, 0))
    assert torch.equal(by_int, by_float) and (name in SEARCHES or not torch.equal(by_int, images))
    assert torch.equal(none, images)


@pytest.mark.parametrize("name", attacks.names())
def test_12_global_generators_are_reseeded(name: str) -> None:
    images, labels = batch()
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    attacks.create(name, ConvNet().train(), eps=4, seed=0)(images, labels)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all() and random.getstate() == states[2]


def test_13_truncation_to_uint8_loses_a_grey_level() -> None:
    space = PixelSpace.unit()
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    images = space.from_pixels(pixels)
    assert torch.equal(space.to_uint8(images), pixels)
    adv = attacks.create("random_sign", ConvNet(), eps=8, space=space, seed=0)(images)
    moved = (space.to_uint8(adv).int() - pixels.int()).flatten()[8:-8]  # where no end of the range is near
    assert set(moved.tolist()) == {-8, 8}


def test_14_success_is_counted_against_the_clean_prediction() -> None:
    """Step l.l. pushes a misclassified image over to its label: another prediction, and a correct one."""
    pixels = torch.tensor([100.0, 110.0]).view(1, 1, 1, 2)
    counts = evaluate(PixelLogits(RAW), [(pixels, torch.tensor([0]))], attack="step_ll", eps=8, space=RAW)
    assert (counts.n, counts.top1) == (1, 1)


@pytest.mark.parametrize("name", attacks.names())
def test_15_normalised_images_leave_the_pixel_range(name: str) -> None:
    space = PixelSpace.imagenet()
    images, labels = batch(16, space)
    adv = attacks.create(name, ConvNet(), eps=16, space=space, seed=0)(images, labels)
    assert_in_range(adv, space)
    assert space.to_uint8(adv).aminmax() == (0, 255)  # both ends are reached
