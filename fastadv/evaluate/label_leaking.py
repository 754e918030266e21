"""Label leaking: examples that a model gets right only because they were made from the true label (section 4.2)."""

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
from fastadv.evaluate.accuracy import hits
from fastadv.evaluate.effort import generation_passes
from fastadv.evaluate.measuring import Advance, Pass, measure_all, recorded
from fastadv.evaluate.records import Evaluation, RecordFile, check_counts, key_of
from fastadv.evaluate.sweep import Images, Subject, Sweep, clean_evaluation, counted, loader_of, provenance
from fastadv.pixels import PixelSpace
from fastadv.pixels.range_watch import RangeWatch
from fastadv.utils.module_modes import isolated


@dataclass(frozen=True)
class LeakCounts:
    """Of ``n`` images, how many were classified correctly, by how they were made.

    Args:
        n: images.
        clean: correct as they are.
        with_label: correct as adversarial images that were made from the true label.
        without_label: correct as adversarial images that were made without it.
        leaked: correct in the first way and wrong in the second: the label has leaked, by the paper's definition.
        without_gradient: for how many the gradient of the attack that uses the label was zero or not finite.
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
    """Count leaked labels: adversarial images classified correctly if the true label made them, and wrongly if not.

    Args:
        model: gives logits [m, K].
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), where the model is.
        attack: makes examples from the true label.
        without: makes the corresponding examples without it. ``fgsm_pred`` is FGSM with the predicted class: the two
            differ only for images that are misclassified when clean.
        eps: sizes of the perturbation in pixel values.
        space: the PixelSpace of the model's input.
        seed: seed of the attacks' random numbers.

    Returns:
        The counts for each eps.

    Raises:
        ValueError: an attack that does not use the label, or one in place of ``without`` that does; no images; as for
            :func:`fastadv.evaluate.evaluate`.
    """
    for name, needs in ((attack, True), (without, False)):
        if attacks.get(name).needs_labels is not needs:
            raise ValueError(
                f"{name} {'does not use' if needs else 'uses'} the true label: attack must, without must not"
            )
    pair = [attacks.create(name, model, space=space, seed=seed) for name in (attack, without)]
    pair[0].counting = True
    for one in pair:
        one.looks = False  # the watch below does, and waits
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
    """What is to be measured: an evaluation whose ``attack`` uses the label, beside an attack that does not.

    Args:
        without: the attack that does not.
    """

    without: str

    @property
    def key(self) -> str:
        """Equal for evaluations that measure the same thing, by whatever name the model goes."""
        return key_of(self, LeakEvaluation, names={"model"})


@dataclass(frozen=True, kw_only=True)
class LeakRecord(LeakEvaluation):
    """A leak evaluation and what came out of it: see :class:`LeakCounts`."""

    clean: int
    with_label: int
    without_label: int
    leaked: int
    seconds: float
    device: str
    versions: dict[str, str]
    without_gradient: int | None = None
    shown: str = ""

    def __post_init__(self) -> None:
        for count in (self.clean, self.with_label, self.without_label, self.leaked):
            check_counts(self.n, count)


def run_leaking(
    sweep: Sweep, pairs: Sequence[tuple[str, str]], subjects: Sequence[Subject], file: RecordFile[LeakRecord]
) -> list[LeakRecord]:
    """The record of every model, pair of attacks and eps: those that the file has are not measured again.

    Args:
        sweep: the images and sizes; its attacks and ``fast`` are not used.
        pairs: (attack, without): names of an attack that uses the true label, and of the same one without it.
        subjects: the models.
        file: where records are found and appended.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: an attack that does not use the label, or one in place of the second of a pair that does; no images;
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
    return [recorded(one, file, ("model",), sweep.shown_as) for _, evaluations in plan for one in evaluations]


def _cost(subject: Subject, evaluations: Sequence[LeakEvaluation]) -> float:
    """Of a pass, for each image, in forward passes: clean, then made at each size in both ways and looked at."""
    first, eps = evaluations[0], [evaluation.eps for evaluation in evaluations]
    return 1 + sum(
        generation_passes(subject.model, subject.space, name, {}, eps) + len(eps)
        for name in (first.attack, first.without)
    )


def _evaluations(sweep: Sweep, subject: Subject, pair: tuple[str, str], images: Images) -> list[LeakEvaluation]:
    """One for each eps."""
    attack, without = pair
    common = vars(clean_evaluation(sweep, subject, images)) | {"attack": attack, "without": without}
    return [LeakEvaluation(**common | {"eps": float(eps)}) for eps in sweep.eps]


def _measure(
    sweep: Sweep,
    subject: Subject,
    evaluations: Sequence[LeakEvaluation],
    images: Images,
    advance: Advance,
) -> list[LeakRecord]:
    """The records of evaluations that differ in eps alone; each takes an equal share of the time."""
    start, loader = time.perf_counter(), loader_of(sweep, images, subject.space)
    counts = leaking(
        subject.model.to(sweep.device),
        counted(loader, advance),
        attack=evaluations[0].attack,
        without=evaluations[0].without,
        eps=[evaluation.eps for evaluation in evaluations],
        space=subject.space,
        seed=sweep.seed,
    )
    about = provenance(sweep.device, (time.perf_counter() - start) / len(evaluations), loader)
    records = []
    for evaluation, found in zip(evaluations, counts, strict=True):
        numbers: dict[str, Any] = {name: n for name, n in vars(found).items() if name != "n"}
        records.append(LeakRecord(**vars(evaluation), **numbers, **about))
    return records
