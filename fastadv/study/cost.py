"""What a study will cost, from the speed of each architecture as measured on this machine."""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from fastadv import attacks, models
from fastadv.attacks.iterative import IterativeAttack, paper_iterations
from fastadv.pixels import PixelSpace
from fastadv.study.evaluations import Evaluations, Leaking, Robustness, Transfer
from fastadv.study.networks import Network
from fastadv.study.scales import Scale
from fastadv.utils.model_outputs import split_logits

_LEAST, _MOST, _ENOUGH_S = 3, 50, 0.3  # repetitions: enough to find one that nothing disturbed
_FEW = 2  # of images beyond this size, a pass over a minibatch would take minutes on a CPU
_LARGE = 128


@dataclass(frozen=True)
class Rates:
    """Seconds an image, and bytes on disk.

    Args:
        forward: a pass without gradients.
        gradient: a pass and the gradient of the image, in an evaluation, which has fast options; the counts of leaked
            labels have none, and take somewhat longer.
        generation: the same in training, which may have them, and in its precision.
        step: a pass and the gradients of the weights, in training's precision.
        bytes: of a checkpoint: weights, twice as much for the optimiser, and averaged weights where there are such.
    """

    forward: float
    gradient: float
    generation: float
    step: float
    bytes: int


class Speeds:
    """The :class:`Rates` of networks, each architecture measured once.

    Args:
        scale: whose images they see.
        device: where they run.
    """

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self._scale = scale
        self._device = device
        self._known: dict[str, Rates] = {}
        self._wall = self._processor = 0.0  # of all passes that were the fastest of theirs

    @property
    def share(self) -> float | None:
        """How much of the processor time that the passes asked for they got: less than 1 where other work runs, too.

        None before any pass, and on a GPU, of whose time the processor's says nothing.
        """
        if self._device.type != "cpu" or self._wall == 0:
            return None
        threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
        return min(1.0, self._processor / (self._wall * threads))

    def of(self, network: Network) -> Rates:
        """Measured the first time, which takes some passes."""
        architecture = repr(network.config.model)
        if architecture not in self._known:
            if not self._known:
                print("estimating time: passes of each architecture over random images", file=sys.stderr, flush=True)
            self._known[architecture] = self._measure(network)
        return self._known[architecture]

    def _measure(self, network: Network) -> Rates:
        scale = self._scale
        few = scale.image_size > _LARGE and self._device.type == "cpu"
        config = network.config
        m = _FEW if few else config.m
        model = models.create(
            config.model.name,
            num_classes=scale.classes,
            in_channels=scale.channels,
            **config.model.options,
        ).to(self._device)
        images = torch.rand(m, scale.channels, scale.image_size, scale.image_size, device=self._device)  # [m, C, H, W]
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        model.eval()
        forward = self._seconds(lambda: _forward(model, images)) / m
        gradient = self._seconds(_generation(model, images, fast=True)) / m
        layout = torch.channels_last if config.in_channels_last else torch.contiguous_format
        model.train().to(memory_format=layout)
        images = images.contiguous(memory_format=layout)
        half = config.precision == "bfloat16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=half):
            generation = self._seconds(_generation(model, images, fast=config.fast)) / m
            step = self._seconds(lambda: _backward(model, images)) / m
        return Rates(forward, gradient, generation, step, (3 if config.ema_decay is None else 4) * weights)

    def _seconds(self, run: Callable[[], object]) -> float:
        """The fastest of some, after one to warm up."""
        run()
        best, begin = (float("inf"), 0.0), time.perf_counter()
        for repetition in range(_MOST):
            if repetition >= _LEAST and time.perf_counter() - begin > _ENOUGH_S:
                break
            self._wait()
            start, processor = time.perf_counter(), time.process_time()
            run()
            self._wait()
            best = min(best, (time.perf_counter() - start, time.process_time() - processor))
        self._wall, self._processor = self._wall + best[0], self._processor + best[1]
        return best[0]

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(images)  # [m, K]
    return logits


def _generation(model: nn.Module, images: torch.Tensor, *, fast: bool) -> Callable[[], torch.Tensor]:
    """One step of an attack that is made once: what it finds out about a model in its first call is not paid again."""
    attack = attacks.create("step_ll", model, eps=8, space=PixelSpace.unit(), fast=fast)

    def step() -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an option that does not fit the model is not worth a warning here
            return attack(images)  # [m, C, H, W]

    return step


def _backward(model: nn.Module, images: torch.Tensor) -> None:
    model.zero_grad()
    logits, auxiliary = split_logits(model(images))  # [m, K], and a list of the same
    torch.stack([head.sum() for head in (logits, *auxiliary)]).sum().backward()  # type: ignore[no-untyped-call]


def training_seconds(network: Network, scale: Scale, rates: Rates) -> float:
    """Of the passes; reading images, checkpoints and the test after each epoch come on top."""
    config = network.config
    images = config.epochs * scale.train_images
    share = config.attack.k / config.m
    largest = config.attack.eps_upper if config.attack.eps is None else config.attack.eps
    gradients = _gradients(config.attack.name, largest, config.attack.options.get("steps")) if share else 0
    return (
        images * (rates.step + share * gradients * rates.generation) + config.epochs * scale.test_images * rates.forward
    )


def _gradients(attack: str, eps: float, steps: int | None = None) -> int:
    """How many gradients an attack makes of each image."""
    kind = attacks.get(attack)
    if issubclass(kind, IterativeAttack):
        return int(steps or paper_iterations(eps))
    return 1 if issubclass(kind, attacks.GradientAttack) else 0


def evaluation_seconds(part: Robustness | Transfer | Leaking, network: Network, scale: Scale, rates: Rates) -> float:
    """What one network of an evaluation takes; of a transfer, what its source takes."""
    limit = scale.test_images if part.limit is None else min(part.limit, scale.test_images)
    names = [name for pair in part.pairs for name in pair] if isinstance(part, Leaking) else list(part.attacks)
    targets = len(part.networks) + 1 if isinstance(part, Transfer) else 1
    passes = 1.0 * rates.forward
    for attack in names:
        shared = attacks.get(attack).one_gradient
        gradients = 1 if shared else sum(_gradients(attack, eps) for eps in part.eps)
        passes += gradients * rates.gradient + len(part.eps) * targets * rates.forward
    return limit * passes


def seconds_of(evaluations: Evaluations, scale: Scale, speeds: Speeds) -> float:
    """All evaluations of a study."""
    return sum(
        evaluation_seconds(part, network, scale, speeds.of(network))
        for part in evaluations
        for network in part.networks
    )
