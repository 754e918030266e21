"""``fastadv evaluate``: the paper's Tables 1 and 2 for one's own checkpoints and files of weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import torch

from fastadv import attacks
from fastadv.cli.arguments import add_machine_options, create_parser, number, parse, whole
from fastadv.cli.model_options import HELP, add_options
from fastadv.cli.model_specs import Loaded, load_subjects
from fastadv.distributed import (
    FailedElsewhere,
    Processes,
    ProcessLost,
    device_name,
    launched,
    on_all,
    on_main,
    process_group,
)
from fastadv.evaluate.attack_specs import parse_attack
from fastadv.evaluate.figures import robustness_figure, save_figure
from fastadv.evaluate.folder import beside, remark_on_left_out
from fastadv.evaluate.records import Record, RecordFile
from fastadv.evaluate.sweep import Subject, Sweep, loader_of, run
from fastadv.evaluate.tables import robustness_tables, save_table
from fastadv.evaluate.terminal_tables import print_table
from fastadv.train.checkpoint import CheckpointError
from fastadv.utils import devices
from fastadv.utils.files import locked_folder, make_folder
from fastadv.utils.gpu_settings import gpu_settings
from fastadv.utils.optional_deps import require
from fastadv.utils.signals import exit_code, interrupt, on_first_signal
from fastadv.utils.suggestions import unit_scale_hint
from fastadv.utils.text import printable, printable_lines

_DESCRIPTION = """\
Measure top-1 and top-5 accuracy on clean images and under attacks of several sizes, in the layout of Tables 1 and 2
of "Adversarial Machine Learning at Scale", with Wilson's 95 % confidence intervals. Each model is attacked with itself.
"""

_EPILOG = """\
Every number is recorded in OUT/robustness.jsonl as soon as it is measured. Run the same command again after an
interruption and it goes on where it stopped; add an attack, an eps or a model and only what is new is measured.
Tables and figures show all that the folder's records hold of these images.
On several GPUs, torchrun --nproc-per-node=G -m fastadv evaluate ... shares the images among them.

examples:
  fastadv evaluate runs/standard runs/adversarial --out results
  fastadv evaluate "Adv. training=runs/adversarial/checkpoints/step-00001200" --attacks step_ll --eps 2,4 --limit 1000
  fastadv evaluate ResNet=timm/resnet18@weights.safetensors --dataset cifar10 --data DIR --space imagenet
  fastadv evaluate runs/adversarial --attacks pgd,pgd:steps=40:alpha=1 --eps 8

exit codes: 0 done; 1 a file could not be read or written; 2 a mistake in the command or the data; 130 or 143 stopped by
SIGINT (Ctrl-C) or SIGTERM, to be continued with the same command.
"""


def main(argv: Sequence[str]) -> int:
    """Run ``fastadv evaluate`` with these arguments; returns the exit code."""

    def prepare(processes: Processes) -> tuple[Path, Callable[[], None]]:
        arguments = on_main(processes, lambda: parse(_parser(), argv))
        sweep, subjects = on_all(processes, lambda: _prepare(arguments, processes))
        file = on_main(processes, lambda: _records(arguments.out))

        def measure() -> None:
            with settings_of(arguments, sweep.device):
                records = run(sweep, subjects, file, processes)
            on_main(processes, lambda: _show(records, file, arguments.out))

        return arguments.out, measure

    return resumable("fastadv evaluate", prepare)


def resumable(command: str, prepare: Callable[[Processes], tuple[Path, Callable[[], None]]]) -> int:
    """Measure into a folder as its only writer; returns the exit code, that of a signal if one came.

    Args:
        command: for messages.
        prepare: finds all that can be wrong with the command, before any work is done, for these processes; gives the
            folder and what measures.
    """
    mistakes: tuple[type[Exception], ...] = (ValueError, OSError, ModuleNotFoundError, CheckpointError)
    code = 2
    try:
        with process_group() as processes:
            out, measure = prepare(processes)
            mistakes, code = (ValueError, OSError), 1
            with ExitStack() as stack, on_first_signal(interrupt):
                on_main(processes, lambda: stack.enter_context(locked_folder(out)))
                measure()
    except ProcessLost as error:
        print(f"{command}: process {launched().rank}: {printable_lines(error)}", file=sys.stderr)
        return 1
    except FailedElsewhere:
        return code
    except mistakes as error:
        process = launched()
        print(
            f"{command}: {'' if process.main else f'process {process.rank}: '}{printable_lines(error)}", file=sys.stderr
        )
        return 2 if isinstance(error, ValueError) else code  # data that do not fit may show late
    except KeyboardInterrupt as stopped:
        if launched().main:
            print(f"{command}: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return exit_code(*stopped.args)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = create_parser("fastadv evaluate", description=_DESCRIPTION, epilog=_EPILOG)
    add = parser.add_argument
    add_subjects(parser, attacks_by_default="step_ll,iter_ll,iter_basic", eps_by_default="2,4,8,16")
    add_options(parser)
    add(
        "--limit",
        type=whole,
        metavar="N",
        help="only the first N test images, of files N evenly spread (default: all)",
    )
    add_run_options(parser)
    add("--out", type=Path, default=Path("evaluation"), metavar="DIR", help="where to write (default: %(default)s)")
    return parser


def add_subjects(parser: argparse.ArgumentParser, *, attacks_by_default: str, eps_by_default: str) -> None:
    """The models, and what they go through."""
    add = parser.add_argument
    add("models", nargs="+", metavar="[NAME=]MODEL", help=HELP)
    add(
        "--attacks",
        type=attack_list,
        default=attacks_by_default,
        metavar="A,B,...",
        help=f"any of {', '.join(attacks.names())}, with options of its own as in pgd:steps=20:alpha=2 "
        "(default: %(default)s)",
    )
    add(
        "--eps",
        type=eps_list,
        default=eps_by_default,
        metavar="E,F,...",
        help="sizes of the perturbation in pixel values of [0, 255] (default: %(default)s)",
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options that say how models are measured."""
    add = parser.add_argument
    add(
        "--batch-size",
        "--batch_size",
        type=whole,
        default=100,
        metavar="N",
        help="images at a time (default: %(default)s)",
    )
    add(
        "--seed",
        type=partial(whole, least=0),
        default=0,
        metavar="N",
        help="seed of the attacks' random numbers (default: %(default)s)",
    )
    add(
        "--fast",
        action="store_true",
        help="make the same examples in less time: BatchNorm folded, CUDA graphs on a GPU; differs by rounding",
    )
    add_machine_options(parser)
    add(
        "--cudnn-benchmark",
        "--cudnn_benchmark",
        action="store_true",
        help="on a GPU, let cuDNN try its algorithms and keep the fastest: two runs may then differ by rounding",
    )
    add(
        "--tf32",
        action="store_true",
        help="on a GPU, let matrix products in float32 use TensorFloat-32, 10 bits of mantissa in place of 23: each "
        "product may be off by some 1e-3 of itself, and results no longer repeat those without it",
    )


