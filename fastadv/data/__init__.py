"""Image data sets and loaders; every loader yields (images [m, C, H, W] in the model's input space, labels [m])."""

from typing import TYPE_CHECKING

from fastadv.utils.lazy_imports import imports_on_use

if TYPE_CHECKING:
    from fastadv.data.datasets import load, load_test, names
    from fastadv.data.fingerprint import identity_of, other_classes
    from fastadv.data.in_memory.image_set import ImageData, ImageSet
    from fastadv.data.loaders.bad_images import BadImage, BadImageWarning, warn_of_bad_image
    from fastadv.data.loaders.base import ImageLoader
    from fastadv.data.loaders.dali_loader import DaliLoader
    from fastadv.data.loaders.factory import create_loader, loader_version, resolve_loader, shape_of
    from fastadv.data.loaders.tensor_loader import TensorLoader
    from fastadv.data.loaders.torchvision_loader import TorchvisionLoader
    from fastadv.data.sources.base import ImageSource, fingerprint_of_files, spread
    from fastadv.data.sources.manifest import check_command
    from fastadv.data.sources.scan import scan
    from fastadv.data.transforms.preprocessing import Preprocessing

__all__ = [
    "BadImage",
    "BadImageWarning",
    "DaliLoader",
    "ImageData",
    "ImageLoader",
    "ImageSet",
    "ImageSource",
    "Preprocessing",
    "TensorLoader",
    "TorchvisionLoader",
    "check_command",
    "create_loader",
    "fingerprint_of_files",
    "identity_of",
    "load",
    "load_test",
    "loader_version",
    "names",
    "other_classes",
    "resolve_loader",
    "scan",
    "shape_of",
    "spread",
    "warn_of_bad_image",
]

_MODULES = {
    "BadImage": "fastadv.data.loaders.bad_images",
    "BadImageWarning": "fastadv.data.loaders.bad_images",
    "DaliLoader": "fastadv.data.loaders.dali_loader",
    "ImageData": "fastadv.data.in_memory.image_set",
    "ImageLoader": "fastadv.data.loaders.base",
    "ImageSet": "fastadv.data.in_memory.image_set",
    "ImageSource": "fastadv.data.sources.base",
    "Preprocessing": "fastadv.data.transforms.preprocessing",
    "TensorLoader": "fastadv.data.loaders.tensor_loader",
    "TorchvisionLoader": "fastadv.data.loaders.torchvision_loader",
    "check_command": "fastadv.data.sources.manifest",
    "create_loader": "fastadv.data.loaders.factory",
    "fingerprint_of_files": "fastadv.data.sources.base",
    "identity_of": "fastadv.data.fingerprint",
    "load": "fastadv.data.datasets",
    "load_test": "fastadv.data.datasets",
    "loader_version": "fastadv.data.loaders.factory",
    "names": "fastadv.data.datasets",
    "other_classes": "fastadv.data.fingerprint",
    "resolve_loader": "fastadv.data.loaders.factory",
    "scan": "fastadv.data.sources.scan",
    "shape_of": "fastadv.data.loaders.factory",
    "spread": "fastadv.data.sources.base",
    "warn_of_bad_image": "fastadv.data.loaders.bad_images",
}


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # a type checker would accept any name
    __getattr__ = imports_on_use(__name__, _MODULES)
