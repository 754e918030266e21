"""fastadv: adversarial training at ImageNet scale, made cheap."""

from fastadv.eps import TruncatedNormalEps
from fastadv.pixels import PixelSpace

__all__ = ["PixelSpace", "TruncatedNormalEps", "__version__"]
__version__ = "0.1.0"
