"""A run small enough to repeat in every test: 160 digits, a narrow network, five iterations per epoch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import torch

from fastadv import data
from fastadv.train import AttackConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to be worth a second one
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce the data set ``digits`` to its first 160 train and 64 test images, copied for each test."""
    whole = digits()

    def first(images: data.ImageSet, n: int) -> data.ImageSet:
        return data.ImageSet(images.images[:n].clone(), images.labels[:n].clone(), images.classes)

    few = data.ImageData(train=first(whole.train, 160), test=first(whole.test, 64))
    monkeypatch.setattr(data, "load", lambda name, root, download: few)


@cache
def digits() -> data.ImageData:
    """The data set, read from its text file once."""
    return data.load("digits")


@pytest.fixture
def config() -> TrainConfig:
    """Everything that has state is switched on: dropout, momentum, schedule, delayed start, drawn eps."""
    return TrainConfig(
        model=ModelConfig(options={"width": 0.25, "dropout": 0.5}),
        attack=AttackConfig(k=12, start_after=4, eps_sigma=32.0, eps_upper=64.0),
        optimizer=OptimizerConfig(name="rmsprop", lr=0.02, weight_decay=1e-4),
        schedule=ScheduleConfig(name="cosine", warmup=3),
        epochs=3,
        label_smoothing=0.1,
        device="cpu",
        checkpoint_every=3,
        log_every=2,
    )
