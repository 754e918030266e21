"""Setuptools as the build backend, and one message for all that a build needs and this Python has not."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OLDEST_SETUPTOOLS = 77
MODULES, PROGRAMS = ("torch", "pybind11"), ("cmake", "ninja")


def find_program(name: str) -> str | None:
    """A program of the environment of this Python, or of the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def missing() -> list[str]:
    """What pip would have to install, all of it: without build isolation it does not look."""
    names = [name for name in MODULES if importlib.util.find_spec(name) is None]
    names += [name for name in PROGRAMS if find_program(name) is None]
    return names if _has_setuptools() else [f'"setuptools>={OLDEST_SETUPTOOLS}"', *names]


def refusal() -> str:
    """The message for what is missing."""
    return (
        f"fastadv: to build it, {sys.executable} lacks {', '.join(missing())}: pip install {' '.join(missing())}, then "
        "pip install --no-build-isolation . (which lets the build see the torch that fastadv will run with)"
    )


def _has_setuptools() -> bool:
    try:
        return int(version("setuptools").partition(".")[0]) >= OLDEST_SETUPTOOLS
    except PackageNotFoundError:
        return False


if not _has_setuptools():
    raise SystemExit(refusal())

from setuptools.build_meta import *  # noqa: E402, F403
