"""The ways of training that are compared."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastadv import PixelSpace, TruncatedNormalEps
from fastadv.train import AdversarialTask, FreeTask, PairedTask, TradesTask, fast_task
from fastadv.train.protocols import Task

SPACE = PixelSpace.unit()
STANDARD = "standard"
SOURCES = 2  # other networks, of training with static sources


@dataclass(frozen=True)
class Method:
    """A way of training.

    Args:
        name: name in the tables.
        task: makes the task for a network.
        replays: how often each minibatch is repeated; there are correspondingly fewer epochs.
        versions: in how many versions an iteration shows each of its images; epochs are correspondingly fewer, too.
        half: whether the network runs in bfloat16 autocast, as with ``--precision bfloat16``.
        sources: other networks that the task makes adversarial examples on.
    """

    name: str
    task: Callable[[nn.Module], Task]
    replays: int = 1
    versions: int = 1
    half: bool = False
    sources: Sequence[nn.Module] = ()

    @property
    def passes(self) -> int:
        """How often an epoch trains on each image."""
        return self.replays * self.versions

    def step(self, task: Task, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
        """One iteration on images [m, C, H, W], which the task may overwrite, and labels [m]."""
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half):
            if isinstance(task, PairedTask):
                task.backward(images, labels)
            else:
                loss = task(images, labels)
        if not isinstance(task, PairedTask):
            loss.backward()
        optimizer.step()


def methods(options: argparse.Namespace, seed: int, sources: Sequence[nn.Module] = ()) -> dict[str, Method]:
    """By name, standard training first; all others use the same eps, or for Algorithm 1 a distribution scaled to it.

    Args:
        options: of the command line.
        seed: of the tasks' random numbers.
        sources: what training with static sources makes examples on; the others need none.
    """
    m, eps = options.m, options.eps
    drawn = TruncatedNormalEps(sigma=eps, upper=2 * eps)

    def mixture(attack: str, k: int, **more: object) -> Callable[[nn.Module], Task]:
        chosen = {"eps": drawn, **more}
        return lambda model: AdversarialTask(model, attack=attack, k=k, space=SPACE, seed=seed, **chosen)

    def pairs(attack: str) -> Callable[[nn.Module], Task]:
        return lambda model: PairedTask(model, attack=attack, eps=drawn, space=SPACE, seed=seed)

    def fast(**more: str) -> Callable[[nn.Module], Task]:
        return lambda model: fast_task(model, eps=eps, space=SPACE, seed=seed, **more)

    listed = [
        Method(STANDARD, mixture("step_ll", 0)),
        Method("Algorithm 1, step_ll, k = m / 2", mixture("step_ll", m // 2)),
        Method("the same in bfloat16", mixture("step_ll", m // 2), half=True),
        Method("Algorithm 1, step_ll, static sources", mixture("step_ll", m // 2, sources=sources), sources=sources),
        Method("pairs, step_ll", pairs("step_ll"), versions=2),
        Method("Algorithm 1, fgsm, k = m / 2", mixture("fgsm", m // 2)),
        Method("pairs, fgsm", pairs("fgsm"), versions=2),
        Method("Algorithm 1, step_ll, k = m", mixture("step_ll", m)),
        Method("fast", fast()),
        Method("fast, from noise", fast(start="noise")),
        Method(f"free, r = {options.replays}", lambda model: FreeTask(model, eps=eps, space=SPACE), options.replays),
        Method("TRADES, 10 steps", lambda model: TradesTask(model, eps=eps, space=SPACE, seed=seed)),
        Method("pgd, 10 steps, k = m", mixture("pgd", m, eps=eps, attack_options={"steps": 10})),
    ]
    return {way.name: way for way in listed}
