"""Tables made from records, and their form as Markdown, CSV, JSON, HTML and on a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fastadv.attacks import get as attack_class
from fastadv.attacks import names as attack_names
from fastadv.attacks.base import ball_of
from fastadv.evaluate.hits import FEWEST_CLASSES_FOR_TOP5
from fastadv.evaluate.html import html_table
from fastadv.evaluate.intervals import Proportion, proportion
from fastadv.evaluate.records import CLEAN, Record
from fastadv.utils.optional_deps import require
from fastadv.utils.text import counted, printable

if TYPE_CHECKING:
    import rich.table

    from fastadv.evaluate.transfer import TransferRecord

Measured = TypeVar("Measured", Record, "TransferRecord")
Cell = str | Proportion | None  # None: not measured
_WIDEST_LABEL = 24  # characters: a longer word in a column of labels is broken on a terminal
_FORMULAS = ("=", "+", "-", "@")  # with which a spreadsheet's formulas begin

INTERVALS = "In brackets the 95 % confidence interval, Wilson's."  # a note for tables with a Proportion


@dataclass(frozen=True)
class Table:
    """A table with its caption and the notes below it; the first ``labels`` columns hold text, the others numbers.

    ``bold`` has the (row, column) of cells that stand out, such as the best of a column. ``about`` has what holds for
    the whole table, such as ("Attack", "fgsm"): CSV gives each a column.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()
    about: tuple[tuple[str, str], ...] = ()

    def _repr_html_(self) -> str:
        return html_table(self.header, display_rows(self), labels=self.labels, caption=self.caption, notes=self.notes)


# --- records to tables -----------------------------------------------------------------------------------------------


def robustness_tables(records: Sequence[Record]) -> dict[str, Table]:
    """Make a table for each attack, laid out as the paper's Tables 1 and 2: clean accuracy, then accuracy at each eps.

    Args:
        records: of any number of models and attacks on the same images, in the order in which rows are to appear.

    Returns:
        The tables by the name of the attack.

    Raises:
        ValueError: if records are of different images, or two are for one cell.
    """
    check_same_images(records, attrgetter("model"))
    attacks = dict.fromkeys(record.attack for record in records if record.attack != CLEAN)
    return {attack: _robustness_table(attack, records_under(attack, records)) for attack in attacks}


def records_under(attack: str, records: Sequence[Record]) -> list[Record]:
    """Select the records of an attack, and the clean ones of the models that were attacked by it."""
    attacked = {record.model for record in records if record.attack == attack}
    return [r for r in records if r.attack == attack or (r.attack == CLEAN and r.model in attacked)]


def check_same_images(records: Sequence[Measured], row: Callable[[Measured], str]) -> None:
    """Raise if these records cannot be compared because they are of different images.

    Args:
        records: accuracies, or transfers.
        row: returns the name of a record's row.

    Raises:
        ValueError: if two records differ; the message names them.
    """
    for record in records[1:]:
        if record.images != records[0].images:
            names = [f"{row(r)} ({data_set_of(r)} {r.split}, {counted(r.n, 'image')})" for r in (records[0], record)]
            raise ValueError(f"records of different images cannot share a table or a figure: {' and '.join(names)}")


def _robustness_table(attack: str, records: Sequence[Record]) -> Table:
    """The table of one attack from its records and the clean ones."""
    columns = [(CLEAN, 0.0), *((attack, eps) for eps in sorted({r.eps for r in records if r.attack == attack}))]
    cells = _by_cell(records)
    tops = (1, 5) if any(record.top5 is not None for record in records) else (1,)
    rows = [
        (model, f"top {top}", *(_accuracy(cells.get((model, *column)), top) for column in columns))
        for model in dict.fromkeys(record.model for record in records)
        for top in tops
    ]
    header = ("Model", "Metric", "Clean", *(f"eps = {eps:g}" for _, eps in columns[1:]))
    options = next((record.options for record in records if record.attack == attack), {})
    about = (("Attack", attack), *about_images(records[0]), ("Options", json.dumps(dict(options), sort_keys=True)))
    caption = f"Accuracy on {attack} adversarial images"
    return Table(caption, header, tuple(rows), labels=2, notes=_notes(records), about=about)


def _by_cell(records: Sequence[Record]) -> dict[tuple[str, str, float], Record]:
    cells: dict[tuple[str, str, float], Record] = {}
    for record in records:
        cell = (record.model, record.attack, record.eps)
        if cell in cells:
            raise ValueError(
                f"there are two records for {record.model}, {record.attack}, eps = {record.eps:g}: a model's name must "
                f"stand for one checkpoint, evaluated with one seed and one set of options"
            )
        cells[cell] = record
    return cells


def _accuracy(record: Record | None, top: int) -> Proportion | None:
    correct = None if record is None else record.top1 if top == 1 else record.top5
    return None if record is None or correct is None else proportion(correct, record.n)


def data_set_of(record: Record | TransferRecord) -> str:
    """The data set as tables name it: of images in files the folder, since "imagenet" is any set of image files."""
    return f"the folder {printable(record.folder)}" if record.folder else record.dataset


