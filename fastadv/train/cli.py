"""``fastadv train``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from fastadv.train import checkpoint
from fastadv.train.build import create_trainer
from fastadv.train.parsing import build_config, create_parser, parse_options, read_recipe, recipes
from fastadv.train.trainer import NonFiniteLoss, Trainer

_DESCRIPTION = """Train a network, adversarially unless --attack.k 0, and keep checkpoints, a log and TensorBoard
scalars in a folder. A recipe sets fields; options on the command line override it."""
_EXIT_CODES = """exit codes: 0 trained; 1 stopped by a loss that is not finite, or by a checkpoint that could not be
written; 2 a mistake in the options or the data; 130 interrupted, to be continued with --resume."""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv train`` with these arguments; returns the exit code."""
    try:
        trainer = _prepare(argv)
    except (ValueError, OSError, ModuleNotFoundError, checkpoint.CheckpointError) as error:
        print(f"fastadv train: {error}", file=sys.stderr)
        return 2
    done, total = trainer.step, trainer.total_steps
    print(f"{trainer.run_dir}: {done:,} of {total:,} iterations done, on {trainer.device}", file=sys.stderr)
    try:
        with _stop_on_interrupt(trainer):
            trainer.fit()
    except (NonFiniteLoss, checkpoint.CheckpointError) as error:
        print(f"fastadv train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _interrupted(trainer)
    if not trainer.finished:
        return _interrupted(trainer)
    print(trainer.last_checkpoint)
    return 0


def _interrupted(trainer: Trainer) -> int:
    print(
        f"interrupted; {trainer.last_checkpoint} is the last checkpoint; "
        f"continue with: fastadv train --out {trainer.run_dir} --resume",
        file=sys.stderr,
    )
    return 130


def _prepare(argv: Sequence[str]) -> Trainer:
    """The Trainer that the arguments ask for."""
    run_parser = argparse.ArgumentParser("fastadv train", add_help=False, allow_abbrev=False)
    _add_run_options(run_parser)
    run, _ = run_parser.parse_known_args(argv)

    parser = create_parser(
        prog="fastadv train",
        usage="fastadv train [--recipe NAME] [--data DIR] [--download] [--out DIR] [--resume] [--FIELD VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EXIT_CODES,
    )
    _add_run_options(parser.add_argument_group("run"))
    config = build_config(parse_options(parser, _base(run), argv))
    name = Path(run.recipe).stem if run.recipe else config.data.name
    return create_trainer(config, run.out or Path("runs") / name, resume=run.resume)


def _add_run_options(parser: Any) -> None:
    parser.add_argument("--recipe", metavar="NAME", help=f"a YAML file, or one of: {', '.join(recipes())}")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue the run in --out from its last checkpoint")


def _base(run: argparse.Namespace) -> dict[str, Any]:
    """What the command line overrides: the recipe, or without one the configuration of the run to be resumed."""
    if run.recipe:
        return read_recipe(run.recipe)
    if run.resume and run.out:
        return asdict(checkpoint.load_config(checkpoint.resolve(run.out)))
    if run.resume:
        raise ValueError("--resume needs --out, the folder of the run, or the --recipe that it was begun with")
    return {}


@contextmanager
def _stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends training at an iteration's end, with a checkpoint; the second at once."""

    def stop(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, previous)
        print("stopping after this iteration; press Ctrl-C again to stop at once", file=sys.stderr)
        trainer.request_stop()

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
