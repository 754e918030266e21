"""Names that others chose: printed on one line, obeyed by no terminal, and text to whatever reads the results."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastadv import data
from fastadv.cli import main
from fastadv.cli.measure_transfer import _pair
from fastadv.cli.model_specs import _names, _spaces
from fastadv.cli.warning_lines import warning_lines
from fastadv.evaluate.figures import draw_line, legend_below, panels_of, save_figure
from fastadv.evaluate.intervals import proportion, wilson
from fastadv.evaluate.tables import Table, save_table, to_csv, to_markdown, to_rich
from fastadv.models.known_input import KnownInput
from fastadv.models.specs import ModelSpec
from fastadv.pixels import PixelSpace
from fastadv.utils.log import log_to_stderr, logger
from fastadv.utils.text import few, printable, printable_lines
from tests.data.pictures import jpeg, write_folder

LONE_BYTE = os.fsdecode(b"c\xff")
HOSTILE = ("a\x1b]0;title\x07", "b\nsecond line: 100 %\r", LONE_BYTE, "d\u202egnp.exe", "e\x9b2J")
SHOWN = (r"a\x1b]0;title\x07", r"b\nsecond line: 100 %\r", r"c\xff", r"d\u202egnp.exe", r"e\x9b2J")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *zip(HOSTILE, SHOWN, strict=True),
        ("n01440764_10026.JPEG", "n01440764_10026.JPEG"),
        ("Stra\u00dfe, \u6771\u4eac, \U0001f600", "Stra\u00dfe, \u6771\u4eac, \U0001f600"),
        ("\ud800", r"\ud800"),
        ("tab\t", r"tab\t"),
        ("", ""),
    ],
)
def test_by_hand(name: str, shown: str) -> None:
    assert printable(name) == shown


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=30), st.text(max_size=30))
def test_whatever_a_file_is_called(name: bytes, text: str) -> None:
    for one in (os.fsdecode(name), text):
        assert printable(one).isprintable()
        printable(one).encode("utf-8")
        assert printable(printable(one)) == printable(one)
        assert printable_lines(one).count("\n") == one.count("\n")
        assert few([one]) == printable(one)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders of such names, with an image each and a bad one."""
    for split in ("train", "val"):
        write_folder(tmp_path / split, {name: [jpeg(8, 8), b"no image"] for name in HOSTILE})
        (tmp_path / split / HOSTILE[0] / "\x1b[2J.jpg\n.\x1b[m").touch()
    return tmp_path


def test_the_check_prints_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(root)]) == 1
    out = capsys.readouterr().out
    lines = out.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    said = [f"{root}/{split}/{name}/001.JPEG: not an image in" for split in ("train", "val") for name in sorted(SHOWN)]
    assert [line.partition(" a supported format")[0] for line in lines if "JPEG" in line] == said
    assert sum(r"by their names: 1 .\x1b[m" in line for line in lines) == 2 and len(lines) == len(said) + 2 + 1


def test_the_check_prints_letters_that_the_terminal_lacks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "val" / HOSTILE[0] / "caf\u00e9.jpg").touch()
    terminal = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(terminal, "ascii", write_through=True))
    assert main(["data", "check", str(root)]) == 1
    assert rb"caf\xe9.jpg: the file is empty" in terminal.getvalue()


def test_warnings_and_errors_print_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "check", str(root)])
    (root / "val" / HOSTILE[1]).rename(root / "val" / "other\x1b")
    capsys.readouterr()
    assert main(["data", "check", str(root)]) == 2
    (root / "val" / "other\x1b").rename(root / "val" / HOSTILE[1])
    with warning_lines("fastadv"), log_to_stderr():
        data.load("imagenet", root)
        warnings.warn(f"two lines, {HOSTILE[0]}\nof which", stacklevel=1)
        logger.info("listing %s", HOSTILE[0])
    lines = capsys.readouterr().err.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines) and len(lines) == 1 + 2 + 2 + 1
    assert lines[0].endswith(r"train/ lacks other\x1b; val/ lacks b\nsecond line: 100 %\r")
    assert lines[-2:] == ["of which", f"listing {SHOWN[0]}"]


