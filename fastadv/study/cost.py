"""Estimates what a study will cost from the speed of each architecture, measured on this machine."""

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

_MIN_REPETITIONS, _MAX_REPETITIONS, _MIN_SECONDS = 3, 50, 0.3  # enough to find one that nothing disturbed
_LARGE_IMAGE, _LARGE_IMAGES_PER_PASS = 128, 2  # on a CPU, a pass over a whole minibatch would take minutes


@dataclass(frozen=True)
class Rates:
    """Seconds per image, and bytes on disk.

    Args:
        forward: a forward pass without gradients.
        gradient: a forward pass and the gradient of the image, with the fast options of an evaluation; counts of leaked
            labels run without them and take somewhat longer.
        generation: the same with the options and the precision of training.
        step: a forward pass and the gradients of the weights, in the precision of training.
        bytes: size of a checkpoint: weights, twice as much for the optimiser, and averaged weights if there are any.
    """

    forward: float
    gradient: float
    generation: float
    step: float
    bytes: int


class Speeds:
    """Measures the :class:`Rates` of networks, each architecture once.

    Args:
        scale: gives the size and number of the images.
        device: where the networks run.
    """

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self._scale = scale
        self._device = device
        self._known: dict[str, Rates] = {}
        self._wall = self._processor = 0.0  # seconds, summed over the fastest pass of each measurement

    @property
    def processor_share(self) -> float | None:
        """Share of the processor time that the passes got; less than 1 if other programs were running.

        None before the first pass, and on a GPU, where processor time says nothing about a pass.
        """
        if self._device.type != "cpu" or self._wall == 0:
            return None
        threads = min(torch.get_num_threads(), len(os.sched_getaffinity(0)))
        return min(1.0, self._processor / (self._wall * threads))

    def of(self, network: Network) -> Rates:
        """The rates of a network; the first call for an architecture measures it."""
        architecture = repr(network.config.model)
        if architecture not in self._known:
            if not self._known:
                print("estimating time: passes of each architecture over random images", file=sys.stderr, flush=True)
            self._known[architecture] = self._measure(network)
        return self._known[architecture]

    def _measure(self, network: Network) -> Rates:
        scale = self._scale
        few = scale.image_size > _LARGE_IMAGE and self._device.type == "cpu"
        config = network.config
        m = _LARGE_IMAGES_PER_PASS if few else config.m
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
        """Time of the fastest repetition, after a warm-up run."""
        run()
        best, begin = (float("inf"), 0.0), time.perf_counter()
        for repetition in range(_MAX_REPETITIONS):
            if repetition >= _MIN_REPETITIONS and time.perf_counter() - begin > _MIN_SECONDS:
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
    """One step of an attack. The attack is built once, so that repetitions do not pay for its first call's checks."""
    attack = attacks.create("step_ll", model, eps=8, space=PixelSpace.unit(), fast=fast)

    def step() -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an option does not fit the model does not matter here
            return attack(images)  # [m, C, H, W]

    return step


def _backward(model: nn.Module, images: torch.Tensor) -> None:
    model.zero_grad()
    logits, auxiliary = split_logits(model(images))  # [m, K], and a list of the same
    torch.stack([head.sum() for head in (logits, *auxiliary)]).sum().backward()  # type: ignore[no-untyped-call]


def training_seconds(network: Network, scale: Scale, rates: Rates) -> float:
    """Time of the passes and of the test after each epoch; reading images and writing checkpoints come on top."""
    config = network.config
    images = config.epochs * scale.train_images
    share = config.attack.k / config.m
    largest = config.attack.eps_upper if config.attack.eps is None else config.attack.eps
    gradients = _gradients(config.attack.name, largest, config.attack.options.get("steps")) if share else 0
    return (
        images * (rates.step + share * gradients * rates.generation) + config.epochs * scale.test_images * rates.forward
    )


def _gradients(attack: str, eps: float, steps: int | None = None) -> int:
    """How many gradients an attack takes for each image."""
    kind = attacks.get(attack)
    if issubclass(kind, IterativeAttack):
        return int(steps or paper_iterations(eps))
    return 1 if issubclass(kind, attacks.GradientAttack) else 0


def evaluation_seconds(part: Robustness | Transfer | Leaking, network: Network, scale: Scale, rates: Rates) -> float:
    """Time for one network of an evaluation, or for one source network of a transfer."""
    limit = scale.test_images if part.limit is None else min(part.limit, scale.test_images)
    names = [name for pair in part.pairs for name in pair] if isinstance(part, Leaking) else list(part.attacks)
    targets = len(part.networks) + 1 if isinstance(part, Transfer) else 1
    passes = 1.0 * rates.forward
    for attack in names:
        shared = attacks.get(attack).one_gradient
        gradients = 1 if shared else sum(_gradients(attack, eps) for eps in part.eps)
        passes += gradients * rates.gradient + len(part.eps) * targets * rates.forward
    return limit * passes


def total_evaluation_seconds(evaluations: Evaluations, scale: Scale, speeds: Speeds) -> float:
    """Time for all evaluations of a study."""
    return sum(
        evaluation_seconds(part, network, scale, speeds.of(network))
        for part in evaluations
        for network in part.networks
    )