def images_of(record: Record | TransferRecord) -> str:
    """The images of a record: ``1,000 of the 10,000 test images of fashion_mnist``."""
    images = f"the {record.n:,}" if record.n == record.total else f"{record.n:,} of the {record.total:,}"
    return f"{images} {record.split} images of {data_set_of(record)}"


def about_images(record: Record | TransferRecord) -> tuple[tuple[str, str], ...]:
    """The images and the seed of a record, for columns of a CSV file."""
    data_set = record.folder or record.dataset
    return (("Data set", data_set), ("Split", record.split), ("n", str(record.n)), ("Seed", str(record.seed)))


def what_eps_is(records: Sequence[Record]) -> str:
    """Say what the eps of the records' attack bounds."""
    name, options = next((_named(record) for record in records if record.attack != CLEAN), (CLEAN, {}))
    text = "eps in pixel values of [0, 255]"
    if name != CLEAN and name not in attack_names():
        return f"{text}, as {printable(name)} bounds it."
    ball = _ball(name, options)
    if ball == "l2":
        return f"{text}: the L2 norm of the whole perturbation, not of a pixel."
    return f"{text}." if ball == "linf" else f"{text}, which {name} exceeds: it is made for training."


def norm_of(record: Record) -> str | None:
    """The norm that bounds the record's attack; of an attack of one's own, which may be gone, as its options say."""
    return _ball(*_named(record))


def _ball(name: str, options: Mapping[str, Any]) -> str | None:
    if name in attack_names():
        return ball_of(attack_class(name), options)
    return str(options.get("norm", "linf"))


def _named(record: Record) -> tuple[str, Mapping[str, Any]]:
    return record.attack.partition(":")[0], record.options


def _notes(records: Sequence[Record]) -> tuple[str, ...]:
    first = records[0]
    notes = [
        f"Over {images_of(first)}; {what_eps_is(records)}",
        INTERVALS,
        *notes_on_gradients(records),
        *note_on_shown([(record.model, record.space, record.shown) for record in records]),
    ]
    notes += _notes_on_judging(records)
    if all(record.top5 is None and not record.stops_early for record in records):
        notes.append(f"Top 5 is left out: {data_set_of(first)} has {counted(first.classes, 'class')}, fewer than six.")
    named = [{name: value for name, value in r.options.items() if name != "early_stop"} for r in records]
    options = {json.dumps(one, sort_keys=True) for one in named if one}
    return (*notes, *(f"Options of the attack: {text}." for text in sorted(options)))


def _notes_on_judging(records: Sequence[Record]) -> tuple[str, ...]:
    """Say which iterates of an attack the table is about, unless it is the last one, as in the paper."""
    stopping = {record.attack for record in records if record.stops_early and record.classes >= FEWEST_CLASSES_FOR_TOP5}
    judged = "An image counts as misclassified as soon as one iterate of the attack is, its start included."
    return (*((judged,) if any(record.any_iterate for record in records) else ()), *note_on_top5(stopping))


def note_on_top5(attacks: Iterable[str]) -> tuple[str, ...]:
    """A note below a table on attacks that stop early, so that top 5 means nothing under them."""
    names = ", ".join(sorted(map(printable, attacks)))
    return (f"Top 5 is left out under {names}: an image is left alone as soon as top 1 is wrong.",) if names else ()


def notes_on_gradients(records: Iterable[Any], attacked: str = "model") -> tuple[str, ...]:
    """Notes below a table on numbers that are unreliable because some images have no gradient.

    Args:
        records: of any kind.
        attacked: the field that names the attacked model.
    """
    lost = sorted((record for record in records if record.without_gradient), key=attrgetter("without_gradient"))
    worst = {getattr(record, attacked): record for record in lost}
    return tuple(
        f"{name}: the gradient is zero or not finite for {record.without_gradient:,} of {record.n:,} images (eps = "
        f"{record.eps:g}), so the attack does little or nothing to them, and it may look more robust than it is."
        for name, record in sorted(worst.items())
    )


def note_on_shown(shown: Iterable[tuple[str, str, str]]) -> tuple[str, ...]:
    """A note below a table on how images in files became the models' inputs; none for images in memory.

    Args:
        shown: for each record, the model, the PixelSpace of its input, and how its images were shown.
    """
    of_files = [one for one in dict.fromkeys(shown) if one[2]]
    spaces = {space: [model for model, other, _ in of_files if other == space] for _, space, _ in of_files}
    if not spaces:
        return ()
    inputs = "; ".join(spaces) if len(spaces) == 1 else "; ".join(f"{', '.join(m)}: {s}" for s, m in spaces.items())
    return (f"Images were shown at {'; '.join(dict.fromkeys(text for *_, text in of_files))}, in {inputs}.",)


# --- tables to text --------------------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """The table as GitHub Markdown: caption, table, notes."""
    rule = tuple("---" if i < table.labels else "---:" for i in range(len(table.header)))
    lines = [tuple(map(escape_markdown, table.header)), rule]
    for index, row in enumerate(display_rows(table)):
        cells = map(escape_markdown, row)
        lines.append(tuple(f"**{cell}**" if (index, i) in table.bold else cell for i, cell in enumerate(cells)))
    grid = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n\n".join([f"**{table.caption}**", "\n".join(grid), *table.notes]) + "\n"