def settings_of(arguments: argparse.Namespace, device: torch.device | str) -> AbstractContextManager[None]:
    """The block within which a command measures."""
    return gpu_settings(torch.device(device), cudnn_benchmark=arguments.cudnn_benchmark, tf32=arguments.tf32)


def _prepare(arguments: argparse.Namespace, processes: Processes) -> tuple[Sweep, list[Subject]]:
    require("matplotlib", extra="evaluate")
    if arguments.download and not processes.alone:
        raise ValueError("--download is for one process: run the command once without torchrun, or fetch the files")
    device = devices.resolve(device_name(arguments.device, processes))
    if device.type == "cuda" and not processes.alone:
        torch.cuda.set_device(device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    loaded = load_subjects(arguments.models, arguments)
    return sweep_of(arguments, loaded, device), loaded.subjects


def sweep_of(arguments: argparse.Namespace, loaded: Loaded, device: torch.device) -> Sweep:
    """What the models of a command go through.

    Raises:
        ValueError: an option of an attack that one of the models does not go with, or of the loader.
        ModuleNotFoundError: the loader needs a package that is not installed.
    """
    sweep = Sweep(
        dataset=loaded.config.name,
        images=loaded.images,
        limit=arguments.limit,
        attacks=arguments.attacks,
        eps=arguments.eps,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        device=device,
        fast=arguments.fast,
        data=loaded.config,
    )
    for subject in loaded.subjects:
        for attack in arguments.attacks:
            parse_attack(attack, subject.model, fast=arguments.fast)
        loader_of(sweep, sweep.images, subject.space)  # refuses here what it would refuse at the first image
    return sweep


def _records(out: Path) -> RecordFile[Record]:
    make_folder(out)
    return RecordFile(out / "robustness.jsonl", Record)


def _show(records: Sequence[Record], file: RecordFile[Record], out: Path) -> None:
    """Tables of the command's attacks on the terminal, and below ``out`` those of the folder, with its figures."""
    together, left_out = beside(records, file.records)
    attacked = {record.attack for record in records}
    for attack, table in robustness_tables(together).items():
        if attack in attacked:
            print_table(table)
    print("written:", *map(printable, map(str, [file.path, *_write(together, out)])), sep="\n  ")
    if left_out:
        print(remark_on_left_out(left_out), file=sys.stderr)


def _write(records: Sequence[Record], out: Path) -> list[Path]:
    """Tables and figures below ``out``."""
    paths = []
    for attack, table in robustness_tables(records).items():
        paths += save_table(table, out / "tables" / f"robustness-{attack.replace(':', '-')}")
    for top in (1, 5) if records[0].top5 is not None else (1,):
        paths += save_figure(robustness_figure(records, top=top), out / "figures" / f"robustness-top{top}")
    return paths


# --- values of options -----------------------------------------------------------------------------------------------


def attack_list(text: str) -> list[str]:
    """Attacks, each a name with options if need be."""
    texts = list(dict.fromkeys(part.strip() for part in text.split(",")))
    try:
        for one in texts:
            parse_attack(one)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return texts


def eps_list(text: str) -> list[float]:
    """Sizes in pixel values, sorted, each once."""
    sizes = [number(part) for part in text.split(",")]
    if not all(0 < size <= 255 for size in sizes):
        raise argparse.ArgumentTypeError(
            f"each eps must be a number above 0 and at most 255, in pixel values, got {text!r}"
            + (unit_scale_hint(text.split(",")[0]) or "; clean accuracy is always measured")
        )
    return sorted(set(sizes))
