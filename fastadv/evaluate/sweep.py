"""Every model under every attack at every eps, each measured once and recorded before the next."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import fastadv
from fastadv import attacks
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
from fastadv.distributed import ALONE, Processes, gathered, on_all, on_main
from fastadv.evaluate.accuracy import Counts, evaluate_each, summed
from fastadv.evaluate.attack_specs import parse_attack
from fastadv.evaluate.effort import generation_passes
from fastadv.evaluate.intervals import proportion
from fastadv.evaluate.measuring import Advance, Pass, measure_all, recorded
from fastadv.evaluate.records import CLEAN, Evaluation, Record, RecordFile, packed
from fastadv.pixels import PixelSpace
from fastadv.utils.gpu_settings import current_gpu_settings

if TYPE_CHECKING:
    from fastadv.data.loaders.protocol import Loader

Images = ImageSet | ImageSource


@dataclass(frozen=True, eq=False)
class Subject:
    """A model to evaluate: the name of its row, and the PixelSpace of its input."""

    name: str
    model: nn.Module
    space: PixelSpace


@dataclass(frozen=True, eq=False, kw_only=True)
class Sweep:
    """What each model goes through: clean images first, then each attack at each eps.

    Args:
        dataset: name of the data set.
        images: its images, in memory or in files.
        split: the part of the data set that they are.
        limit: only the first so many, or of images in files, which are sorted by class, so many evenly spread; None
            for all.
        data: what is done to images in files before they are normalised, and by which loader.
        attacks: names of ``fastadv.attacks.names()``, each with options if need be: ``"pgd:steps=20:alpha=2"``.
        eps: sizes of the perturbation in pixel values.
        seed: seed of the attacks' random numbers.
        batch_size: images at a time.
        device: where to evaluate; models are moved there.
        fast: attacks take their ``fast`` options: the same examples up to rounding, in less time.

    Raises:
        ValueError: a limit below 1.
    """

    dataset: str
    images: ImageSet | ImageSource
    split: str = "test"
    limit: int | None = None
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
        """The images that ``limit`` leaves."""
        if isinstance(self.images, ImageSet):
            return ImageSet(self.images.images[: self.limit], self.images.labels[: self.limit], self.images.classes)
        return spread(self.images, self.limit)

    @property
    def shown_as(self) -> str:
        """How images in files are shown to the models, for records of versions that did not write it; else ""."""
        return "" if isinstance(self.images, ImageSet) else self.data.preprocessing.shown


def run(
    sweep: Sweep, subjects: Sequence[Subject], file: RecordFile[Record], processes: Processes = ALONE
) -> list[Record]:
    """The record of every evaluation of a sweep: those that the file has are not measured again.

    Interrupted at any point, a second call goes on where the first one stopped. Several processes share the batches;
    each batch is made and attacked as by one process alone, so the counts are the same for any number of them; with
    ``compile`` up to rounding, for it leaves each process's first batch to eager code.

    Args:
        sweep: the images, attacks and sizes.
        subjects: the models, in the order of the rows.
        file: where records are found and appended; of several processes the main one writes.
        processes: that measure together; each calls this function with the same arguments.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: another process reads other models or images; images that a model does not fit.
        FailedElsewhere: another process raised.
    """
    images = sweep.shown()
    plan = [(subject, evaluation) for subject in subjects for evaluation in _evaluations(sweep, subject, images)]
    _check_same(plan, processes)
    _, share = _share(len(images), sweep.batch_size, processes)
    passes = [
        Pass(
            f"{subject.name}: {together[0].attack} eps = {', '.join(f'{one.eps:g}' for one in together)}",
            _cost(subject, together),
            partial(_measure, sweep, subject, together, images, processes),
            len(together),
            _described,
        )
        for subject, together in _together(plan, file)
    ]
    measure_all(passes, len(share), file, processes)
    return [recorded(evaluation, file, ("model",), sweep.shown_as, processes) for _, evaluation in plan]


def _together(
    plan: Sequence[tuple[Subject, Evaluation]], file: RecordFile[Record]
) -> list[tuple[Subject, list[Evaluation]]]:
    """The evaluations that the file lacks, those of one pass together."""
    found: list[tuple[Subject, list[Evaluation]]] = []
    seen: set[str] = set()
    for subject, first in plan:
        if first.key in seen or file.find(first.key):
            continue
        together = [e for s, e in plan if s is subject and _shares_a_pass(first, e) and not file.find(e.key)]
        found.append((subject, together))
        seen.update(evaluation.key for evaluation in together)
    return found


def _cost(subject: Subject, together: Sequence[Evaluation]) -> float:
    """Of a pass, for each image, in forward passes: made at each size and looked at."""
    first, eps = together[0], [evaluation.eps for evaluation in together]
    return len(eps) + generation_passes(subject.model, subject.space, first.attack, first.options, eps)


def _check_same(plan: Sequence[tuple[Subject, Evaluation]], processes: Processes) -> None:
    """Counts of different things would be added up."""
    plans = gathered(processes, [evaluation.key for _, evaluation in plan])

    def check() -> None:
        if other := [rank for rank, keys in enumerate(plans) if keys != plans[0]]:
            raise ValueError(f"process {other[0]} reads other models or images than process 0: all need the same files")

    on_main(processes, check)


def _share(count: int, batch_size: int, processes: Processes) -> tuple[range, range]:
    """This process's batches, of those that one process alone would make, and the places of the images in them."""
    batches = -(-count // batch_size)
    begin, end = (batches * rank // processes.world_size for rank in (processes.rank, processes.rank + 1))
    return range(begin, end), range(count)[begin * batch_size : end * batch_size]


def clean_evaluation(sweep: Sweep, subject: Subject, images: Images) -> Evaluation:
    """The evaluation of a model on clean images, of which the others differ in attack, eps and options."""
    return Evaluation(
        model=subject.name,
        checkpoint=fingerprint(subject.model.state_dict()),
        space=str(subject.space),
        attack=CLEAN,
        eps=0.0,
        options={},
        **measured_on(sweep, images),
    )


def measured_on(sweep: Sweep, images: Images) -> dict[str, Any]:
    """What the records of a sweep have in common: which images, of those that ``limit`` leaves, and which seed."""
    return {
        "dataset": sweep.dataset,
        "split": sweep.split,
        "images": fingerprint_of_images(images, sweep.data),
        "n": len(images),
        "total": len(sweep.images),
        "classes": len(images.classes),
        "seed": sweep.seed,
    }


def _evaluations(sweep: Sweep, subject: Subject, images: Images) -> list[Evaluation]:
    clean = clean_evaluation(sweep, subject, images)
    return [
        clean,
        *(
            replace(clean, attack=text, eps=float(eps), options=parse_attack(text, fast=sweep.fast)[1])
            for text in sweep.attacks
            for eps in sweep.eps
        ),
    ]


def _shares_a_pass(one: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations of a model are measured in one pass: sizes of an attack that needs one gradient for all.

    Of other attacks each size is on disk before the next is measured: a pass saves little, and a size may take hours.
    """
    if one == other:
        return True
    return one.attack == other.attack != CLEAN and attacks.get(one.attack.partition(":")[0]).one_gradient


def _described(record: Record) -> str:
    top1 = proportion(record.top1, record.n)
    lost = f", with no gradient for {record.without_gradient:,} images" if record.without_gradient else ""
    return f"{record.model}: {record.attack} eps = {record.eps:g}: top 1 {top1}{lost}"


def _measure(
    sweep: Sweep,
    subject: Subject,
    evaluations: Sequence[Evaluation],
    images: Images,
    processes: Processes,
    advance: Advance,
) -> list[Record]:
    """The records of evaluations that differ in eps alone; each takes an equal share of the time."""
    first = evaluations[0]
    loader = loader_of(sweep, images, subject.space)
    batches, places = _share(len(images), sweep.batch_size, processes)

    def count() -> list[Counts]:
        if not batches:
            return []
        return evaluate_each(
            subject.model.to(sweep.device),
            counted(loader, advance, batches),
            attack=first.attack.partition(":")[0],
            eps=[evaluation.eps for evaluation in evaluations],
            space=subject.space,
            seed=first.seed,
            first=places.start,
            **first.options,
        )

    start = time.perf_counter()
    parts = gathered(processes, on_all(processes, count))
    counts = [summed(of_one) for of_one in zip(*filter(None, parts), strict=True)]
    seconds = (time.perf_counter() - start) / len(evaluations)
    return [
        Record(
            **vars(evaluation),
            top1=count.top1,
            top5=count.top5,
            correct=packed(count.correct.numpy()),
            without_gradient=count.without_gradient,
            **provenance(sweep.device, seconds, loader),
        )
        for evaluation, count in zip(evaluations, counts, strict=True)
    ]


def loader_of(sweep: Sweep, images: Images, space: PixelSpace) -> Loader:
    """A loader of each image once, in order, in a model's space."""
    device = torch.device(sweep.device)
    loader = create_loader(images, sweep.batch_size, sweep.data, space=space, train=False, device=device)
    if isinstance(loader, ImageLoader):
        loader.on_bad_image = _refuse
    return loader


def _refuse(bad: BadImage) -> None:
    """A count over fewer images than the record says would be wrong."""
    raise OSError(
        f"{bad.name} cannot be used ({bad.reason}): fastadv data check DIR makes evaluation leave such images out"
    )


def provenance(device: torch.device | str, seconds: float, loader: Loader) -> dict[str, Any]:
    """What a record says of how it was measured."""
    device = torch.device(device)
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
    }


def counted(loader: Loader, advance: Advance, batches: range | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's images once, or those of some batches in a row, telling of each batch when it is done with."""
    chosen = range(len(loader)) if batches is None else batches
    for images, labels in itertools.islice(loader.epoch(0, chosen.start), len(chosen)):
        yield images, labels
        advance(len(labels))


def fingerprint_of_images(images: Images, config: DataConfig) -> str:
    """sha256 over what an evaluation sees: pixels, or files and what is cut out of them."""
    if isinstance(images, ImageSet):
        return fingerprint({"images": images.images, "labels": images.labels})
    seen = f"{fingerprint_of_files(images)} size={config.size} central={config.central}"
    if config.keep_aspect or config.interpolation != "bilinear":  # records of before these were options stay valid
        seen += f" keep_aspect={config.keep_aspect} interpolation={config.interpolation}"
    return hashlib.sha256(seen.encode()).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, dtypes, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