def escape_markdown(text: str) -> str:
    """Text for a cell, escaped so that it cannot end the cell, or start an HTML element or a link."""
    text = printable(text).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("](", "]\\(")


def to_csv(table: Table) -> str:
    """The table as CSV, for programs to read; the names of columns in percent say so.

    After a column of proportions come the ends of Wilson's 95 % interval, and half the width of the normal
    approximation's, which the paper uses. The last columns are ``table.about``, the same in each row.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns: list[list[Cell]] = []
    for index, (name, *cells) in enumerate(zip(table.header, *table.rows, strict=True)):
        if index < table.labels:
            columns.append([name, *(None if cell is None else _escape_csv(str(cell)) for cell in cells)])
            continue
        if _is_text(cells):
            percent = any(isinstance(cell, str) and cell.endswith("%") for cell in cells)
            columns.append([_escape_csv(f"{name} (%)" if percent else name), *(_bare(cell) for cell in cells)])
            continue
        columns.append([_escape_csv(f"{name} (%)"), *(_percent(cell, "value") or _bare(cell) for cell in cells)])
        for part, what in (("low", "Wilson low"), ("high", "Wilson high"), ("half_width", "normal ±")):
            columns.append([_escape_csv(f"{name} {what} (%)"), *(_percent(cell, part) for cell in cells)])
    columns += [[_escape_csv(name), *[_escape_csv(text)] * len(table.rows)] for name, text in table.about]
    writer.writerows(zip(*columns, strict=True))
    return file.getvalue()


def _escape_csv(text: str) -> str:
    """Text for a cell, with an apostrophe before what a spreadsheet would take for a formula."""
    text = printable(text)
    return f"'{text}" if text.startswith(_FORMULAS) else text


def to_json(table: Table) -> str:
    """The table as JSON, for programs to read: a number is an object with the fields of :class:`Proportion`."""
    numbers = "fractions of 1: value, Wilson's 95 % interval from low to high, half_width of the paper's interval"
    content = {**asdict(table), "bold": sorted(table.bold), "about": dict(table.about), "numbers": numbers}
    if not table.about:
        del content["about"]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def to_rich(table: Table) -> rich.table.Table:
    """The table as an object for ``rich.print``; all of it is Text, since a name such as "[adv]" is not markup."""
    box, text, table_module = (require(f"rich.{name}", extra="evaluate") for name in ("box", "text", "table"))
    grid: rich.table.Table = table_module.Table(
        title=text.Text(printable(table.caption), "table.title"),
        caption=text.Text("\n".join(map(printable, table.notes)), "table.caption"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,  # so that the paper's tables fit 80 columns
        pad_edge=False,
    )
    rows = display_rows(table)
    for i, name in enumerate(table.header):
        shown = text.Text(printable(name))  # Text: a name such as "[adv]" is not markup
        if i < table.labels:
            longest = max(len(word) for cell in (name, *(row[i] for row in rows)) for word in (cell.split() or [""]))
            grid.add_column(shown, overflow="fold", min_width=min(longest, _WIDEST_LABEL))
            continue
        words = [word for cell in (name, *(row[i] for row in rows)) for word in cell.split()]
        grid.add_column(shown, justify="right", min_width=max(map(len, words)))  # no number is cut
    for row in rows:
        grid.add_row(*map(text.Text, row))
    return grid


def save_table(table: Table, stem: Path) -> list[Path]:
    """Write ``stem``.md, .csv and .json, with the folders above them; returns the paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = []
    for suffix, render in ((".md", to_markdown), (".csv", to_csv), (".json", to_json)):
        paths.append(stem.with_name(stem.name + suffix))  # with_suffix would cut a name at its last dot
        paths[-1].write_text(render(table), encoding="utf-8", errors="backslashreplace")
    return paths


def display_rows(table: Table) -> list[tuple[str, ...]]:
    """Rows as printable text; a first cell equal to the one above it is left blank, as in the paper."""
    above = [None, *(row[0] for row in table.rows)]
    return [
        ("" if row[0] == first else _displayed(row[0]), *map(_displayed, row[1:]))
        for first, row in zip(above, table.rows, strict=False)
    ]


def _displayed(cell: Cell) -> str:
    return "-" if cell is None else printable(str(cell))


def _is_text(cells: Sequence[Cell]) -> bool:
    """True if a column has measured cells and all of them are text."""
    measured = [cell for cell in cells if cell is not None]
    return bool(measured) and all(isinstance(cell, str) for cell in measured)


def _percent(cell: Cell, part: str) -> str:
    """A field of a proportion in percent; "" for other cells."""
    return f"{100 * getattr(cell, part):.4f}" if isinstance(cell, Proportion) else ""


def _bare(cell: Cell) -> str:
    """Text without its percent sign; "" for other cells."""
    return printable(cell).removesuffix("%") if isinstance(cell, str) else ""
