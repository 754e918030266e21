"""The tables of cost and of robustness, and what they are of."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import Interleaved, Table, Timing
from benchmarks.training_methods.bench import Bench
from benchmarks.training_methods.cost import Passes
from benchmarks.training_methods.jobs import Job
from benchmarks.training_methods.robustness import ATTACKS, CLEAN, read
from benchmarks.training_methods.ways import SOURCES, STANDARD, Method
from fastadv.evaluate.intervals import Estimate, wilson


@dataclass(frozen=True)
class Row:
    """What is known of a way of training.

    Args:
        way: the way.
        passes: of an iteration.
        correct: correct test images in each column, by seed.
    """

    way: Method
    passes: Passes
    correct: Mapping[str, Sequence[int]]

    def accuracy(self, column: str, n: int) -> Estimate:
        """The mean over seeds with Wilson's 95 % interval for the sampling of n test images."""
        return wilson(statistics.mean(self.correct[column]), n)


def rows(options: argparse.Namespace, work: Path, ways: Sequence[Method], passes: Mapping[str, Passes]) -> list[Row]:
    """The ways of which at least one network has been attacked."""
    known = []
    for way in ways:
        jobs = [Job(way.name, options.seed + number) for number in range(options.seeds)]
        counts = [found for job in jobs if (found := read(job.file(work, "json"), options.eps)) is not None]
        if counts:
            columns = {name: [count[name] for count in counts] for name in counts[0]}
            known.append(Row(way, passes[way.name], columns))
    return known


def tables(bench: Bench, shown: Sequence[Row], times: Interleaved) -> str:
    """Both tables, in Markdown."""
    return f"{_costs(bench, shown, times).markdown()}\n\n{_accuracies(bench, shown).markdown()}"


# --- cost ------------------------------------------------------------------------------------------------------------


def _costs(bench: Bench, shown: Sequence[Row], times: Interleaved) -> Table:
    options = bench.options
    header = ["training", "epochs", "weight updates", "examples seen", "forwards", "backwards, weights"]
    header += ["backwards, images alone", "clean epochs", "over clean", "s / 1,000 examples", "over standard"]
    table = Table(f"Cost: {len(bench.train):,} training examples, {options.epochs} times each", header)
    timings = times.timings()
    for row in shown:
        way, passes = row.way, row.passes
        updates = options.epochs // way.passes * way.replays * len(bench.loader(way, options.seed))
        counted = [passes.forward, passes.weights, passes.images, options.epochs * passes.of_standard]
        table.rows.append(
            [
                *(way.name, _epochs(options.epochs, way.passes), f"{updates:,}", f"{updates * options.m:,}"),
                *(f"{share:.3g}" for share in counted),
                f"{passes.of_standard:.2f}",
                _per_thousand(timings[way.name], options.m),
                times.ratio(way.name, STANDARD).text,
            ]
        )
    clock = "process time on one thread" if bench.device.type == "cpu" else "until the device is idle"
    table.notes.append(
        f"Passes are per example of an iteration, on all networks. Clean epochs: the cost of the whole run by this "
        f"count, in epochs of standard training, of which a backward pass to the weights is two thirds; over clean: "
        f"divided by that of standard training. Seconds: median and quartiles of {times.rounds} rounds, in which all "
        f"ways take turns, {clock}; over standard: the ratio within a round. The training of the static sources is not "
        f"part of the cost."
    )
    return table


def _epochs(epochs: int, passes: int) -> str:
    return str(epochs) if passes == 1 else f"{epochs // passes} x {passes}"


def _per_thousand(timing: Timing, m: int) -> str:
    median, low, high = (1000 / m * seconds for seconds in (timing.median, timing.low, timing.high))
    return f"{median:.3g} ({low:.3g}-{high:.3g})"


# --- robustness ------------------------------------------------------------------------------------------------------


def _accuracies(bench: Bench, shown: Sequence[Row]) -> Table:
    options, n = bench.options, len(bench.test)
    columns = [CLEAN, *(attack.title for attack in ATTACKS)]
    table = Table(f"Accuracy on {n:,} test images, attacked at eps = {options.eps:g}", ["training", *columns])
    for row in shown:
        seeds = len(row.correct[CLEAN])
        name = row.way.name if seeds == options.seeds else f"{row.way.name} ({seeds} of {options.seeds} seeds)"
        table.rows.append([name, *(_accuracy(row, column, n) for column in columns)])
    table.notes += [_reading(options), _setting(options)]
    return table


def _accuracy(row: Row, column: str, n: int) -> str:
    found, counts = row.accuracy(column, n), row.correct[column]
    cell = f"{100 * found.value:.1f}% [{100 * found.low:.1f}-{100 * found.high:.1f}]"
    return cell if len(counts) == 1 else f"{cell}, {100 * min(counts) / n:.1f}-{100 * max(counts) / n:.1f}"


def _reading(options: argparse.Namespace) -> str:
    worst = [attack for attack in ATTACKS if len(attack.after) > 1]
    order = "".join(
        f" {attack.title} ({', '.join(f'{name} {value:,}' for name, value in attack.options.items())}) attacks the "
        f"images that are still correct after {attack.after[-1]}, and shows the worst case of both."
        for attack in worst
    )
    interval = "Wilson's 95 % interval in brackets covers the sampling of the test images, not the training"
    if options.seeds == 1:
        return f"{interval}, which was run once, with seed {options.seed}.{order}"
    return (
        f"Mean of {options.seeds} trainings with other initial weights, orders of the images and random numbers (seeds "
        f"{options.seed} to {options.seed + options.seeds - 1}). {interval}; after it, the lowest and the highest of "
        f"the {options.seeds}, on the same images.{order}"
    )


def _setting(options: argparse.Namespace) -> str:
    eps, most = f"{options.eps:g}", f"{2 * options.eps:g}"
    return (
        f"small_cnn of width {options.width:g}, m = {options.m}, AdamW with a learning rate of {options.lr:g}, decayed "
        f"to 0 by a cosine. Trained at eps = {eps} in pixel values of [0, 255]; Algorithm 1 and pairs draw eps from "
        f"|N(0, {eps})| truncated to [0, {most}], with lambda = 0.3; pairs show each image in two versions per "
        f"iteration, for half of the epochs. With static sources, the examples of each minibatch are made on the "
        f"network or on one of {SOURCES} others of the same kind, with standard training and other seeds."
    )
