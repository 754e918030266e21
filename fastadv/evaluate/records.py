"""Records of evaluations, one JSON line each. Tables and figures are made from records alone."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fastadv import attacks
from fastadv.evaluate.attack_specs import stops_early
from fastadv.evaluate.html import html_table
from fastadv.evaluate.intervals import proportion
from fastadv.pixels import PixelSpace
from fastadv.utils.log import logger
from fastadv.utils.plain_json import build_dataclass, parse_json
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import counted

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to measure: one model under one attack at one eps, on one set of images.

    Args:
        model: its name, for a row of a table.
        checkpoint: sha256 of its weights and buffers; for others than runs also of the code, of the configuration, or
            of the name of the network.
        space: the PixelSpace of the model's input, as text.
        dataset: name of the data set.
        split: "train" or "test".
        images: sha256 of the images and labels.
        n: number of images that are used.
        total: number of images in the split.
        classes: number of classes of the data set.
        attack: one of ``fastadv.attacks.names()``, followed by options if any were given, or "clean".
        eps: size of the perturbation in pixel values; 0 for "clean".
        options: options of the attack besides eps.
        seed: seed of the attack's random numbers.
    """

    model: str
    checkpoint: str
    space: str
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
        """A string that is equal for evaluations of the same thing, whatever the model is called."""
        return key_of(self, Evaluation, names={"model"})


