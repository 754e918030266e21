from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastadv import PixelSpace
from fastadv.evaluate import Record, RecordFile, TransferRecord, read_records, robustness_tables
from fastadv.evaluate.records import packed

MakeRecord = Callable[..., Record]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "records.jsonl"


def test_a_record_is_one_line_of_its_fields(make_record: MakeRecord, path: Path) -> None:
    record = make_record("adv", "step_ll", 2.0, 900, 990)
    RecordFile(path, Record).append(record)
    text = path.read_text()
    assert text.count("\n") == 1
    assert json.loads(text) == vars(record)


@pytest.mark.parametrize(
    ("hits", "text"),
    [
        ([True], "gA=="),
        ([False], "AA=="),
        ([True] * 7 + [False, True], "/oA="),
        ([False] * 16, "AAA="),
    ],
)
def test_which_images_were_correct_is_a_bit_each(make_record: MakeRecord, hits: list[bool], text: str) -> None:
    assert packed(np.array(hits)) == text
    record = make_record("adv", "clean", 0.0, sum(hits), n=len(hits), correct=text)
    assert record.hits.tolist() == hits


def test_a_record_of_a_version_that_counted_no_gradients_is_read(make_record: MakeRecord, path: Path) -> None:
    record = make_record("adv", "step_ll", 2.0, 900, 990)
    path.parent.mkdir()
    path.write_text(json.dumps({k: v for k, v in vars(record).items() if k != "without_gradient"}) + "\n")
    assert read_records(path, Record) == [record] and record.without_gradient is None


def test_records_come_back_in_order(make_record: MakeRecord, path: Path) -> None:
    records = [make_record("adv", "clean", 0.0, 950), make_record("adv", "step_ll", 2.0, 900, 990)]
    for record in records:
        RecordFile(path, Record).append(record)
    assert RecordFile(path, Record).records == records
    assert read_records(path, Record) == records


@pytest.mark.parametrize("torn", [b"{", b'{"model": "adv", "checkpo', b'{"a": 1}', b"\0\0\0", b"\xff"])
def test_a_torn_last_line_is_dropped_and_written_again(make_record: MakeRecord, path: Path, torn: bytes) -> None:
    first, second = make_record("adv", "clean", 0.0, 950), make_record("adv", "step_ll", 2.0, 900)
    RecordFile(path, Record).append(first)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)

    assert read_records(path, Record) == [first]
    assert path.read_bytes() == whole + torn  # reading alone mends nothing

    file = RecordFile(path, Record)
    assert path.read_bytes() == whole
    assert file.find(second.key) is None
    file.append(second)
    assert RecordFile(path, Record).records == [first, second]


@pytest.mark.parametrize("line", ["{", "[1]", '{"model": "adv"}', "", "3", "[" * 100_000])
def test_a_spoilt_line_is_named_and_kept(make_record: MakeRecord, path: Path, line: str) -> None:
    RecordFile(path, Record).append(make_record("adv", "clean", 0.0, 950))
    spoilt = path.read_text() + line + "\n" + path.read_text()
    path.write_text(spoilt)
    with pytest.raises(ValueError, match="line 2 is not a Record"):
        RecordFile(path, Record)
    assert path.read_text() == spoilt


def test_no_file_is_no_records_to_append_to_and_an_error_to_read(path: Path) -> None:
    assert RecordFile(path, Record).records == []
    assert not path.exists()
    with pytest.raises(FileNotFoundError, match=r"records\.jsonl"):
        read_records(path, Record)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"model": "another name"}, True),
        ({"eps": 2}, True),  # an int, where the record has 2.0
        ({"top1": 1, "top5": None, "seconds": 9.0, "device": "cuda", "versions": {}}, True),
        ({"checkpoint": "other"}, False),
        ({"space": "raw"}, False),
        ({"dataset": "mnist"}, False),
        ({"split": "train"}, False),
        ({"images": "other"}, False),
        ({"n": 999}, False),
        ({"attack": "iter_ll"}, False),
        ({"eps": 4.0}, False),
        ({"options": {"alpha": 2}}, False),
        ({"seed": 1}, False),
    ],
)
def test_what_makes_an_evaluation_another_one(
    make_record: MakeRecord, path: Path, change: dict[str, Any], same: bool
) -> None:
    record = make_record("adv", "step_ll", 2.0, 900, 990)
    file = RecordFile(path, Record)
    file.append(record)
    assert (file.find(replace(record, **change).key) == record) is same


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("top1", "950", "top1 cannot be '950'"),
        ("top1", True, "top1 cannot be True"),
        ("top1", -1, "impossible counts: -1 of 1000 images"),
        ("top1", 1001, "impossible counts: 1001 of 1000 images"),
        ("top5", 900, "impossible counts: 950, 900 of 1000 images"),
        ("n", 10**30, r"n cannot be 10{30}"),
        ("n", 0, "impossible counts: 950 of 0 images"),
        ("eps", None, "eps cannot be None"),
        ("eps", float("nan"), "eps cannot be nan"),
        ("options", [], r"options cannot be \[\]"),
        ("versions", {"torch": 2}, r"versions cannot be \{'torch': 2\}"),
        ("model", {}, "model cannot be"),
        ("more", 1, "there is no field 'more'"),
    ],
)
def test_values_that_no_evaluation_writes(
    make_record: MakeRecord, path: Path, field: str, value: Any, said: str
) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({**vars(make_record("adv", "clean", 0.0, 950)), field: value}) + "\n")
    with pytest.raises(ValueError, match=rf"line 1 is not a Record of this version of fastadv \({said}"):
        read_records(path, Record)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=80, deadline=None, database=None)
