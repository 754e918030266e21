"""``fastadv train``: train a network, or continue a run."""

from __future__ import annotations

import argparse
import shlex
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import Any, Literal

from fastadv import attacks
from fastadv.cli.arguments import FilledHelp, Parser
from fastadv.cli.exits import ending
from fastadv.cli.train_cost import cost_line, plan
from fastadv.distributed import Processes, launch_name, on_main, process_group
from fastadv.train import checkpoint
from fastadv.train.build import create_trainer
from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import build_config, create_parser, parse_options, read_recipe, recipes
from fastadv.train.non_finite import NonFiniteLoss
from fastadv.train.trainer import Trainer
from fastadv.utils.files import check_not_locked, locked_folder, make_folder
from fastadv.utils.optional_deps import require
from fastadv.utils.signals import exit_code, on_first_signal
from fastadv.utils.text import counted, printable, printable_lines

_FAILURES = _OF_ALL = (NonFiniteLoss, checkpoint.CheckpointError)

_LAUNCH = ".launch"
_RESUME: dict[str, bool | Literal["auto"]] = {"no": False, "yes": True, "auto": "auto"}
_USAGE = """\
fastadv train [--recipe NAME] [--data DIR] [--download]
                     [--out DIR] [--resume] [--dry-run] [--FIELD VALUE ...]"""
_DESCRIPTION = """\
Train a network, adversarially unless --attack.k is 0, and keep checkpoints, a log and TensorBoard scalars in a folder.

A recipe sets fields; options on the command line override it. Give --recipe, or --out and --resume, with --help to see
the values of that recipe or run. A true/false option without a value means true; hyphens in an option's name count as
underscores.

On several GPUs or machines: torchrun --nproc-per-node=G -m fastadv train ...
"""
_EPILOG = """\
exit codes:
  0         trained
  1         stopped by a loss that is not finite, a file that could not be
            written, an image that cannot be used (--data.on_bad_image stop) or
            256 of them in a row, or the death of another process
  2         a mistake in the options or the data
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM; continue with --resume

Processes that torchrun restarts (--max-restarts) continue the run by themselves.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv train`` with these arguments; returns the exit code."""
    with ending("fastadv train", failures=_FAILURES, raised_by_all=_OF_ALL) as end, process_group() as processes:
        config, run_dir, resume, dry_run = on_main(processes, lambda: _parse(argv))
        trainer = _prepare(config, run_dir, resume, processes)
        if dry_run:
            if processes.main:
                print(plan(trainer))
            return end.code
        on_main(processes, lambda: make_folder(run_dir))
        end.begin_work()
        end.code = _run(trainer)
    return end.code


def _run(trainer: Trainer) -> int:
    if trainer.processes.main:  # only the main process needs to see the folder
        _say(trainer, _progress(trainer))
    with warnings.catch_warnings():
        # With one-channel images, the first layer's gradients, a few hundred numbers, are copied once more.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        stopped_by = _fit(trainer)
    code = _outcome(trainer, stopped_by)
    _say(trainer, cost_line(trainer))
    return code


def _outcome(trainer: Trainer, stopped_by: Signals | None) -> int:
    """Say how the run ended and what comes next; returns the exit code."""
    if trainer.stopped_because is not None and not trainer.finished:
        _say(trainer, f"fastadv train: stopped, because {trainer.stopped_because}; {_how_to_continue(trainer)}")
        return 1
    if stopped_by is not None:
        _say(trainer, f"interrupted; {_how_to_continue(trainer)}")
        return exit_code(stopped_by)
    if trainer.processes.main:
        print(printable(str(trainer.last_checkpoint)))
    if trainer.test_accuracy is not None and trainer.test_accuracy <= trainer.chance:
        _say(
            trainer,
            f"fastadv train: the test accuracy, {trainer.test_accuracy:.2%}, is no better than guessing, which gives "
            f"up to {trainer.chance:.2%}. Try a lower optimizer.lr, a schedule.warmup, or more epochs",
        )
    _say(trainer, f"next: {_evaluation(trainer)}")
    return 0


def _say(trainer: Trainer, text: str) -> None:
    if trainer.processes.main:
        print(printable_lines(text), file=sys.stderr)


def _fit(trainer: Trainer) -> Signals | None:
    """Train to the end of the run; returns the signal that stopped it earlier, if one did."""
    stopped_by: Signals | None = None

    def stop(number: Signals) -> None:
        nonlocal stopped_by
        stopped_by = number
        _say(trainer, f"{number.name}: stopping after this iteration; a second one stops at once")
        trainer.request_stop()

    try:
        with ExitStack() as stack, on_first_signal(stop):
            on_main(trainer.processes, lambda: _take(trainer.run_dir, stack))
            trainer.fit()
    except KeyboardInterrupt:
        return stopped_by or SIGINT
    return None if trainer.finished else stopped_by or SIGTERM  # another process got it


