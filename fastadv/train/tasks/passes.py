"""Passes: how many images went through the network, forwards and backwards, and what that costs."""

from __future__ import annotations

from typing import NamedTuple

_CLEAN = 3.0  # units of an image of standard training: forward, and backward to weights and activations


class Passes(NamedTuple):
    """Numbers of images in forward and backward passes; expectations need not be whole.

    Args:
        forward: in forward passes.
        backward: in backward passes to weights and images.
        to_images: in backward passes to the images alone, as attacks make them.
    """

    forward: float = 0
    backward: float = 0
    to_images: float = 0

    @property
    def clean_images(self) -> float:
        """As many images of standard training cost the same.

        A forward pass is one unit, a backward pass to weights and images two, and one to the images alone one.
        """
        return (self.forward + 2 * self.backward + self.to_images) / _CLEAN

    def plus(self, other: Passes) -> Passes:
        """The sum of both."""
        return Passes(*(mine + its for mine, its in zip(self, other, strict=True)))

    def times(self, count: float) -> Passes:
        """As many times as this."""
        return Passes(*(count * mine for mine in self))
