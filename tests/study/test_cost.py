"""Measurements for the estimated cost of a study."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastadv import attacks
from fastadv.study import cost
from fastadv.study.cost import Speeds
from fastadv.study.networks import vary
from fastadv.study.scales import Scale

CPU = torch.device("cpu")


def test_an_attack_is_built_once_for_all_repetitions(scale: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    create = attacks.create
    monkeypatch.setattr(attacks, "create", lambda *args, **options: made.append(args) or create(*args, **options))
    monkeypatch.setattr(cost, "_MIN_REPETITIONS", 5)
    Speeds(scale, CPU).of(scale.adversarial(""))
    assert len(made) == 2  # one for evaluation, one for training, each for all passes


def test_averaged_weights_are_part_of_a_checkpoint(scale: Scale) -> None:
    plain, averaged = (
        Speeds(scale, CPU).of(scale.adversarial("", changes)).bytes for changes in ({}, {"ema_decay": 0.99})
    )
    assert 3 * averaged == 4 * plain


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_passes_are_timed_in_the_precision_of_training(
    scale: Scale, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []

    def backward(model: torch.nn.Module, images: torch.Tensor) -> None:
        seen.append(model(images).dtype)

    monkeypatch.setattr(cost, "_backward", backward)
    network = scale.adversarial("")
    Speeds(scale, CPU).of(type(network)("", vary(network.config, {"precision": precision})))
    assert set(seen) == {getattr(torch, precision)}