def _progress(trainer: Trainer) -> str:
    """How many iterations are done, and whether the run's length was changed."""
    text = f"{trainer.run_dir}: {trainer.step:,} of {trainer.total_steps:,} iterations done, on {trainer.device}"
    config, processes = trainer.config, trainer.processes.world_size
    if config.accumulate * processes > 1:
        examples = config.m * config.accumulate * processes
        text += f"; {examples:,} examples each: m {config.m} x accumulate {config.accumulate}"
        text += f" x {counted(processes, 'process')}"
    epochs = trainer.config.epochs
    before = checkpoint.load_config(trainer.last_checkpoint).epochs if trainer.last_checkpoint else epochs
    return text if before == epochs else f"{text}; epochs was {before} and is now {epochs}"


def _how_to_continue(trainer: Trainer) -> str:
    command = shlex.join(["fastadv", "train", "--out", str(trainer.run_dir), "--resume"])
    if not trainer.processes.alone:
        command = f"torchrun ... -m {command}"
    return f"{trainer.last_checkpoint} is the last checkpoint; continue with: {command}"


def _evaluation(trainer: Trainer) -> str:
    """A command that evaluates the run with one-step and iterative attacks, up to the eps that it was trained with."""
    attack = trainer.config.attack
    largest = attack.eps or attack.eps_upper
    sizes = ",".join(f"{largest / parts:g}" for parts in (8, 4, 2, 1))
    trained_on = attacks.get(attack.name)
    # A network trained on the true label's gradient may have learned to read the label off (section 4.2 of the paper).
    first = attack.name if attack.k and not trained_on.needs_labels else "step_ll"
    names = ",".join(dict.fromkeys([first, "iter_ll"]))
    return shlex.join(["fastadv", "evaluate", str(trainer.run_dir), "--attacks", names, "--eps", sizes])


def _prepare(config: TrainConfig, run_dir: Path, resume: bool | Literal["auto"], processes: Processes) -> Trainer:
    """Create the Trainer of a run."""
    if resume:
        on_main(processes, lambda: check_not_locked(run_dir))
    return create_trainer(config, run_dir, resume=resume, processes=processes)


def _parse(argv: Sequence[str]) -> tuple[TrainConfig, Path, bool | Literal["auto"], bool]:
    """The configuration, the run's folder, whether to resume, and whether to stop before the first iteration.

    Only the main process reads recipes and runs.
    """
    run_parser = Parser("fastadv train", add_help=False, allow_abbrev=False)
    _add_run_options(run_parser)
    run, _ = run_parser.parse_known_args(argv)

    jsonargparse = require("jsonargparse", extra="train")
    parser = create_parser(
        prog="fastadv train",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=type("HelpFormatter", (FilledHelp, jsonargparse.DefaultHelpFormatter), {}),
    )
    _add_run_options(parser.add_argument_group("run"))
    config = build_config(parse_options(parser, _base(run), argv))
    run_dir = Path(run.out or Path("runs") / (Path(run.recipe).stem if run.recipe else config.data.name))
    if _was_taken(run_dir):
        return config, run_dir, "auto", run.dry_run
    return config, run_dir, _RESUME[run.resume], run.dry_run


def _add_run_options(parser: Any) -> None:
    parser.add_argument("--recipe", metavar="NAME", help=f"a YAML file, or one of: {', '.join(recipes())}")
    parser.add_argument("--out", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="yes",
        default="no",
        choices=tuple(_RESUME),
        help="continue the run in --out from its last checkpoint; with auto, start it if there is none, for clusters "
        "that run the same command again",
    )
    parser.add_argument(
        "--dry-run",
        "--dry_run",
        action="store_true",
        help="build the run, print its phases and its cost in clean epochs (epochs of standard training that would "
        "cost as much), and stop before the first iteration",
    )


def _take(run_dir: Path, stack: ExitStack) -> None:
    """Lock the run's folder until the stack ends, and note in it which torchrun it belongs to: see :func:`_was_taken`.

    Only the holder of the lock writes the note: another torchrun, which is refused, must not keep a restart from its
    run. It is replaced atomically, or a process that is killed here would leave a run that belongs to nobody.
    """
    stack.enter_context(locked_folder(run_dir))
    partial = run_dir / f"{_LAUNCH}.partial"
    partial.write_text(launch_name() or "")
    partial.replace(run_dir / _LAUNCH)


def _was_taken(run_dir: Path) -> bool:
    """True if torchrun has restarted these processes, and their predecessors had started or resumed this run.

    Otherwise these failed by a mistake, such as a folder that holds another run, which is refused again.
    """
    note = run_dir / _LAUNCH
    return launch_name() is not None and note.exists() and note.read_text() == launch_name()


def _base(run: argparse.Namespace) -> dict[str, Any]:
    """The values that the command line overrides: the recipe's, else those of the run to be resumed."""
    if run.recipe:
        return read_recipe(run.recipe)
    if run.resume == "yes" and run.out:
        check_not_locked(Path(run.out))
        return asdict(checkpoint.load_config(checkpoint.resolve(run.out)))
    if run.resume == "yes":
        raise ValueError("--resume needs --out, the folder of the run, or the --recipe that it was started with")
    return {}
