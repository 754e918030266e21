"""Records that are kept compressed beside the file that new ones are appended to."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fastadv.evaluate import Record, RecordFile, read_records

MakeRecord = Callable[..., Record]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def compress(path: Path) -> Path:
    """What ``gzip FILE`` does."""
    compressed = path.with_name("records.jsonl.gz")
    compressed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return compressed


def test_compressed_records_come_first_and_new_ones_go_beside_them(make_record: MakeRecord, path: Path) -> None:
    clean, attacked = make_record("adv", "clean", 0.0, 900, 990), make_record("adv", "step_ll", 2.0, 500, 700)
    RecordFile(path, Record).append(clean)
    compressed = compress(path)
    before = compressed.read_bytes()
    assert read_records(path, Record) == [clean]

    file = RecordFile(path, Record)
    assert file.find(clean.key) == clean
    again = replace(clean, top1=901)
    for record in (attacked, again):
        file.append(record)
    assert compressed.read_bytes() == before
    assert path.read_text().count("\n") == 2
    assert read_records(path, Record) == RecordFile(path, Record).records == [clean, attacked, again]
    assert RecordFile(path, Record).find(clean.key) == again


def test_a_torn_line_is_dropped_beside_compressed_records(make_record: MakeRecord, path: Path) -> None:
    first, second = make_record("adv", "clean", 0.0, 900, 990), make_record("adv", "step_ll", 2.0, 500, 700)
    RecordFile(path, Record).append(first)
    compress(path)
    RecordFile(path, Record).append(second)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"model": "ad')
    assert RecordFile(path, Record).records == [first, second]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-12], lambda content: b"not gzip", lambda content: b"\x1f"]
)
def test_a_damaged_compressed_file_is_named(
    make_record: MakeRecord, path: Path, damage: Callable[[bytes], bytes]
) -> None:
    RecordFile(path, Record).append(make_record("adv", "clean", 0.0, 900, 990))
    compressed = compress(path)
    compressed.write_bytes(damage(compressed.read_bytes()))
    with pytest.raises(ValueError, match=r"records\.jsonl\.gz cannot be decompressed"):
        read_records(path, Record)


def test_a_spoilt_line_is_named_with_its_file(make_record: MakeRecord, path: Path) -> None:
    RecordFile(path, Record).append(make_record("adv", "clean", 0.0, 900, 990))
    path.write_bytes(path.read_bytes() + b'{"model": 1}\n')
    compress(path)
    with pytest.raises(ValueError, match=r"records\.jsonl\.gz, line 2 is not a Record"):
        RecordFile(path, Record)
