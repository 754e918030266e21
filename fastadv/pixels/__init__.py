"""PixelSpace, which maps pixel values to a model's input, and the check that images lie in it."""

from fastadv.pixels.space import DTYPES, IMAGENET_MEAN, IMAGENET_STD, MOST_CHANNELS, PixelSpace, check_space

__all__ = ["DTYPES", "IMAGENET_MEAN", "IMAGENET_STD", "MOST_CHANNELS", "PixelSpace", "check_space"]


def __dir__() -> list[str]:
    return sorted(__all__)
