"""Measure every model under every attack at every eps, each once; results are recorded as they come."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import fastadv
from fastadv.data import (
    BadImage,
    ImageLoader,
    ImageSet,
    ImageSource,
    create_loader,
    fingerprint_of_files,
    loader_version,
    spread,
)
from fastadv.data.config import DataConfig
from fastadv.data.sources.base import Selection
from fastadv.distributed import ALONE, Processes, gathered, on_all, on_main
from fastadv.evaluate.accuracy import count_batches
from fastadv.evaluate.attack_specs import attack_class, parse_attack, recorded_options, run_options, stops_early
from fastadv.evaluate.counts import BatchCounts
from fastadv.evaluate.effort import GRADIENT, generation_passes
from fastadv.evaluate.intervals import proportion
from fastadv.evaluate.measuring import Pass, find_record, measure_all
from fastadv.evaluate.parts import PartialPass, remove_parts
from fastadv.evaluate.pass_progress import PassProgress
from fastadv.evaluate.records import CLEAN, Evaluation, Record, RecordFile, packed
from fastadv.pixels import PixelSpace
from fastadv.utils.gpu_settings import current_gpu_settings
from fastadv.utils.text import counted

if TYPE_CHECKING:
    from fastadv.data.loaders.protocol import Loader

Images = ImageSet | ImageSource


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to evaluate.

    Args:
        name: of its row.
        model: the network.
        space: the PixelSpace of its input.
        code: stands for what may differ while the weights do not, such as the code of a network of one's own; "" if
            there is nothing.
    """

    name: str
    model: nn.Module
    space: PixelSpace
    code: str = ""

    @property
    def fingerprint(self) -> str:
        """sha256 of the weights and of ``code``: equal only for networks with equal outputs."""
        weights = fingerprint(self.model.state_dict())
        return hashlib.sha256(f"{weights} {self.code}".encode()).hexdigest() if self.code else weights


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """What is measured for each model: clean images first, then each attack at each eps.

    Args:
        dataset: name of the data set.
        images: its images, in memory or in files.
        split: the part of the data set that the images are from.
        limit: number of images to use: the first ones or, for images in files, which are sorted by class, evenly
            spread ones; None for all.
        drawn: draw these images at random, by the seed.
        data: how images in files are loaded and shown.
        attacks: names of ``fastadv.attacks.names()``, which options may follow: ``"pgd:steps=20:alpha=2"``.
        eps: sizes of the perturbation in pixel values.
        seed: seed of the attacks' random numbers, and of the images that are drawn.
        batch_size: number of images per batch.
        device: where to evaluate; models are moved there.
        fast: run attacks with their ``fast`` option: the same examples up to rounding, in less time.
        early_stop: an image counts as misclassified as soon as an iterate of the attack is, see
            :func:`fastadv.evaluate.evaluate`; false judges the last iterate, as the paper does, and as transfer needs
            it.

    Raises:
        ValueError: if ``limit`` is below 1.
    """

    dataset: str
    images: ImageSet | ImageSource
    split: str = "test"
    limit: int | None = None
    drawn: bool = False
    attacks: Sequence[str]
    eps: Sequence[float]
    seed: int = 0
    batch_size: int = 100
    device: torch.device | str = "cpu"
    fast: bool = False
    early_stop: bool = False
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    def shown(self) -> Images:
        """Return the images that are used: all, or as many as ``limit``."""
        if self.drawn:
            return draw(self.images, self.limit, self.seed)
        if isinstance(self.images, ImageSet):
            return ImageSet(self.images.images[: self.limit], self.images.labels[: self.limit], self.images.classes)
        return spread(self.images, self.limit)

    @property
    def folder(self) -> str:
        """Name of the folder of images in files; "" for others."""
        return "" if isinstance(self.images, ImageSet) else Path(self.data.root or "").resolve().name

    @property
    def shown_as(self) -> str:
        """How images in files are shown to the models; "" for others."""
        return "" if isinstance(self.images, ImageSet) else self.data.preprocessing.shown


