"""How commands and configurations name a trained network."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from fastadv import models
from fastadv.utils.user_code import split_code

Kind = Literal["run", "weights", "hf", "code"]
_HF = "hf/"


@dataclass(frozen=True)
class ModelSpec:
    """A model as an argument names it.

    Args:
        text: the argument, without ``NAME=``.
        name: of its row; "" for the default.
        path: of a run or checkpoint, a file of weights, a folder of transformers, or a Python file or module.
        network: that the weights belong to; None without a file of weights.
        factory: the function that makes the network, in a Python file or module; "" otherwise.
        transformers: true for a folder of transformers.
    """

    text: str
    name: str
    path: Path
    network: str | None = None
    factory: str = ""
    transformers: bool = False

    @property
    def kind(self) -> Kind:
        """What the argument names: a run or checkpoint, a file of weights, a folder of transformers, or code."""
        if self.network is not None:
            return "weights"
        return "code" if self.factory else "hf" if self.transformers else "run"

    @property
    def architecture(self) -> str:
        """The network's name for :func:`fastadv.models.create`, without the name of torchvision's weights."""
        library, name = models.library_of(self.network or "")
        return f"torchvision/{name.partition('.')[0]}" if library == "torchvision" else self.network or ""

    @property
    def place(self) -> str:
        """What it stands for, from whatever working directory: an absolute path, or a module, with the function."""
        if self.kind != "code":
            return str(self.path.expanduser().resolve())
        whole = self.path.expanduser().resolve() if self.path.suffix == ".py" else self.path
        return f"{whole}:{self.factory}"

    def absolute(self) -> ModelSpec:
        """The same with an absolute path, to be read from another working directory."""
        if self.kind == "code" and self.path.suffix != ".py":
            return self
        path = os.path.abspath(self.path.expanduser())
        texts = {"run": path, "weights": f"{self.network}@{path}", "hf": _HF + path, "code": f"{path}:{self.factory}"}
        return replace(self, text=texts[self.kind], path=Path(path))


def parse_spec(text: str) -> ModelSpec:
    """Parse ``[NAME=]MODEL``.

    A model is the path of a run or checkpoint, ``NETWORK@FILE`` with a file of weights, ``hf/DIR`` with a folder of
    transformers, or ``file.py:FUNCTION`` or ``module:FUNCTION``. A path that exists is a path, whatever is in its name.
    """
    if Path(text).exists():
        return _of_path(text, "")
    name, equals, rest = text.partition("=")
    name, rest = (name, rest) if equals else ("", text)
    if Path(rest).exists():
        return _of_path(rest, name)
    if code := split_code(rest):
        place, factory = code
        return ModelSpec(rest, name, Path(place), factory=factory)
    if rest.startswith(_HF):
        return ModelSpec(rest, name, Path(rest.removeprefix(_HF)), transformers=True)
    network, at, file = rest.partition("@")
    if at:
        return ModelSpec(rest, name, Path(file), network)
    return ModelSpec(rest, name, Path(rest))


def _of_path(text: str, name: str) -> ModelSpec:
    """A path that exists: in a folder that is called ``hf``, it may be one of transformers all the same."""
    in_hf = text.startswith(_HF) and (Path(text) / "preprocessor_config.json").is_file()
    return ModelSpec(text, name, Path(text), transformers=in_hf)


def check_names_a_network(spec: ModelSpec) -> None:
    """Check that what is taken for a run is no file of weights and no folder of transformers.

    Raises:
        ValueError: if it is; says how to name it.
    """
    if spec.kind != "run":
        return
    if spec.path.is_file():
        raise ValueError(
            f"{spec.text} is a file, which does not say what network its weights are of: name that, too, as in "
            f"timm/NAME@{spec.text} or torchvision/NAME@{spec.text}; a network of your own is named by the function "
            "that makes it, as in path/to/file.py:FUNCTION"
        )
    if (spec.path / "preprocessor_config.json").is_file():
        raise ValueError(f"{spec.text} is a folder of transformers: name it as hf/{spec.text}")
