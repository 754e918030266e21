"""Attacks on a page: signature and docstring show the options that a class adds; ``help()`` shows all that it takes."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import stringify_signature

from fastadv.attacks import Attack, GradientAttack

_ENTRY = re.compile(r"    (\w+)(?: \(default: .*?\))?: ")


def shorten(app: Sphinx, kind: str, name: str, attack: object, options: object, lines: list[str]) -> None:
    """Leave out defaults, which the signature shows, and the options of a base class that has its own entry."""
    if not (isinstance(attack, type) and issubclass(attack, Attack)):
        return
    bases = _documented_bases(attack)
    described = {entry for base in bases for entry in _entries(inspect.cleandoc(base.__doc__ or "").splitlines())}
    kept = [_without_default(entry) for entry in _entries(lines) if entry not in described]
    start = lines.index("Args:")
    end = start + 1 + sum(len(entry) for entry in _entries(lines))
    link = [f"Takes the options of :class:`{bases[0].__name__}`{' as well' if kept else ''}.", ""] if bases else []
    own = ["Args:", *(line for entry in kept for line in entry), ""] if kept else []
    lines[start:end] = [*link, *own]


def shorten_signature(
    app: Sphinx, kind: str, name: str, attack: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write ``**options`` for the options of a base class that has its own entry."""
    if not (isinstance(attack, type) and issubclass(attack, Attack)) or not (bases := _documented_bases(attack)):
        return signature, returns
    model, *own = inspect.signature(attack).parameters.values()
    inherited = inspect.signature(bases[0]).parameters
    others = inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)
    shown = inspect.Signature([model, *(one for one in own if one.name not in inherited), others])
    return stringify_signature(shown, unqualified_typehints=True), returns


def _documented_bases(attack: type[Attack]) -> list[type[Attack]]:
    """The bases whose options are described in their own entries, the nearest first."""
    return [base for base in (GradientAttack, Attack) if attack is not base and issubclass(attack, base)]


def _entries(lines: list[str]) -> list[tuple[str, ...]]:
    """Those of the section ``Args``, each as its lines."""
    entries: list[list[str]] = []
    for line in lines[lines.index("Args:") + 1 :]:
        if _ENTRY.match(line):
            entries.append([line])
        elif entries and line.startswith("        "):
            entries[-1].append(line)
        else:
            break
    return [tuple(entry) for entry in entries]


def _without_default(entry: tuple[str, ...]) -> list[str]:
    return [_ENTRY.sub(r"    \1: ", entry[0]), *entry[1:]]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", shorten, priority=400)  # before napoleon, at 500
    return {"parallel_read_safe": True}
