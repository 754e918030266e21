"""How commands and configurations name a trained network: a run's folder, or a network and a file of its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from fastadv import models


@dataclass(frozen=True)
class ModelSpec:
    """A model as an argument names it.

    Args:
        text: the argument, without ``NAME=``.
        name: of its row; "" for the default.
        path: of a run or checkpoint, or of a file of weights.
        network: that the weights belong to; None for a run or checkpoint.
    """

    text: str
    name: str
    path: Path
    network: str | None = None

    @property
    def architecture(self) -> str:
        """The network's name for :func:`fastadv.models.create`, without the name of torchvision's weights."""
        library, name = models.library_of(self.network or "")
        return f"torchvision/{name.partition('.')[0]}" if library == "torchvision" else self.network or ""

    def absolute(self) -> ModelSpec:
        """The same with an absolute path, to be read from another working directory."""
        path = os.path.abspath(self.path.expanduser())
        return replace(self, text=path if self.network is None else f"{self.network}@{path}", path=Path(path))


def parse_spec(text: str) -> ModelSpec:
    """Parse ``[NAME=]PATH`` or ``[NAME=]NETWORK@FILE``; a path that exists is a path, whatever is in its name."""
    if Path(text).exists():
        return ModelSpec(text, "", Path(text))
    name, equals, rest = text.partition("=")
    name, rest = (name, rest) if equals else ("", text)
    network, at, file = rest.partition("@")
    if at and not Path(rest).exists():
        return ModelSpec(rest, name, Path(file), network)
    return ModelSpec(rest, name, Path(rest))
