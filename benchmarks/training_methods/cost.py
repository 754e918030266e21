"""What an iteration costs: its passes as counted, and its time, with all ways in turns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Interleaved, whole_seconds
from benchmarks.pairs import process_seconds
from benchmarks.training_methods.bench import Bench
from benchmarks.training_methods.ways import Method


@dataclass(frozen=True)
class Passes:
    """Passes per example of an iteration."""

    forward: float
    weights: float  # backward to the weights, and with them to the layers' inputs
    images: float  # backward to the images alone

    @property
    def of_standard(self) -> float:
        """Relative to an example of standard training; as in ``fastadv.train``, a backward pass to weights weighs 2."""
        return (self.forward + 2 * self.weights + self.images) / 3


def count_passes(bench: Bench, way: Method) -> Passes:
    """Count the passes of one iteration, on all networks."""
    model = bench.network(bench.options.seed)
    task, optimizer = way.task(model), bench.optimizer(model)
    images, labels = bench.minibatch(way)
    way.step(task, optimizer, images.clone(), labels)  # the first one has checks, which also run the networks
    rows = {"forward": 0, "backward": 0, "weights": 0}
    shown = 0  # in training mode, since the last backward pass to the weights

    def forward(module: torch.nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        nonlocal shown
        shown += len(logits) if module.training else 0
        rows["forward"] += len(logits)
        if logits.requires_grad:
            logits.register_hook(backward)

    def backward(grad: Tensor) -> None:
        rows["backward"] += len(grad)

    def accumulated(_: Tensor) -> None:
        nonlocal shown
        rows["weights"] += shown
        shown = 0

    hooks = [network.register_forward_hook(forward) for network in (model, *way.sources)]
    next(model.parameters()).register_post_accumulate_grad_hook(accumulated)
    way.step(task, optimizer, images, labels)
    for hook in hooks:
        hook.remove()  # sources are used again
    m = bench.options.m
    return Passes(rows["forward"] / m, rows["weights"] / m, (rows["backward"] - rows["weights"]) / m)


def timed(bench: Bench, ways: list[Method], kept: Path) -> Interleaved:
    """Time an iteration on the same minibatch in rounds, in which all ways take turns, or read the times in ``kept``.

    On a CPU, in process time on one thread: other processes on the machine hardly change it.
    """

    def iteration(way: Method) -> Callable[[], None]:
        images, labels = bench.minibatch(way)
        model = bench.network(bench.options.seed)
        task, optimizer = way.task(model), bench.optimizer(model)
        return lambda: way.step(task, optimizer, images.clone(), labels)

    if kept.exists():
        interleaved = Interleaved({})
        interleaved.seconds = json.loads(kept.read_text())
        return interleaved
    clock = process_seconds if bench.device.type == "cpu" else whole_seconds
    interleaved = Interleaved({way.name: iteration(way) for way in ways}, clock=clock)
    for _ in range(bench.options.rounds):
        interleaved.round()
    kept.write_text(json.dumps(interleaved.seconds))
    return interleaved
