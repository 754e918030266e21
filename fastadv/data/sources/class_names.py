"""Class names: read classes.txt, and warn of folder names that are easily misunderstood."""

from __future__ import annotations

import codecs
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import few

CLASSES_FILE = "classes.txt"  # beside the splits
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def named_classes(root: Path) -> tuple[str, ...]:
    """Read the class names in classes.txt, in order; empty if there is no such file.

    Whitespace around a name and blank lines at the end are ignored. The encoding is UTF-8, with or without a byte order
    mark, or UTF-16 with one, as Windows writes; bytes that are not UTF-8 stand for themselves, as in folder names.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not text, names no class, or a line before the last name is blank, which would change the
            numbers of the classes after it.
    """
    file = root / CLASSES_FILE
    if not os.path.lexists(file):  # a broken link is an error: without the file, classes would be numbered differently
        return ()
    content = read_regular(file)
    try:
        is_utf_16 = content.startswith(_UTF_16)
        text = content.decode("utf-16") if is_utf_16 else content.decode("utf-8-sig", "surrogateescape")
        if "\0" in text:
            raise ValueError("it has null characters")
    except ValueError as error:
        raise ValueError(
            f"{file} is not text, or not in UTF-8 ({error}): save it as UTF-8, one class per line"
        ) from error
    names = [line.strip(" \t\r") for line in text.rstrip(" \t\r\n").split("\n")]
    if names == [""]:
        raise ValueError(f"{file} names no class: write all class names there, one per line, or remove it")
    if "" in names:
        raise ValueError(f"{file}: line {names.index('') + 1} is blank, but every line must name a class")
    return tuple(names)


def similar_names(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ only in case, or in the Unicode form of accents.

    Some file systems distinguish such names and others do not: copying a data set between them changes its classes.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def similar_names_hint(names: Iterable[str]) -> str:
    """Hint for names that were not found among others; empty if none are similar."""
    groups = similar_names(sorted(names))
    return f"; these differ only in case or in the Unicode form of accents: {_listed(groups)}" if groups else ""


def similar_names_warning(names: Iterable[str]) -> str | None:
    """Warning about classes that may be meant to be one; None if there are none."""
    groups = similar_names(sorted(names))
    if not groups:
        return None
    return (
        f"class folders that differ only in case or in the Unicode form of accents are separate classes: "
        f"{_listed(groups)}"
    )


def numeric_names_warning(names: Sequence[str]) -> str | None:
    """Warning about folders with numeric names whose alphabetical order is not the numeric one; None otherwise.

    Args:
        names: class names, in the order of the labels.
    """
    if not all(name.isascii() and name.isdigit() for name in names):
        return None
    by_number = sorted(names, key=int)
    moved = next((name for name, other in zip(names, by_number, strict=True) if name != other), None)
    if moved is None:
        return None
    return (
        f"the class folders are numbers, and classes are sorted alphabetically, so {moved} is "
        f"class {names.index(moved)}. For weights with numeric order, list all classes in that order in {CLASSES_FILE} "
        f"beside train/ and val/, one per line (ls train | sort -n > {CLASSES_FILE})"
    )


def _listed(groups: Sequence[Sequence[str]]) -> str:
    """Escaped to ASCII, because names that differ in form alone look the same."""
    return few([" and ".join(map(ascii, group)) for group in groups], most=3)
