"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn, optim

from fastadv.train.config import OptimizerConfig, ScheduleConfig
from fastadv.utils.optional_deps import require

# The constants the Inception networks were published with. Epsilon 1 keeps a rare gradient from a giant step; PyTorch
# adds it to the root, TensorFlow under it.
_INCEPTION = {"alpha": 0.9, "momentum": 0.9, "eps": 1.0}
_OPTIMIZERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rmsprop": ("torch.optim", "RMSprop", _INCEPTION),
    "rmsprop_tf": ("timm.optim", "RMSpropTF", _INCEPTION),
    "sgd": ("torch.optim", "SGD", {"momentum": 0.9}),
    "adamw": ("torch.optim", "AdamW", {}),
}


def create_optimizer(model: nn.Module, config: OptimizerConfig) -> optim.Optimizer:
    """The optimiser of ``config`` over the parameters of ``model`` that require a gradient.

    Raises:
        ValueError: an option that the optimiser does not have, or a value that it refuses.
        ModuleNotFoundError: rmsprop_tf without timm.
    """
    module, name, defaults = _OPTIMIZERS[config.name]
    kind: Callable[..., optim.Optimizer] = getattr(require(module, extra="train"), name)
    accepted = [name for name in inspect.signature(kind).parameters if name not in ("params", "lr", "weight_decay")]
    unknown = [name for name in config.options if name not in accepted]
    if unknown:
        raise ValueError(f"{config.name} has no option {', '.join(unknown)}; accepted: {', '.join(accepted)}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return kind(_groups(parameters, config), lr=config.lr, **{**defaults, **config.options})


def _groups(parameters: Iterable[Tensor], config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameter groups with and without weight decay. Biases and the parameters of normalisation are the vectors."""
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for parameter in parameters:
        (decayed if parameter.dim() > 1 or config.decay_norm_and_bias else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def create_schedule(
    optimizer: optim.Optimizer, config: ScheduleConfig, *, steps_per_epoch: int, total_steps: int
) -> optim.lr_scheduler.LambdaLR:
    """A schedule to be stepped once after each iteration."""

    def factor(step: int) -> float:
        return lr_factor(config, step, steps_per_epoch=steps_per_epoch, total_steps=total_steps)

    return optim.lr_scheduler.LambdaLR(optimizer, factor)


def depends_on_length(config: ScheduleConfig) -> bool:
    """Whether the learning rate of an iteration depends on how many follow: such a run cannot be made longer."""
    return config.name == "cosine"


def lr_factor(config: ScheduleConfig, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
    """What the learning rate is multiplied by at iteration ``step``, counted from 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.name == "cosine":
        done = (step - config.warmup) / max(1, total_steps - config.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if config.name == "exponential":
        return config.decay ** math.floor(step / (config.decay_every * steps_per_epoch))
    return 1.0