@dataclass(frozen=True, kw_only=True)
class Record(Evaluation):
    """An evaluation and its result.

    Args:
        top1: number of images that were classified correctly.
        top5: number of images with their class among the five likeliest; None with fewer than six classes, and if the
            attack stops early.
        correct: which images were classified correctly, as packed bits; :attr:`hits` unpacks them.
        seconds: duration.
        device: the device that it ran on.
        versions: version of each package that the result depends on; for images in files, also the loader's; on a GPU,
            also whether cuDNN's benchmark mode and TF32 were on.
        without_gradient: number of images whose gradient was zero or not finite, so that the attack does little or
            nothing to them; None if the attack computes no gradient, and in records of versions that did not count.
        shown: how images in files are shown to the model, such as their size; "" for images in memory.
        folder: name of the folder of images in files; "" for images in memory, and in records of older versions.
        stops_early: true if an image is left alone as soon as it is misclassified at an iterate of the attack, or after
            one of its restarts, see :attr:`any_iterate`; false in records of older versions, but for attacks that have
            always stopped early.
        gradients: of single images that the attack computed; an equal share, if several evaluations shared them. None
            for attacks of one's own, and in records of older versions.
        queries: logits of single images that the attack asked for without a gradient, likewise.
    """

    top1: int
    top5: int | None
    correct: str
    seconds: float
    device: str
    versions: Mapping[str, str]
    without_gradient: int | None = None
    shown: str = ""
    folder: str = ""
    stops_early: bool = False
    gradients: float | None = None
    queries: float | None = None

    def __post_init__(self) -> None:
        if self.stops_early or has_always_stopped(self.attack, self.options):
            object.__setattr__(self, "stops_early", True)
            object.__setattr__(self, "top5", None)  # older versions counted it, at images that were left alone
        check_counts(self.n, self.top1)
        if self.top5 is not None:
            check_counts(self.n, self.top1, self.top5)

    def _repr_html_(self) -> str:
        measured = [("top 1", self.top1)] if self.top5 is None else [("top 1", self.top1), ("top 5", self.top5)]
        rows = [(name, str(getattr(self, name))) for name in ("model", "dataset", "split", "attack", "eps", "seed")]
        rows += [(name, f"{proportion(count, self.n)}, {count:,} of {self.n:,}") for name, count in measured]
        return html_table(("Record", ""), rows, labels=2)

    @property
    def any_iterate(self) -> bool:
        """True if any iterate of the attack decides an image, and false if only its last one does, or that of a run."""
        between_runs = self.options.get("restarts", 1) > 1 and not self.options.get("early_stop")
        return self.stops_early and not (between_runs and not has_always_stopped(self.attack, {}))

    @property
    def hits(self) -> npt.NDArray[np.bool_]:  # [n]
        """True for each of the ``n`` images that was classified correctly, in the order of the data set."""
        packed = np.frombuffer(base64.b64decode(self.correct), dtype=np.uint8)  # [n / 8, rounded up]
        if len(packed) != -(-self.n // 8):
            raise ValueError(f"the record of {self.model} does not say which of {self.n:,} images were correct")
        return np.unpackbits(packed, count=self.n).astype(bool)


def check_counts(n: int, *counts: int) -> None:
    """Check numbers of images, given in ascending order, out of ``n`` images.

    Raises:
        ValueError: if they are negative, not in ascending order or above ``n``, or ``n`` is below 1.
    """
    if n < 1 or not all(less <= more for less, more in itertools.pairwise((0, *counts, n))):
        raise ValueError(f"impossible counts: {', '.join(map(str, counts))} of {n} images")


def packed(hits: npt.NDArray[np.bool_]) -> str:
    """Encode a bool for each of n images as text: bits in base64, the first image's the highest of its byte."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def key_of(evaluation: Any, kind: type[Any], *, names: set[str]) -> str:
    """Return a string that is equal for evaluations of the same thing.

    Args:
        evaluation: the evaluation, or its record.
        kind: the dataclass whose fields say what is measured; ``eps`` is one of them.
        names: the fields that only name something.
    """
    identity = {field.name: getattr(evaluation, field.name) for field in fields(kind) if field.name not in names}
    return json.dumps({**identity, "eps": float(evaluation.eps)}, sort_keys=True)


class _Keyed(Protocol):
    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=_Keyed)


class RecordFile(Generic[R]):
    """An append-only file of records, each on disk before the next is measured.

    A crash can truncate only the last line; opening the file drops such a line, and its evaluation is then not found.
    Records that :func:`read_records` leaves out are not found either. A compressed file beside it, ``path`` with
    ``.gz``, is read first, and never written to.

    Args:
        path: the file; the first :meth:`append` creates it and its parent folders.
        kind: the dataclass of its records.

    Raises:
        ValueError: if a line is not a record, unless it is a truncated last one.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self.records, whole = _parse(path, kind)
        self._by_key = {record.key: record for record in self.records}
        if path.exists() and path.stat().st_size > whole:
            os.truncate(path, whole)

    def __repr__(self) -> str:
        return f"RecordFile({str(self.path)!r}, {counted(len(self.records), 'record')})"

    def find(self, key: str) -> R | None:
        """Return the last record with this key, or None."""
        return self._by_key.get(key)

    def append(self, record: R, *, sync: bool = True) -> None:
        """Write a record; it is on disk when this returns.

        Args:
            record: to write.
            sync: false leaves it to the system when it is on disk: enough if the process ends, but not the system.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(json.dumps(vars(record)).encode() + b"\n")
            file.flush()
            if sync:
                os.fsync(file.fileno())
        self.remember(record)

    def remember(self, record: R) -> None:
        """Add a record that another process has written."""
        self.records.append(record)
        self._by_key[record.key] = record


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read the records of a file, which is not changed; a truncated last line is ignored.

    Records in a compressed file beside it, ``path`` with ``.gz``, come first.

    Records of an attack that makes different images in this version are left out, with a warning.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not a record, unless it is a truncated last one.
    """
    if not path.exists() and not _compressed(path).exists():
        raise FileNotFoundError(f"no records at {path}")
    return _parse(path, kind)[0]


def _compressed(path: Path) -> Path:
    """The compressed file beside a file of records."""
    return path.with_name(f"{path.name}.gz")


def _parse(path: Path, kind: type[R]) -> tuple[list[R], int]:
    """The records of a file after those of its compressed companion, and how many bytes of the file are whole lines.

    A file that does not exist has no records.
    """
    records = []
    compressed = _compressed(path)
    if compressed.exists():
        try:
            content = gzip.decompress(read_regular(compressed))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{compressed} cannot be decompressed: {error}") from error
        records += _parse_lines(compressed, content, kind)
    content = read_regular(path) if path.exists() else b""
    whole = content.rfind(b"\n") + 1  # a line without its newline is truncated: append writes both at once
    records += _parse_lines(path, content[:whole], kind)
    valid = [record for record in records if not _is_outdated(record)]
    if left_out := len(records) - len(valid):
        logger.warning(
            "%s: %s of mi_fgsm left out: an earlier version made different images if channels differ in std",
            *(path, counted(left_out, "record")),
        )
    return valid, whole


def _parse_lines(path: Path, content: bytes, kind: type[R]) -> list[R]:
    """One record for each line."""
    records = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            records.append(build_dataclass(kind, parse_json(line)))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is not a {kind.__name__} of this version of fastadv ({error}); "
                f"fix or remove the line, or write to another folder"
            ) from error
    return records


def has_always_stopped(attack: str, options: Mapping[str, Any]) -> bool:
    """True for attacks that stopped early, in their steps or between restarts, before records had a field for it."""
    name = attack.partition(":")[0]
    return name in attacks.names() and stops_early(attacks.get(name), options)


def _is_outdated(record: Any) -> bool:
    """True for records of ``mi_fgsm`` from versions that normalised the gradients of the input, not those of pixels.

    The images differ if channels differ in std. Those versions did not count images without gradient; later ones do.
    """
    values = vars(record)
    attack, space = values.get("attack", ""), values.get("source_space", values.get("space", ""))
    differing = space == str(PixelSpace.imagenet()) or "std=(" in space  # one number where they are equal
    return attack.partition(":")[0] == "mi_fgsm" and differing and values["without_gradient"] is None
