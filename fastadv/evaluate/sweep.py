"""Every model under every attack at every eps, each measured once and recorded before the next."""

from __future__ import annotations

import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import fastadv
from fastadv.data import BadImage, ImageLoader, ImageSet, ImageSource, create_loader, fingerprint_of_files, spread
from fastadv.evaluate.attack_text import parse_attack
from fastadv.evaluate.records import CLEAN, Evaluation, Record, RecordFile
from fastadv.evaluate.robustness import evaluate
from fastadv.evaluate.statistics import proportion
from fastadv.extras import require
from fastadv.pixels import PixelSpace
from fastadv.train.config import DataConfig

if TYPE_CHECKING:
    from rich.progress import Progress

    from fastadv.train.interfaces import Loader

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
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")


def run(sweep: Sweep, subjects: Sequence[Subject], file: RecordFile[Record]) -> list[Record]:
    """The record of every evaluation of a sweep: those that the file has are not measured again.

    Interrupted at any point, a second call goes on where the first one stopped.

    Args:
        sweep: the images, attacks and sizes.
        subjects: the models, in the order of the rows.
        file: where records are found and appended.
    """
    images = _limited(sweep.images, sweep.limit)
    plan = [(subject, evaluation) for subject in subjects for evaluation in _evaluations(sweep, subject, images)]
    pending = sum(file.find(evaluation.key) is None for _, evaluation in plan)
    records, measured = [], itertools.count(1)
    with _progress() as progress:
        task = progress.add_task("", total=pending * len(images))
        for subject, evaluation in plan:
            record = file.find(evaluation.key)
            if record is None:
                what = f"{subject.name}: {evaluation.attack} eps = {evaluation.eps:g}"
                progress.update(task, description=what)
                record = _measure(sweep, subject, evaluation, images, partial(progress.advance, task))
                if progress.disable:
                    top1 = proportion(record.top1, record.n)
                    print(f"{next(measured)}/{pending}  {what}: top 1 {top1}", file=sys.stderr, flush=True)
            # The same weights may come under another name: the row is then recorded under that name too.
            record = replace(record, model=subject.name)
            if record not in file.records:
                file.append(record)
            records.append(record)
    return records


def _limited(images: Images, limit: int | None) -> Images:
    if isinstance(images, ImageSet):
        return ImageSet(images.images[:limit], images.labels[:limit], images.classes)
    return spread(images, limit)


def _evaluations(sweep: Sweep, subject: Subject, images: Images) -> list[Evaluation]:
    clean = Evaluation(
        model=subject.name,
        checkpoint=fingerprint(subject.model.state_dict()),
        space=str(subject.space),
        dataset=sweep.dataset,
        split=sweep.split,
        images=_fingerprint_of_images(images, sweep.data),
        n=len(images),
        total=len(sweep.images),
        classes=len(images.classes),
        attack=CLEAN,
        eps=0.0,
        options={},
        seed=sweep.seed,
    )
    return [
        clean,
        *(
            replace(clean, attack=text, eps=float(eps), options=parse_attack(text)[1])
            for text in sweep.attacks
            for eps in sweep.eps
        ),
    ]


def _measure(
    sweep: Sweep, subject: Subject, evaluation: Evaluation, images: Images, advance: Callable[[int], None]
) -> Record:
    device = torch.device(sweep.device)
    loader = create_loader(images, sweep.batch_size, sweep.data, space=subject.space, train=False, device=device)
    if isinstance(loader, ImageLoader):
        loader.on_bad_image = _refuse
    start = time.perf_counter()
    counts = evaluate(
        subject.model.to(sweep.device),
        _counted(loader, advance),
        attack=evaluation.attack.partition(":")[0],
        eps=evaluation.eps,
        space=subject.space,
        seed=evaluation.seed,
        **evaluation.options,
    )
    return Record(
        **vars(evaluation),
        top1=counts.top1,
        top5=counts.top5,
        seconds=round(time.perf_counter() - start, 3),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        versions={"fastadv": fastadv.__version__, "torch": str(torch.__version__)},
    )


def _refuse(bad: BadImage) -> None:
    """A count over fewer images than the record says would be wrong."""
    raise OSError(
        f"{bad.name} cannot be used ({bad.reason}): fastadv data check DIR makes evaluation leave such images out"
    )


def _counted(loader: Loader, advance: Callable[[int], None]) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's images once, telling of each batch when it is done with."""
    for images, labels in loader.epoch(0):
        yield images, labels
        advance(len(labels))


def _progress() -> Progress:
    """A bar on the terminal; disabled where standard error is not one."""
    rich = require("rich.progress", extra="evaluate")
    console = require("rich.console", extra="evaluate").Console(stderr=True)
    columns = (rich.TextColumn("{task.description}", markup=False), rich.BarColumn(), rich.MofNCompleteColumn())
    bar: Progress = rich.Progress(
        *columns, rich.TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    return bar


def _fingerprint_of_images(images: Images, config: DataConfig) -> str:
    """sha256 over what an evaluation sees: pixels, or files and what is cut out of them."""
    if isinstance(images, ImageSet):
        return fingerprint({"images": images.images, "labels": images.labels})
    seen = f"{fingerprint_of_files(images)} size={config.size} central={config.central}"
    return hashlib.sha256(seen.encode()).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the names, dtypes, shapes and values of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
