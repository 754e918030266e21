"""Imports optional dependencies on use, with an error that names the extra to install."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import ``module``.

    Raises:
        ModuleNotFoundError: if it is not installed; the message names the extra of fastadv that includes it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ModuleNotFoundError(
            f"{module} is needed for this; install it with: pip install 'fastadv[{extra}]'", name=error.name
        ) from error
