"""The directive ``command-help``: what a command of fastadv prints for ``--help``, run when the site is built."""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from fastadv.cli import main

COLUMNS = "80"  # the width that argparse assumes without a terminal


class CommandHelp(SphinxDirective):
    """``{command-help} train`` shows what ``fastadv train --help`` prints; without a command, ``fastadv --help``."""

    optional_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        text = help_of("".join(self.arguments).split())
        return [nodes.literal_block(text, text, language="text")]


def help_of(command: list[str]) -> str:
    """What it prints.

    Raises:
        ExtensionError: the command failed, or printed nothing.
    """
    printed = io.StringIO()
    code: object
    with contextlib.redirect_stdout(printed), patch.dict(os.environ, COLUMNS=COLUMNS):
        try:
            code = main([*command, "--help"])
        except SystemExit as end:  # argparse's
            code = end.code
    if code or not printed.getvalue():
        raise ExtensionError(f"fastadv {' '.join(command)} --help ended with {code} and printed {printed.getvalue()!r}")
    return printed.getvalue()


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
