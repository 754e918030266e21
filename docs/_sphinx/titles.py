"""Titles for pages that programs write, which begin without one."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx


def add_title(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the title of ``page_titles`` above the page's text."""
    if title := app.config.page_titles.get(page):
        source[0] = f"# {title}\n\n{source[0]}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("page_titles", {}, "env", dict)
    app.connect("source-read", add_title)
    return {"parallel_read_safe": True}