def draw(images: Images, count: int | None, seed: int) -> Images:
    """Draw ``count`` of the images at random, keeping their order; None keeps all."""
    if count is None or count >= len(images):
        return images
    generator = torch.Generator("cpu").manual_seed(seed)
    chosen = torch.randperm(len(images), generator=generator, device="cpu")[:count].sort().values
    if isinstance(images, ImageSet):
        return ImageSet(images.images[chosen], images.labels[chosen], images.classes)
    return Selection(images, chosen)


def run(
    sweep: Sweep, subjects: Sequence[Subject], file: RecordFile[Record], processes: Processes = ALONE
) -> list[Record]:
    """Return the record of every evaluation of a sweep, measuring those that the file does not have.

    If interrupted at any point, a second call continues where the first one stopped, and measures no batch again that
    was done: until a pass is complete, the counts of its batches are in a folder beside the file, with the suffix
    ``.parts``. Several processes share the batches. Each batch is made and attacked as in a single process, so the
    counts do not depend on the number of processes, except for rounding with ``compile``, which runs each process's
    first batch eagerly.

    Args:
        sweep: the images, attacks and sizes.
        subjects: the models, in the order of the rows.
        file: where records are found and appended; of several processes, the main one writes.
        processes: that measure together; each calls this function with the same arguments.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if another process reads other models or images, or a model does not accept the images.
        FailedElsewhere: if another process raised.
    """
    images = sweep.shown()
    plan = plan_of(sweep, subjects, images)
    _check_same_plan(plan, processes)
    passes = [
        Pass(
            f"{subject.name}: {together[0].attack} eps = {', '.join(f'{one.eps:g}' for one in together)}",
            _cost(subject, together),
            partial(_measure, sweep, subject, together, images, file, processes),
            len(together),
            _describe,
            _stops_early(together[0]),
        )
        for subject, together in group_by_pass(plan, file)
    ]
    measure_all(passes, _images_of_this_process(len(images), sweep.batch_size, processes), file, processes)
    remove_parts(file, [together for _, together in group_by_pass(plan, None)], sweep.batch_size, processes)
    return [
        find_record(evaluation, file, ("model",), sweep.shown_as, sweep.folder, processes) for _, evaluation in plan
    ]


def plan_of(sweep: Sweep, subjects: Sequence[Subject], images: Images) -> list[tuple[Subject, Evaluation]]:
    """All evaluations of a sweep, in the order in which they are measured."""
    return [(subject, evaluation) for subject in subjects for evaluation in _evaluations(sweep, subject, images)]


def group_by_pass(
    plan: Sequence[tuple[Subject, Evaluation]], file: RecordFile[Record] | None
) -> list[tuple[Subject, list[Evaluation]]]:
    """Group the evaluations that the file lacks, or all without a file, by pass over the images."""
    known = set() if file is None else {evaluation.key for _, evaluation in plan if file.find(evaluation.key)}
    found: list[tuple[Subject, list[Evaluation]]] = []
    seen: set[str] = set()
    for subject, first in plan:
        if first.key in seen or first.key in known:
            continue
        together = [e for s, e in plan if s is subject and _shares_a_pass(first, e) and e.key not in known]
        found.append((subject, together))
        seen.update(evaluation.key for evaluation in together)
    return found


def _cost(subject: Subject, together: Sequence[Evaluation]) -> float:
    """Cost of a pass for each image, in forward passes: making and classifying it at each size."""
    first, eps = together[0], [evaluation.eps for evaluation in together]
    return len(eps) + generation_passes(subject.model, subject.space, first.attack, first.options, eps)


def _check_same_plan(plan: Sequence[tuple[Subject, Evaluation]], processes: Processes) -> None:
    """Check that all processes measure the same; otherwise counts of different things would be added up."""
    plans = gathered(processes, [evaluation.key for _, evaluation in plan])

    def check() -> None:
        if other := [rank for rank, keys in enumerate(plans) if keys != plans[0]]:
            raise ValueError(f"process {other[0]} reads other models or images than process 0: all need the same files")

    on_main(processes, check)


