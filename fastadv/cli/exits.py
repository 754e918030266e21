"""Exit codes of the commands, and the line on standard error for a mistake, a failure or a signal.

0 done; 1 the work failed, such as a file that could not be written; 2 a mistake in the command or the data; 3 a
measured accuracy is below what the command demands; 130 or 143 stopped by SIGINT (Ctrl-C) or SIGTERM.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from signal import Signals
from threading import current_thread, main_thread
from typing import Any

from fastadv.utils.launch import FailedElsewhere, ProcessLost, launched
from fastadv.utils.signals import exit_code, interrupt, on_first_signal
from fastadv.utils.text import printable_lines

DONE, FAILED, MISTAKE, BELOW = 0, 1, 2, 3


@dataclass
class Ending:
    """The exit code of a command, and whether its work has started."""

    code: int = DONE
    _failure: int = MISTAKE
    _handlers: ExitStack = field(default_factory=ExitStack)

    def begin_work(self) -> None:
        """Count errors other than ValueError as failures of the work (1) from here on, not as mistakes (2)."""
        self._failure = FAILED
        if not launched().alone:
            self._handlers.enter_context(_on_signal(interrupt))


@contextmanager
def ending(
    command: str,
    *,
    failures: tuple[type[Exception], ...] = (),
    raised_by_all: tuple[type[Exception], ...] = (),
    interrupted: str = "",
) -> Iterator[Ending]:
    """Run a command in the block, and turn errors and signals into a line on standard error and an exit code.

    Args:
        command: for messages, such as "fastadv study".
        failures: exceptions to report in a line, besides OSError.
        raised_by_all: exceptions that every process raises, so that only the main process reports them.
        interrupted: text to add to the line for a signal, such as how to continue.
    """
    process, end = launched(), Ending()
    reported: tuple[type[Exception], ...] = (OSError, *failures)
    who = "" if process.main else f"process {process.rank}: "
    try:
        # While torchrun's processes find each other, SIGTERM ends them at once, as PyTorch expects.
        with end._handlers:
            if process.alone:
                end._handlers.enter_context(_on_signal(interrupt))
            yield end
    except ProcessLost as error:
        _say(command, f"process {process.rank}: {error}")
        end.code = FAILED
    except FailedElsewhere:
        end.code = end._failure
    except ValueError as error:  # data that do not fit may show late
        _say(command, f"{who}{error}")
        end.code = MISTAKE
    except ModuleNotFoundError as error:
        if "pip install" not in str(error):
            raise
        _say(command, f"{who}{error}")
        end.code = MISTAKE
    except reported as error:
        if process.main or not isinstance(error, raised_by_all):
            _say(command, f"{who}{error}")
        end.code = end._failure
    except KeyboardInterrupt as stopped:
        if process.main:
            _say(command, f"interrupted{interrupted and f'; {interrupted}'}")
        end.code = exit_code(*stopped.args)


def _say(command: str, text: str) -> None:
    print(f"{command}: {printable_lines(text)}", file=sys.stderr)


def imported(module: str, command: str) -> Any:
    """Import a module that imports PyTorch, which takes seconds; a signal meanwhile ends the process at once.

    Raised as an exception, it would surface in the middle of some package, which may swallow or replace it.
    """
    with _on_signal(partial(_end_at_once, command)):
        return importlib.import_module(module)


def _on_signal(then: Callable[[Signals], None]) -> AbstractContextManager[None]:
    """Handle signals within the block, unless a program runs the command in a thread, which gets none."""
    return on_first_signal(then) if current_thread() is main_thread() else nullcontext()


def _end_at_once(command: str, number: Signals) -> None:
    _say(command, "interrupted")
    sys.stderr.flush()
    os._exit(exit_code(number))
