"""TFRecord files: examples are read correctly, and errors name the example."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from fastadv.data.sources.shard_index import Entry
from fastadv.data.sources.tfrecord import IMAGE, LABEL, _entry, tfrecord_entries
from fastadv.data.sources.wire_format import Part
from tests.data.tfrecords import feature, field, record, varint

IMAGE_FEATURE = feature(IMAGE, b"pixels")
BYTES, FLOATS, INTEGERS = 1, 2, 3  # fields of Feature
VARINT, EIGHT_BYTES, FOUR_BYTES = 0, 1, 5  # wire types
UNKNOWN = varint(9 << 3 | EIGHT_BYTES) + bytes(8) + varint(9 << 3 | FOUR_BYTES) + b"half" + varint(9 << 3) + b"\x80\x01"


def named(name: str, *contents: bytes) -> bytes:
    """An entry of the map in Features, with these parts of its Feature."""
    return field(1, field(1, name.encode()) + b"".join(field(2, content) for content in contents))


def label(*integers: bytes) -> bytes:
    """A label feature of encoded integer lists."""
    return named(LABEL, b"".join(field(INTEGERS, integer) for integer in integers))


def packed(*values: int) -> bytes:
    return field(1, b"".join(map(varint, values)))


def unpacked(value: int) -> bytes:
    return varint(1 << 3) + varint(value)


def example(*features: bytes) -> bytes:
    return field(1, b"".join(features))


def read(message: bytes, before: bytes = b"", after: bytes = b"") -> Entry:
    file = io.BytesIO(before + message + after)
    return _entry(7, Part(file, len(before), len(before) + len(message)))


WAYS = {
    "packed": example(IMAGE_FEATURE, label(packed(5))),
    "label first": example(label(packed(5)), IMAGE_FEATURE),
    "unpacked": example(IMAGE_FEATURE, label(unpacked(5))),
    "parts of a list": example(IMAGE_FEATURE, label(packed(), packed() + unpacked(5) + packed(), b"")),
    "parts of a feature": example(IMAGE_FEATURE, named(LABEL, field(INTEGERS, packed()), field(INTEGERS, packed(5)))),
    "last of two kinds": example(
        IMAGE_FEATURE, named(LABEL, field(BYTES, field(1, b"a")) + field(INTEGERS, packed(5)))
    ),
    "last of two features": example(IMAGE_FEATURE, label(packed(1)), label(packed(5))),
    "parts of an example": example(IMAGE_FEATURE, label(packed(1))) + example(label(packed(5))),
    "image in parts": example(named(IMAGE, field(BYTES, b""), field(BYTES, field(1, b"pixels"))), label(packed(5))),
    "unknown fields": UNKNOWN + example(IMAGE_FEATURE, UNKNOWN, label(UNKNOWN + packed(5))) + field(9, b"\xff"),
    "value before name": example(
        field(1, field(2, field(INTEGERS, packed(5))) + field(1, LABEL.encode())), IMAGE_FEATURE
    ),
    "other features": example(IMAGE_FEATURE, label(packed(5)), field(1, field(1, b"x" * 10**6)), field(1, b"")),
    "longer than need be": example(IMAGE_FEATURE, label(field(1, b"\x85\x80\x00"))),
}


@pytest.mark.parametrize("message", WAYS.values(), ids=WAYS)
def test_every_way_to_write_an_example(message: bytes) -> None:
    entry = read(message, b"before")
    assert entry.key == "7" and entry.label == 5
    assert (b"before" + message)[entry.offset : entry.offset + entry.size] == b"pixels"
    assert of_protobuf(message) == (b"pixels", 5)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ([IMAGE_FEATURE, label(b"")], f"{LABEL} must have one value, got none"),
        ([IMAGE_FEATURE, label(field(1, b""))], f"{LABEL} must have one value, got none"),
        ([label(b""), IMAGE_FEATURE], f"{LABEL} must have one value, got none"),
        ([IMAGE_FEATURE, named(LABEL, b"")], f"{LABEL} must hold integers, got nothing"),
        ([IMAGE_FEATURE, named(LABEL)], f"{LABEL} must hold integers, got nothing"),
        ([IMAGE_FEATURE, label(packed(3, 4))], f"{LABEL} must have one value, got several"),
        ([IMAGE_FEATURE, label(unpacked(3) + unpacked(3))], f"{LABEL} must have one value, got several"),
        ([IMAGE_FEATURE, feature(LABEL, -1)], f"{LABEL} must be the number of a class, from 0, got -1"),
        (
            [IMAGE_FEATURE, feature(LABEL, 2**63 + 5)],
            f"{LABEL} must be the number of a class, from 0, got -{2**63 - 5}",
        ),
        ([IMAGE_FEATURE, label(field(1, b"\xff" * 9 + b"\x02"))], "a number .* has more than 64 bits"),
        ([IMAGE_FEATURE, label(field(1, b"\xff" * 2**21 + b"\x01"))], "has more than 64 bits"),
        ([IMAGE_FEATURE, label(field(1, b"\xff"))], "a number extends beyond its message"),
        ([IMAGE_FEATURE, label(varint(1 << 3 | FOUR_BYTES) + bytes(4))], "field 1 .* must be an integer"),
        ([IMAGE_FEATURE, feature(LABEL, b"cat")], f"{LABEL} must hold integers, got bytes"),
        ([IMAGE_FEATURE, feature(LABEL, 2.0)], f"{LABEL} must hold integers, got floating-point numbers"),
        (
            [IMAGE_FEATURE, named(LABEL, varint(INTEGERS << 3) + b"\x05")],
            "field 3 of a message must not be a number",
        ),
        ([feature(LABEL, 5), named(IMAGE, field(BYTES, b""))], f"{IMAGE} must have one value, got none"),
        (
            [feature(LABEL, 5), named(IMAGE, field(BYTES, field(1, b"1") + field(1, b"2")))],
            f"{IMAGE} must have one value, got several",
        ),
        ([feature(LABEL, 5), feature(IMAGE, 5)], f"{IMAGE} must hold bytes, got integers"),
        ([feature(LABEL, 5), feature("Image/encoded", b"")], f"no {IMAGE}"),
        (
            [IMAGE_FEATURE, field(1, field(1, LABEL.encode()) + field(9, b"") + field(2, b""))],
            "field 9 of a feature.s entry is neither",
        ),
        ([varint(1 << 3 | 3)], "a field has the unsupported wire type 3"),
        ([varint(1 << 3 | 2) + varint(2**63)], "a field extends beyond its message"),
    ],
)
def test_a_wrong_example_is_named(features: list[bytes], said: str, tmp_path: Path) -> None:
    """A label is never read from the bytes after it."""
    file = tmp_path / "some.tfrecord"
    file.write_bytes(record(example(IMAGE_FEATURE, label(packed(0)))) + record(example(*features)))
    with pytest.raises(ValueError, match=f"^{file}, example 1: .*{said}") as error:
        tfrecord_entries(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (feature("image/filename", b"a/b.JPEG"), "a/b.JPEG"),
        (feature("image/filename", "é.JPEG".encode("latin1")), "\udce9.JPEG"),
        (feature("image/filename", b"x" * 1025), "7"),
        (feature("image/filename", 5), "7"),
        (named("image/filename", field(BYTES, b"")), "7"),
        (feature("image/filename", b""), "7"),
    ],
)
def test_a_file_name_is_no_reason_to_refuse(name: bytes, key: str) -> None:
    assert read(example(name, IMAGE_FEATURE, label(packed(5)))).key == key


@pytest.mark.parametrize(("how", "pack"), [("gzip", gzip.compress), ("zlib", zlib.compress)])
def test_a_compressed_file_is_named_as_one(how: str, pack: Any, tmp_path: Path) -> None:
    file = tmp_path / "some.tfrecord"
    file.write_bytes(pack(record(example(IMAGE_FEATURE, label(packed(5))))))
    with pytest.raises(
        ValueError, match=rf"some.tfrecord is not a complete, uncompressed .*: it is compressed \({how}\)"
    ):
        tfrecord_entries(file)


@pytest.mark.parametrize("length", [0x088B1F, 0x9C78])
def test_a_length_that_looks_compressed_is_a_length(length: int, tmp_path: Path) -> None:
    """The first bytes of gzip and zlib, read as the length of a record."""
    file = tmp_path / "some.tfrecord"
    message = example(IMAGE_FEATURE, label(packed(5)))
    padding = field(9, bytes(length - len(message) - 4))
    file.write_bytes(record(message + padding))
    assert len(message + padding) == length
    assert [entry.label for entry in tfrecord_entries(file).entries] == [5]


# --- against protobuf's own reader -----------------------------------------------------------------------------------


def _example_class() -> Any:
    """tf.train.Example, created from a description."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto

    def add(message: Any, name: str, number: int, kind: int, of: str = "", repeated: bool = True) -> Any:
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        return message.field.add(name=name, number=number, type=kind, type_name=of or None, label=label)

    for name, kind in (
        ("BytesList", kinds.TYPE_BYTES),
        ("FloatList", kinds.TYPE_FLOAT),
        ("Int64List", kinds.TYPE_INT64),
    ):
        add(file.message_type.add(name=name), "value", 1, kind)
    one = file.message_type.add(name="Feature")
    one.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate((("b", ".BytesList"), ("f", ".FloatList"), ("i", ".Int64List")), start=1):
        add(one, name, number, kinds.TYPE_MESSAGE, of, repeated=False).oneof_index = 0
    features = file.message_type.add(name="Features")
    pair = features.nested_type.add(name="FeatureEntry")
    pair.options.map_entry = True
    add(pair, "key", 1, kinds.TYPE_STRING, repeated=False)
    add(pair, "value", 2, kinds.TYPE_MESSAGE, ".Feature", repeated=False)
    add(features, "feature", 1, kinds.TYPE_MESSAGE, ".Features.FeatureEntry")
    add(file.message_type.add(name="Example"), "features", 1, kinds.TYPE_MESSAGE, ".Features", repeated=False)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


