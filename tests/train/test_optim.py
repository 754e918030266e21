from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastadv.train import OptimizerConfig, ScheduleConfig
from fastadv.train.optim import create_optimizer, create_schedule, depends_on_length, lr_factor
from fastadv.train.phases import Timeline

WARM = ScheduleConfig(warmup=4)
COSINE = ScheduleConfig(name="cosine")
WARM_COSINE = ScheduleConfig(name="cosine", warmup=4)
STEPS = ScheduleConfig(name="exponential", decay=0.5, decay_every=2.0)


@pytest.mark.parametrize(
    ("config", "step", "factor"),
    [
        (ScheduleConfig(), 0, 1.0),
        (ScheduleConfig(), 99, 1.0),
        (WARM, 0, 0.25),
        (WARM, 3, 1.0),
        (WARM, 4, 1.0),
        (COSINE, 0, 1.0),
        (COSINE, 50, 0.5),
        (COSINE, 100, 0.0),
        (COSINE, 120, 0.0),  # beyond the end it does not rise again
        (WARM_COSINE, 1, 0.5),
        (WARM_COSINE, 52, 0.5),
        (STEPS, 19, 1.0),
        (STEPS, 20, 0.5),
        (STEPS, 39, 0.5),
        (STEPS, 40, 0.25),
    ],
)
def test_lr_factor(config: ScheduleConfig, step: int, factor: float) -> None:
    assert lr_factor(config, step, steps_per_epoch=10, total_steps=100) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("config", [WARM, WARM_COSINE, STEPS])
def test_which_schedules_depend_on_how_many_iterations_follow(config: ScheduleConfig) -> None:
    short, long = (
        [lr_factor(config, step, steps_per_epoch=10, total_steps=total) for step in range(40)] for total in (40, 80)
    )
    assert depends_on_length(config) is (short != long)


def test_schedule_moves_the_learning_rate() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=8.0)
    schedule = create_schedule(optimizer, STEPS, Timeline([6], [1]))
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [8, 8, 4, 4, 2, 2]


@pytest.mark.parametrize(
    ("config", "kind", "settings"),
    [
        (OptimizerConfig(), torch.optim.RMSprop, {"lr": 0.045, "alpha": 0.9, "momentum": 0.9, "eps": 1.0}),
        (OptimizerConfig(options={"eps": 0.5}), torch.optim.RMSprop, {"eps": 0.5, "momentum": 0.9}),
        (OptimizerConfig(name="sgd", lr=0.1), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
        (OptimizerConfig(name="sgd", options={"momentum": 0}), torch.optim.SGD, {"momentum": 0}),
        (OptimizerConfig(name="adamw", options={"betas": [0.8, 0.9]}), torch.optim.AdamW, {"betas": (0.8, 0.9)}),
    ],
)
def test_optimizers(config: OptimizerConfig, kind: type, settings: dict[str, Any]) -> None:
    optimizer = create_optimizer(nn.Linear(2, 2), config)
    assert type(optimizer) is kind
    assert {name: optimizer.param_groups[0][name] for name in settings} == settings


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        # Averages of squares from 0: 0.1 * 4, then 0.9 * 0.4 + 0.1 * 4; momentum 2 / (sqrt(0.4) + 1), and so on.
        ("rmsprop", [0.5 * 2 / (0.4**0.5 + 1), 0.5 * (0.9 * 2 / (0.4**0.5 + 1) + 2 / (0.76**0.5 + 1))]),
        # From 1: 0.9 + 0.1 * 4, then 0.9 * 1.3 + 0.1 * 4; eps inside the root.
        ("rmsprop_tf", [0.5 * 2 / 2.3**0.5, 0.5 * (0.9 * 2 / 2.3**0.5 + 2 / 2.57**0.5)]),
    ],
)
def test_rmsprop_by_hand(name: Any, steps: list[float]) -> None:
    parameter = nn.Parameter(torch.zeros(1, 1))
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = parameter
    optimizer = create_optimizer(layer, OptimizerConfig(name=name, lr=0.5))
    for step in steps:
        before = parameter.item()
        parameter.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        assert before - parameter.item() == pytest.approx(step, rel=1e-6)


def test_the_learning_rate_of_an_earlier_step_stays_in_tensorflows_momentum() -> None:
    moved = {}
    for name in ("rmsprop", "rmsprop_tf"):
        layer = nn.Linear(1, 1, bias=False)
        optimizer = create_optimizer(layer, OptimizerConfig(name=name, lr=0.5))
        layer.weight.grad = torch.full((1, 1), 2.0)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 0.0
        before = layer.weight.item()
        optimizer.step()
        moved[name] = before - layer.weight.item()
    assert moved["rmsprop"] == 0 and moved["rmsprop_tf"] == pytest.approx(0.9 * 0.5 * 2 / 2.3**0.5, rel=1e-5)


@pytest.mark.parametrize(
    ("everywhere", "decays"), [(False, [0.5, 0.0, 0.0, 0.0]), (True, [0.5, 0.5, 0.5, 0.5])], ids=["weights", "all"]
)
def test_weight_decay_spares_norm_and_bias(everywhere: bool, decays: list[float]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = create_optimizer(model, OptimizerConfig(weight_decay=0.5, decay_norm_and_bias=everywhere))
    of = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [of[id(p)] for p in model.parameters()] == decays  # convolution's weight and bias, normalisation's


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    (group,) = create_optimizer(model, OptimizerConfig()).param_groups
    assert group["params"] == [model.weight]


def test_unknown_option() -> None:
    with pytest.raises(ValueError, match=r"sgd has no option alpha; accepted: momentum, .*nesterov"):
        create_optimizer(nn.Linear(2, 2), OptimizerConfig(name="sgd", options={"alpha": 0.9}))
