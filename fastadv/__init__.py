"""fastadv: adversarial training at ImageNet scale, made cheap."""

import importlib
from types import ModuleType

from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace

__all__ = ["PixelSpace", "TruncatedNormalEps", "__version__"]
__version__ = "0.1.0"

_MODULES = ("attacks", "data", "evaluate", "models", "ops", "reference", "train")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])


def __getattr__(name: str) -> ModuleType:
    """Import ``fastadv.train`` and the other public modules on first use."""
    if name in _MODULES:
        return importlib.import_module(f"fastadv.{name}")
    raise AttributeError(f"module 'fastadv' has no attribute {name!r}")