EXAMPLE = _example_class()


def of_protobuf(message: bytes) -> tuple[bytes, int] | None:
    """Image and label; None unless the example has one of each."""
    features = EXAMPLE.FromString(message).features.feature
    if IMAGE not in features or LABEL not in features:
        return None
    image, label = features[IMAGE].b.value, features[LABEL].i.value
    return (image[0], label[0]) if len(image) == len(label) == 1 and label[0] >= 0 else None


integers = st.one_of(st.integers(-3, 300), st.integers(-(2**63), 2**63 - 1))
lists = st.one_of(
    st.lists(integers, max_size=3).map(lambda values: field(INTEGERS, packed(*values))),
    st.lists(integers, max_size=2).map(lambda values: field(INTEGERS, b"".join(map(unpacked, values)))),
    st.lists(st.binary(max_size=6), max_size=2).map(lambda v: field(BYTES, b"".join(field(1, one) for one in v))),
    st.lists(st.floats(width=32), max_size=2).map(lambda v: field(FLOATS, field(1, struct.pack(f"<{len(v)}f", *v)))),
)
contents = st.lists(st.lists(lists, max_size=2).map(b"".join), max_size=2)
names = st.sampled_from([IMAGE, LABEL, LABEL, "image/filename", "other"])
pairs = st.one_of(
    st.builds(lambda name, content: named(name, *content), names, contents),
    st.sampled_from([IMAGE_FEATURE, IMAGE_FEATURE, UNKNOWN]),
    st.integers(0, 2**40).map(lambda number: feature(LABEL, number)),
)
messages = st.lists(st.lists(pairs, max_size=5).map(lambda some: example(*some)), max_size=2).map(b"".join)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Change, remove or add some bytes of a message."""
    message = bytearray(draw(messages))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(message)))
        message[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(message)


@settings(deadline=None)
@given(messages)
def test_messages_mean_what_protobuf_reads(message: bytes) -> None:
    expected = of_protobuf(message)
    try:
        entry = read(message)
    except ValueError:
        assert expected is None
        return
    assert (message[entry.offset : entry.offset + entry.size], entry.label) == expected


@settings(deadline=None)
@given(mutated(), st.binary(max_size=20), st.binary(max_size=20))
def test_damaged_messages_mean_nothing_else(message: bytes, before: bytes, after: bytes) -> None:
    """A message has the same meaning, or none, whatever surrounds it."""
    try:
        entry = read(message, before, after)
    except ValueError:
        with pytest.raises(ValueError):
            read(message)
        return
    assert entry._replace(offset=entry.offset - len(before)) == read(message)
    assert len(before) <= entry.offset and entry.offset + entry.size <= len(before) + len(message)
    try:
        expected = of_protobuf(message)
    except DecodeError:  # of a feature that is not read here, or a name that is no UTF-8
        return
    assert (message[entry.offset - len(before) :][: entry.size], entry.label) == expected


@settings(deadline=None)
@given(st.binary(max_size=100), st.integers(0, 3))
def test_bytes_are_no_file(tmp_path_factory: pytest.TempPathFactory, content: bytes, records: int) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzzed.tfrecord"
    file.write_bytes(record(example(IMAGE_FEATURE, label(packed(5)))) * records + content)
    try:
        assert len(tfrecord_entries(file).entries) == records and not content
    except ValueError as error:
        assert str(error).startswith(str(file)) and "\n" not in str(error)
