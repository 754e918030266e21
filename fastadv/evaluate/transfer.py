"""Transfer: how often adversarial images made with one model fool another (section 4.4, appendix C)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.engine.zero_gradients import ZeroGradientCount
from fastadv.evaluate.attack_specs import attack_class, run_options
from fastadv.evaluate.effort import generation_passes
from fastadv.evaluate.hits import Hits, hits
from fastadv.evaluate.intervals import Proportion, proportion
from fastadv.evaluate.measuring import Pass, find_record, measure_all
from fastadv.evaluate.pass_progress import PassProgress
from fastadv.evaluate.records import RecordFile, check_counts, has_always_stopped, key_of
from fastadv.evaluate.sweep import (
    Images,
    Subject,
    Sweep,
    create_test_loader,
    draw,
    image_fields,
    iterate_batches,
    options_in_records,
    provenance,
)
from fastadv.pixels import PixelSpace
from fastadv.pixels.range_watch import RangeWatch
from fastadv.utils.module_modes import isolated

TOPS = (1, 5)


@dataclass(frozen=True)
class TransferCounts:
    """How the source and the target model classify ``n`` candidate images that were made with the source.

    Args:
        n: number of candidates.
        fooled: number that the source classifies correctly when clean and wrongly when adversarial.
        transferred: number of these that the target misclassifies.
        wrong: number of all candidates that the target misclassifies.
        without_gradient: number whose gradient in the source was zero or not finite, so that the attack does little or
            nothing to them; None if the attack computes no gradient.
    """

    n: int
    fooled: int
    transferred: int
    wrong: int
    without_gradient: int | None = field(default=None, compare=False, kw_only=True)

    @property
    def rate(self) -> Proportion | None:
        """The transfer rate, the share of the ``fooled`` (Table 4); None if the source was never fooled."""
        return proportion(self.transferred, self.fooled) if self.fooled else None

    @property
    def error(self) -> Proportion:
        """The error rate, the share of all candidates (Table 6)."""
        return proportion(self.wrong, self.n)


@dataclass(frozen=True, kw_only=True)
class TransferEvaluation:
    """What to measure: images made with one model by one attack at one eps, shown to another model.

    Args:
        source: name of the model that the images are made with.
        target: name of the model that they are shown to.
        source_checkpoint: sha256 of the source's weights and buffers.
        target_checkpoint: the same for the target.
        source_space: the PixelSpace of the source's input, as text.
        target_space: the same for the target.
        dataset: name of the data set.
        split: "train" or "test".
        images: sha256 of the images and labels.
        n: number of images, drawn at random from the split.
        total: number of images in the split.
        classes: number of classes of the data set.
        attack: one of ``fastadv.attacks.names()``, followed by options if any were given.
        eps: size of the perturbation in pixel values.
        options: options of the attack besides eps.
        seed: seed of the draw of images and of the attack's random numbers.
    """

    source: str
    target: str
    source_checkpoint: str
    target_checkpoint: str
    source_space: str
    target_space: str
    dataset: str
    split: str
    images: str
    n: int
    total: int
    classes: int
    attack: str
    eps: float
    options: Mapping[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """A string that is equal for evaluations of the same thing, whatever the models are called."""
        return key_of(self, TransferEvaluation, names={"source", "target"})


@dataclass(frozen=True, kw_only=True)
class TransferRecord(TransferEvaluation):
    """An evaluation and its result.

    Args:
        top1: ``[fooled, transferred, wrong]``, see :class:`TransferCounts`.
        top5: the same where wrong means not among the five likeliest; None with fewer than six classes, and if the
            attack stops early.
        seconds: its share of the time that its source took with this attack.
        device: the device that it ran on.
        versions: version of each package that the result depends on; for images in files, also the loader's; on a GPU,
            also whether cuDNN's benchmark mode and TF32 were on.
        without_gradient: see :class:`TransferCounts`; None also in records of versions that did not count.
        shown: how images in files are shown to the models, such as their size; "" for images in memory.
        folder: name of the folder of images in files; "" for images in memory, and in records of older versions.
    """

    top1: Sequence[int]
    top5: Sequence[int] | None
    seconds: float
    device: str
    versions: Mapping[str, str]
    without_gradient: int | None = None
    shown: str = ""
    folder: str = ""

    def __post_init__(self) -> None:
        if has_always_stopped(self.attack, self.options):
            object.__setattr__(self, "top5", None)  # older versions counted it, at images that were left alone
        for found in (self.top1, self.top5):
            if found is not None:
                fooled, transferred, wrong = found
                check_counts(self.n, transferred, fooled)
                check_counts(self.n, wrong)

    def counts(self, top: int) -> TransferCounts | None:
        """Return the counts at ``top`` 1 or 5, or None if they were not measured."""
        found = self.top1 if top == 1 else self.top5
        return None if found is None else TransferCounts(self.n, *found, without_gradient=self.without_gradient)


def transfer(
    source: nn.Module,
    targets: Sequence[tuple[nn.Module, PixelSpace]],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    attack: str | type[attacks.Attack],
    eps: Sequence[float],
    space: PixelSpace,
    seed: int = 0,
    **options: Any,
) -> list[list[dict[int, TransferCounts]]]:
    """Make adversarial images with one model and count how many other models misclassify.

    Args:
        source: the model that is attacked.
        targets: models that classify the images, each with the PixelSpace of its input.
        batches: (images [m, C, H, W] in ``space``, labels [m] int64), where the models are.
        attack: one of ``fastadv.attacks.names()``, or your own attack class.
        eps: sizes of the perturbation in pixel values.
        space: the PixelSpace of the source's input.
        seed: seed of the attack's random numbers.
        options: further options of the attack.

    Returns:
        For each eps and each target, the counts by top: 1 and, with six classes or more, 5, unless the attack stops
        early.

    Raises:
        ValueError: as for :func:`fastadv.evaluate.evaluate`.
    """
    perturb = attacks.create(attack, source, space=space, seed=seed, **options)
    perturb.counting = True
    perturb.looks = False  # the RangeWatch below checks the range instead
    running = [[_RunningCounts() for _ in targets] for _ in eps]
    watch = RangeWatch(space)
    with ExitStack() as stack:
        for model in {id(model): model for model in (source, *(model for model, _ in targets))}.values():
            stack.enter_context(isolated(model, bn="eval"))
        for images, labels in batches:
            watch.look(images)
            clean = hits(source, images, labels)
            if perturb.stops_early:
                clean = Hits(clean.top1, None)  # it leaves images alone that may still be right at top 5
            made = perturb.at_each(images, perturb.true_labels(labels), eps=eps)
            for adv, row in zip(made, running, strict=True):
                on_source = hits(source, adv, labels)
                for (target, other), counts in zip(targets, row, strict=True):
                    seen = on_source if target is source else hits(target, convert(adv, space, other), labels)
                    counts.add(clean, on_source, seen)
                    counts.without_gradient.add(perturb.without_gradient)
    if running and running[0] and running[0][0].n == 0:
        raise ValueError("there are no images to evaluate")
    return [[counts.counts() for counts in row] for row in running]


def convert(images: Tensor, space: PixelSpace, other: PixelSpace) -> Tensor:
    """Convert images [m, C, H, W] from one model's space to another's."""
    return images if space == other else other.from_pixels(space.to_pixels(images), images.dtype)


class _RunningCounts:
    """Counts of one target at one eps, added up batch by batch."""

    def __init__(self) -> None:
        self.n = 0
        self.without_gradient = ZeroGradientCount()
        self.sums: dict[int, list[int]] = {top: [0, 0, 0] for top in TOPS}

    def add(self, clean: Hits, on_source: Hits, on_target: Hits) -> None:
        self.n += len(clean.top1)
        for top in TOPS if clean.top5 is not None else (1,):
            fooled = clean.at(top) & ~on_source.at(top)  # [m]
            wrong = ~on_target.at(top)  # [m]
            found = torch.stack([fooled.sum(), (fooled & wrong).sum(), wrong.sum()]).tolist()
            self.sums[top] = [a + b for a, b in zip(self.sums[top], found, strict=True)]
        if clean.top5 is None:
            self.sums.pop(5, None)

    def counts(self) -> dict[int, TransferCounts]:
        lost = self.without_gradient.total()
        return {top: TransferCounts(self.n, *found, without_gradient=lost) for top, found in self.sums.items()}


# --- every source on every target, recorded --------------------------------------------------------------------------


def run_transfer(sweep: Sweep, subjects: Sequence[Subject], file: RecordFile[TransferRecord]) -> list[TransferRecord]:
    """Return the record of every source, target, attack and eps, measuring those that the file does not have.

    Args:
        sweep: the images (``limit`` of them are drawn at random with ``seed``), the attacks and sizes.
        subjects: the models, each both source and target.
        file: where records are found and appended.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if a model does not accept the images, or an attack is to stop early.
    """
    images = draw(sweep.images, sweep.limit, sweep.seed)
    for attack in sweep.attacks:
        if sweep.early_stop or options_in_records(attack, sweep).get("early_stop"):
            raise ValueError(f"{attack}: images for other networks take all steps of an attack: leave out early_stop")
    plan = {
        (source, attack): _evaluations(sweep, source, subjects, attack, images)
        for source, attack in itertools.product(subjects, sweep.attacks)
    }
    passes = [
        Pass(
            f"{source.name}: {attack}",
            _cost(source, evaluations),
            partial(_measure, sweep, source, subjects, evaluations, images),
        )
        for (source, attack), evaluations in plan.items()
        if any(file.find(evaluation.key) is None for evaluation in evaluations)
    ]
    measure_all(passes, len(images), file)
    names = ("source", "target")
    return [
        find_record(one, file, names, sweep.shown_as, sweep.folder)
        for evaluations in plan.values()
        for one in evaluations
    ]


def _cost(source: Subject, evaluations: Sequence[TransferEvaluation]) -> float:
    """Cost of a pass for each image, in forward passes: clean, then made at each size and shown to each target."""
    first, eps = evaluations[0], list(dict.fromkeys(evaluation.eps for evaluation in evaluations))
    return 1 + generation_passes(source.model, source.space, first.attack, first.options, eps) + len(evaluations)


def _evaluations(
    sweep: Sweep, source: Subject, targets: Sequence[Subject], attack: str, images: Images
) -> list[TransferEvaluation]:
    """List the evaluations in the order of :func:`transfer`: by eps, then by target."""
    common = image_fields(sweep, images)
    checkpoints = {subject: subject.fingerprint for subject in (source, *targets)}
    return [
        TransferEvaluation(
            source=source.name,
            target=target.name,
            source_checkpoint=checkpoints[source],
            target_checkpoint=checkpoints[target],
            source_space=str(source.space),
            target_space=str(target.space),
            attack=attack,
            eps=float(eps),
            options=options_in_records(attack, sweep, source.model),
            **common,
        )
        for eps in sweep.eps
        for target in targets
    ]


def _measure(
    sweep: Sweep,
    source: Subject,
    targets: Sequence[Subject],
    evaluations: Sequence[TransferEvaluation],
    images: Images,
    advance: PassProgress,
) -> Iterator[TransferRecord]:
    loader = create_test_loader(sweep, images, source.space)
    for subject in (source, *targets):
        subject.model.to(sweep.device)
    start = time.perf_counter()
    table = transfer(
        source.model,
        [(target.model, target.space) for target in targets],
        iterate_batches(loader, advance),
        attack=attack_class(evaluations[0].attack),
        eps=sweep.eps,
        space=source.space,
        seed=sweep.seed,
        **run_options(evaluations[0].options),
    )
    seconds = (time.perf_counter() - start) / len(evaluations)
    for evaluation, counts in zip(evaluations, itertools.chain.from_iterable(table), strict=True):
        numbers = {top: [c.fooled, c.transferred, c.wrong] for top, c in counts.items()}
        yield TransferRecord(
            **vars(evaluation),
            top1=numbers[1],
            top5=numbers.get(5),
            without_gradient=counts[1].without_gradient,
            seconds=round(seconds, 3),
            **provenance(sweep, loader),
        )
