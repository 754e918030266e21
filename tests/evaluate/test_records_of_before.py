"""Records of versions that did not write how images in files are shown: what goes on from them says it all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fastadv import PixelSpace, data
from fastadv.evaluate import (
    LeakRecord,
    Record,
    RecordFile,
    Subject,
    Sweep,
    TransferRecord,
    robustness_tables,
    run,
    run_leaking,
    run_transfer,
)
from fastadv.evaluate.folder import select_comparable
from fastadv.train import DataConfig
from tests.data.pictures import write_data_set

SHOWN = "8 px, bilinear, the central 0.875 of both sides"


def leaking(sweep: Sweep, subjects: list[Subject], file: RecordFile[LeakRecord]) -> list[LeakRecord]:
    return run_leaking(sweep, [("fgsm", "fgsm_pred")], subjects, file)


@pytest.mark.parametrize(("kind", "measure"), [(Record, run), (TransferRecord, run_transfer), (LeakRecord, leaking)])
def test_what_goes_on_says_how_images_are_shown(tmp_path: Path, kind: Any, measure: Callable[..., Any]) -> None:
    write_data_set(tmp_path, per_class=1, classes=2)
    config = DataConfig(name="imagenet", root=str(tmp_path), size=8, loader="torchvision", workers=0)
    images = data.load_test("imagenet", str(tmp_path), False)
    sweep = Sweep(dataset="imagenet", images=images, attacks=["fgsm"], eps=[8], data=config)
    subjects = [Subject("a", nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), PixelSpace.unit())]
    path = tmp_path / "records.jsonl"
    measured = measure(sweep, subjects, RecordFile(path, kind))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line.pop("shown") for line in lines} == {SHOWN}
    path.write_text(before := "".join(json.dumps(line) + "\n" for line in lines))
    assert measure(sweep, subjects, RecordFile(path, kind)) == measured
    assert path.read_text() == before  # nothing is measured or recorded again


def test_records_of_before_beside_those_of_now(make_record: Callable[..., Record]) -> None:
    now = [make_record("a", "fgsm", 8.0, 400, shown=SHOWN)]
    before = [make_record("b", "fgsm", 8.0, 500, space="symmetric"), make_record("b", "fgsm", 8.0, 1, images="others")]
    together, _ = select_comparable(now, [*before[::-1], *now])
    [table] = robustness_tables(together).values()
    assert f"Images were shown at {SHOWN}, in a: unit; b: symmetric." in table.notes
