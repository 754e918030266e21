"""Records of a training run: one for each logged iteration, one for each epoch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A logged iteration: learning rate, and loss and accuracies (None without such examples) of all its minibatches.

    ``images_per_s`` and ``data_wait``, the share of the time spent waiting for the loader (see ``Pace``), are
    since the previous record, or since a checkpoint after it. ``cost`` is that of all iterations so far, in clean-epoch
    equivalents (see ``fastadv.train.cost``). With several processes, ``data_wait`` and ``cost`` are those of the main
    one; everything else is over all.
    """

    step: int
    epoch: int
    loss: float
    clean_accuracy: float | None
    adversarial_accuracy: float | None
    lr: float
    images_per_s: float
    data_wait: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """The end of an epoch: means over its minibatches during training, and accuracy on the clean test set.

    ``test_accuracy_averaged`` is that of the averaged weights; None without averages. ``cost`` is that of the run so
    far, as in a :class:`StepRecord`. ``last_robust_accuracy`` is that of the sentinel's last check in this phase,
    which may be of an earlier epoch; None before its first.
    """

    step: int
    epoch: int
    mean_loss: float
    mean_clean_accuracy: float | None
    mean_adversarial_accuracy: float | None
    test_accuracy: float
    cost: float
    test_accuracy_averaged: float | None = None
    last_robust_accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class SentinelRecord:
    """A check of the sentinel: accuracy on its training images under PGD of 10 steps, and under FGSM."""

    step: int
    epoch: int
    sentinel_robust_accuracy: float
    sentinel_one_step_accuracy: float


Record = StepRecord | EpochRecord | SentinelRecord
