"""Count the images that a model classifies correctly, clean or under an attack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.training_mode import EvaluationWatch
from fastadv.attacks.engine.zero_gradients import ZeroGradientCount, warn_of_zero_gradients
from fastadv.evaluate.given_attacks import AttackLike, UnderAttack, one_attack, several_attacks, sizes_of_attack
from fastadv.evaluate.hits import Hits, hits
from fastadv.evaluate.html import html_table
from fastadv.evaluate.intervals import proportion
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace, check_space
from fastadv.pixels.range_watch import RangeWatch
from fastadv.utils.module_modes import isolated
from fastadv.utils.progress import progress_bar
from fastadv.utils.rng import RandomStream
from fastadv.utils.text import counted
from fastadv.utils.validation import check_model

if TYPE_CHECKING:
    from fastadv.data.loaders.protocol import Loader

T = TypeVar("T")


@dataclass(frozen=True)
class Counts:
    """How many of ``n`` images were classified correctly; ``top5`` is None with fewer than six classes.

    ``correct`` marks those that were correct at top 1, in the order of the batches, so two sets of counts on the same
    images can be compared image by image. ``without_gradient`` is the number of images whose gradient was zero or not
    finite: an attack does little or nothing to them, and if there are many, the accuracy says nothing about robustness.
    It is None if no gradient was computed.
    """

    n: int
    top1: int
    top5: int | None
    correct: Tensor = field(compare=False, repr=False)  # [n] bool
    without_gradient: int | None = None

    def _repr_html_(self) -> str:
        found = [("top 1", self.top1)] if self.top5 is None else [("top 1", self.top1), ("top 5", self.top5)]
        rows = [(top, str(proportion(count, self.n)), f"{count:,} of {self.n:,}") for top, count in found]
        lost = self.without_gradient
        gradient = "had no usable gradient: the attack does little or nothing to them"
        notes = [f"{counted(lost, 'image')} {gradient}."] if lost else []
        return html_table(("", "accuracy", "correct"), rows, notes=notes)


@dataclass(frozen=True)
class WorstCase:
    """Counts under several attacks.

    Args:
        each: the counts under each attack by its name, those of clean images first, as ``"clean"``.
        worst: of the worst case per image: those images count that are classified correctly when clean and under each
            of the attacks.
    """

    each: Mapping[str, Counts]
    worst: Counts

    def _repr_html_(self) -> str:
        rows = [(name, str(proportion(counts.top1, counts.n))) for name, counts in self.each.items()]
        return html_table(("", "top 1"), [*rows, ("worst case", str(proportion(self.worst.top1, self.worst.n)))])


def add_counts(counts: Sequence[Counts]) -> Counts:
    """Add up the counts of disjoint parts of the images."""
    top5 = None if counts[0].top5 is None else sum(count.top5 or 0 for count in counts)
    correct = torch.cat([count.correct for count in counts])  # [n]
    lost = None if counts[0].without_gradient is None else sum(count.without_gradient or 0 for count in counts)
    return Counts(sum(count.n for count in counts), sum(count.top1 for count in counts), top5, correct, lost)


@overload
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    attack: AttackLike = CLEAN,
    eps: float | None = None,
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> Counts: ...
@overload
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    attack: list[AttackLike] | tuple[AttackLike, ...],
    eps: float | None = None,
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> WorstCase: ...
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    attack: AttackLike | list[AttackLike] | tuple[AttackLike, ...] = CLEAN,
    eps: float | None = None,
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
    **options: Any,
) -> Counts | WorstCase:
    """Count the images that a model classifies correctly, each attacked with the gradients of the model itself.

    Works with any module and any source of batches. The model is put in eval mode meanwhile; afterwards each of its
    modules is back in the mode it was in::

        from fastadv import PixelSpace
        from fastadv.evaluate import evaluate, proportion

        counts = evaluate(model, test_loader, attack="step_ll", eps=16, space=PixelSpace.imagenet(), device="cuda")
        print("top 1:", proportion(counts.top1, counts.n))

        found = evaluate(model, test_loader, attack=["fgsm", "pgd:steps=20"], eps=8, space=PixelSpace.imagenet())
        print("under both:", proportion(found.worst.top1, found.worst.n))

    Args:
        model: gives logits [m, K], or a named tuple, a dictionary or an object that holds ``logits``.
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), each image once; iterated once. Or a loader of
            :mod:`fastadv.data` that leaves nothing out.
        attack: as on the command line, one of ``fastadv.attacks.names()``, which options may follow
            (``"pgd:steps=20:alpha=2"``), or ``"path/to/file.py:CLASS"``; or your own attack class; or an attack that
            was created, which has its own model, options and random numbers; or "clean" for none. Or a list of these.
        eps: size of the perturbation in pixel values; None for "clean", and for the own eps of an attack that was
            created. A number also replaces that one's own, with a warning if it is another.
        space: the PixelSpace of the model's input.
        seed: seed of the attack's random numbers: the same for each image, however the images are batched.
        device: where batches are moved, the model's device; None leaves them where they are.
        progress: show a progress bar over the batches, on a terminal or in a notebook; needs rich.
        options: further options of the attack as keywords, such as ``alpha``: those of ``fastadv.attacks.create``. Of
            several attacks, each must have them.

    Returns:
        :class:`Counts`; for a list of attacks a :class:`WorstCase`, with the counts of each and of the worst case per
        image. All attacks see a batch before the next is read.

    Raises:
        ValueError: if the attack is unknown, has no eps or steps towards the labels, "clean" has eps or options, images
            lie outside ``space``, there are no images, or logits do not fit the labels; if a list is empty or has an
            attack twice, or an attack that was created has another space.
        TypeError: if ``attack`` is not an attack, ``eps`` is a list (use :func:`evaluate_each`), or batches are not
            pairs of tensors.
        ModuleNotFoundError: if ``progress`` is set and rich is not installed.
    """
    check_model(model)
    check_space(space)
    if isinstance(eps, (list, tuple)):
        raise TypeError(
            f"eps must be one number here, got {eps}: evaluate_each takes several, and returns their counts"
        )
    common: dict[str, Any] = {"eps": eps, "space": space, "seed": seed, "options": options}
    if isinstance(attack, (list, tuple)):
        under = several_attacks(attack, model, **common)
        return _worst_case(model, batches, under, space=space, device=device, progress=progress)
    [[counts]] = _measure(
        model, batches, [one_attack(attack, model, **common)], space=space, device=device, progress=progress
    ).each
    return counts


def evaluate_each(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    attack: AttackLike,
    eps: Sequence[float],
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    first: int = 0,
    progress: bool = False,
    **options: Any,
) -> list[Counts]:
    """Compute the counts of :func:`evaluate` for several sizes, in one pass over the batches.

    One-step attacks compute one gradient for all sizes; the others save reading the batches again.

    Args:
        model: as for :func:`evaluate`, like all arguments but ``eps`` and ``first``; ``attack`` is one.
        eps: sizes of the perturbation in pixel values.
        first: index of the first image in the whole set, if the batches are a part of it: an image's random numbers
            depend on its index.

    Raises:
        ValueError: as for :func:`evaluate`.
        TypeError: as for :func:`evaluate`.
        ModuleNotFoundError: as for :func:`evaluate`.
    """
    check_model(model)
    check_space(space)
    if not isinstance(eps, Iterable):
        raise TypeError(f"eps must be a sequence of sizes, such as [2, 4, 8], got {type(eps).__name__}")
    under = sizes_of_attack(attack, model, eps=eps, space=space, seed=seed, options=options)
    with nullcontext() if under.attack is None else _drawing_from(under.attack.stream, first):
        [counts] = _measure(model, batches, [under], space=space, device=device, progress=progress).each
    return counts


@contextmanager
def _drawing_from(stream: RandomStream, first: int) -> Iterator[None]:
    """Within the block, draw the numbers from image ``first`` on; a created attack goes on where it was afterwards."""
    before, stream.offset = stream.offset, first
    try:
        yield
    finally:
        stream.offset = before


def _worst_case(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    under: Sequence[UnderAttack],
    **common: Any,
) -> WorstCase:
    """Measure several attacks, each with one eps, and clean images first."""
    measured = _measure(model, batches, [UnderAttack(CLEAN, None, [0.0]), *under], **common)
    each = {name: counts for name, [counts] in zip((CLEAN, *(one.name for one in under)), measured.each, strict=True)}
    return WorstCase(each, measured.worst)


@dataclass(frozen=True)
class _Measured:
    """Counts of each attack at each of its sizes, and of images that are correct under all of them."""

    each: list[list[Counts]]
    worst: Counts


def _measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    under: Sequence[UnderAttack],
    *,
    space: PixelSpace,
    device: torch.device | str | None,
    progress: bool,
) -> _Measured:
    """Attack each batch by all of the attacks, at each of their sizes, before the next batch is read."""
    running = [[_RunningCounts() for _ in one.eps] for one in under]
    worst = _RunningCounts()
    watch = RangeWatch(space)
    first_pass = not isinstance(under[0].attack, attacks.GradientAttack)  # which watches the model itself
    given: Any = batches
    total = len(given) if hasattr(given, "__len__") else None
    if hasattr(given, "epoch"):  # a loader
        given = given.epoch(0)
    if progress:
        given = _with_bar(given, total, ", ".join(one.name for one in under))
    with isolated(model, bn="eval"), ExitStack() as stack:
        for one in under:
            stack.enter_context(one.counting())
        for batch in given:
            images, labels = (part.to(device) for part in _pair(batch))  # [m, C, H, W], [m]
            watch.look(images)
            hits_of_all: list[Hits] = []
            for one, counts_of_one in zip(under, running, strict=True):
                for candidate, found in zip(one.candidates(images, labels), counts_of_one, strict=True):
                    with EvaluationWatch("evaluation", model, candidate) if first_pass else nullcontext():
                        hits_of_all.append(hits(model, candidate, labels))
                    first_pass = False
                    found.add(hits_of_all[-1])
                    found.without_gradient.add(one.without_gradient)
            if hits_of_all:
                worst.add(_correct_in_all(hits_of_all))
    counts = [[found.counts() for found in of_one] for of_one in running]
    if counts[0] and counts[0][0].n == 0:
        raise ValueError("there are no images to evaluate")
    for one, of_one in zip(under, counts, strict=True):
        if of_one and one.attack is not None and not one.attack.warned:  # by the first batch
            warn_of_zero_gradients(one.attack.name, max(count.without_gradient or 0 for count in of_one), of_one[0].n)
    return _Measured(counts, worst.counts())


def _correct_in_all(found: Sequence[Hits]) -> Hits:
    """The images of a batch that are classified correctly under each attack."""
    top1 = torch.stack([one.top1 for one in found]).all(dim=0)  # [m]
    top5 = [one.top5 for one in found if one.top5 is not None]
    return Hits(top1, torch.stack(top5).all(dim=0) if top5 else None)


def _with_bar(batches: Iterable[T], total: int | None, title: str) -> Iterator[T]:
    """Yield the batches, with a bar that counts them."""
    with progress_bar(notebook=True) as bar:
        task = bar.add_task(title, total=total)
        for batch in batches:
            yield batch
            bar.advance(task)


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """Unpack a batch: images [m, C, H, W] and labels [m].

    Raises:
        TypeError: if it is not a pair of tensors.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        images, labels = batch
        return images, labels
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    got = ", ".join(type(part).__name__ for part in parts)
    raise TypeError(f"batches must be pairs of tensors, images [m, C, H, W] and labels [m], got {got}")


class _RunningCounts:
    """Counts that are added up batch by batch."""

    def __init__(self) -> None:
        self.top1 = [torch.empty(0, dtype=torch.bool, device="cpu")]  # of each batch [m]
        self.top5 = 0
        self.has_top5 = True
        self.without_gradient = ZeroGradientCount()

    def add(self, found: Hits) -> None:
        self.top1.append(found.top1.cpu())
        self.top5 += int(found.top5.sum()) if found.top5 is not None else 0
        self.has_top5 = found.top5 is not None

    def counts(self) -> Counts:
        correct = torch.cat(self.top1)  # [n]
        top5, lost = self.top5 if self.has_top5 else None, self.without_gradient.total()
        return Counts(len(correct), int(correct.sum()), top5, correct, lost)
