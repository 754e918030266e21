"""Adversarial training: tasks for any training loop, and a trainer."""

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
    "TrainConfig",
    "Trainer",
    "create_trainer",
    "fast_task",
]


def __dir__() -> list[str]:
    return sorted(__all__)
