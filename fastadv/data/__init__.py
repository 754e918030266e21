"""Image data sets and loaders; every loader yields (images [m, C, H, W] in the model's input space, labels [m])."""

from fastadv.data.bad_images import BadImage, BadImageWarning, warn_of_bad_image
from fastadv.data.dali_loader import DaliLoader
from fastadv.data.datasets import load, names
from fastadv.data.image_loader import ImageLoader
from fastadv.data.image_set import ImageData, ImageSet
from fastadv.data.image_source import ImageSource, fingerprint_of_files, spread
from fastadv.data.loaders import create_loader, shape_of
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
    "create_loader",
    "fingerprint_of_files",
    "load",
    "names",
    "scan",
    "shape_of",
    "spread",
    "warn_of_bad_image",
]
