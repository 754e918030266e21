"""The options of ``fastadv train``. Does not import PyTorch, unless --resume has to read a checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fastadv.cli.arguments import FilledHelp, Parser
from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import build_config, create_parser, parse_options, read_recipe, recipes
from fastadv.utils.files import check_not_locked
from fastadv.utils.launch import launch_name
from fastadv.utils.optional_deps import require

LAUNCH = ".launch"  # a file in the run's folder

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
  1         stopped by a loss that is not finite, a collapse of robustness
            (--sentinel.then stop), a file that could not be written, an image
            that cannot be used (--data.on_bad_image stop) or 256 of them in a
            row, or the death of another process
  2         a mistake in the options or the data
  130, 143  stopped by SIGINT (Ctrl-C) or SIGTERM; continue with --resume

Processes that torchrun restarts (--max-restarts) continue the run by themselves.
"""


class Request(NamedTuple):
    """What the arguments of ``fastadv train`` ask for.

    Args:
        config: the run's configuration.
        run_dir: the run's folder.
        resume: whether to continue the run, see ``create_trainer``.
        dry_run: whether to stop before the first iteration.
    """

    config: TrainConfig
    run_dir: Path
    resume: bool | Literal["auto"]
    dry_run: bool


def parse(argv: Sequence[str]) -> Request:
    """Parse the arguments of ``fastadv train``.

    Raises:
        ConfigError: if a field or option is unknown, or a value is invalid.
        CheckpointError: if the run to be resumed has no readable checkpoint.
        SystemExit: for --help, once it is printed, and for a mistake in the options of the run.
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
    return Request(config, run_dir, "auto" if was_taken(run_dir) else _RESUME[run.resume], run.dry_run)


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


def was_taken(run_dir: Path) -> bool:
    """True if torchrun has restarted these processes, and their predecessors had started or resumed this run.

    Otherwise these failed by a mistake, such as a folder that holds another run, which is refused again.
    """
    note = run_dir / LAUNCH
    return launch_name() is not None and note.exists() and note.read_text() == launch_name()


def _base(run: argparse.Namespace) -> dict[str, Any]:
    """The values that the command line overrides: the recipe's, else those of the run to be resumed."""
    if run.recipe:
        return read_recipe(run.recipe)
    if run.resume == "yes" and run.out:
        from fastadv.train import checkpoint  # imports PyTorch

        check_not_locked(Path(run.out))
        return asdict(checkpoint.load_config(checkpoint.resolve(run.out)))
    if run.resume == "yes":
        raise ValueError("--resume needs --out, the folder of the run, or the --recipe that it was started with")
    return {}
