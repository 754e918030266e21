"""One report from all records of a folder: tables, a figure and a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar

from fastadv.evaluate.all_attacks import all_attacks_table
from fastadv.evaluate.attack_specs import may_stop_early
from fastadv.evaluate.figures import robustness_figure, save_figure
from fastadv.evaluate.folder import select_comparable
from fastadv.evaluate.pages import html_page, inline_svg, table_html
from fastadv.evaluate.records import CLEAN, Record, read_records
from fastadv.evaluate.tables import Table, images_of, save_table, to_markdown
from fastadv.evaluate.transfer import TransferRecord
from fastadv.evaluate.transfer_tables import MEASURES, transfer_table
from fastadv.utils.text import printable

_NAMES = {"robustness.jsonl": Record, "transfer.jsonl": TransferRecord}
R = TypeVar("R", Record, TransferRecord)


@dataclass(frozen=True)
class Part:
    """What was measured on the same images, with the same seed and the same weights.

    Args:
        title: the images, the seed, and how attacks are judged if by the last iterate alone.
        tables: by the names of their files.
        records: that the figure shows; none for transfer.
    """

    title: str
    tables: dict[str, Table]
    records: list[Record]


def has_records(folder: Path) -> bool:
    """True if a folder, or one in it, has records of ``fastadv evaluate`` or ``fastadv transfer``."""
    return any(_files(folder, name) for name in _NAMES)


def collect_parts(folder: Path) -> list[Part]:
    """Collect what the records of a folder, and of those in it, can show; the latest first.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if records cannot be read.
    """
    parts = []
    for number, records in enumerate(_comparable(_read(folder, "robustness.jsonl", Record))):
        suffix = f"-{number + 1}" if number else ""
        tables = {f"all-attacks{suffix}": all_attacks_table(records)}
        drawn = [] if all(record.attack == CLEAN for record in records) else records
        parts.append(Part(_title(records[0]) + _judging(records), tables, drawn))
    for number, shown in enumerate(_comparable(_read(folder, "transfer.jsonl", TransferRecord))):
        suffix = f"-{number + 1}" if number else ""
        sizes = sorted({record.eps for record in shown})
        tables = {
            f"all-transfer-{measure}-eps-{eps:g}{suffix}": transfer_table(shown, measure=measure, eps=eps)
            for measure in MEASURES
            for eps in sizes
        }
        parts.append(Part(f"Transfer: {_title(shown[0])}", tables, []))
    return parts


def write_report(parts: Sequence[Part], folder: Path) -> list[Path]:
    """Write report.html, report.md, tables and figures below a folder; returns their paths.

    Raises:
        OSError: if a file cannot be written.
    """
    title = f"Evaluations in {printable(folder.resolve().name)}"
    html, markdown, paths = [f"<h1>{escape(title)}</h1>"], [f"# {title}"], []
    for number, part in enumerate(parts):
        html.append(f"<h2>{escape(part.title)}</h2>")
        markdown.append(f"## {part.title}")
        for name, table in part.tables.items():
            paths += save_table(table, folder / "tables" / name)
            html.append(table_html(table))
            markdown.append(to_markdown(table).rstrip())
        if part.records:
            stem = folder / "figures" / f"all-attacks{f'-{number + 1}' if number else ''}"
            figure = robustness_figure(part.records)
            paths += save_figure(figure, stem)
            html.append(f"<figure>{inline_svg(figure, stem.name)}</figure>")
            markdown.append(f"![{part.title}](figures/{stem.name}.svg)")
    pages = {"report.html": html_page(title, html), "report.md": "\n\n".join(markdown) + "\n"}
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    return [*paths, *(folder / name for name in pages)]


def _files(folder: Path, name: str) -> list[Path]:
    """Files of records of this name, also compressed ones, as the paths that :func:`read_records` takes."""
    found = [*folder.glob(f"{name}*"), *folder.glob(f"*/{name}*")]
    return sorted({path.with_name(name) for path in found if path.name in (name, f"{name}.gz")})


def _read(folder: Path, name: str, kind: type[R]) -> list[R]:
    return [record for path in _files(folder, name) for record in read_records(path, kind)]


def _comparable(records: list[R]) -> Iterable[list[R]]:
    """Yield groups of records that one table can show, that of the last record first.

    A record is in each group that it can be shown with: clean accuracy belongs to every way of judging an attack.
    """
    place = {record.key: number for number, record in enumerate(records)}
    left = records
    while left:
        chosen, _ = select_comparable([left[-1]], records)
        yield sorted(chosen, key=lambda record: place.get(record.key, len(records)))
        shown = {record.key for record in chosen}
        left = [record for record in left if record.key not in shown]


def _judging(records: Sequence[Record]) -> str:
    """What sets a part apart from one in which the same attacks are judged by any iterate."""
    by_last = any(may_stop_early(record.attack) and not record.any_iterate for record in records)
    return ", judged by the last iterate" if by_last else ""


def _title(record: Record | TransferRecord) -> str:
    return f"{images_of(record)}, seed {record.seed}"
