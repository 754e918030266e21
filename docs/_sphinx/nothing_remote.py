"""Refuse a site that loads anything from another host: scripts, styles, fonts, images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

_LOADED = re.compile(
    r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']*|url\(["']?https?:[^)]*"""
)


def check(app: Sphinx, failure: Exception | None) -> None:
    """Look through the pages and styles that were written."""
    if failure is None and app.builder.format == "html":
        files = [file for kind in ("html", "css") for file in Path(app.outdir).rglob(f"*.{kind}")]
        found = [f"{file}: {match[0]}" for file in files for match in _LOADED.finditer(file.read_text())]
        if found:
            raise ExtensionError("pages load from other hosts:\n" + "\n".join(found))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", check)
    return {"parallel_read_safe": True}
