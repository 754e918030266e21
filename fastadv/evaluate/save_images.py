"""Write clean and adversarial images as PNG, and say what rounding them to 8 bits changes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastadv import attacks
from fastadv.data import ImageSet
from fastadv.data.sources.base import Selection
from fastadv.evaluate.attack_specs import attack_class, parse_attack
from fastadv.evaluate.hits import hits
from fastadv.evaluate.records import CLEAN
from fastadv.evaluate.sweep import Images, Subject, Sweep, create_test_loader
from fastadv.utils.files import make_folder
from fastadv.utils.module_modes import isolated
from fastadv.utils.optional_deps import require
from fastadv.utils.text import counted, printable


@dataclass(frozen=True)
class Saved:
    """How many of ``n`` images a model classifies correctly, before and after they are rounded to 8 bits."""

    n: int
    before: int
    after: int


def save_images(sweep: Sweep, subjects: Sequence[Subject], folder: Path, first: int) -> None:
    """Write the first images of a sweep, clean and under each attack at each size; print a line for each.

    The files are ``FOLDER/MODEL/ATTACK-eps-E/NUMBER.png``, and ``FOLDER/MODEL/clean/NUMBER.png``.

    Args:
        sweep: what was measured.
        subjects: the models.
        folder: where to write.
        first: number of images.

    Raises:
        OSError: if a file cannot be written.
    """
    images = _first(sweep.shown(), first)
    evaluations = [(CLEAN, 0.0), *((attack, eps) for attack in sweep.attacks for eps in sweep.eps)]
    for subject in subjects:
        for attack, eps in evaluations:
            name = CLEAN if attack == CLEAN else f"{attack}-eps-{eps:g}"
            place = folder / _as_name(subject.name) / _as_name(name)
            make_folder(place)
            saved = _save(sweep, subject, attack, eps, images, place)
            change = "" if saved.after == saved.before else f", and {saved.after} when rounded to 8 bits"
            print(
                printable(
                    f"{place}: {counted(saved.n, 'image')}; {subject.name} classifies {saved.before} correctly{change}"
                ),
                file=sys.stderr,
            )


def _save(sweep: Sweep, subject: Subject, attack: str, eps: float, images: Images, folder: Path) -> Saved:
    """Write one set of images."""
    model, space = subject.model.to(sweep.device), subject.space
    saved = Saved(0, 0, 0)
    with isolated(model, bn="eval"):
        for adv, labels in _examples(sweep, subject, attack, eps, images):  # [m, C, H, W], [m]
            pixels = space.to_pixels(adv).round().clamp(0, 255)  # [m, C, H, W]
            rounded = space.from_pixels(pixels, adv.dtype)
            before, after = (int(hits(model, shown, labels).top1.sum()) for shown in (adv, rounded))
            for offset, image in enumerate(pixels.to(torch.uint8).cpu()):
                _write_png(image, folder / f"{saved.n + offset:05}.png")
            saved = Saved(saved.n + len(labels), saved.before + before, saved.after + after)
    return saved


def _examples(
    sweep: Sweep, subject: Subject, attack: str, eps: float, images: Images
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield adversarial images [m, C, H, W], as they were when they were measured, with their labels [m]."""
    loader = create_test_loader(sweep, images, subject.space)
    made = None
    if attack != CLEAN:
        _, options = parse_attack(attack, subject.model, fast=sweep.fast, early_stop=sweep.early_stop)
        made = attacks.create(
            attack_class(attack), subject.model, eps=eps, space=subject.space, seed=sweep.seed, **options
        )
    for clean, labels in loader.epoch(0):
        clean, labels = clean.to(sweep.device), labels.to(sweep.device)
        yield (clean if made is None else made(clean, made.true_labels(labels))), labels


def _first(images: Images, count: int) -> Images:
    if isinstance(images, ImageSet):
        return ImageSet(images.images[:count], images.labels[:count], images.classes)
    return Selection(images, torch.arange(min(count, len(images))))


def _write_png(pixels: Tensor, path: Path) -> None:
    """Write an image [C, H, W] uint8 of one or three channels."""
    image = require("PIL.Image", extra="train")
    values = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())  # [H, W, C]
    image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(path)


def _as_name(text: str) -> str:
    """Text as the name of a folder."""
    return re.sub(r"[:/\\]", "-", printable(text))
