"""Run ``fastadv train``: train a network, or continue a run."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals

from fastadv import attacks
from fastadv.attacks.base import ball_of
from fastadv.cli.exits import ending
from fastadv.cli.train_cost import cost_line, plan
from fastadv.cli.train_options import LAUNCH, Request, parse
from fastadv.distributed import Processes, on_main, process_group
from fastadv.train import checkpoint
from fastadv.train.build import create_trainer
from fastadv.train.non_finite import NonFiniteLoss
from fastadv.train.trainer import Trainer
from fastadv.utils.files import check_not_locked, locked_folder, make_folder
from fastadv.utils.launch import launch_name
from fastadv.utils.signals import exit_code, on_first_signal
from fastadv.utils.text import counted, printable, printable_lines

_FAILURES = _OF_ALL = (NonFiniteLoss, checkpoint.CheckpointError)


def run(argv: Sequence[str]) -> int:
    """Train as ``fastadv train`` with these arguments should; returns the exit code."""
    with ending("fastadv train", failures=_FAILURES, raised_by_all=_OF_ALL) as end, process_group() as processes:
        request = on_main(processes, lambda: parse(argv))  # only the main process reads recipes and runs
        trainer = _prepare(request, processes)
        if request.dry_run:
            if processes.main:
                print(plan(trainer))
            return end.code
        on_main(processes, lambda: make_folder(request.run_dir))
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
        m = trainer.run.phase_config.m
        examples = m * config.accumulate * processes
        text += f"; {examples:,} examples each: m {m} x accumulate {config.accumulate}"
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
    """A command that evaluates the run with attacks that suit how it was trained, up to the eps of its last phase."""
    attack = trainer.config.in_phases()[-1].attack
    largest = attack.eps or attack.eps_upper
    sizes = ",".join(f"{largest / parts:g}" for parts in (8, 4, 2, 1))
    trained_on = attacks.get(attack.name)
    # A network trained on the true label's gradient may have learned to read the label off (section 4.2 of the paper).
    first = attack.name if attack.k and not trained_on.needs_labels else "step_ll"
    if attack.training in ("algorithm1", "paired") and ball_of(trained_on, attack.options) == "l2":
        return shlex.join(["fastadv", "evaluate", str(trainer.run_dir), "--attacks", "pgd:norm=l2", "--eps", sizes])
    for_robustness_to_pgd = attack.training in ("free", "fast", "trades")
    names = "pgd" if for_robustness_to_pgd else ",".join(dict.fromkeys([first, "iter_ll"]))
    return shlex.join(["fastadv", "evaluate", str(trainer.run_dir), "--attacks", names, "--eps", sizes])


def _prepare(request: Request, processes: Processes) -> Trainer:
    if request.resume:
        on_main(processes, lambda: check_not_locked(request.run_dir))
    return create_trainer(request.config, request.run_dir, resume=request.resume, processes=processes)


def _take(run_dir: Path, stack: ExitStack) -> None:
    """Lock the run's folder until the stack ends, and note which torchrun it belongs to: see ``was_taken``.

    Only the holder of the lock writes the note: another torchrun, which is refused, must not keep a restart from its
    run. It is replaced atomically, or a process that is killed here would leave a run that belongs to nobody.
    """
    stack.enter_context(locked_folder(run_dir))
    partial = run_dir / f"{LAUNCH}.partial"
    partial.write_text(launch_name() or "")
    partial.replace(run_dir / LAUNCH)
