"""Run ``fastadv evaluate --suite`` once its arguments are parsed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fastadv.cli.exits import BELOW
from fastadv.cli.measure import report_files
from fastadv.distributed import Processes, on_main
from fastadv.evaluate import sweep as sweeps
from fastadv.evaluate.card.card import Card
from fastadv.evaluate.card.examples import Look
from fastadv.evaluate.card.making import make_card
from fastadv.evaluate.card.page import content, warning_lines, write_card
from fastadv.evaluate.card.tables import accuracy_table
from fastadv.evaluate.card.until import measure_until, select
from fastadv.evaluate.records import Record, RecordFile
from fastadv.evaluate.sweep import Images, Subject, Sweep, create_test_loader
from fastadv.evaluate.terminal_tables import print_table
from fastadv.utils.text import printable

UNTIL = "until.jsonl"  # records of parts of the images, which no other table shows


def make(
    arguments: argparse.Namespace,
    sweep: Sweep,
    subjects: Sequence[Subject],
    file: RecordFile[Record],
    processes: Processes,
) -> int:
    """Measure a card, write and print it; returns the exit code."""
    out: Path = arguments.out
    if arguments.until is None:
        records, images = sweeps.run(sweep, subjects, file, processes), sweep.shown()
    else:
        file = RecordFile(out / UNTIL, Record)
        records, images = measure_until(sweep, subjects, file, arguments.until)
    return on_main(processes, lambda: _finish(arguments, sweep, subjects, records, images, file))


def _finish(
    arguments: argparse.Namespace,
    sweep: Sweep,
    subjects: Sequence[Subject],
    records: Sequence[Record],
    images: Images,
    file: RecordFile[Record],
) -> int:
    card = make_card(
        arguments.suite,
        subjects,
        records,
        partial(_look_for, sweep, images),
        classes=images.classes,
        until=arguments.until,
        chunk=None if arguments.until is None else sweep.batch_size,
    )
    written = write_card(card, arguments.out)
    if arguments.json:
        print(json.dumps({**content(card), "written": list(map(str, [file.path, *written]))}, indent=2))
    else:
        for model in card.models:
            print_table(accuracy_table(card, model))
        print(*map(printable, warning_lines(card)), sep="\n")
        report_files(file, written, (), records[0], ())
    return _verdict(card, arguments.fail_under)


def _verdict(card: Card, fail_under: float | None) -> int:
    """The exit code; a line says where the worst case is too low."""
    model, eps, found = card.lowest()
    if fail_under is None or found.value >= fail_under / 100:  # 29 of 100 are not below 29 %, and 100 * 0.29 is
        return 0
    print(
        printable(f"fastadv evaluate: {model} is at {found} in the worst case at eps {eps:g}, below {fail_under:g} %"),
        file=sys.stderr,
    )
    return BELOW


def _look_for(sweep: Sweep, images: Images, subject: Subject) -> Look:
    def look(indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        loader = create_test_loader(sweep, select(images, torch.tensor(indices)), subject.space)
        batches = [(shown.to(sweep.device), labels.to(sweep.device)) for shown, labels in loader.epoch(0)]
        shown, labels = zip(*batches, strict=True)
        return torch.cat(shown), torch.cat(labels)

    return look
