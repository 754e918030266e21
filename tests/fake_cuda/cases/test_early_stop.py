"""Attacks with early_stop on a GPU: images leave the batch as they do on a CPU, and no iteration is captured."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from fastadv import attacks


@pytest.mark.filterwarnings("ignore:pgd runs without fold_bn")
@pytest.mark.parametrize("fast", [False, True])
def test_images_leave(fast: bool, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 5))
    images = torch.rand(16, 3, 2, 2)
    labels = model(images).argmax(1)
    options = {"eps": 32, "alpha": 4, "steps": 12, "early_stop": True, "seed": 1, "restarts": 2}
    expected = attacks.PGD(model, **options)
    adv = expected(images, labels)
    attack = attacks.PGD(model.to("cuda"), fast=fast, **options)
    with caplog.at_level(logging.INFO, "fastadv"):
        same = attack(images.to("cuda"), labels.to("cuda"))
    torch.testing.assert_close(same.cpu(), adv)
    assert attack.image_gradients == expected.image_gradients < 0.9 * 2 * 12 * 16
    said = "pgd: fast=True skips capture: early_stop=True reads verdicts between the steps, and images leave the batch"
    assert (said in caplog.messages) == fast
