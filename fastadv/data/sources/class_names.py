"""The names of classes: those in classes.txt, and those of folders that are likely to be misunderstood."""

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
    """The classes that classes.txt names, in its order; none if it is not there.

    Blanks around a name do not count, nor do blank lines at the end. It is UTF-8, with or without a byte order mark, or
    UTF-16 with one, as Windows writes; bytes that are not UTF-8 are those of a folder's name.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not text, names no class, or a line before the last name is blank: the classes after it would
            have other numbers if it were passed over.
    """
    file = root / CLASSES_FILE
    if not os.path.lexists(file):  # a link that leads nowhere is an error: other classes would be counted
        return ()
    content = read_regular(file)
    try:
        is_utf_16 = content.startswith(_UTF_16)
        text = content.decode("utf-16") if is_utf_16 else content.decode("utf-8-sig", "surrogateescape")
        if "\0" in text:
            raise ValueError("it has null characters")
    except ValueError as error:
        raise ValueError(f"{file} is not text, or not in UTF-8 ({error}): save it as UTF-8, a class a line") from error
    names = [line.strip(" \t\r") for line in text.rstrip(" \t\r\n").split("\n")]
    if names == [""]:
        raise ValueError(f"{file} names no class: write the names of all classes there, a line each, or remove it")
    if "" in names:
        raise ValueError(f"{file}: line {names.index('') + 1} is blank; each line names a class, and counts")
    return tuple(names)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that differ by case alone, or by the way that Unicode writes accents.

    Some file systems keep such names apart and others do not: copying a data set between them changes its classes.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def hint_on_alike(names: Iterable[str]) -> str:
    """What may be behind names that are not among others; empty if it is not this."""
    groups = alike(sorted(names))
    return f"; by case or by Unicode's form of accents alone differ {_listed(groups)}" if groups else ""


def remark_on_alike(names: Iterable[str]) -> str | None:
    """That some classes may be one, by their names."""
    groups = alike(sorted(names))
    if not groups:
        return None
    return (
        f"class folders differ by case or by Unicode's form of accents alone, and are classes each: {_listed(groups)}"
    )


def remark_on_numbers(names: Sequence[str]) -> str | None:
    """That folders whose names are numbers are classes in the order of their names, where that is not the numbers'.

    Args:
        names: the classes, in the order of their labels.
    """
    if not all(name.isascii() and name.isdigit() for name in names):
        return None
    by_number = sorted(names, key=int)
    moved = next((name for name, other in zip(names, by_number, strict=True) if name != other), None)
    if moved is None:
        return None
    return (
        f"the class folders are numbers, and classes are counted in the order of their names, by which {moved} is "
        f"class {names.index(moved)}. For weights that count them by number, name all in that order in {CLASSES_FILE} "
        f"beside train/ and val/, a line each (ls train | sort -n > {CLASSES_FILE})"
    )


def _listed(groups: Sequence[Sequence[str]]) -> str:
    """In ASCII, since names that differ by form alone look the same."""
    return few([" and ".join(map(ascii, group)) for group in groups], most=3)
