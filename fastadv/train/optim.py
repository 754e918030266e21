"""Create optimisers and learning-rate schedules from their configuration."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn, optim

from fastadv.train.config import OptimizerConfig, ScheduleConfig
from fastadv.train.phases import Timeline
from fastadv.utils.optional_deps import require

# Inception's published constants. Epsilon 1 keeps a rare gradient from causing a giant step; PyTorch adds it to the
# root, TensorFlow inside it.
_INCEPTION = {"alpha": 0.9, "momentum": 0.9, "eps": 1.0}
_OPTIMIZERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rmsprop": ("torch.optim", "RMSprop", _INCEPTION),
    "rmsprop_tf": ("timm.optim", "RMSpropTF", _INCEPTION),
    "sgd": ("torch.optim", "SGD", {"momentum": 0.9}),
    "adamw": ("torch.optim", "AdamW", {}),
}
# PyTorch updates all weights in one pass over memory for these, but not for RMSProp. On CPUs, too, but there the last
# bits would no longer be those of earlier runs, for a step that takes little of an iteration's time.
_FUSED_ON_GPUS = ("sgd", "adamw")
_FORMS = ("fused", "foreach", "capturable", "differentiable")


def create_optimizer(model: nn.Module, config: OptimizerConfig) -> optim.Optimizer:
    """Create an optimiser of the parameters that require a gradient; on a GPU in PyTorch's fused form if it has one.

    Raises:
        ValueError: if the optimiser has no such option, or refuses a value.
        ModuleNotFoundError: if rmsprop_tf is used without timm.
    """
    module, name, defaults = _OPTIMIZERS[config.name]
    kind: Callable[..., optim.Optimizer] = getattr(require(module, extra="train"), name)
    accepted = [name for name in inspect.signature(kind).parameters if name not in ("params", "lr", "weight_decay")]
    unknown = [name for name in config.options if name not in accepted]
    if unknown:
        raise ValueError(f"{config.name} has no option {', '.join(unknown)}; accepted: {', '.join(accepted)}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options = {**defaults, **config.options}
    on_gpu = all(parameter.is_cuda for parameter in parameters)
    if on_gpu and config.name in _FUSED_ON_GPUS and not any(form in options for form in _FORMS):
        options["fused"] = True
    return kind(_groups(parameters, config), lr=config.lr, **options)


def _groups(parameters: Iterable[Tensor], config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameter groups with and without weight decay; vectors, that is, biases and normalisation, have none."""
    decayed: list[Tensor] = []
    spared: list[Tensor] = []
    for parameter in parameters:
        (decayed if parameter.dim() > 1 or config.decay_norm_and_bias else spared).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def create_schedule(
    optimizer: optim.Optimizer, config: ScheduleConfig, timeline: Timeline, rates: Sequence[float] = (1.0,)
) -> optim.lr_scheduler.LambdaLR:
    """Create a schedule; step it after each iteration.

    Where phases differ in their iterations per epoch, a schedule follows the epochs: it is the same at the end of an
    epoch as in a run whose phases do not differ.

    Args:
        optimizer: has the learning rate of the first phase.
        config: the schedule, which goes on through all phases.
        timeline: of the run.
        rates: factor of the learning rate in each phase.
    """

    def factor(step: int) -> float:
        phase, epoch, start, steps_per_epoch = timeline.position(step)
        of_schedule = lr_factor(
            config,
            epoch * steps_per_epoch + start,
            steps_per_epoch=steps_per_epoch,
            total_steps=timeline.total_epochs * steps_per_epoch,
        )
        return rates[phase] * of_schedule

    return optim.lr_scheduler.LambdaLR(optimizer, factor)


def depends_on_length(config: ScheduleConfig) -> bool:
    """Whether learning rates depend on the length of the run, which then cannot be extended."""
    return config.name == "cosine"


def lr_factor(config: ScheduleConfig, step: int, *, steps_per_epoch: int, total_steps: int) -> float:
    """Factor of the learning rate at iteration ``step``, counted from 0."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    if config.name == "cosine":
        done = (step - config.warmup) / max(1, total_steps - config.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if config.name == "exponential":
        return config.decay ** math.floor(step / (config.decay_every * steps_per_epoch))
    return 1.0
