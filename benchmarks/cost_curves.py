"""Cost against work: a curve with its slope for each of k, iterations, m, pixels, classes and draws.

    python -m benchmarks.cost_curves --out docs/performance

writes DIR/cost.md, cost.svg and cost.png. The network is small_cnn, in training iterations with the fast options.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from benchmarks.device import DEVICE, TIMES
from benchmarks.harness import Interleaved, Table, Timing, device_seconds, whole_seconds
from benchmarks.machine import describe
from benchmarks.trainers import CLASSES, random_trainer, step
from fastadv import models, ops
from fastadv.evaluate.figures import COLOURS, SVG_STYLE, panels_of
from fastadv.train import AttackConfig, TrainConfig

M, SIDE, ROUNDS = 64 * TIMES, 32, 9
Work = Callable[[], object]
Clock = Callable[[Work, int], float]
KERNEL: Clock | None = device_seconds if DEVICE.type == "cuda" else None


@dataclass(frozen=True)
class Curve:
    """Work measured for several amounts of something.

    Args:
        title: description of the work.
        amount: what is varied.
        amounts: the amounts to measure.
        work: makes the work for an amount.
        clock: a caller's time including launches, except for single operators on a GPU.
    """

    title: str
    amount: str
    amounts: tuple[int, ...]
    work: Callable[[int], Work]
    clock: Clock | None = whole_seconds


@dataclass(frozen=True)
class Line:
    """Linear fit of milliseconds against the amount, by least squares of the relative error."""

    constant: float
    slope: float
    worst: float  # largest relative deviation of a measured median


def training(*, m: int = M, k: int | None = None, attack: str = "step_ll", steps: int = 1, side: int = SIDE) -> Work:
    """An iteration of the trainer; k defaults to m / 2."""
    torch.manual_seed(0)
    options = {"steps": steps} if attack == "iter_ll" else {}
    own = AttackConfig(name=attack, k=m // 2 if k is None else k, options=options)
    network = models.create("small_cnn", num_classes=CLASSES)
    trainer, _ = random_trainer(network, TrainConfig(m=m, attack=own, fast=True), size=side, device=DEVICE)
    return partial(step, trainer)


def choice(classes: int) -> Work:
    """Target and derivative for 32 examples."""
    logits = torch.randn(32, classes, device=DEVICE)
    return lambda: ops.target_grad(logits, "least_likely", None)


def times(*amounts: int) -> tuple[int, ...]:
    """Amounts scaled to this device."""
    return tuple(TIMES * amount for amount in amounts)


CURVES = [
    Curve(f"step_ll, m = {M}", "k", times(0, 16, 32, 48, 64), lambda k: training(k=k)),
    Curve(
        f"iter_ll, k = {M // 2}, m = {M}", "iterations", (1, 2, 4, 8, 16),
        lambda n: training(attack="iter_ll", steps=n),
    ),
    Curve("step_ll, k = m / 2", "m", times(16, 32, 64, 128, 256), lambda m: training(m=m)),
    Curve(
        f"step_ll, m = {M // 4}, k = {M // 8}", "pixels of an image", (32**2, 48**2, 64**2, 96**2, 128**2),
        lambda pixels: training(m=M // 4, side=round(pixels**0.5)),
    ),
    Curve("target_grad, 32 examples", "classes", (10, 100, 1000, 10_000, 21_841), choice, KERNEL),
    Curve(
        "sample_eps", "examples", (100, 1000, 10_000, 100_000, 1_000_000),
        lambda n: lambda: ops.sample_eps(n, 8.0, 16.0, 0, 0, DEVICE), KERNEL,
    ),
]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all curves and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_curves", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    measured = []
    for curve in CURVES:
        measured.append((curve, measure(curve, options.rounds)))
        (options.out / "cost.md").write_text(report(measured))  # everything so far, in case the time runs out
    with rc_context(SVG_STYLE):
        draw(measured, options.out)


def report(measured: Sequence[tuple[Curve, list[Timing]]]) -> str:
    """The table, with the slope of each curve."""
    table = Table("Cost against work", ["work", "of", "amount", "ms (quartiles)", "a straight line"])
    notes = []
    for curve, timings in measured:
        line = straight(curve.amounts, timings)
        for amount, timing in zip(curve.amounts, timings, strict=True):
            fitted = f"{line.constant + line.slope * amount:.3g}"
            table.rows.append([curve.title, curve.amount, f"{amount:,}", timing.text, fitted])
        notes.append(
            f"- {curve.title}: {_short(line.slope)} for each of {curve.amount}, {_short(line.constant)} besides; "
            f"no point is more than {100 * line.worst:.0f} % off"
        )
    return "\n\n".join([describe(), table.markdown(), "\n".join(notes)]) + "\n"


def measure(curve: Curve, rounds: int) -> list[Timing]:
    """One timing per amount, measured in turns."""
    work = {str(amount): curve.work(amount) for amount in curve.amounts}
    interleaved = Interleaved(work, quantum=0.05, clock=curve.clock)
    for _ in range(rounds):
        interleaved.round()
    timings = interleaved.timings()
    return [timings[str(amount)] for amount in curve.amounts]


def straight(amounts: Sequence[int], timings: Sequence[Timing]) -> Line:
    """Fit a line to the medians, each weighted by its inverse, with a non-negative value at 0."""
    x = np.array(amounts, float)
    y = np.array([1e3 * timing.median for timing in timings])
    slope, constant = np.polyfit(x, y, 1, w=1 / y)
    if constant < 0:
        constant, slope = 0.0, float(np.mean(x / y) / np.mean((x / y) ** 2))
    worst = float(np.max(np.abs((constant + slope * x) / y - 1)))
    return Line(float(constant), float(slope), worst)


def _short(milliseconds: float) -> str:
    for unit, size in (("ms", 1.0), ("us", 1e-3)):
        if milliseconds >= size:
            return f"{milliseconds / size:.3g} {unit}"
    return f"{milliseconds * 1e6:.3g} ns"


def draw(measured: Sequence[tuple[Curve, list[Timing]]], out: Path) -> None:
    """Draw one panel per curve."""
    figure, panels = panels_of(len(measured), lines=0)
    for (curve, timings), axes in zip(measured, panels, strict=True):
        _panel(axes, curve, timings)
    for kind in ("svg", "png"):
        figure.savefig(out / f"cost.{kind}", dpi=150)


def _panel(axes: Axes, curve: Curve, timings: Sequence[Timing]) -> None:
    x = np.array(curve.amounts, float)
    middle, low, high = (1e3 * np.array([getattr(t, name) for t in timings]) for name in ("median", "low", "high"))
    line = straight(curve.amounts, timings)
    axes.errorbar(x, middle, [middle - low, high - middle], fmt="o", capsize=3, color=COLOURS[0])
    wide = x.max() > 100 * max(x.min(), 1)
    dense = np.geomspace(x.min(), x.max(), 100) if wide else np.linspace(x.min(), x.max(), 100)
    axes.plot(dense, line.constant + line.slope * dense, "--", color=COLOURS[1])
    if wide:
        axes.set(xscale="log", yscale="log")
    else:
        axes.set(ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set(title=curve.title, xlabel=curve.amount, ylabel="ms")
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    main()
