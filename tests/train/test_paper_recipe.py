"""Run the paper's recipe with everything that it switches on, on a few small photographs and a narrow network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import RMSpropTF
from torch import Tensor, nn

from fastadv.cli import main, run_training
from fastadv.eps import TruncatedNormalEps
from fastadv.train import AdversarialTask, Trainer, build, checkpoint
from tests.data.pictures import write_data_set

SMALL = ["--data.size", "75", "--data.loader", "torchvision", "--data.workers", "0", "--model.options.width", "0.0625"]
SMALL += ["--minibatch", "4", "--attack.k", "2", "--accumulate", "2", "--attack.start_after", "1"]
SMALL += ["--epochs", "1", "--log_every", "1", "--device", "cpu"]


def test_two_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_data_set(tmp_path / "images", per_class=4, classes=4)  # four minibatches of four
    passes: list[tuple[bool, int]] = []  # whether in training mode, and of how many images
    norms: list[float] = []  # of the gradients that the optimiser was given

    def watched(*arguments: Any, **options: Any) -> Trainer:
        trainer = build.create_trainer(*arguments, **options)
        trainer.model.register_forward_pre_hook(lambda module, inputs: passes.append((module.training, len(inputs[0]))))
        _check_constants(trainer)
        first = next(module for module in trainer.model.modules() if isinstance(module, nn.Conv2d))
        first.register_forward_hook(_check_layout_and_precision)
        trainer.optimizer.register_step_pre_hook(lambda *_: norms.append(_gradient_norm(trainer.model)))
        return trainer

    monkeypatch.setattr(run_training, "create_trainer", watched)
    images, run = str(tmp_path / "images"), tmp_path / "run"
    assert main(["train", "--recipe", "inception_v3_step_ll", "--data", images, *SMALL, "--out", str(run)]) == 0

    # Two minibatches per iteration. In the second iteration, each is preceded by the generation of two examples, and
    # the first of these by two passes that look for layers to fold and check the folded ones.
    training, generation, test = (True, 4), (False, 2), (False, 4)
    search = [generation] * 2
    assert passes == [training] * 2 + search + [generation, training] * 2 + [test] * 4
    assert len(norms) == 2 and max(norms) == pytest.approx(2.0, rel=1e-3)  # clipped

    first, second, end = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    assert (first["step"], first["adversarial_accuracy"], first["lr"]) == (1, None, 0.045)
    assert second["step"] == 2 and 0 <= second["adversarial_accuracy"] <= 1
    assert math.isfinite(first["loss"]) and math.isfinite(second["loss"])
    assert 0 <= end["test_accuracy"] <= 1 and 0 <= end["test_accuracy_averaged"] <= 1

    begun, ended = (run / "checkpoints" / f"step-{step:08d}" for step in (0, 2))
    weights, averages, before = (
        checkpoint.load_weights(ended),
        checkpoint.load_weights(ended, averaged=True),
        checkpoint.load_weights(begun),
    )
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32 and tensor.isfinite().all(), name
    assert not torch.equal(weights["fc.weight"], before["fc.weight"])
    assert not torch.equal(weights["fc.weight"], averages["fc.weight"])


def _check_constants(trainer: Trainer) -> None:
    """The recipe builds the paper's constants, and Inception's if the paper gives none."""
    optimizer, task = trainer.optimizer, trainer.task
    assert isinstance(optimizer, RMSpropTF) and isinstance(task, AdversarialTask)
    for group, decay in zip(optimizer.param_groups, (0.00004, 0.0), strict=True):
        constants = {name: group[name] for name in ("alpha", "momentum", "eps", "weight_decay")}
        assert constants == {"alpha": 0.9, "momentum": 0.9, "eps": 1.0, "weight_decay": decay}
        assert group["lr_in_momentum"]
    assert [module.p for module in trainer.model.modules() if isinstance(module, nn.Dropout)] == [0.2]
    assert (task.attack.name, task.lambda_, task.label_smoothing) == ("step_ll", 0.3, 0.1)
    assert task.attack.label_smoothing == 0.1
    assert task.attack.eps == TruncatedNormalEps(sigma=8, upper=16)
    assert trainer.averages is not None and trainer.averages.decay == 0.9999


def _check_layout_and_precision(convolution: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    for tensor in (convolution.weight, *inputs, output):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert output.dtype == torch.bfloat16


def _gradient_norm(model: nn.Module) -> float:
    return float(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm())
