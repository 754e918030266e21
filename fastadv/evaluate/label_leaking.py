"""Label leaking: images that a model gets right only because they were made from the true label (section 4.2)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.zero_gradients import ZeroGradientCount
from fastadv.evaluate.effort import generation_passes
from fastadv.evaluate.hits import hits
from fastadv.evaluate.measuring import Pass, find_record, measure_all
from fastadv.evaluate.pass_progress import PassProgress
from fastadv.evaluate.records import Evaluation, RecordFile, check_counts, key_of
from fastadv.evaluate.sweep import (
    Images,
    Subject,
    Sweep,
    clean_evaluation,
    create_test_loader,
    iterate_batches,
    provenance,
)
from fastadv.pixels import PixelSpace
from fastadv.pixels.range_watch import RangeWatch
from fastadv.utils.module_modes import isolated


@dataclass(frozen=True)
class LeakCounts:
    """How many of ``n`` images were classified correctly, by how they were made.

    Args:
        n: number of images.
        clean: correct when clean.
        with_label: correct when made adversarial with the true label.
        without_label: correct when made adversarial without it.
        leaked: correct with the label and wrong without: the label has leaked, by the paper's definition.
        without_gradient: number whose gradient was zero or not finite in the attack that uses the label.
    """

    n: int
    clean: int
    with_label: int
    without_label: int
    leaked: int
    without_gradient: int | None = field(default=None, compare=False, kw_only=True)


def leaking(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    attack: str = "fgsm",
    without: str = "fgsm_pred",
    eps: Sequence[float],
    space: PixelSpace,
    seed: int = 0,
) -> list[LeakCounts]:
    """Count leaked labels: images that are classified correctly if made with the true label, and wrongly if not.

    Args:
        model: gives logits [m, K], or a named tuple, a dictionary or an object that holds ``logits``.
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), where the model is.
        attack: an attack that uses the true label.
        without: the corresponding attack without it. ``fgsm_pred`` is FGSM with the predicted class: the two differ
            only for images that are misclassified when clean.
        eps: sizes of the perturbation in pixel values.
        space: the PixelSpace of the model's input.
        seed: seed of the attacks' random numbers.

    Returns:
        The counts for each eps.

    Raises:
        ValueError: if ``attack`` does not use the label, or ``without`` does; if there are no images; or as for
            :func:`fastadv.evaluate.evaluate`.
    """
    for name, needs in ((attack, True), (without, False)):
        if attacks.get(name).needs_labels is not needs:
            raise ValueError(
                f"{name} {'does not use' if needs else 'uses'} the true label: attack must use it, without must not"
            )
    pair = [attacks.create(name, model, space=space, seed=seed) for name in (attack, without)]
    pair[0].counting = True
    for one in pair:
        one.looks = False  # the RangeWatch below checks the range instead
    sums, lost = [[0] * 5 for _ in eps], [ZeroGradientCount() for _ in eps]
    watch = RangeWatch(space)
    with isolated(model, bn="eval"):
        for images, labels in batches:
            watch.look(images)
            clean = hits(model, images, labels).top1  # [m]
            made = zip(*(one.at_each(images, one.true_labels(labels), eps=eps) for one in pair), strict=True)
            for index, (by_label, without_it) in enumerate(made):
                right, other = hits(model, by_label, labels).top1, hits(model, without_it, labels).top1  # [m]
                found = torch.stack([clean.sum(), right.sum(), other.sum(), (right & ~other).sum()]).tolist()
                found = [len(labels), *found]
                sums[index] = [total + count for total, count in zip(sums[index], found, strict=True)]
                lost[index].add(pair[0].without_gradient)
    if sums and sums[0][0] == 0:
        raise ValueError("there are no images to evaluate")
    return [LeakCounts(*found, without_gradient=count.total()) for found, count in zip(sums, lost, strict=True)]


@dataclass(frozen=True, kw_only=True)
class LeakEvaluation(Evaluation):
    """What to measure: an evaluation whose ``attack`` uses the label, next to an attack that does not.

    Args:
        without: the attack that does not use the label.
    """

    without: str

    @property
    def key(self) -> str:
        """A string that is equal for evaluations of the same thing, whatever the model is called."""
        return key_of(self, LeakEvaluation, names={"model"})


@dataclass(frozen=True, kw_only=True)
class LeakRecord(LeakEvaluation):
    """A leak evaluation and its result: see :class:`LeakCounts`."""

    clean: int
    with_label: int
    without_label: int
    leaked: int
    seconds: float
    device: str
    versions: dict[str, str]
    without_gradient: int | None = None
    shown: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        for count in (self.clean, self.with_label, self.without_label, self.leaked):
            check_counts(self.n, count)


def run_leaking(
    sweep: Sweep, pairs: Sequence[tuple[str, str]], subjects: Sequence[Subject], file: RecordFile[LeakRecord]
) -> list[LeakRecord]:
    """Return the record of every model, pair of attacks and eps, measuring those that the file does not have.

    Args:
        sweep: the images and sizes; its attacks and ``fast`` are not used.
        pairs: (attack, without): names of an attack that uses the true label, and of the same attack without it.
        subjects: the models.
        file: where records are found and appended.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if the first attack of a pair does not use the label, or the second does; if there are no images; or
            as for :func:`fastadv.evaluate.evaluate`.
    """
    images = sweep.shown()
    plan = [
        (subject, _evaluations(sweep, subject, pair, images)) for subject, pair in itertools.product(subjects, pairs)
    ]
    passes = []
    for subject, evaluations in plan:
        if missing := [evaluation for evaluation in evaluations if file.find(evaluation.key) is None]:
            title = f"{subject.name}: labels leaked by {missing[0].attack} against {missing[0].without}"
            passes.append(Pass(title, _cost(subject, missing), partial(_measure, sweep, subject, missing, images)))
    measure_all(passes, len(images), file)
    return [
        find_record(one, file, ("model",), sweep.shown_as, sweep.folder)
        for _, evaluations in plan
        for one in evaluations
    ]


def _cost(subject: Subject, evaluations: Sequence[LeakEvaluation]) -> float:
    """Cost of a pass for each image, in forward passes: clean, then made in both ways and classified at each size."""
    first, eps = evaluations[0], [evaluation.eps for evaluation in evaluations]
    return 1 + sum(
        generation_passes(subject.model, subject.space, name, {}, eps) + len(eps)
        for name in (first.attack, first.without)
    )


def _evaluations(sweep: Sweep, subject: Subject, pair: tuple[str, str], images: Images) -> list[LeakEvaluation]:
    """One evaluation for each eps."""
    attack, without = pair
    common = vars(clean_evaluation(sweep, subject, images)) | {"attack": attack, "without": without}
    return [LeakEvaluation(**common | {"eps": float(eps)}) for eps in sweep.eps]


def _measure(
    sweep: Sweep,
    subject: Subject,
    evaluations: Sequence[LeakEvaluation],
    images: Images,
    advance: PassProgress,
) -> list[LeakRecord]:
    """Measure evaluations that differ only in eps; each is attributed an equal share of the time."""
    start, loader = time.perf_counter(), create_test_loader(sweep, images, subject.space)
    counts = leaking(
        subject.model.to(sweep.device),
        iterate_batches(loader, advance),
        attack=evaluations[0].attack,
        without=evaluations[0].without,
        eps=[evaluation.eps for evaluation in evaluations],
        space=subject.space,
        seed=sweep.seed,
    )
    seconds = (time.perf_counter() - start) / len(evaluations)
    about = {"seconds": round(seconds, 3), **provenance(sweep, loader)}
    records = []
    for evaluation, found in zip(evaluations, counts, strict=True):
        numbers: dict[str, Any] = {name: n for name, n in vars(found).items() if name != "n"}
        records.append(LeakRecord(**vars(evaluation), **numbers, **about))
    return records
