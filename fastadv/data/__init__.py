"""Image data sets and loaders; every loader yields (images [m, C, H, W] in the model's input space, labels [m])."""

from fastadv.data.datasets import load, names
from fastadv.data.image_set import ImageData, ImageSet
from fastadv.data.torch_loader import TensorLoader

__all__ = ["ImageData", "ImageSet", "TensorLoader", "load", "names"]
