"""study.json: what a study's folder holds, by which commands, on what."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fastadv.study.experiments import STUDIES
from fastadv.study.scales import SMALL, Scale, imagenet
from fastadv.utils import environment
from fastadv.utils.plain_json import build_dataclass, parse_json
from fastadv.utils.regular_files import read_regular

NAME = "study.json"
_OWN = "the scale's own"


@dataclass(frozen=True)
class Manifest:
    """What a study's folder holds.

    Args:
        scale: "small" or "imagenet".
        dataset: the data set's name.
        epochs: passes over the training set, if other than the scale's.
        limit: test images at most, if fewer than the scale's.
        studies: that were begun.
        commands: that made it, each once.
        machine: hardware and versions of the last of them, as text.
    """

    scale: str
    dataset: str
    epochs: int | None
    limit: int | None
    studies: Sequence[str] = ()
    commands: Sequence[str] = ()
    machine: str = ""

    def create_scale(self) -> Scale:
        """The scale that the folder's records are of."""
        scale = imagenet() if self.scale == "imagenet" else SMALL[self.dataset]()
        return scale.shortened(epochs=self.epochs, limit=self.limit)


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder, None if it has none.

    Raises:
        ValueError: one that this version does not understand.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return build_dataclass(Manifest, parse_json(read_regular(path)))
    except ValueError as error:
        raise ValueError(f"{path} is not of this version of fastadv ({error}); write to another folder") from error


def check(folder: Path, manifest: Manifest) -> Manifest:
    """What was begun in a folder, or what is to be, if nothing was.

    Raises:
        ValueError: the folder holds a study of another scale, data set, or size.
    """
    before = read(folder) or manifest
    for name in ("scale", "dataset", "epochs", "limit"):
        was, now = getattr(before, name), getattr(manifest, name)
        if was != now:
            raise ValueError(
                f"{folder} holds a study with {name} = {was or _OWN}, and this one has {name} = {now or _OWN}: choose "
                "another --out"
            )
    return before


def update(folder: Path, manifest: Manifest, studies: Sequence[str], command: str) -> None:
    """Note what is begun in a folder, beside what was begun there before.

    Raises:
        ValueError: as for :func:`check`.
    """
    before = check(folder, manifest)
    asked = {*before.studies, *studies}
    merged = replace(
        before,
        studies=[name for name in STUDIES if name in asked],
        commands=list(dict.fromkeys([*before.commands, command])),
        machine=machine(),
    )
    partial = folder / f".{NAME}.partial"
    partial.write_text(json.dumps(asdict(merged), indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / NAME)


def machine() -> str:
    """The processor, and what ``fastadv info`` says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = f"{names[0] if names else 'unknown'}, {len(os.sched_getaffinity(0))} of its threads"
    return f"{'processor:':22} {cpu}\n{environment.report()}"
