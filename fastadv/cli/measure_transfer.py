"""Run ``fastadv transfer`` once its arguments are parsed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from fastadv.cli.exits import ending
from fastadv.cli.measure import (
    TO_CONTINUE,
    check_names,
    create_sweep,
    gpu_settings_for,
    print_json,
    report_files,
    write_names,
)
from fastadv.cli.model_specs import LoadedModels, load_subjects
from fastadv.evaluate.figures import save_figure
from fastadv.evaluate.folder import select_comparable
from fastadv.evaluate.records import RecordFile
from fastadv.evaluate.sweep import Sweep
from fastadv.evaluate.tables import save_table
from fastadv.evaluate.terminal_tables import print_table
from fastadv.evaluate.transfer import TransferRecord, run_transfer
from fastadv.evaluate.transfer_tables import MEASURES, transfer_figure, transfer_table
from fastadv.train.checkpoint import CheckpointError
from fastadv.utils import devices
from fastadv.utils.files import locked_folder, make_folder
from fastadv.utils.optional_deps import require
from fastadv.utils.text import as_utf8, printable

_LIMIT = 1000  # images, as in the paper


def run(arguments: argparse.Namespace) -> int:
    """Measure transfer as ``fastadv transfer`` was told; returns the exit code."""
    out: Path = arguments.out
    with ending("fastadv transfer", failures=(CheckpointError,), interrupted=TO_CONTINUE) as end:
        sweep, loaded, file = _prepare(arguments)
        end.begin_work()
        with locked_folder(out), gpu_settings_for(arguments, sweep.device):
            write_names(out, loaded)
            records = run_transfer(sweep, loaded.subjects, file)
            _show(records, file, arguments)
    return end.code


def _prepare(arguments: argparse.Namespace) -> tuple[Sweep, LoadedModels, RecordFile[TransferRecord]]:
    """Load the models and images; every mistake in the command is found here, before any work is done."""
    require("matplotlib", extra="evaluate")
    if len(arguments.models) < 2:
        raise ValueError("transfer needs two models or more: images that fool one are shown to the others")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    loaded = load_subjects(arguments.models, arguments)
    names = [subject.name for subject in loaded.subjects]
    if arguments.curve:
        _pair(arguments.curve, names)
    sweep = create_sweep(arguments, loaded, devices.resolve(arguments.device), default_limit=_LIMIT)
    make_folder(arguments.out)
    file = RecordFile(arguments.out / "transfer.jsonl", TransferRecord)
    sources = [(record.source, record.source_checkpoint) for record in file.records]
    check_names(arguments.out, loaded, [*sources, *((r.target, r.target_checkpoint) for r in file.records)])
    return sweep, loaded, file


def _pair(text: str | None, names: Sequence[str]) -> tuple[str, str]:
    if text is None:
        return names[0], names[1]
    source, _, target = printable(as_utf8(text)).partition(":")
    if source not in names or target not in names:
        raise ValueError(f"--curve is SOURCE:TARGET, two of {', '.join(names)}, got {text!r}")
    return source, target


def _show(records: Sequence[TransferRecord], file: RecordFile[TransferRecord], arguments: argparse.Namespace) -> None:
    """Print tables of the command's sizes; write tables and figures of all records that fit beside them."""
    together, left_out = select_comparable(records, file.records)
    sizes = sorted({record.eps for record in together})
    for measure in MEASURES:
        for eps in sizes:
            if eps in arguments.eps and not arguments.json:
                print_table(transfer_table(together, measure=measure, eps=eps))
    if arguments.curve and len(sizes) == 1:
        print("--curve: no curve is drawn of a single eps", file=sys.stderr)
    curve = _pair(arguments.curve, list(dict.fromkeys(record.source for record in records)))
    out, all_sizes = arguments.out, {record.eps for record in file.records}
    possible = [_table(out, measure, eps) for measure in MEASURES for eps in all_sizes]
    possible += [_figure(out, measure) for measure in MEASURES]
    written = _write(together, sizes, curve, out)
    report_files(file, written, possible, records[0], left_out, say=not arguments.json)
    if arguments.json:
        print_json(records, [file.path, *written])


def _write(records: Sequence[TransferRecord], sizes: Sequence[float], curve: tuple[str, str], out: Path) -> list[Path]:
    """Write tables and figures below ``out``."""
    paths = []
    for measure in MEASURES:
        for eps in sizes:
            paths += save_table(transfer_table(records, measure=measure, eps=eps), _table(out, measure, eps))
        if len(sizes) > 1:
            figure = transfer_figure(records, source=curve[0], target=curve[1], measure=measure)
            paths += save_figure(figure, _figure(out, measure))
    return paths


def _table(out: Path, measure: str, eps: float) -> Path:
    return out / "tables" / f"transfer-{measure}-eps-{eps:g}"


def _figure(out: Path, measure: str) -> Path:
    return out / "figures" / f"transfer-{measure}"
