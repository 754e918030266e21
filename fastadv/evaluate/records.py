"""Records: what an evaluation measured, one JSON line each. Tables and figures are made from records alone."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fastadv.pixels import PixelSpace
from fastadv.utils.log import logger
from fastadv.utils.plain_json import build_dataclass, parse_json
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import counted

CLEAN = "clean"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is to be measured: one model under one attack at one eps, on one set of images.

    Args:
        model: the name of the row in a table.
        checkpoint: sha256 of the weights and buffers.
        space: the PixelSpace of the model's input, as text.
        dataset: name of the data set.
        split: "train" or "test".
        images: sha256 of the images and labels.
        n: how many images of the split.
        total: how many images the split has.
        classes: how many classes the data set has.
        attack: a name of ``fastadv.attacks.names()``, with its options if it was given any, or "clean".
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
        """Equal for evaluations that measure the same thing, by whatever name the model goes."""
        return key_of(self, Evaluation, names={"model"})


@dataclass(frozen=True, kw_only=True)
class Record(Evaluation):
    """An evaluation and what came out of it.

    Args:
        top1: how many images were classified correctly.
        top5: how many images had their class among the five likeliest; None with fewer than six classes.
        correct: which images were classified correctly, a bit for each, packed; :attr:`hits` unpacks them.
        seconds: how long it took.
        device: what it ran on.
        versions: version of each package that the result depends on; of images in files the loader's, too, and which
            of cuDNN's search and TF32 were on, on a GPU.
        without_gradient: for how many images the gradient was zero or not finite, so that the attack does little or
            nothing to them; None if it follows none, and in records of versions that did not count.
        shown: how images in files are shown to the model, such as their size; "" for others.
    """

    top1: int
    top5: int | None
    correct: str
    seconds: float
    device: str
    versions: Mapping[str, str]
    without_gradient: int | None = None
    shown: str = ""

    def __post_init__(self) -> None:
        check_counts(self.n, self.top1)
        if self.top5 is not None:
            check_counts(self.n, self.top1, self.top5)

    @property
    def hits(self) -> npt.NDArray[np.bool_]:  # [n]
        """Which of the ``n`` images were classified correctly, in the order of the data set."""
        packed = np.frombuffer(base64.b64decode(self.correct), dtype=np.uint8)  # [n / 8, rounded up]
        if len(packed) != -(-self.n // 8):
            raise ValueError(f"the record of {self.model} is not of which of {self.n:,} images were correct")
        return np.unpackbits(packed, count=self.n).astype(bool)


def check_counts(n: int, *counts: int) -> None:
    """Refuse numbers of images, in ascending order, that ``n`` images cannot give.

    Raises:
        ValueError: that.
    """
    if n < 1 or not all(less <= more for less, more in itertools.pairwise((0, *counts, n))):
        raise ValueError(f"{', '.join(map(str, counts))} of {n} images cannot be")


def packed(hits: npt.NDArray[np.bool_]) -> str:
    """Yes or no for each of n images as text: a bit each, the first image's the highest of its byte, in base64."""
    return base64.b64encode(np.packbits(hits).tobytes()).decode()


def key_of(evaluation: Any, kind: type[Any], *, names: set[str]) -> str:
    """A text that is equal for evaluations that measure the same thing.

    Args:
        evaluation: it, or its record.
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

    A crash can tear the last line only; opening the file drops such a line, and its evaluation is then not found.
    Records that :func:`read_records` leaves out are not found either.

    Args:
        path: the file, made with the folders above it by the first :meth:`append`.
        kind: the dataclass of its records.

    Raises:
        ValueError: a line that is not a record, other than a torn last one.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self.records, whole = _parse(path, kind)
        self._by_key = {record.key: record for record in self.records}
        if path.exists() and path.stat().st_size > whole:
            os.truncate(path, whole)

    def find(self, key: str) -> R | None:
        """The last record with this key, if there is one."""
        return self._by_key.get(key)

    def append(self, record: R) -> None:
        """Write one record; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(json.dumps(vars(record)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.remember(record)

    def remember(self, record: R) -> None:
        """Know a record that another process has written."""
        self.records.append(record)
        self._by_key[record.key] = record


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a file, which is left as it is; a torn last line is passed over.

    Those of an attack that has made other images since are left out, and a warning says so.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is not a record, other than a torn last one.
    """
    if not path.exists():
        raise FileNotFoundError(f"no records at {path}")
    return _parse(path, kind)[0]


def _parse(path: Path, kind: type[R]) -> tuple[list[R], int]:
    """The records of a file, and how many bytes of it are whole lines. No file is no records."""
    content = read_regular(path) if path.exists() else b""
    whole = content.rfind(b"\n") + 1  # a line counts from its newline on: append writes both at once
    records = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            records.append(build_dataclass(kind, parse_json(line)))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is not a {kind.__name__} of this version of fastadv ({error}); "
                f"mend or remove the line, or write to another folder"
            ) from error
    valid = [record for record in records if not _is_outdated(record)]
    if left_out := len(records) - len(valid):
        logger.warning(
            "%s: %s of mi_fgsm left out: an earlier version made other images where channels differ in std",
            *(path, counted(left_out, "record")),
        )
    return valid, whole


def _is_outdated(record: Any) -> bool:
    """Whether a record is of ``mi_fgsm`` as it was where channels differ in std: of their gradients, not of pixels'.

    Versions from then did not count images without gradient, and ``mi_fgsm`` is counted always since.
    """
    values = vars(record)
    attack, space = values.get("attack", ""), values.get("source_space", values.get("space", ""))
    differing = space == str(PixelSpace.imagenet()) or "std=(" in space  # one number where they are equal
    return attack.partition(":")[0] == "mi_fgsm" and differing and values["without_gradient"] is None