def _images_of_this_process(count: int, batch_size: int, processes: Processes) -> int:
    """How many of the images this process measures in a pass that is not begun yet."""
    batches = -(-count // batch_size)
    begin, end = (batches * rank // processes.world_size for rank in (processes.rank, processes.rank + 1))
    return min(count, end * batch_size) - begin * batch_size


def clean_evaluation(sweep: Sweep, subject: Subject, images: Images) -> Evaluation:
    """Create the evaluation of a model on clean images; the others differ in attack, eps and options."""
    return Evaluation(
        model=subject.name,
        checkpoint=subject.fingerprint,
        space=str(subject.space),
        attack=CLEAN,
        eps=0.0,
        options={},
        **image_fields(sweep, images),
    )


def image_fields(sweep: Sweep, images: Images) -> dict[str, Any]:
    """The fields that the records of a sweep have in common: the images that are used, and the seed."""
    return {
        "dataset": sweep.dataset,
        "split": sweep.split,
        "images": fingerprint_of_images(images, sweep.data),
        "n": len(images),
        "total": len(sweep.images),
        "classes": len(images.classes),
        "seed": sweep.seed,
    }


def options_in_records(attack: str, sweep: Sweep, model: nn.Module | None = None) -> dict[str, Any]:
    """The options of an attack of a sweep, as records have them."""
    return recorded_options(attack, parse_attack(attack, model, fast=sweep.fast, early_stop=sweep.early_stop)[1])


def _evaluations(sweep: Sweep, subject: Subject, images: Images) -> list[Evaluation]:
    clean = clean_evaluation(sweep, subject, images)
    return [
        clean,
        *(
            replace(clean, attack=text, eps=float(eps), options=options_in_records(text, sweep))
            for text in sweep.attacks
            for eps in sweep.eps
        ),
    ]


def _shares_a_pass(one: Evaluation, other: Evaluation) -> bool:
    """True if two evaluations of a model are measured in one pass: sizes of an attack that needs one gradient for all.

    For other attacks, each size is on disk before the next is measured: sharing a pass saves little, and one size may
    take hours.
    """
    if one == other:
        return True
    return one.attack == other.attack != CLEAN and attack_class(one.attack).one_gradient


def _stops_early(evaluation: Evaluation) -> bool:
    kind = None if evaluation.attack == CLEAN else attack_class(evaluation.attack)
    return kind is not None and stops_early(kind, evaluation.options)


def _describe(record: Record) -> str:
    top1 = proportion(record.top1, record.n)
    lost = f", with no gradient for {counted(record.without_gradient, 'image')}" if record.without_gradient else ""
    return f"{record.model}: {record.attack} eps = {record.eps:g}: top 1 {top1}{lost}"


def _measure(
    sweep: Sweep,
    subject: Subject,
    evaluations: Sequence[Evaluation],
    images: Images,
    file: RecordFile[Record],
    processes: Processes,
    progress: PassProgress,
) -> list[Record]:
    """Measure evaluations that differ only in eps; each is attributed an equal share of the time."""
    loader = create_test_loader(sweep, images, subject.space)
    measured = provenance(sweep, loader)
    parts = PartialPass(file, evaluations, sweep.batch_size, json.dumps(measured, sort_keys=True), processes)
    runs = parts.missing(len(loader))
    if parts.parts:
        left = sum(min(len(images), run.stop * sweep.batch_size) - run.start * sweep.batch_size for run in runs)
        progress.resume(left, parts.decided())

    def count() -> None:
        for batches in runs:
            _count(sweep, subject, evaluations, loader, batches, parts, progress)

    on_all(processes, count)
    counts, seconds = parts.complete()
    counted = _counts_passes(evaluations[0].attack)
    gradients, queries = parts.passes()
    return [
        Record(
            **vars(evaluation),
            top1=count.top1,
            top5=count.top5,
            correct=packed(count.correct.numpy()),
            without_gradient=count.without_gradient,
            stops_early=_stops_early(evaluation),
            seconds=round(seconds / len(evaluations), 3),
            gradients=round(gradients / len(evaluations), 3) if counted else None,
            queries=round(queries / len(evaluations), 3) if counted else None,
            **measured,
        )
        for evaluation, count in zip(evaluations, counts, strict=True)
    ]


def _counts_passes(attack: str) -> bool:
    """False for an attack of one's own, which may compute any number."""
    return attack == CLEAN or attack_class(attack).__module__.startswith("fastadv.")


def _count(
    sweep: Sweep,
    subject: Subject,
    evaluations: Sequence[Evaluation],
    loader: Loader,
    batches: range,
    parts: PartialPass,
    progress: PassProgress,
) -> None:
    """Count a run of batches, and write each one's counts when it is done."""
    first = evaluations[0]
    weighs = _stops_early(first) and _counts_passes(first.attack)
    number, start = itertools.count(batches.start), time.perf_counter()

    def done(found: BatchCounts) -> None:
        nonlocal start
        end = time.perf_counter()
        parts.append(next(number), found, end - start)
        start = end
        n = found.worst.n
        spent = GRADIENT * found.gradients + found.queries + len(evaluations) * n if weighs else None
        progress(n, spent=spent, decided=n - found.worst.top1)

    count_batches(
        subject.model.to(sweep.device),
        iterate_batches(loader, batches=batches),
        done,
        attack=CLEAN if first.attack == CLEAN else attack_class(first.attack),
        eps=[evaluation.eps for evaluation in evaluations],
        space=subject.space,
        seed=first.seed,
        first=batches.start * sweep.batch_size,
        device=sweep.device,
        options=run_options(first.options),
    )


def create_test_loader(sweep: Sweep, images: Images, space: PixelSpace) -> Loader:
    """Create a loader that yields each image once, in order, in a model's space."""
    device = torch.device(sweep.device)
    loader = create_loader(images, sweep.batch_size, sweep.data, space=space, train=False, device=device)
    if isinstance(loader, ImageLoader):
        loader.on_bad_image = _raise_bad_image
    return loader


def _raise_bad_image(bad: BadImage) -> None:
    """Raise for an image that cannot be used; a count over fewer images than the record says would be wrong."""
    raise OSError(
        f"{bad.name} cannot be used ({bad.reason}): run fastadv data check DIR to have evaluation skip such images"
    )


def provenance(sweep: Sweep, loader: Loader) -> dict[str, Any]:
    """The fields of a record that say how it was measured, but for the time."""
    device = torch.device(sweep.device)
    versions = {"fastadv": fastadv.__version__, "torch": str(torch.__version__), **current_gpu_settings(device)}
    shown = ""
    if isinstance(loader, ImageLoader):
        versions["loader"] = loader_version(loader)
        shown = loader.preprocessing.shown
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": versions,
        "shown": shown,
        "folder": sweep.folder,
    }


def iterate_batches(
    loader: Loader, advance: PassProgress | None = None, batches: range | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the loader's batches once, or a range of them, and report each batch's images when they are done."""
    chosen = range(len(loader)) if batches is None else batches
    for images, labels in itertools.islice(loader.epoch(0, chosen.start), len(chosen)):
        yield images, labels
        if advance is not None:
            advance(len(labels))


def fingerprint_of_images(images: Images, config: DataConfig) -> str:
    """sha256 of what an evaluation sees: pixels, or files and how they are cropped and resized."""
    if isinstance(images, ImageSet):
        return fingerprint({"images": images.images, "labels": images.labels})
    seen = f"{fingerprint_of_files(images)} size={config.size} central={config.central}"
    if config.keep_aspect or config.interpolation != "bilinear":  # records from before these were options stay valid
        seen += f" keep_aspect={config.keep_aspect} interpolation={config.interpolation}"
    return hashlib.sha256(seen.encode()).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of the names, dtypes, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