@given(changes=st.dictionaries(st.sampled_from([*Record.__dataclass_fields__, "more"]), JSON, min_size=1, max_size=2))
def test_any_values_are_a_record_or_a_line_that_names_it(
    changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is read can be shown: a table is made of it."""
    values = dict.fromkeys(Record.__dataclass_fields__, "a") | {"n": 9, "total": 9, "classes": 2, "seed": 0, "eps": 0.0}
    values |= {"attack": "fgsm", "options": {}, "versions": {}, "top1": 3, "top5": None, "seconds": 1.0, **changes}
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_text(json.dumps(values) + "\n")
    try:
        records = read_records(file, Record)
    except ValueError as error:
        assert str(error).startswith(f"{file}, line 1 is not a Record")
        return
    assert len(robustness_tables(records)) <= 1 and records[0].key


@pytest.mark.parametrize(
    ("attack", "space", "without_gradient", "valid"),
    [
        ("mi_fgsm", PixelSpace.imagenet(), None, False),
        ("mi_fgsm:decay=0.5", PixelSpace((1, 2), (60, 70)), None, False),
        ("mi_fgsm", PixelSpace.imagenet(), 0, True),
        ("mi_fgsm", PixelSpace((1, 2), (60, 60)), None, True),
        ("mi_fgsm", PixelSpace.unit(), None, True),
        ("pgd", PixelSpace.imagenet(), None, True),
    ],
)
def test_momentum_that_was_not_of_pixels_is_measured_again(
    make_record: MakeRecord,
    path: Path,
    caplog: pytest.LogCaptureFixture,
    attack: str,
    space: PixelSpace,
    without_gradient: int | None,
    valid: bool,
) -> None:
    record = make_record("adv", attack, 2.0, 900, space=str(space), without_gradient=without_gradient)
    RecordFile(path, Record).append(record)
    assert (RecordFile(path, Record).find(record.key) is not None) is valid
    assert read_records(path, Record) == [record] * valid
    assert ("1 record of mi_fgsm left out" in caplog.text) is not valid


def test_of_a_transfer_the_source_is_attacked(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = {"attack": "mi_fgsm", "eps": 2.0, "options": {}, "seed": 0, "dataset": "mnist", "split": "test"}
    made |= {"images": "a", "n": 9, "total": 9, "classes": 5, "top1": [2, 1, 3], "top5": None, "seconds": 1.0}
    made |= {"source": "a", "target": "b", "source_checkpoint": "a", "target_checkpoint": "b", "device": "cpu"}
    file, spaces = RecordFile(path, TransferRecord), [str(PixelSpace.unit()), str(PixelSpace.imagenet())]
    for one, other in (spaces, spaces[::-1]):
        file.append(TransferRecord(**made, source_space=one, target_space=other, versions={}))
    assert read_records(path, TransferRecord) == file.records[:1] and "1 record" in caplog.text


def test_records_are_read_from_files_alone() -> None:
    with pytest.raises(OSError, match="this is a device, not a regular file: '/dev/zero'"):
        read_records(Path("/dev/zero"), Record)


def test_a_file_says_how_many_records_it_has(make_record: MakeRecord, tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "a.jsonl", Record)
    assert repr(file) == f"RecordFile('{tmp_path}/a.jsonl', 0 records)"
    file.append(make_record("a", "fgsm", 8.0, 1))
    assert repr(file) == f"RecordFile('{tmp_path}/a.jsonl', 1 record)"


def test_a_length_that_the_images_do_not_have(make_record: MakeRecord) -> None:
    with pytest.raises(ValueError, match="does not say which of 1,000 images were correct"):
        _ = make_record("adv", "clean", 0.0, 3, correct="gA==").hits
