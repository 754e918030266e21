"""``capture`` on a GPU: ten iterations, eight of them CUDA graphs, compared with ten ordinary ones."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from benchmarks.trainers import CLASSES, random_trainer
from fastadv import models
from fastadv.train import AttackConfig, NonFiniteLoss, TrainConfig, Trainer
from tests.gpu.device import DEVICE, needs_streams

pytestmark = [pytest.mark.gpu, needs_streams, pytest.mark.filterwarnings("error:training runs without")]

M, ITERATIONS = 16, 10
OPTIONS: dict[str, dict[str, Any]] = {
    "step_ll": {},
    "clean": {"attack": AttackConfig(k=0)},
    "iter_ll": {"attack": AttackConfig(name="iter_ll", k=8, eps=4.0)},
    "pgd": {"attack": AttackConfig(name="pgd", k=8, eps=4.0, options={"steps": 2})},
    "clipped": {"clip_grad_norm": 0.1},
    "fast": {"fast": True},
    "bfloat16": {"precision": "bfloat16"},
}


class Run(NamedTuple):
    moved: Tensor  # [weights], how far the weights went
    losses: list[float]
    trainer: Trainer


def run(*, dropout: float = 0.0, lr: float = 0.01, **options: Any) -> Run:
    torch.manual_seed(0)
    model = models.create("small_cnn", num_classes=CLASSES, width=0.25, dropout=dropout)
    config = TrainConfig(**{"m": M, "attack": AttackConfig(k=8), "log_every": 1, **options})
    trainer, _ = random_trainer(model, config, size=16, device=DEVICE)
    trainer.optimizer.param_groups[0]["initial_lr"] = lr
    trainer.run.schedule.base_lrs[0] = trainer.optimizer.param_groups[0]["lr"] = lr
    before, losses = weights(trainer), []
    for number in range(ITERATIONS):
        trainer.train_step(trainer.train_loader.epoch(number))
        assert trainer._totals is not None
        losses.append(trainer._totals.loss)
    return Run(weights(trainer) - before, losses, trainer)


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([parameter.detach().cpu().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_weights_of_a_run_without(replays: list[int], options: dict[str, Any]) -> None:
    """They differ by a hundredth of how far they went: roundings, of the step and of pixels near a zero gradient."""
    captured = run(capture=True, **options)
    assert len(replays) == 3 * (ITERATIONS - 2)
    eager = run(**without_capture_of_attacks(options))
    assert len(replays) == 3 * (ITERATIONS - 2)
    assert eager.moved.norm() > 0
    assert (captured.moved - eager.moved).norm() < (0.1 if "precision" in options else 0.01) * eager.moved.norm()
    torch.testing.assert_close(captured.losses, eager.losses, rtol=1e-3, atol=0)


def without_capture_of_attacks(options: dict[str, Any]) -> dict[str, Any]:
    """The options of an eager run, in which ``fast`` may record no attack either."""
    if "fast" not in options:
        return options
    return {"channels_last": True, "attack": AttackConfig(k=8, options={"fold_bn": True})}


def test_dropout_draws_anew_in_each_replay(replays: list[int]) -> None:
    """The same images and, but for 1e-20 of a step, weights: the losses of an eager run, no two of them alike."""
    options: dict[str, Any] = {"attack": AttackConfig(k=0), "dropout": 0.5, "lr": 1e-20}
    captured, eager = run(capture=True, **options), run(**options)
    assert len(replays) == 3 * (ITERATIONS - 2)
    assert len(set(captured.losses)) == ITERATIONS
    torch.testing.assert_close(captured.losses, eager.losses, rtol=1e-6, atol=0)


def test_attacks_draw_anew_in_each_replay(replays: list[int]) -> None:
    """The same images and weights, all adversarial by sizes that are drawn."""
    options: dict[str, Any] = {"attack": AttackConfig(k=M), "lr": 1e-20}
    captured, eager = run(capture=True, **options), run(**options)
    assert len(replays) == 3 * (ITERATIONS - 2)
    assert len(set(captured.losses)) == ITERATIONS
    torch.testing.assert_close(captured.losses, eager.losses, rtol=1e-5, atol=0)


def test_a_loss_that_is_not_finite_stops_the_step() -> None:
    trainer = run(capture=True).trainer
    before = weights(trainer)
    [(images, labels)] = trainer.train_loader.epoch(0)
    with pytest.raises(NonFiniteLoss, match=f"at iteration {ITERATIONS + 1}"):
        trainer.train_step([(images.fill_(math.nan), labels)])
    assert torch.equal(weights(trainer), before)
