"""Configuration of the images that a command reads, and of their preprocessing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import fastadv
from fastadv.data.transforms.preprocessing import InterpolationName, Preprocessing
from fastadv.utils.devices import MOST_THREADS
from fastadv.utils.validation import check_integer, check_one_of

SpaceName = Literal["raw", "unit", "symmetric", "imagenet"]
LoaderName = Literal["auto", "dali", "torchvision"]
BadImageChoice = Literal["skip", "stop"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images."""

    name: str = "digits"
    """Data set, such as digits (which comes with scikit-learn), fashion_mnist or cifar10; imagenet is any set of image
    files in train/CLASS/IMAGE and val/CLASS/IMAGE, or in WebDataset or TFRecord shards in train/ and val/."""

    root: str | None = None
    """Folder that holds the data set's files; short form: --data DIR."""

    download: bool = False
    """Download the files that are missing in root; short form: --download."""

    space: SpaceName = "unit"
    """How pixel values become the network's input: raw [0, 255], unit [0, 1], symmetric [-1, 1], or imagenet (the
    usual mean and standard deviation)."""

    crop_padding: int = 0
    """Augment by random crops after padding by this many pixels on each side; 0 switches it off."""

    flip: bool = Preprocessing.flip
    """Augment by mirroring half of the images; not for data such as digits, whose class it changes."""

    size: int = Preprocessing.size
    """imagenet: height and width of the network's input in pixels."""

    least_area: float = Preprocessing.least_area
    """imagenet: smallest share of an image's area that a training crop covers."""

    widest_aspect: float = Preprocessing.widest_aspect
    """imagenet: largest aspect ratio of a training crop; the smallest is its inverse."""

    colour: bool = Preprocessing.colour
    """imagenet: augment by random brightness, contrast, saturation and hue."""

    central: float = Preprocessing.central
    """imagenet: share of an image's height and width that evaluation keeps, around the centre."""

    keep_aspect: bool = Preprocessing.keep_aspect
    """imagenet: evaluation keeps a square, of that share of the shorter side, instead of that share of both sides."""

    interpolation: InterpolationName = Preprocessing.interpolation
    """imagenet: interpolation in training and evaluation: bilinear or bicubic, with antialiasing."""

    loader: LoaderName = "auto"
    """imagenet: library that decodes images: dali, torchvision, or auto for dali if it is installed. The main process
    chooses when the run starts, for all processes and until the end of the run."""

    workers: int | None = None
    """imagenet: decoding threads (dali) or processes (torchvision) per training process; null divides the machine's
    cores among the processes on it."""

    prefetch: int = 2
    """imagenet: batches prepared ahead (torchvision: by each worker)."""

    on_bad_image: BadImageChoice = "skip"
    """imagenet: what to do if a file cannot be read or decoded. Both name it, and in training use the next image in its
    place; stop then ends the run with a checkpoint."""

    def __post_init__(self) -> None:
        check_one_of("data.space", self.space, get_args(SpaceName))
        check_integer("data.crop_padding", self.crop_padding, least=0)
        check_one_of("data.loader", self.loader, get_args(LoaderName))
        if self.workers is not None:
            check_integer("data.workers", self.workers, least=0, most=MOST_THREADS)
        check_integer("data.prefetch", self.prefetch, least=1)
        check_one_of("data.on_bad_image", self.on_bad_image, get_args(BadImageChoice))
        try:
            _ = self.preprocessing
        except ValueError as error:
            raise ValueError(f"data.{error}") from error

    @property
    def pixel_space(self) -> fastadv.PixelSpace:
        """The PixelSpace that ``space`` names."""
        # Not imported above: fastadv imports it on use, with PyTorch, which --help does not need.
        space: fastadv.PixelSpace = getattr(fastadv.PixelSpace, self.space)()
        return space

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of images in files."""
        return Preprocessing(
            size=self.size,
            least_area=self.least_area,
            widest_aspect=self.widest_aspect,
            flip=self.flip,
            colour=self.colour,
            central=self.central,
            keep_aspect=self.keep_aspect,
            interpolation=self.interpolation,
        )
