"""The card of a network in a program."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import fastadv
from fastadv.evaluate.accuracy import count_batches
from fastadv.evaluate.attack_specs import attack_class, parse_attack, recorded_options, run_options, stops_early
from fastadv.evaluate.card.card import Card
from fastadv.evaluate.card.examples import Look
from fastadv.evaluate.card.making import EXAMPLES, make_card
from fastadv.evaluate.card.suites import SUITES
from fastadv.evaluate.counts import BatchCounts, add_counts
from fastadv.evaluate.records import CLEAN, Record, packed
from fastadv.evaluate.sweep import Subject, fingerprint
from fastadv.pixels import PixelSpace, check_space
from fastadv.utils.validation import check_model, check_one_of

if TYPE_CHECKING:
    from fastadv.data.loaders.protocol import Loader


_DIFFER = "batches must be the same each time they are iterated"
_REMEDY = "give a loader that neither shuffles (shuffle=False) nor changes images at random"


def robustness_card(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    space: PixelSpace,
    suite: str = "quick",
    eps: Sequence[float] = (2, 4, 8),
    seed: int = 0,
    device: torch.device | str | None = None,
    examples: int = EXAMPLES,
    name: str = "model",
    classes: Sequence[str] = (),
) -> Card:
    """Measure a network under a suite of attacks, and look for signs that its gradient is masked::

        from fastadv.evaluate import robustness_card, write_card

        card = robustness_card(model, test_loader, space=fastadv.PixelSpace.imagenet(), suite="standard", eps=[2, 4])
        print(card.worst_case("model", 4))
        write_card(card, "card")

    Args:
        model: gives logits [m, K], or an object that holds them.
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), the same each time they are iterated: once for
            clean images, once for each attack, and twice more.
        space: the PixelSpace of the model's input.
        suite: ``"quick"``, ``"standard"`` or ``"paper"``.
        eps: sizes in pixel values.
        seed: of the attacks' random numbers.
        device: where batches are moved, the model's device; None leaves them where they are.
        examples: number of images to show beside their adversarial versions.
        name: of the network, for the page.
        classes: names of the classes; by default their indices.

    Raises:
        ValueError: if the suite is unknown, eps is empty, there are no images, batches differ when they are iterated
            again, or as for :func:`fastadv.evaluate.evaluate`.
        TypeError: if ``batches`` can be iterated only once, or eps is a single number.
    """
    check_model(model)
    check_space(space)
    check_one_of("suite", suite, tuple(SUITES))
    if isinstance(eps, (int, float)):
        raise TypeError(f"eps must be a list of sizes in pixel values, as in [2, 4, 8], got {eps:g}")
    if not eps:
        raise ValueError("eps is empty: name one or more sizes in pixel values, as in [2, 4, 8]")
    given: Any = batches
    if not hasattr(given, "epoch") and iter(given) is given:
        raise TypeError("batches can be iterated only once: give a list or a loader, since each attack sees them all")
    sizes = sorted({float(one) for one in eps})
    given = _Repeated(given)
    common: dict[str, Any] = {"space": space, "seed": seed, "device": device}
    records = _measure(model, given, CLEAN, [0.0], name=name, **common)
    for attack in SUITES[suite]:
        records += _measure(model, given, attack, sizes, name=name, **common)
    return make_card(
        suite,
        [Subject(name, model, space)],
        records,
        lambda _: _look(given, device),
        classes=classes,
        examples=examples,
    )


class _Repeated:
    """Batches that are the same each time they are iterated, which is checked: a worst case is over the same images.

    Args:
        batches: pairs of tensors, or a loader.

    Attributes:
        fingerprint: sha256 of all of them.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._each = [_hash(pair) for pair in self._pairs()]
        self.fingerprint = hashlib.sha256(" ".join(self._each).encode()).hexdigest()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        number = -1
        for number, pair in enumerate(self._pairs()):
            if number == len(self._each) or _hash(pair) != self._each[number]:
                raise ValueError(f"{_DIFFER}, and batch {number} is another one the second time: {_REMEDY}")
            yield pair
        if number + 1 < len(self._each):
            raise ValueError(f"{_DIFFER}, and the second time there are {number + 1} of {len(self._each)}: {_REMEDY}")

    def _pairs(self) -> Iterable[tuple[Tensor, Tensor]]:
        found: Iterable[tuple[Tensor, Tensor]]
        found = self._batches.epoch(0) if hasattr(self._batches, "epoch") else self._batches
        return found


def _hash(pair: tuple[Tensor, Tensor]) -> str:
    return fingerprint({str(place): part for place, part in enumerate(pair)})


def _measure(
    model: nn.Module,
    batches: _Repeated,
    attack: str,
    eps: Sequence[float],
    *,
    name: str,
    space: PixelSpace,
    seed: int,
    device: torch.device | str | None,
) -> list[Record]:
    """The records of one attack at each size."""
    options = {} if attack == CLEAN else recorded_options(attack, parse_attack(attack, model, early_stop=True)[1])
    found: list[BatchCounts] = []
    start = time.perf_counter()
    count_batches(
        model,
        batches,
        found.append,
        attack=CLEAN if attack == CLEAN else attack_class(attack),
        eps=eps,
        space=space,
        seed=seed,
        first=0,
        device=device,
        options=run_options(options),
    )
    seconds = time.perf_counter() - start
    counts = [add_counts([one.each[0][place] for one in found]) for place in range(len(eps))]
    return [
        Record(
            model=name,
            checkpoint=fingerprint(model.state_dict()),
            space=str(space),
            dataset="these batches",
            split="test",
            images=batches.fingerprint,
            n=count.n,
            total=count.n,
            classes=0,
            attack=attack,
            eps=size,
            options=options,
            seed=seed,
            top1=count.top1,
            top5=count.top5,
            correct=packed(count.correct.numpy()),
            seconds=round(seconds / len(eps), 3),
            device=str(device or "as given"),
            versions={"fastadv": fastadv.__version__, "torch": str(torch.__version__)},
            without_gradient=count.without_gradient,
            stops_early=attack != CLEAN and stops_early(attack_class(attack), options),
            gradients=sum(one.gradients for one in found) / len(eps),
            queries=sum(one.queries for one in found) / len(eps),
        )
        for size, count in zip(eps, counts, strict=True)
    ]


def _look(batches: _Repeated, device: torch.device | str | None) -> Look:
    """Return a function that finds images by their indices."""

    def look(indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        wanted = sorted(indices)
        found = list(_parts(batches, wanted))
        images, labels = (torch.cat(parts).to(device) for parts in zip(*found, strict=True))
        return images, labels

    return look


def _parts(batches: _Repeated, wanted: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images and labels with these indices, in ascending order, from each batch that has some."""
    first = 0
    for images, labels in batches:
        own = [index - first for index in wanted if first <= index < first + len(labels)]
        if own:
            yield images[own], labels[own]
        first += len(labels)
