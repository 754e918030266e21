"""The images that are easiest to fool, beside their adversarial versions and the difference, magnified."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastadv import attacks
from fastadv.evaluate.attack_specs import attack_class, run_options
from fastadv.evaluate.hits import hits
from fastadv.evaluate.records import CLEAN, Record
from fastadv.evaluate.sweep import Subject
from fastadv.utils.model_outputs import logits_of
from fastadv.utils.module_modes import isolated
from fastadv.utils.optional_deps import require
from fastadv.utils.rng import nth_seed

_SMALLEST = 128  # pixels: smaller images are enlarged by a whole factor
_GAP = 8  # pixels between the three
_TRIES = 4  # candidates for each example

Look = Callable[[Sequence[int]], tuple[Tensor, Tensor]]  # images [m, C, H, W] in the model's space and labels [m]


@dataclass(frozen=True, eq=False)
class Example:
    """An image that is fooled at the smallest eps.

    Args:
        model: the network's name.
        index: the image's index among those that were measured.
        attack: the first of the suite that fools it at that eps.
        eps: in pixel values.
        label: the name of its class.
        predicted: the name of the class that the network sees instead.
        pixels: [3, C, H, W] uint8: the image, its adversarial version, and their difference.
    """

    model: str
    index: int
    attack: str
    eps: float
    label: str
    predicted: str
    pixels: Tensor

    @property
    def magnified(self) -> float:
        """How many times the difference is magnified, so that eps is black or white, and no change is grey."""
        return 127.5 / self.eps

    @property
    def caption(self) -> str:
        """The example in words."""
        return (
            f"{self.model}, image {self.index}: {self.label} is taken for {self.predicted} under {self.attack} at eps "
            f"{self.eps:g}; difference x {self.magnified:.3g}, grey where nothing changes"
        )

    def png(self) -> bytes:
        """The three side by side, as a PNG file."""
        factor = max(1, -(-_SMALLEST // self.pixels.shape[-1]))
        large = self.pixels.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)  # [3, C, H, W]
        gap = torch.full((*large.shape[1:3], _GAP), 255, dtype=torch.uint8)  # [C, H, gap]
        strip = torch.cat([large[0], gap, large[1], gap, large[2]], dim=2)  # [C, H, 3 W + 2 gaps]
        values = np.ascontiguousarray(strip.permute(1, 2, 0).numpy())  # [H, W, C]
        file = io.BytesIO()
        image = require("PIL.Image", extra="train")
        image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(file, format="PNG")
        return file.getvalue()


def find_examples(
    subject: Subject,
    records: Sequence[Record],
    look: Look,
    *,
    count: int,
    classes: Sequence[str],
    chunk: int | None,
) -> list[Example]:
    """Remake the images that a network classifies correctly when clean and that are fooled at the smallest eps.

    Of those with the same eps, more attacks that fool it come first, then the lower index. Each is attacked alone, by
    the first attack of the suite that fooled it; one that rounding saves without its batch is passed over.

    Args:
        subject: the network.
        records: of that network.
        look: returns the images with these indices, in the network's space.
        count: of examples, at most.
        classes: names.
        chunk: images of each part that had a seed of its own; None if there was one.
    """
    found: list[Example] = []
    with isolated(subject.model, "eval"):
        for _, (index, record) in zip(range(_TRIES * count), _candidates(records), strict=False):
            if len(found) == count:
                break
            part, place = divmod(index, chunk) if chunk else (0, index)
            example = _remake(subject, record, *look([index]), index, nth_seed(record.seed, part), place, classes)
            if example is not None:
                found.append(example)
    return found


def _candidates(records: Sequence[Record]) -> Iterator[tuple[int, Record]]:
    """Yield the index of each image that is fooled, with the record of the attack, in the order of the examples."""
    right = next(record for record in records if record.attack == CLEAN).hits  # [n]
    seen = ~right
    for eps in sorted({record.eps for record in records if record.attack != CLEAN}):
        of_size = [record for record in records if record.attack != CLEAN and record.eps == eps]
        fooled = np.stack([~record.hits for record in of_size]) & ~seen  # [attacks, n]
        times = fooled.sum(axis=0)  # [n]
        for index in np.argsort(-times, kind="stable")[: int((times > 0).sum())].tolist():
            yield index, of_size[int(fooled[:, index].argmax())]
        seen |= times > 0


def _remake(
    subject: Subject,
    record: Record,
    image: Tensor,  # [1, C, H, W]
    label: Tensor,  # [1]
    index: int,
    seed: int,
    place: int,
    classes: Sequence[str],
) -> Example | None:
    """Attack an image as in the evaluation; None if alone it is not misclassified."""
    options = run_options(record.options)
    attack = attacks.create(
        attack_class(record.attack), subject.model, eps=record.eps, space=subject.space, seed=seed, **options
    )
    attack.stream.offset = place
    adv = attack(image, attack.true_labels(label))
    if hits(subject.model, adv, label).top1.item():
        return None
    with torch.no_grad():
        predicted = int(logits_of(subject.model(adv.clone())).argmax())
    before, after = (subject.space.to_pixels(one)[0].cpu().float() for one in (image, adv))  # [C, H, W] each
    difference = 127.5 + (after - before) * (127.5 / record.eps)
    pixels = torch.stack([before, after, difference]).round().clamp(0, 255).to(torch.uint8)
    true, seen = (classes[one] if one < len(classes) else str(one) for one in (int(label), predicted))
    return Example(record.model, index, record.attack, record.eps, true, seen, pixels)
