"""Objects of one's own that a command line names: ``path/to/file.py:NAME`` or ``module:NAME``. Their code is run."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from fastadv.utils.suggestions import did_you_mean, nearest

_NAMED = re.compile(r"(?P<place>.+\.py|[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)")

_SOURCES: dict[str, bytes] = {}  # of each file that was run, by the name of its module


def split_code(text: str) -> tuple[str, str] | None:
    """Return (file or module, name there) if the text names an object by ``file.py:NAME`` or ``module:NAME``."""
    found = _NAMED.fullmatch(text)
    return (found["place"], found["name"]) if found else None


def load_named(place: str, name: str) -> Any:
    """Return an object from a Python file or a module, which is run unless it was already.

    A file runs again if it has changed; modules, also those that it imports, do not. A file's folder is put on the path
    for imports, as Python does for a script.

    Args:
        place: a file that ends in .py, or the dotted name of a module that Python can import.
        name: of the object in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such module or object, or the code raises.
    """
    module = _of_file(Path(place)) if place.endswith(".py") else _of_name(place)
    if not hasattr(module, name):
        public = [one for one in vars(module) if not one.startswith("_")]
        raise ValueError(f"{place} does not define {name!r}{did_you_mean(nearest(name, public))}")
    return getattr(module, name)


def hash_of_code(place: str, name: str) -> str:
    """Return a sha256 of the Python file or module that :func:`load_named` has run, and of the name there."""
    file = Path(place).expanduser() if place.endswith(".py") else Path(sys.modules[place].__file__ or "")
    content = file.read_bytes() if file.is_file() else b""  # a built-in module has no file
    return hashlib.sha256(content + name.encode()).hexdigest()


def _of_file(path: Path) -> ModuleType:
    path = path.expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"{path.stem} ({path.resolve()})"  # no other module can have it
    source = path.read_bytes()
    if name in sys.modules and _SOURCES.get(name) == source:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # as it ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look there
    _SOURCES[name] = source
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        # Python's own cache of compiled files would miss an edit within a second.
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} cannot be run: {_where(error, path)}") from error
    return module


def _of_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"the module {name} cannot be imported: {error}") from error
        raise ValueError(f"there is no module {name}; a file is named as in path/to/file.py:NAME") from error
    except Exception as error:
        raise ValueError(f"the module {name} cannot be imported: {type(error).__name__}: {error}") from error


def _where(error: Exception, path: Path) -> str:
    """The error in a line, with the last line of the file that led to it."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    at = f"line {lines[-1]}: " if lines else ""
    return f"{at}{type(error).__name__}: {error}"
