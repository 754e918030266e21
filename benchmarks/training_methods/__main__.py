"""Cost and robustness of each way of training, with the same network, data set and number of training examples.

    python -m benchmarks.training_methods --out FILE
    python -m benchmarks.training_methods --data-set fashion_mnist --data DIR --limit 8000 --epochs 4 --seeds 3 \
        --processes 2 --work DIR --out FILE

Writes two Markdown tables, and beside them a figure, after each network that is trained and attacked. With the same
--work, an interrupted run goes on, and only attacks that are new in ATTACKS are run. The second command takes an
estimated three hours of CPU time, half of it for AutoAttack.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.harness import Interleaved
from benchmarks.machine import describe
from benchmarks.training_methods.bench import Bench
from benchmarks.training_methods.cost import Passes, count_passes, timed
from benchmarks.training_methods.figure import draw
from benchmarks.training_methods.jobs import check_setting, run
from benchmarks.training_methods.report import rows, tables
from benchmarks.training_methods.robustness import ATTACKS
from benchmarks.training_methods.ways import SOURCES, Method, methods
from fastadv import data


def main(argv: list[str] | None = None) -> None:
    """Count passes, time, train and attack; write the tables and the figure."""
    arguments = sys.argv[1:] if argv is None else argv
    options = parser().parse_args(arguments)
    if options.epochs % 2:
        sys.exit(f"--epochs must be even, for pairs, got {options.epochs}")
    if options.epochs % options.replays:
        sys.exit(f"--epochs must be a multiple of --replays, {options.replays}, got {options.epochs}")
    for name in ("seeds", "processes"):
        if getattr(options, name) < 1:
            sys.exit(f"--{name} must be at least 1, got {getattr(options, name)}")
    command = shlex.join(["python", "-m", "benchmarks.training_methods", *arguments])
    with nullcontext(options.work) if options.work else tempfile.TemporaryDirectory() as name:
        work = Path(name)
        check_setting(options, work)
        bench = Bench.of(options)
        ways, passes, times = _costs(bench, work)
        head = f"# Ways of training: cost and robustness\n\n{describe()}\n\n```bash\n{command}\n```"
        for _ in run(options, work):
            _write(bench, work, ways, passes, times, head)


def _costs(bench: Bench, work: Path) -> tuple[Sequence[Method], Mapping[str, Passes], Interleaved]:
    """The ways, with their costs; which weights the static sources have does not matter for them."""
    seed, threads = bench.options.seed, torch.get_num_threads()
    sources = [bench.network(seed + number) for number in range(1, SOURCES + 1)]
    ways = list(methods(bench.options, seed, sources).values())
    torch.set_num_threads(1)
    try:
        return ways, {way.name: count_passes(bench, way) for way in ways}, timed(bench, ways, work / "seconds.json")
    finally:
        torch.set_num_threads(threads)


def _write(
    bench: Bench,
    work: Path,
    ways: Sequence[Method],
    passes: Mapping[str, Passes],
    times: Interleaved,
    head: str,
) -> None:
    """Write what is known so far, in case the time runs out."""
    options = bench.options
    shown = rows(options, work, ways, passes)
    if shown:
        figure = options.out.with_suffix(".svg")
        drawn = f"![Accuracy under {ATTACKS[-1].title} against the time of an iteration]({figure.name})"
        options.out.write_text(f"{head}\n\n{drawn}\n\n{tables(bench, shown, times)}\n")
        draw(shown, times, len(bench.test), options.eps, figure)


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.training_methods",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--data-set", default="digits", choices=[name for name in data.names() if name != "imagenet"])
    made.add_argument("--data", metavar="DIR", help="folder of the data set; not needed for digits")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tables, in Markdown; beside it .svg")
    made.add_argument("--work", type=Path, metavar="DIR", help="keeps networks and results; default: they are not kept")
    made.add_argument("--limit", type=int, help="number of training examples, from the first; default: all")
    made.add_argument("--test-limit", type=int, default=1000, help="number of test examples, from the first")
    made.add_argument("--epochs", type=int, default=20, help="number of times that each example is trained on")
    made.add_argument("--replays", type=int, default=4, help="replays of free training")
    made.add_argument("--minibatch", dest="m", type=int, default=128)
    made.add_argument("--eps", type=float, default=16, help="in pixel values of [0, 255]")
    made.add_argument("--width", type=float, default=1.0, help="width of small_cnn")
    made.add_argument("--lr", type=float, default=0.002, help="learning rate of AdamW, decayed to 0 by a cosine")
    made.add_argument("--rounds", type=int, default=15, help="rounds of timing, in which all ways take turns")
    made.add_argument("--seed", type=int, default=0, help="the first seed")
    made.add_argument("--seeds", type=int, default=1, help="number of trainings of each way")
    made.add_argument("--processes", type=int, default=1, help="that train and attack, with one thread each if several")
    made.add_argument("--device", default="auto")
    return made


if __name__ == "__main__":
    main()
