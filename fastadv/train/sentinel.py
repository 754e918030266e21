"""Sentinel: checks now and then whether training on a one-step attack still gives robustness to iterative ones."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from fastadv import attacks
from fastadv.train.collapse import Check, CollapseRule
from fastadv.train.config import TrainConfig
from fastadv.train.protocols import Alarm
from fastadv.train.replay_loader import Replayed
from fastadv.train.run import Run, Stage
from fastadv.train.sentinel_config import Method, why_unwatched
from fastadv.train.tasks.adversarial import AdversarialTask
from fastadv.train.tasks.correct_counts import is_correct
from fastadv.train.tasks.passes import Passes
from fastadv.utils.model_outputs import logits_of
from fastadv.utils.module_modes import isolated

STEPS = 10  # of PGD
IMAGES = 64  # of all processes together
# Passes of an image in a check: PGD's gradients, FGSM's, and the results of both.
_PASSES = Passes(forward=STEPS + 1 + 2, to_images=STEPS + 1)
_SHARE = 0.01  # of the passes over images in training


class Sentinel:
    """Attacks a few training images every so many iterations, by PGD of 10 steps and by FGSM.

    One-step training can lose its robustness to iterative attacks within an epoch, while its own attack succeeds less
    than ever: catastrophic overfitting (Wong et al., 2020, section 5; Andriushchenko and Flammarion, 2020). Neither
    training loss nor test accuracy shows it.

    A check takes no random numbers from PyTorch's generators and leaves the model as it was: a run with a sentinel is
    the run without one, bit for bit, until it goes back to an earlier checkpoint.

    Args:
        run: what to watch, on this process; its raw weights, not their averages.
        stage: the phase in which to watch it.
        replacement: creates the attack to go on with after a recovery.

    Attributes:
        every: iterations between two checks; 0 for none, as in phases that it does not watch.
        eps: size of both attacks in pixel values; where training draws sizes, the largest.
        recovered: whether the run went back to an earlier checkpoint, and trains on the replacement.
    """

    def __init__(self, run: Run, stage: Stage, replacement: Callable[[], attacks.Attack]) -> None:
        config = stage.config
        self.watches = unwatched(config) is None
        self.every = checks_every(config, run.processes.world_size) if self.watches else 0
        self.eps = config.attack.eps_upper if config.attack.eps is None else config.attack.eps
        self.recovered = False
        self._run = run
        self._stage = stage
        self._replacement = replacement
        # Whose attack can be replaced.
        self._task = stage.task if self.watches and isinstance(stage.task, AdversarialTask) else None
        self._original = None if self._task is None else self._task.attack
        self._rule = CollapseRule(config.sentinel.fall)
        self._kept: list[tuple[Tensor, Tensor]] = []  # [n, C, H, W] and [n]

    @property
    def spared(self) -> int | None:
        """The newest checkpoint up to this iteration must not be deleted; None if none is worth going back to."""
        goes_back = self.recovers or self._stage.config.sentinel.then == "stop"
        return self._rule.healthy if goes_back and self.every > 0 else None

    def is_due(self, step: int) -> bool:
        """Whether there is a check after iteration ``step``."""
        trained = step - self._stage.config.attack.start_after
        return self.every > 0 and trained > 0 and trained % self.every == 0

    @property
    def last(self) -> Check | None:
        """The last check of this phase."""
        return self._rule.last

    def checks(self, steps: range) -> int:
        """How many of these iterations are followed by a check."""
        return sum(map(self.is_due, steps)) if self.every else 0

    @property
    def passes(self) -> Passes:
        """Passes of a check on this process."""
        loader = self._stage.train_loader
        minibatches = len(loader.loader if isinstance(loader, Replayed) else loader)
        available = minibatches * self._stage.config.images_per_minibatch
        return _PASSES.times(min(available, _images_of_one(self._run.processes.world_size)))

    def keep_images(self, steps: range) -> None:
        """Copy the first images of the first epoch if there is a check after one of these iterations.

        Call it while no epoch of the training loader is being read.
        """
        if self._kept or not any(self.is_due(step) for step in steps):
            return
        loader = self._stage.train_loader
        left = _images_of_one(self._run.processes.world_size)
        for images, labels in (loader.loader if isinstance(loader, Replayed) else loader).epoch(0):
            taken = images[:left].clone()
            self._kept.append((self._run.in_weight_layout(taken), labels[:left].clone()))
            left -= len(taken)
            if left == 0:
                break

    def after_step(self, step: int, write: Callable[[int, Check], None]) -> Alarm | None:
        """Check if one is due after iteration ``step``; ``write`` logs it. All processes get the same answer."""
        if not self.is_due(step):
            return None
        check = self.check()
        write(step, check)
        if not self._rule.add(step, check) and not (self._rule.collapsed and self.recovers):
            return None
        assert self._rule.best is not None
        return Alarm(
            f"robust accuracy has collapsed by iteration {step:,}: of {check.n} training images at eps {self.eps:g}, "
            f"{check.robust:.0%} are classified correctly after {STEPS} steps (PGD), {self._rule.best.robust:.0%} at "
            f"best, and {check.one_step:.0%} after one (FGSM)",
            self._rule.healthy,
        )

    @property
    def recovers(self) -> bool:
        """Whether an alarm sends the run back to an earlier checkpoint: once, and if it is configured."""
        return self._stage.config.sentinel.then == "recover" and not self.recovered

    def check(self) -> Check:
        """Attack the kept images; all processes at once."""
        run = self._run
        counts = torch.zeros(3, dtype=torch.int64, device=run.device)  # [3]: correct under PGD and FGSM, images
        with _undisturbed(run.device), run.autocast():
            space = self._stage.config.data.pixel_space
            options: dict[str, Any] = {"eps": self.eps, "space": space, "validate": "never"}
            used = attacks.PGD(run.model, steps=STEPS, seed=0, **options), attacks.FGSM(run.model, **options)
            for images, labels in self._kept:
                correct = [_correct(run.model, attack(images, labels), labels) for attack in used]
                counts += torch.stack([*correct, torch.full_like(correct[0], len(images))])
        if not run.processes.alone:
            dist.all_reduce(counts)
        robust, one_step, n = counts.tolist()
        return Check(robust / n, one_step / n, n)

    def recover(self) -> None:
        """Train on the replacement from now on; it continues the random draws of the attack before it.

        A phase that is not watched keeps its attack: only those after it take the replacement.
        """
        if self._task is None:  # other training is not configured to recover
            self.recovered = True
            return
        replacement = self._replacement()
        replacement.stream = self._task.attack.stream
        self._task.attack = replacement
        self.recovered = True

    def start_anew(self, *, recovered: bool) -> None:
        """Forget the checks, as a phase begins; train on the replacement if the run has ``recovered``."""
        self.load_state_dict({"recovered": recovered, **CollapseRule(self._rule.fall).state_dict()})

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint: the best and the last check, and whether the run has recovered."""
        return {"recovered": self.recovered, **self._rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`, and with it the attack that it was saved with."""
        self._rule.load_state_dict(state)
        if state["recovered"] == self.recovered:
            return
        if state["recovered"]:
            self.recover()
            return
        if self._task is not None and self._original is not None:
            self._task.attack = self._original
        self.recovered = False


def create_sentinel(run: Run, stage: Stage, replacement: Callable[[], attacks.Attack]) -> Sentinel | None:
    """Create the sentinel of a phase; None if it does not train on a one-step attack.

    In a run that may recover, every phase has one: it hands on that the run has recovered.
    """
    watched = [unwatched(phase.config) is None for phase in run.stages]
    recovers = any(watched) and run.config.sentinel.then == "recover"
    return Sentinel(run, stage, replacement) if recovers or unwatched(stage.config) is None else None


def unwatched(phase: TrainConfig) -> str | None:
    """Why the sentinel does not watch a phase; None if it does."""
    attack = phase.attack
    return why_unwatched(Method(attack.training, attack.name, attack.k, attack.options))


def checks_every(config: TrainConfig, world_size: int) -> int:
    """Iterations between two checks: as configured, or so many that checks add at most 1 % to the passes over images.

    Forward and backward passes of an image count alike. An iteration runs 2 m of them, and 2 k for generation; the
    attack of paired and free training needs none of its own.
    """
    if config.sentinel.every is not None:
        return config.sentinel.every
    attack = config.attack
    generated = {"algorithm1": attack.k, "fast": config.m}.get(attack.training, 0)
    in_training = 2 * (config.m + generated) * config.accumulate
    return math.ceil((_PASSES.forward + _PASSES.to_images) * _images_of_one(world_size) / (_SHARE * in_training))


def _images_of_one(world_size: int) -> int:
    """Images that each of the processes attacks."""
    return math.ceil(IMAGES / world_size)


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Leave PyTorch's generators as they were, and suppress warnings: training on the same images gives its own."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def _correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:  # [n, C, H, W], [n] -> []
    with isolated(model, bn="eval"):
        return is_correct(logits_of(model(images)), labels).sum()
