"""How many images a model classifies correctly, clean or under an attack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.training_mode import EvaluationWatch
from fastadv.attacks.engine.zero_gradients import ZeroGradientCount, warn_of_zero_gradients
from fastadv.evaluate.records import CLEAN
from fastadv.pixels import PixelSpace, check_space
from fastadv.pixels.range_watch import RangeWatch
from fastadv.utils.input_hints import explain_model_errors, labels_shape_hint
from fastadv.utils.model_outputs import check_classes, logits_hint
from fastadv.utils.module_modes import isolated
from fastadv.utils.validation import check_model

if TYPE_CHECKING:
    from fastadv.data.loaders.protocol import Loader

FEWEST_CLASSES_FOR_TOP5 = 6  # with five or fewer, every image is among the five likeliest


@dataclass(frozen=True)
class Counts:
    """How many of ``n`` images were classified correctly; ``top5`` is None with fewer than six classes.

    ``correct`` says which were at top 1, in the order of the batches: two sets of counts on the same images can be
    compared image by image. ``without_gradient`` says for how many the gradient was zero or not finite: an attack does
    little or nothing to them, and if they are many, the accuracy says nothing. It is None if no gradient was followed.
    """

    n: int
    top1: int
    top5: int | None
    correct: Tensor = field(compare=False, repr=False)  # [n] bool
    without_gradient: int | None = None


def summed(counts: Sequence[Counts]) -> Counts:
    """Those of disjoint parts of the images, together."""
    top5 = None if counts[0].top5 is None else sum(count.top5 or 0 for count in counts)
    correct = torch.cat([count.correct for count in counts])  # [n]
    lost = None if counts[0].without_gradient is None else sum(count.without_gradient or 0 for count in counts)
    return Counts(sum(count.n for count in counts), sum(count.top1 for count in counts), top5, correct, lost)


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    attack: str | type[attacks.Attack] = CLEAN,
    eps: float | None = None,
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    **options: Any,
) -> Counts:
    """Count the images that a model classifies correctly, each attacked with the model itself.

    Works with any module and any source of batches; the model is in eval mode meanwhile, and afterwards each of its
    modules is in the mode it was in::

        from fastadv import PixelSpace
        from fastadv.evaluate import evaluate, proportion

        counts = evaluate(model, test_loader, attack="step_ll", eps=16, space=PixelSpace.imagenet(), device="cuda")
        print("top 1:", proportion(counts.top1, counts.n))

    Args:
        model: gives logits [m, K].
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), each image once; read once. Or a loader of
            :mod:`fastadv.data`, that leaves nothing out.
        attack: one of ``fastadv.attacks.names()``, a class of one's own, or "clean" for none.
        eps: size of the perturbation in pixel values; none for "clean".
        space: the PixelSpace of the model's input.
        seed: seed of the attack's random numbers: the same for each image, however the images are batched.
        device: where batches are moved, the model's device; None leaves them where they are.
        options: further options of the attack as keywords, such as ``alpha``: those of ``fastadv.attacks.create``.

    Raises:
        ValueError: an unknown attack, an attack without eps or that steps towards the labels, eps or options for
            "clean", images outside ``space``, no images, or logits that do not fit the labels.
        TypeError: an attack that is neither a name nor a class, or batches that are not pairs of tensors.
    """
    if attack == CLEAN:
        if eps or options:
            raise ValueError(f"clean images take no eps and no options, got eps={eps} and {options}")
        [counts] = evaluate_each(model, batches, attack=CLEAN, eps=[0.0], space=space, device=device)
        return counts
    if eps is None:
        raise ValueError(f"{attack} needs eps, in pixel values")
    [counts] = evaluate_each(model, batches, attack=attack, eps=[eps], space=space, seed=seed, device=device, **options)
    return counts


def evaluate_each(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]] | Loader,
    *,
    attack: str | type[attacks.Attack],
    eps: Sequence[float],
    space: PixelSpace,
    seed: int = 0,
    device: torch.device | str | None = None,
    first: int = 0,
    **options: Any,
) -> list[Counts]:
    """The counts of :func:`evaluate` for several sizes, in one pass over the batches.

    The one-step attacks compute one gradient for all sizes; for the others it saves reading the batches again.

    Args:
        model: as for :func:`evaluate`, like all arguments but eps and first.
        eps: sizes of the perturbation in pixel values.
        first: place of the first image in the whole set, where the batches are a part of it: an image's random numbers
            follow from its place.

    Raises:
        ValueError: as for :func:`evaluate`.
        TypeError: as for :func:`evaluate`.
    """
    check_model(model)
    check_space(space)
    if not isinstance(eps, Iterable):
        raise TypeError(f"several eps are given as in [2, 4, 8], got {type(eps).__name__}")
    perturb = None if attack == CLEAN else attacks.create(attack, model, space=space, seed=seed, **options)
    if perturb is not None:
        perturb.stream.offset = first
        perturb.counting = True
        perturb.looks = False  # the watch below does, and waits
    tallies = [_Tally() for _ in eps]
    watch = RangeWatch(space)
    first_pass = not isinstance(perturb, attacks.GradientAttack)  # which watches the model itself
    given: Any = batches
    if hasattr(given, "epoch"):  # a loader
        given = given.epoch(0)
    with isolated(model, bn="eval"):
        for batch in given:
            images, labels = (part.to(device) for part in _pair(batch))  # [m, C, H, W], [m]
            watch.look(images)
            candidates = [images] if perturb is None else perturb.at_each(images, perturb.true_labels(labels), eps=eps)
            for candidate, tally in zip(candidates, tallies, strict=True):
                with EvaluationWatch("evaluation", model, candidate) if first_pass else nullcontext():
                    tally.add(hits(model, candidate, labels))
                first_pass = False
                tally.without_gradient.add(None if perturb is None else perturb.without_gradient)
    counts = [tally.counts() for tally in tallies]
    if counts and counts[0].n == 0:
        raise ValueError("there are no images to evaluate")
    if counts and perturb is not None and not perturb.warned:  # by the first batch
        warn_of_zero_gradients(perturb.name, max(count.without_gradient or 0 for count in counts), counts[0].n)
    return counts


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    """What ``batches`` yield: images [m, C, H, W] and labels [m], both tensors.

    Raises:
        TypeError: anything else.
    """
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        images, labels = batch
        return images, labels
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    got = ", ".join(type(part).__name__ for part in parts)
    raise TypeError(f"batches must be pairs of tensors, images [m, C, H, W] and labels [m], got {got}")


class _Tally:
    """Counts that grow."""

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


@dataclass(frozen=True, eq=False)
class Hits:
    """Which of m images were classified correctly; ``top5`` is None with fewer than six classes."""

    top1: Tensor  # [m] bool
    top5: Tensor | None  # [m] bool

    def at(self, top: int) -> Tensor:  # [m] bool
        """The hits at ``top`` 1 or 5."""
        if top == 1:
            return self.top1
        if self.top5 is None:
            raise ValueError(f"top 5 needs at least {FEWEST_CLASSES_FOR_TOP5} classes")
        return self.top5


def hits(model: nn.Module, images: Tensor, labels: Tensor) -> Hits:
    """Whether each label [m] is the likeliest class, and among the five likeliest, for images [m, C, H, W].

    Of equal logits the first comes first. A row with a NaN is no prediction, so it is wrong; sorting alone would call
    NaN the largest.

    Raises:
        ValueError: labels that are no classes, or logits that do not fit them; images that the model does not take.
    """
    _check_labels(images, labels)
    with torch.no_grad(), explain_model_errors(model, images):
        logits = model(images.clone())  # [m, K]; the model may write to what it is given, and others read the images
    _check_logits(logits, labels)
    likeliest = logits.argsort(dim=1, descending=True, stable=True)[:, :5]  # [m, 5 or K]
    found = (likeliest == labels[:, None]) & ~logits.isnan().any(dim=1, keepdim=True)  # [m, 5 or K]
    return Hits(found[:, 0], found.any(dim=1) if logits.shape[1] >= FEWEST_CLASSES_FOR_TOP5 else None)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        got = f"{labels.dtype} {list(labels.shape)}{labels_shape_hint(images, labels)}"
        raise ValueError(f"labels must be class indices, one per image, [{len(images)}], got {got}")


def _check_logits(logits: Any, labels: Tensor) -> None:
    check_classes(logits)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(labels):
        got = list(logits.shape) if isinstance(logits, Tensor) else f"{type(logits).__name__}{logits_hint(logits)}"
        raise ValueError(f"the model must give logits [{len(labels)}, K] for {len(labels)} images, got {got}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{logits.shape[1] - 1}, one of the model's {logits.shape[1]} classes; "
            f"got {labels.min()}..{labels.max()}"
        )
