"""``fastadv train``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT, Signals
from typing import Any

from fastadv.outputs import make_folder, only_writer
from fastadv.signals import exit_code, on_first_signal
from fastadv.train import checkpoint
from fastadv.train.build import create_trainer
from fastadv.train.parsing import build_config, create_parser, parse_options, read_recipe, recipes
from fastadv.train.trainer import NonFiniteLoss, Trainer

_DESCRIPTION = """Train a network, adversarially unless --attack.k 0, and keep checkpoints, a log and TensorBoard
scalars in a folder. A recipe sets fields; options on the command line override it. Give --recipe, or --out
and --resume, with --help to see that recipe's or run's values. A true/false option alone means true; hyphens in an
option's name count as underscores."""
_EXIT_CODES = """exit codes: 0 trained; 1 stopped by a loss that is not finite, by a file that could not be written, or
by an image that cannot be used (--data.on_bad_image stop); 2 a mistake in the options or the data; 130 or 143 stopped
by SIGINT (Ctrl-C) or SIGTERM, to be continued with --resume."""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv train`` with these arguments; returns the exit code."""
    try:
        trainer = _prepare(argv)
    except (ValueError, OSError, ModuleNotFoundError, checkpoint.CheckpointError) as error:
        print(f"fastadv train: {error}", file=sys.stderr)
        return 2
    print(_standing(trainer), file=sys.stderr)
    try:
        stopped_by = _fit(trainer)
    except (NonFiniteLoss, checkpoint.CheckpointError, OSError) as error:
        print(f"fastadv train: {error}", file=sys.stderr)
        return 1
    if trainer.stopped_because is not None:
        print(f"fastadv train: {trainer.stopped_because}; {_how_to_continue(trainer)}", file=sys.stderr)
        return 1
    if stopped_by is not None:
        print(f"interrupted; {_how_to_continue(trainer)}", file=sys.stderr)
        return exit_code(stopped_by)
    print(trainer.last_checkpoint)
    print(f"next: {_evaluation(trainer)}", file=sys.stderr)
    return 0


def _fit(trainer: Trainer) -> Signals | None:
    """Train to the end of the run, or to the signal that is returned."""
    stopped_by = SIGINT

    def stop(number: Signals) -> None:
        nonlocal stopped_by
        stopped_by = number
        print(f"{number.name}: stopping after this iteration; a second one stops at once", file=sys.stderr)
        trainer.request_stop()

    try:
        with only_writer(trainer.run_dir), on_first_signal(stop):
            trainer.fit()
    except KeyboardInterrupt:
        return stopped_by
    return None if trainer.finished else stopped_by


def _standing(trainer: Trainer) -> str:
    """Where the run stands, and whether it became longer or shorter."""
    text = f"{trainer.run_dir}: {trainer.step:,} of {trainer.total_steps:,} iterations done, on {trainer.device}"
    epochs = trainer.config.epochs
    before = checkpoint.load_config(trainer.last_checkpoint).epochs if trainer.last_checkpoint else epochs
    return text if before == epochs else f"{text}; epochs was {before} and is now {epochs}"


def _how_to_continue(trainer: Trainer) -> str:
    command = shlex.join(["fastadv", "train", "--out", str(trainer.run_dir), "--resume"])
    return f"{trainer.last_checkpoint} is the last checkpoint; continue with: {command}"


def _evaluation(trainer: Trainer) -> str:
    """A command that evaluates the run: attacks of one step and of many, up to the size that it was trained at."""
    attack = trainer.config.attack
    largest = attack.eps or attack.eps_upper
    sizes = ",".join(f"{largest / parts:g}" for parts in (8, 4, 2, 1))
    names = ",".join(dict.fromkeys([attack.name if attack.k else "step_ll", "iter_ll"]))
    return shlex.join(["fastadv", "evaluate", str(trainer.run_dir), "--attacks", names, "--eps", sizes])


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
    trainer = create_trainer(config, run.out or Path("runs") / name, resume=run.resume)
    make_folder(trainer.run_dir)
    return trainer


def _add_run_options(parser: Any) -> None:
    parser.add_argument("--recipe", metavar="NAME", help=f"a YAML file, or one of: {', '.join(recipes())}")
    parser.add_argument("--out", metavar="DIR", help="the run's folder, runs/NAME unless given")
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
