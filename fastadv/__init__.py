"""fastadv: adversarial training at ImageNet scale, made cheap."""

import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastadv.eps import TruncatedNormalEps
    from fastadv.pixels import PixelSpace

__all__ = ["PixelSpace", "TruncatedNormalEps", "__version__"]
__version__ = "0.1.0"

_MODULES = ("attacks", "data", "evaluate", "models", "ops", "reference", "train")
_OBJECTS = {"PixelSpace": "fastadv.pixels", "TruncatedNormalEps": "fastadv.eps"}


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])


def __getattr__(name: str) -> Any:
    """Import ``fastadv.train`` and the other public modules, PixelSpace and TruncatedNormalEps on first use."""
    if name in _MODULES:
        return importlib.import_module(f"fastadv.{name}")
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module 'fastadv' has no attribute {name!r}")


def _is_the_command() -> bool:
    """True for ``fastadv ...`` and ``python -m fastadv ...``, whose --help should not wait for PyTorch."""
    script = os.path.basename(getattr(sys, "argv", [""])[0] or "")
    return script == "fastadv" or (script == "-m" and "fastadv" in sys.orig_argv)  # "-m" while the package is imported


_IS_COMMAND = _is_the_command()

if not _IS_COMMAND:
    from fastadv import ops as ops  # registers torch.ops.fastadv
    from fastadv.eps import TruncatedNormalEps
    from fastadv.pixels import PixelSpace
elif signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until fastadv.cli.main: Ctrl-C during imports prints no traceback
