"""What all ways of training share: images, network, optimiser, loader."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.training_methods.ways import SPACE, Method
from fastadv import data, models
from fastadv.utils import devices


@dataclass(frozen=True)
class Bench:
    """The images and the device, with the options of the command line."""

    train: data.ImageSet
    test: data.ImageSet
    device: torch.device
    options: argparse.Namespace

    @classmethod
    def of(cls, options: argparse.Namespace) -> Bench:
        """From command line options."""
        images = data.load(options.data_set, options.data)
        train, test = _first(images.train, options.limit), _first(images.test, options.test_limit)
        return cls(train, test, devices.resolve(options.device), options)

    def network(self, seed: int) -> nn.Module:
        """A network in training mode, with the same initial weights each time for each seed."""
        torch.manual_seed(seed)
        channels, classes = self.train.images.shape[1], len(self.train.classes)
        model = models.create("small_cnn", num_classes=classes, in_channels=channels, width=self.options.width)
        return model.to(self.device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW, as in the recipes for small images."""
        return torch.optim.AdamW(model.parameters(), lr=self.options.lr, weight_decay=0.0)

    def loader(self, way: Method, seed: int) -> data.TensorLoader:
        """A shuffled loader of the training images, whose minibatches have m examples with all versions."""
        size = self.options.m // way.versions
        return data.TensorLoader(self.train, size, space=SPACE, seed=seed, device=self.device)

    def minibatch(self, way: Method) -> tuple[Tensor, Tensor]:
        """The first one: images [m, C, H, W], labels [m]."""
        return next(self.loader(way, self.options.seed).epoch(0))


def _first(images: data.ImageSet, limit: int | None) -> data.ImageSet:
    return data.ImageSet(images.images[:limit], images.labels[:limit], images.classes)
