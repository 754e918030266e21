"""Adversarial training: tasks for any training loop, and a trainer."""

from typing import TYPE_CHECKING

from fastadv.utils.lazy_imports import imports_on_use

if TYPE_CHECKING:
    from fastadv.data.config import DataConfig
    from fastadv.train.build import create_trainer
    from fastadv.train.config import AttackConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
    from fastadv.train.non_finite import NonFiniteLoss
    from fastadv.train.replay_loader import Replayed
    from fastadv.train.sentinel_config import SentinelConfig
    from fastadv.train.tasks.adversarial import AdversarialTask
    from fastadv.train.tasks.correct_counts import Accuracy
    from fastadv.train.tasks.fast import fast_task
    from fastadv.train.tasks.free import FreeTask
    from fastadv.train.tasks.paired import PairedTask
    from fastadv.train.tasks.trades import TradesTask
    from fastadv.train.trainer import Trainer

__all__ = [
    "Accuracy",
    "AdversarialTask",
    "AttackConfig",
    "DataConfig",
    "FreeTask",
    "ModelConfig",
    "NonFiniteLoss",
    "OptimizerConfig",
    "PairedTask",
    "Replayed",
    "ScheduleConfig",
    "SentinelConfig",
    "TradesTask",
    "TrainConfig",
    "Trainer",
    "create_trainer",
    "fast_task",
]

_MODULES = {
    "Accuracy": "fastadv.train.tasks.correct_counts",
    "AdversarialTask": "fastadv.train.tasks.adversarial",
    "AttackConfig": "fastadv.train.config",
    "DataConfig": "fastadv.data.config",
    "FreeTask": "fastadv.train.tasks.free",
    "ModelConfig": "fastadv.train.config",
    "NonFiniteLoss": "fastadv.train.non_finite",
    "OptimizerConfig": "fastadv.train.config",
    "PairedTask": "fastadv.train.tasks.paired",
    "Replayed": "fastadv.train.replay_loader",
    "ScheduleConfig": "fastadv.train.config",
    "SentinelConfig": "fastadv.train.sentinel_config",
    "TradesTask": "fastadv.train.tasks.trades",
    "TrainConfig": "fastadv.train.config",
    "Trainer": "fastadv.train.trainer",
    "create_trainer": "fastadv.train.build",
    "fast_task": "fastadv.train.tasks.fast",
}


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # a type checker would accept any name
    __getattr__ = imports_on_use(__name__, _MODULES)
