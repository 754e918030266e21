"""The command line: ``fastadv COMMAND ...``, also as ``python -m fastadv COMMAND ...``."""

from __future__ import annotations

import os
import shlex
import signal
import sys

import fastadv
from fastadv.cli.exits import DONE, FAILED, MISTAKE, imported
from fastadv.cli.warning_lines import warning_lines
from fastadv.utils.launch import launched
from fastadv.utils.log import log_to_stderr
from fastadv.utils.signals import exit_code
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.terminals import escape_unencodable
from fastadv.utils.text import printable_lines

# Imported when used: `fastadv info` must work where no extra is installed, and --help should not wait for PyTorch.
COMMANDS = {
    "info": ("fastadv.cli.info", "show what is installed and compiled, and how to add what is missing"),
    "train": ("fastadv.cli.train", "train a network on clean and adversarial examples (Algorithm 1)"),
    "data": ("fastadv.cli.data_check", "check a folder of images for files that do not decode"),
    "evaluate": ("fastadv.cli.evaluate", "measure accuracy on clean and adversarial examples"),
    "transfer": ("fastadv.cli.transfer", "measure how often images that fool one model fool another"),
    "study": ("fastadv.cli.study", "repeat the paper's experiments, with tables, figures and claims"),
    "report": ("fastadv.cli.report", "write one page with the results of evaluations or of a study"),
}

_SHARED = ("info", "train", "evaluate")  # commands that torchrun may start
_ONE_PROCESS = "this command runs in one process, and torchrun started {}: run it without torchrun, as {}"


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns its exit code: 0 for success, 2 for a mistake in the command, 130 or 143 if stopped."""
    if fastadv._IS_COMMAND and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # set while the package was imported
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with escape_unencodable():
        try:
            return _main(sys.argv[1:] if argv is None else argv)
        except BrokenPipeError:  # the reader has gone, as in `fastadv --help | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage(), flush=True)
        return DONE if argv else MISTAKE
    command, *options = argv
    if command in ("--version", "version"):
        print(fastadv.__version__)
        return DONE
    if command not in COMMANDS:
        meant = did_you_mean(nearest(command, COMMANDS))
        print(f"fastadv: unknown command {command!r}{meant}\nSee fastadv --help.", file=sys.stderr)
        return MISTAKE
    if command not in _SHARED and not launched().alone:
        if launched().main:
            instead = shlex.join(["fastadv", *argv])
            print(f"fastadv {command}: {_ONE_PROCESS.format(launched().world_size, instead)}", file=sys.stderr)
        return MISTAKE
    module, _ = COMMANDS[command]
    try:
        with warning_lines(f"fastadv {command}"), log_to_stderr():
            result: int = imported(module, f"fastadv {command}").main(options)
    except ModuleNotFoundError as error:
        if "pip install" not in str(error):
            raise
        print(f"fastadv {command}: {printable_lines(error)}", file=sys.stderr)
        return MISTAKE
    except KeyboardInterrupt:  # while the command parsed its arguments
        print(f"fastadv {command}: interrupted", file=sys.stderr)
        return exit_code()
    return result


def _usage() -> str:
    commands = "\n".join(f"  {name:10} {summary}" for name, (_, summary) in COMMANDS.items())
    return (
        f"usage: fastadv COMMAND ...\n\n{fastadv.__doc__}\n\ncommands:\n{commands}\n\n"
        "fastadv COMMAND --help describes a command's options."
    )
