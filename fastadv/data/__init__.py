"""Image data sets and loaders; every loader yields (images [m, C, H, W] in the model's input space, labels [m])."""

from fastadv.data.bad_images import BadImage, BadImageWarning, warn_of_bad_image
from fastadv.data.dali_loader import DaliLoader
from fastadv.data.datasets import load, load_test, names
from fastadv.data.identity import identity_of, other_classes
from fastadv.data.image_loader import ImageLoader
from fastadv.data.image_set import ImageData, ImageSet
from fastadv.data.image_source import ImageSource, fingerprint_of_files, spread
from fastadv.data.loaders import create_loader, loader_version, resolve_loader, shape_of
from fastadv.data.manifest import check_command
from fastadv.data.preprocessing import Preprocessing
from fastadv.data.stored import scan
from fastadv.data.torch_loader import TensorLoader
from fastadv.data.torchvision_loader import TorchvisionLoader

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
