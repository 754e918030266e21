"""Builds attacks' docstrings: each shows every option of its class, though each option is described only once."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Container
from typing import Any

_ENTRY = re.compile(r"    (\w+)(?: \(default: .*?\))?: ")
_LAYOUT: dict[str, Any] = {
    **{"width": 112, "initial_indent": " " * 4, "subsequent_indent": " " * 8},
    **{"break_long_words": False, "break_on_hyphens": False},
}


def described(
    own: str | None, bases: list[str | None], signature: inspect.Signature, labels: str, leave_out: Container[str] = ()
) -> str:
    """Return a class's docstring with all of its options and a sentence on labels.

    Args:
        own: the docstring in the source; its ``Args`` describe options that are new or differ from the bases.
        bases: the docstrings of the bases, the most general first.
        signature: the class's; options are listed in its order, with its defaults.
        labels: the sentence.
        leave_out: names of options that the class does not accept.
    """
    text, _, rest = _parts(own)
    options = {name: words for doc in (*bases, own) for name, words in _parts(doc)[1].items()}
    entries = [
        textwrap.fill(f"{name}{_default(parameter)}: {options[name]}", **_LAYOUT)
        for name, parameter in signature.parameters.items()
        if name in options and name not in leave_out
    ]
    return "\n\n".join(part for part in (text, labels, "\n".join(["Args:", *entries]), rest) if part)


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is parameter.empty else f" (default: {parameter.default!r})"


def _parts(doc: str | None) -> tuple[str, dict[str, str], str]:
    """Split a docstring into the text before the ``Args`` section, the section's entries, and the text after it."""
    before, _, section = inspect.cleandoc(doc or "").partition("Args:\n")
    lines = section.splitlines()
    end = next((number for number, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    entries: dict[str, str] = {}
    name = ""
    for line in lines[:end]:
        if entry := _ENTRY.match(line):
            name = entry[1]
            entries[name] = line[entry.end() :]
        elif name and line:
            entries[name] += f" {line.strip()}"
    return before.strip(), entries, "\n".join(lines[end:]).strip()