def test_an_image_is_named_as_it_can_be_printed(root: Path) -> None:
    source = data.scan(root)["train"]
    assert all(source.name(index).isprintable() for index in range(len(source)))
    assert {source.classes[label] for label in source.labels.tolist()} == set(HOSTILE)  # the names themselves stand


def test_names_of_rows_are_found_by_options_as_they_were_given() -> None:
    """They are shown as they can be printed, in records, tables and figures alike."""
    named = ModelSpec("small_cnn@gone.pth", HOSTILE[0], Path("gone.pth"), "small_cnn")
    names = _names([named], {})
    assert names[named] == SHOWN[0]
    known = {names[named]: KnownInput(source="a test")}
    assert _spaces([f"{HOSTILE[0]}=unit"], known, 3) == {SHOWN[0]: PixelSpace.unit()}
    assert _pair(f"{HOSTILE[0]}:{HOSTILE[2]}", SHOWN) == (SHOWN[0], SHOWN[2])


# --- tables and figures ----------------------------------------------------------------------------------------------

FORMULAS = ("=1+1", "-2", "@x", "+y")
NAMES = (*HOSTILE, "pipe|d", r"back\slash|", "<script>", "[a](javascript:b)", *FORMULAS, "$x$ and $y", "_z")


@pytest.fixture
def table() -> Table:
    rows = tuple((name, proportion(1, 2)) for name in NAMES)
    return Table("Caption [bold]", ("Model", HOSTILE[0]), rows, notes=("A [/note].",))


def test_markdown_keeps_its_cells(table: Table) -> None:
    _, grid, _ = to_markdown(table).removesuffix("\n").split("\n\n")
    head, _, *rows = grid.split("\n")
    assert len(rows) == len(NAMES) and all(line.isprintable() and line.endswith(" |") for line in (head, *rows))
    cells = [row[2:-2].rpartition(" | ")[0] for row in rows]
    assert cells[5:9] == [r"pipe\|d", r"back\\slash\|", "&lt;script>", r"[a]\(javascript:b)"]
    assert cells[2] == r"c\\xff"


def test_csv_holds_no_formula(table: Table) -> None:
    head, *rows = csv.reader(io.StringIO(to_csv(table)))
    assert head == ["Model", *(f"{SHOWN[0]}{what} (%)" for what in ("", " Wilson low", " Wilson high", " normal ±"))]
    names = [name for name, *_ in rows]
    assert names[:5] == list(SHOWN) and names[9:13] == [f"'{name}" for name in FORMULAS]
    assert {tuple(numbers) for _, *numbers in rows} == {("50.0000", "9.4529", "90.5471", "69.2965")}


def test_all_can_be_written_and_shown(table: Table, tmp_path: Path) -> None:
    markdown, _, as_json = save_table(table, tmp_path / "table")
    assert r"\xff" in markdown.read_text(encoding="utf-8")
    assert [row[0] for row in json.loads(as_json.read_text(encoding="utf-8"))["rows"]][-1] == "_z"
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=200)
    console.print(to_rich(table))
    shown = console.file.getvalue()
    assert all(text in shown for text in ("[bold]", "[/note]", "[a](javascript:b)")) and "\x1b" not in shown


def test_a_figure_shows_names_as_they_are(tmp_path: Path) -> None:
    """Matplotlib takes dollars for formulas, and its legend leaves out names that begin with an underscore."""
    names = (HOSTILE[0], "<script>", "$x$ and $y", "_z")
    figure, (axes,) = panels_of(1, lines=len(names))
    for place, name in enumerate(names):
        draw_line(axes, name, [(1.0, wilson(1, 2))], place, len(names))
    legend_below(figure, [axes])
    svg, _ = save_figure(figure, tmp_path / "figure")
    drawn = svg.read_text(encoding="utf-8")
    assert all(text in drawn for text in (">$x$ and $y<", "> _z<", "&lt;script&gt;", r"a\x1b]0;title\x07"))


def test_another_logger_gets_messages_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fastadv"):
        logger.info("listing %s", "a\tb")
    assert caplog.messages == ["listing a\tb"]
