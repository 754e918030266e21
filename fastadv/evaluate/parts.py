"""The batches of a pass that are done, on disk until the pass is complete: an interruption loses one batch."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastadv.distributed import Processes, gathered, on_all, on_main
from fastadv.evaluate.counts import BatchCounts, Counts, add_counts
from fastadv.evaluate.records import Evaluation, Record, RecordFile, packed


@dataclass(frozen=True, kw_only=True)
class Part:
    """What was counted on one batch, for each of the evaluations of a pass.

    Args:
        batch: its number.
        n: number of its images.
        correct: which images were classified correctly, as packed bits.
        top5: see :class:`Record`.
        without_gradient: see :class:`Record`.
        seconds: duration, divided by the number of processes that shared the pass.
        made_by: device, versions and how images are shown; parts that differ in it are not added up.
        gradients: of single images that the attack computed, for all evaluations together.
        queries: logits of single images that the attack asked for without a gradient, likewise.
    """

    batch: int
    n: int
    correct: Sequence[str]
    top5: Sequence[int | None]
    without_gradient: Sequence[int | None]
    seconds: float
    made_by: str
    gradients: int
    queries: int

    @property
    def key(self) -> str:
        """Identifies the batch."""
        return f"{self.batch} {self.made_by}"

    @staticmethod
    def of(batch: int, found: BatchCounts, seconds: float, made_by: str) -> Part:
        """Create the part of a batch from what one attack left of it, one for each evaluation."""
        [counts] = found.each
        return Part(
            batch=batch,
            n=counts[0].n,
            correct=[packed(one.correct.numpy()) for one in counts],
            top5=[one.top5 for one in counts],
            without_gradient=[one.without_gradient for one in counts],
            seconds=seconds,
            made_by=made_by,
            gradients=found.gradients,
            queries=found.queries,
        )

    def counts(self) -> list[Counts]:
        """Return the counts of each evaluation."""
        found = []
        for text, top5, lost in zip(self.correct, self.top5, self.without_gradient, strict=True):
            bits = np.frombuffer(base64.b64decode(text), dtype=np.uint8)  # [n / 8, rounded up]
            correct = torch.from_numpy(np.unpackbits(bits, count=self.n).astype(bool))  # [n]
            found.append(Counts(self.n, int(correct.sum()), top5, correct, lost))
        return found


class PartialPass:
    """The parts of a pass that are done, of all processes and of earlier calls that were interrupted.

    They lie in a folder beside the records, a file for each process, until :meth:`remove`.

    Args:
        records: the file that the pass's records go to.
        evaluations: that the pass measures.
        batch_size: images of a batch; with another one, batches are others.
        made_by: see :class:`Part`.
        processes: that share the pass.

    Attributes:
        parts: by the number of the batch, the same in all processes.
    """

    def __init__(
        self,
        records: RecordFile[Record],
        evaluations: Sequence[Evaluation],
        batch_size: int,
        made_by: str,
        processes: Processes,
    ) -> None:
        self._folder = _folder_of_pass(records.path, evaluations, batch_size)
        self._made_by = made_by
        self._processes = processes
        self._file = RecordFile(self._folder / f"{processes.rank}.jsonl", Part)
        own = on_all(processes, self._read)
        self.parts = {part.batch: part for parts in gathered(processes, own) for part in parts}

    def _read(self) -> list[Part]:
        paths = sorted(self._folder.glob("*.jsonl"))
        parts = [part for path in paths for part in RecordFile(path, Part).records]
        return [part for part in parts if part.made_by == self._made_by]

    def missing(self, batches: int) -> list[range]:
        """Return this process's share of those of ``batches`` that are not done, as runs without gaps."""
        missing = [batch for batch in range(batches) if batch not in self.parts]
        rank, world_size = self._processes.rank, self._processes.world_size
        begin, end = (len(missing) * one // world_size for one in (rank, rank + 1))
        runs: list[range] = []
        for batch in missing[begin:end]:
            if runs and runs[-1].stop == batch:
                runs[-1] = range(runs[-1].start, batch + 1)
            else:
                runs.append(range(batch, batch + 1))
        return runs

    def decided(self) -> int:
        """How many of the images that are done are misclassified in one of the evaluations."""
        of_each = [torch.stack([one.correct for one in part.counts()]) for part in self.parts.values()]  # of [E, n]
        return sum(int((~correct.all(dim=0)).sum()) for correct in of_each)

    def append(self, batch: int, found: BatchCounts, seconds: float) -> None:
        """Write the counts of a batch; they survive the end of the process from then on."""
        part = Part.of(batch, found, seconds / self._processes.world_size, self._made_by)
        self._file.append(part, sync=False)
        self.parts[batch] = part

    def complete(self) -> tuple[list[Counts], float]:
        """Return the counts of each evaluation over all batches, and the seconds they took; all processes call it.

        From then on, :attr:`parts` has those of all processes.
        """
        found = gathered(self._processes, self.parts)
        self.parts = {batch: part for parts in found for batch, part in parts.items()}
        in_order = [self.parts[batch] for batch in sorted(self.parts)]
        of_batches = [part.counts() for part in in_order]
        return [add_counts(of_one) for of_one in zip(*of_batches, strict=True)], sum(part.seconds for part in in_order)

    def passes(self) -> tuple[int, int]:
        """How many gradients and queries the batches took; of all processes, once the pass is complete."""
        return sum(part.gradients for part in self.parts.values()), sum(part.queries for part in self.parts.values())


def remove_parts(
    records: RecordFile[Record], passes: Sequence[Sequence[Evaluation]], batch_size: int, processes: Processes
) -> None:
    """Remove the parts of passes whose records are written; all processes call it, since each may have its own disk."""
    folders = [_folder_of_pass(records.path, evaluations, batch_size) for evaluations in passes]
    parent = _folder(records.path)

    def remove_own() -> None:
        for folder in folders:
            (folder / f"{processes.rank}.jsonl").unlink(missing_ok=True)

    def remove_all() -> None:
        for folder in folders:
            if folder.exists():
                shutil.rmtree(folder)
        if parent.exists() and not any(parent.iterdir()):
            parent.rmdir()

    on_all(processes, remove_own)
    on_main(processes, remove_all)


def _folder(records: Path) -> Path:
    return records.with_name(f"{records.stem}.parts")


def _folder_of_pass(records: Path, evaluations: Sequence[Evaluation], batch_size: int) -> Path:
    keys = [evaluation.key for evaluation in evaluations]
    return _folder(records) / hashlib.sha256(f"{batch_size} {keys}".encode()).hexdigest()[:16]
