"""fastadv: adversarial training at ImageNet scale, made cheap."""

import importlib
from types import ModuleType

from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace

__all__ = ["PixelSpace", "TruncatedNormalEps", "__version__"]
__version__ = "0.1.0"

_PACKAGES = ("attacks", "data", "evaluate", "models", "train")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES})


def __getattr__(name: str) -> ModuleType:
    """``fastadv.train`` and its like, imported when first used."""
    if name in _PACKAGES:
        return importlib.import_module(f"fastadv.{name}")
    raise AttributeError(f"module 'fastadv' has no attribute {name!r}")
