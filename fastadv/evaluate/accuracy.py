"""Count the images that a model classifies correctly, clean or under an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.training_mode import EvaluationWatch
from fastadv.attacks.engine.zero_gradients import warn_of_zero_gradients
from fastadv.evaluate.counts import BatchCounts, Counts, WorstCase, add_counts, counts_of
from fastadv.evaluate.given_attacks import AttackLike, UnderAttack, one_attack, several_attacks, sizes_of_attack
from fastadv.evaluate.hits import Hits, hits
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace, check_space
from fastadv.pixels.range_watch import RangeWatch
from fastadv.utils.module_modes import isolated
from fastadv.utils.progress import progress_bar
from fastadv.utils.validation import check_model

if TYPE_CHECKING:
    from fastadv.data.loaders.protocol import Loader

T = TypeVar("T")


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
    early_stop: bool = True,
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
    early_stop: bool = True,
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
    early_stop: bool = True,
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
        early_stop: an image counts as misclassified as soon as one iterate of the attack is, its start included, and no
            more gradients are computed for it. False judges the attack's last iterate alone, as the paper does.
            One-step attacks and noise have a single iterate, attacks such as ``apgd_ce`` and ``autoattack`` always stop
            early, and an attack that was created does as it was created. Top 5 is None under an attack that stops
            early, since an image may be left alone while its class is still among the five.
        progress: show a progress bar over the batches, with the number of images that are decided, which are those that
            are misclassified; on a terminal or in a notebook; needs rich.
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
    common: dict[str, Any] = {"eps": eps, "space": space, "seed": seed, "early_stop": early_stop, "options": options}
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
    early_stop: bool = True,
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
    under = _prepare_sizes(model, attack, eps=eps, space=space, seed=seed, early_stop=early_stop, options=options)
    with _drawing_from(under, first):
        [counts] = _measure(model, batches, [under], space=space, device=device, progress=progress).each
    return counts


def count_batches(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    done: Callable[[BatchCounts], None],
    *,
    attack: AttackLike,
    eps: Sequence[float],
    space: PixelSpace,
    seed: int,
    first: int,
    device: torch.device | str | None,
    options: Mapping[str, Any],
) -> None:
    """Call ``done`` with the counts of each batch of :func:`evaluate_each`, as soon as they are known.

    The attack has ``options`` and no others.

    Raises:
        ValueError: as for :func:`evaluate`.
    """
    under = _prepare_sizes(model, attack, eps=eps, space=space, seed=seed, early_stop=False, options=options)
    with _drawing_from(under, first):
        _measure(model, batches, [under], space=space, device=device, done=done)


def _prepare_sizes(
    model: nn.Module, attack: AttackLike, *, eps: Sequence[float], space: PixelSpace, **common: Any
) -> UnderAttack:
    """Check the arguments of :func:`evaluate_each`, and prepare its attack."""
    check_model(model)
    check_space(space)
    if not isinstance(eps, Iterable):
        raise TypeError(f"eps must be a sequence of sizes, such as [2, 4, 8], got {type(eps).__name__}")
    return sizes_of_attack(attack, model, eps=eps, space=space, **common)


@contextmanager
def _drawing_from(under: UnderAttack, first: int) -> Iterator[None]:
    """Within the block, draw the numbers from image ``first`` on; a created attack goes on where it was afterwards."""
    if under.attack is None:
        yield
        return
    stream = under.attack.stream
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
    assert measured.worst is not None
    return WorstCase(each, measured.worst)


@dataclass(frozen=True)
class _Measured:
    """Counts of each attack at each of its sizes, and of images that are correct under all of them."""

    each: list[list[Counts]]
    worst: Counts | None  # None without any sizes


def _measure(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    under: Sequence[UnderAttack],
    *,
    space: PixelSpace,
    device: torch.device | str | None,
    progress: bool = False,
    done: Callable[[BatchCounts], None] | None = None,
) -> _Measured:
    """Attack each batch by all of the attacks, at each of their sizes, before the next batch is read."""
    counted: list[BatchCounts] = []
    watch = RangeWatch(space)
    first_pass = not isinstance(under[0].attack, attacks.GradientAttack)  # which watches the model itself
    given: Any = batches
    total = len(given) if hasattr(given, "__len__") else None
    if hasattr(given, "epoch"):  # a loader
        given = given.epoch(0)
    if progress:
        given = _with_bar(given, total, ", ".join(one.name for one in under), counted)
    with isolated(model, bn="eval"), ExitStack() as stack:
        for one in under:
            stack.enter_context(one.counting())
        for batch in given:
            images, labels = (part.to(device) for part in _pair(batch))  # [m, C, H, W], [m]
            watch.look(images)
            before = _passes(under)
            each: list[list[Counts]] = []
            hits_of_all: list[Hits] = []
            for one in under:
                each.append([])
                for candidate in one.candidates(images, labels):
                    with EvaluationWatch("evaluation", model, candidate) if first_pass else nullcontext():
                        hits_of_all.append(one.meaningful(hits(model, candidate, labels)))
                    first_pass = False
                    lost = one.without_gradient
                    each[-1].append(counts_of(hits_of_all[-1], None if lost is None else int(lost)))
            if hits_of_all:
                spent = [after - so_far for after, so_far in zip(_passes(under), before, strict=True)]
                counted.append(BatchCounts(each, counts_of(_correct_in_all(hits_of_all)), *spent))
                if done is not None:
                    done(counted[-1])
    if not any(one.eps for one in under):
        return _Measured([[] for _ in under], None)
    if sum(one.worst.n for one in counted) == 0:
        raise ValueError("there are no images to evaluate")
    of_attacks = zip(*(one.each for one in counted), strict=True)  # of each attack: of each batch, at each size
    sums = [[add_counts(of_one) for of_one in zip(*of_batches, strict=True)] for of_batches in of_attacks]
    for one, of_one in zip(under, sums, strict=True):
        if of_one and one.attack is not None and not one.attack.warned:  # by the first batch
            warn_of_zero_gradients(one.attack.name, max(count.without_gradient or 0 for count in of_one), of_one[0].n)
    return _Measured(sums, add_counts([one.worst for one in counted]))


def _passes(under: Sequence[UnderAttack]) -> tuple[int, int]:
    """The gradients, and the logits without a gradient, that the attacks have computed so far."""
    made = [one.attack for one in under if one.attack is not None]
    return sum(one.image_gradients for one in made), sum(getattr(one, "image_queries", 0) for one in made)


def _correct_in_all(found: Sequence[Hits]) -> Hits:
    """The images of a batch that are classified correctly under each attack."""
    top1 = torch.stack([one.top1 for one in found]).all(dim=0)  # [m]
    top5 = [one.top5 for one in found if one.top5 is not None]
    return Hits(top1, torch.stack(top5).all(dim=0) if len(top5) == len(found) else None)


def _with_bar(batches: Iterable[T], total: int | None, title: str, counted: Sequence[BatchCounts]) -> Iterator[T]:
    """Yield the batches, with a bar that counts them, and the images that are decided."""
    with progress_bar(notebook=True, found=True) as bar:
        task = bar.add_task(title, total=total, found="")
        decided = n = 0
        for batch in batches:
            yield batch
            if counted:
                n, decided = n + counted[-1].worst.n, decided + counted[-1].worst.n - counted[-1].worst.top1
            bar.update(task, advance=1, found=f"{decided:,} of {n:,} images decided")


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
