"""The command line: ``fastadv COMMAND ...``, also as ``python -m fastadv COMMAND ...``."""

from __future__ import annotations

import importlib
import shlex
import sys

import fastadv
from fastadv.cli.warning_lines import warning_lines
from fastadv.distributed import launched
from fastadv.utils.log import log_to_stderr
from fastadv.utils.signals import exit_code
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.terminals import escape_unencodable
from fastadv.utils.text import printable_lines

# Imported when asked for: `fastadv info` must work where no extra is installed.
COMMANDS = {
    "info": ("fastadv.cli.info", "what is installed and compiled here, and what is missing"),
    "train": ("fastadv.cli.train", "train a network on clean and adversarial examples (Algorithm 1)"),
    "data": ("fastadv.cli.data_check", "check a folder of images: which of them do not decode"),
    "evaluate": ("fastadv.cli.evaluate", "accuracy of checkpoints on clean and adversarial examples"),
    "transfer": ("fastadv.cli.transfer", "how often images that fool one model fool another"),
    "study": ("fastadv.cli.study", "the paper's experiments, each with its tables, figures and claims"),
    "report": ("fastadv.cli.report", "one page of what a study found"),
}

_SHARED = ("info", "train", "evaluate")  # what several processes may be told
_ONE_PROCESS = "this is work for one process, and torchrun started {}: run it without torchrun, as {}"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 for success, 2 for a mistake in the command, 130 or 143 if stopped."""
    with escape_unencodable():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] in ("--version", "version"):
        print(fastadv.__version__)
        return 0
    if argv[0] not in COMMANDS:
        meant = did_you_mean(nearest(argv[0], COMMANDS))
        print(f"fastadv: unknown command {argv[0]!r}{meant}\n\n{_usage()}", file=sys.stderr)
        return 2
    if argv[0] not in _SHARED and not launched().alone:
        if launched().main:
            command = shlex.join(["fastadv", *argv])
            print(f"fastadv {argv[0]}: {_ONE_PROCESS.format(launched().world_size, command)}", file=sys.stderr)
        return 2
    module, _ = COMMANDS[argv[0]]
    try:
        with warning_lines(f"fastadv {argv[0]}"), log_to_stderr():
            result: int = importlib.import_module(module).main(argv[1:])
    except ModuleNotFoundError as error:
        if "pip install" not in str(error):
            raise
        print(f"fastadv {argv[0]}: {printable_lines(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the command could tell what is kept
        print(f"fastadv {argv[0]}: interrupted", file=sys.stderr)
        return exit_code()
    return result


def _usage() -> str:
    commands = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        f"usage: fastadv COMMAND ...\n\n{fastadv.__doc__}\n\ncommands:\n{commands}\n\n"
        "fastadv COMMAND --help describes a command's options."
    )
