"""Run ``fastadv evaluate`` once its arguments are parsed."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from fastadv.cli import measure_card
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
from fastadv.distributed import Processes, device_name, on_all, on_main, process_group
from fastadv.evaluate import sweep as sweeps
from fastadv.evaluate.attack_specs import may_stop_early
from fastadv.evaluate.estimate import describe_plan, plan_json
from fastadv.evaluate.figures import robustness_figure, save_figure, with_top5
from fastadv.evaluate.folder import select_comparable
from fastadv.evaluate.records import CLEAN, Record, RecordFile
from fastadv.evaluate.save_images import save_images
from fastadv.evaluate.sweep import Sweep
from fastadv.evaluate.tables import robustness_tables, save_table
from fastadv.evaluate.terminal_tables import print_table
from fastadv.train.checkpoint import CheckpointError
from fastadv.utils import devices
from fastadv.utils.files import locked_folder, make_folder
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable


def run(arguments: argparse.Namespace) -> int:
    """Measure accuracy as ``fastadv evaluate`` was told; returns the exit code."""
    out: Path = arguments.out
    with (
        ending("fastadv evaluate", failures=(CheckpointError,), interrupted=TO_CONTINUE) as end,
        process_group() as processes,
    ):
        sweep, loaded = on_all(processes, lambda: _prepare(arguments, processes))
        if arguments.dry_run:
            on_main(processes, lambda: print(_plan(arguments, sweep, loaded)))
            return end.code
        file = on_main(processes, lambda: _records(out, loaded))
        end.begin_work()
        with ExitStack() as stack:
            on_main(processes, lambda: stack.enter_context(locked_folder(out)))
            on_main(processes, lambda: write_names(out, loaded))
            with gpu_settings_for(arguments, sweep.device):
                if arguments.suite is not None:
                    end.code = measure_card.make(arguments, sweep, loaded.subjects, file, processes)
                else:
                    records = sweeps.run(sweep, loaded.subjects, file, processes)
                    on_main(processes, lambda: _show(records, file, out, as_json=arguments.json))
                if folder := arguments.save_images:
                    on_main(processes, lambda: save_images(sweep, loaded.subjects, folder, arguments.first))
    return end.code


def _prepare(arguments: argparse.Namespace, processes: Processes) -> tuple[Sweep, LoadedModels]:
    """Load the models and images; every mistake in the command is found here, before any work is done."""
    require("matplotlib", extra="evaluate")
    if arguments.download and not processes.alone:
        raise ValueError("--download is for one process: run the command once without torchrun, or fetch the files")
    if arguments.until is not None and not processes.alone:
        raise ValueError("--until is for one process, since each batch decides whether another one is drawn")
    device = devices.resolve(device_name(arguments.device, processes))
    if device.type == "cuda" and not processes.alone:
        torch.cuda.set_device(device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    loaded = load_subjects(arguments.models, arguments)
    sweep = create_sweep(arguments, loaded, device, default_limit=None, early_stop=arguments.early_stop)
    return sweep, loaded


def _plan(arguments: argparse.Namespace, sweep: Sweep, loaded: LoadedModels) -> str:
    """What would be measured, for --dry-run."""
    if arguments.json:
        return plan_json(sweep, loaded.subjects, arguments.out)
    return describe_plan(sweep, loaded.subjects, arguments.out, may_stop=arguments.until is not None)


def _records(out: Path, loaded: LoadedModels) -> RecordFile[Record]:
    """Open the folder's records."""
    make_folder(out)
    file = RecordFile(out / "robustness.jsonl", Record)
    check_names(out, loaded, [(record.model, record.checkpoint) for record in file.records])
    return file


def _show(records: Sequence[Record], file: RecordFile[Record], out: Path, *, as_json: bool) -> None:
    """Print tables of the command's attacks; write tables and figures of all records that fit beside them."""
    together, left_out = select_comparable(records, file.records)
    attacked = {record.attack for record in records}
    for attack, table in robustness_tables(together).items():
        if attack in attacked and not as_json:
            print_table(table)
    attacks = {record.attack for record in file.records} - {CLEAN}
    possible = [*(_table(out, attack) for attack in attacks), *(_figure(out, top) for top in (1, 5))]
    written = _write(together, out)
    now = next((record for record in records if may_stop_early(record.attack)), records[0])
    report_files(file, written, possible, now, left_out, say=not as_json)
    if as_json:
        print_json(records, [file.path, *written])
    else:
        _point_to_report(together, out)


def _point_to_report(records: Sequence[Record], out: Path) -> None:
    """Say how to see several attacks together, whichever commands measured them."""
    if len({record.attack for record in records} - {CLEAN}) > 1:
        command = printable(shlex.join(["fastadv", "report", str(out)]))
        print(f"all attacks and the worst case per image in one table: {command}")


def _write(records: Sequence[Record], out: Path) -> list[Path]:
    """Write tables and figures below ``out``."""
    paths = []
    for attack, table in robustness_tables(records).items():
        paths += save_table(table, _table(out, attack))
    paths += save_figure(robustness_figure(records), _figure(out, 1))
    if at_top5 := with_top5(records):
        paths += save_figure(robustness_figure(at_top5, top=5), _figure(out, 5))
    return paths


def _table(out: Path, attack: str) -> Path:
    return out / "tables" / f"robustness-{re.sub('[:/]', '-', attack)}"  # an attack of one's own may have a path


def _figure(out: Path, top: int) -> Path:
    return out / "figures" / f"robustness-top{top}"
