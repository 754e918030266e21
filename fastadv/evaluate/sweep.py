"""Measure every model under every attack at every eps, each once; results are recorded as they come."""

from __future__ import annotations

import hashlib
import itertools
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
from fastadv.evaluate.accuracy import Counts, add_counts, evaluate_each
from fastadv.evaluate.attack_specs import attack_class, parse_attack, recorded_options, run_options
from fastadv.evaluate.effort import generation_passes
from fastadv.evaluate.intervals import proportion
from fastadv.evaluate.measuring import Advance, Pass, find_record, measure_all
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

    If interrupted at any point, a second call continues where the first one stopped. Several processes share the
    batches. Each batch is made and attacked as in a single process, so the counts do not depend on the number of
    processes, except for rounding with ``compile``, which runs each process's first batch eagerly.

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
    _, share = _share(len(images), sweep.batch_size, processes)
    passes = [
        Pass(
            f"{subject.name}: {together[0].attack} eps = {', '.join(f'{one.eps:g}' for one in together)}",
            _cost(subject, together),
            partial(_measure, sweep, subject, together, images, processes),
            len(together),
            _describe,
        )
        for subject, together in group_by_pass(plan, file)
    ]
    measure_all(passes, len(share), file, processes)
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


def _share(count: int, batch_size: int, processes: Processes) -> tuple[range, range]:
    """Return this process's share of the batches that a single process would make, and the indices of their images."""
    batches = -(-count // batch_size)
    begin, end = (batches * rank // processes.world_size for rank in (processes.rank, processes.rank + 1))
    return range(begin, end), range(count)[begin * batch_size : end * batch_size]


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


def options_in_records(attack: str, fast: bool, model: nn.Module | None = None) -> dict[str, Any]:
    """The options of an attack of a sweep, as records have them."""
    return recorded_options(attack, parse_attack(attack, model, fast=fast)[1])


def _evaluations(sweep: Sweep, subject: Subject, images: Images) -> list[Evaluation]:
    clean = clean_evaluation(sweep, subject, images)
    return [
        clean,
        *(
            replace(clean, attack=text, eps=float(eps), options=options_in_records(text, sweep.fast))
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


def _describe(record: Record) -> str:
    top1 = proportion(record.top1, record.n)
    lost = f", with no gradient for {counted(record.without_gradient, 'image')}" if record.without_gradient else ""
    return f"{record.model}: {record.attack} eps = {record.eps:g}: top 1 {top1}{lost}"


def _measure(
    sweep: Sweep,
    subject: Subject,
    evaluations: Sequence[Evaluation],
    images: Images,
    processes: Processes,
    advance: Advance,
) -> list[Record]:
    """Measure evaluations that differ only in eps; each is attributed an equal share of the time."""
    first = evaluations[0]
    loader = create_test_loader(sweep, images, subject.space)
    batches, places = _share(len(images), sweep.batch_size, processes)

    def count() -> list[Counts]:
        if not batches:
            return []
        return evaluate_each(
            subject.model.to(sweep.device),
            iterate_batches(loader, advance, batches),
            attack=CLEAN if first.attack == CLEAN else attack_class(first.attack),
            eps=[evaluation.eps for evaluation in evaluations],
            space=subject.space,
            seed=first.seed,
            first=places.start,
            **run_options(first.options),
        )

    start = time.perf_counter()
    parts = gathered(processes, on_all(processes, count))
    counts = [add_counts(of_one) for of_one in zip(*filter(None, parts), strict=True)]
    seconds = (time.perf_counter() - start) / len(evaluations)
    return [
        Record(
            **vars(evaluation),
            top1=count.top1,
            top5=count.top5,
            correct=packed(count.correct.numpy()),
            without_gradient=count.without_gradient,
            **provenance(sweep, seconds, loader),
        )
        for evaluation, count in zip(evaluations, counts, strict=True)
    ]


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


def provenance(sweep: Sweep, seconds: float, loader: Loader) -> dict[str, Any]:
    """The fields of a record that say how it was measured."""
    device = torch.device(sweep.device)
    versions = {"fastadv": fastadv.__version__, "torch": str(torch.__version__), **current_gpu_settings(device)}
    shown = ""
    if isinstance(loader, ImageLoader):
        versions["loader"] = loader_version(loader)
        shown = loader.preprocessing.shown
    return {
        "seconds": round(seconds, 3),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": versions,
        "shown": shown,
        "folder": sweep.folder,
    }


def iterate_batches(loader: Loader, advance: Advance, batches: range | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the loader's batches once, or a range of them, and report each batch's images when they are done."""
    chosen = range(len(loader)) if batches is None else batches
    for images, labels in itertools.islice(loader.epoch(0, chosen.start), len(chosen)):
        yield images, labels
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
