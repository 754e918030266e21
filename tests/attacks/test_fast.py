"""fast=True: the same images up to rounding, for every attack and kind of model; unsupported options are skipped."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torchvision import models as torchvision_models

from fastadv import PixelSpace, attacks, models
from tests.attacks.models import ConvNet, batch
from tests.attacks.test_folding import set_up

UNIT = PixelSpace.unit()
MODELS: dict[str, Callable[[], nn.Module]] = {
    "ConvNet": ConvNet,
    "small_cnn": lambda: models.create("small_cnn", num_classes=5),
    "resnet18": lambda: torchvision_models.resnet18(num_classes=5),
    "no BatchNorm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 5)),
}


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("name", attacks.names())
@pytest.mark.filterwarnings("ignore:.* runs without fold_bn=True")
def test_the_same_images(name: str, make: Callable[[], nn.Module], bn: str) -> None:
    torch.manual_seed(0)
    model = set_up(make()).double().train()
    fast, plain = (attacks.create(name, model, eps=4, seed=3, bn=bn, fast=fast) for fast in (True, False))
    images, labels = batch(6, UNIT, torch.float64)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        adv = fast(given, labels)
        # Where a gradient is zero up to rounding, its sign is rounding's: a few elements, in the iterations that follow
        # a few more.
        assert ((adv - plain(given, labels)).abs() > 1e-9).float().mean() < 0.02
        assert adv.stride() == given.stride()
    assert model.training


def test_what_it_switches_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """BatchNorm is folded and the passes run in channels_last, while the network's weights are unchanged."""
    model = set_up(ConvNet()).eval()
    seen: list[tuple[bool, bool]] = []
    last = {"memory_format": torch.channels_last}
    convolution = model.features[3]
    model.features[2].register_forward_pre_hook(  # one on a folded layer would keep it from being folded
        lambda _, args: seen.append((args[0].is_contiguous(**last), "forward" in vars(convolution)))
    )
    attack = attacks.create("iter_ll", model, eps=4, fast=True)
    images, _ = batch(6)
    attack(images)
    seen.clear()  # of the search for layers to fold
    attack(images)
    assert seen == [(True, True)] * 5
    assert convolution.weight.is_contiguous()


def test_without_anything_to_fold_it_says_so_once_and_keeps_the_layout() -> None:
    model = MODELS["no BatchNorm"]()
    attack = attacks.create("step_ll", model, eps=4, fast=True)
    images, _ = batch(6)
    with pytest.warns(UserWarning, match="step_ll runs without fold_bn=True: the model has no BatchNorm layer"):
        attack(images)
    seen = []
    model[0].register_forward_pre_hook(lambda _, args: seen.append(args[0].is_contiguous()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(images)
    assert seen == [True]


def test_statistics_of_the_batch_cannot_be_folded_and_a_message_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "fastadv")
    attack = attacks.create("step_ll", ConvNet(), eps=4, fast=True, bn="batch")
    images, _ = batch(6)
    for _ in range(2):
        attack(images)
    assert caplog.messages == ["step_ll: fast=True skips fold_bn: bn='batch' uses the batch's statistics"]
