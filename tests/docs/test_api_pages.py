"""Every public name has a docstring and its place in the reference, which is made from it."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from fastadv import attacks
from tests.completeness import check_complete

PAGES = Path(__file__).parents[2] / "docs" / "api"
MODULES = ("fastadv", *(f"fastadv.{name}" for name in ("attacks", "data", "evaluate", "models", "ops", "train")))


def public(module: str) -> dict[str, Any]:
    found = importlib.import_module(module)
    return {name: getattr(found, name) for name in found.__all__ if name != "__version__"}


def undocumented(name: str, thing: Any) -> list[str]:
    """The name itself, and what users see of a class."""
    described = thing.__doc__ or ""
    lacking = [] if described and not described.startswith(f"{thing.__name__}(") else [name]  # a dataclass's signature
    if not inspect.isclass(thing):
        return lacking
    parts = {
        part: value
        for part, value in vars(thing).items()
        if not part.startswith("_") and (callable(value) or isinstance(value, (property, classmethod, staticmethod)))
    }
    return lacking + [f"{name}.{part}" for part in parts if not inspect.getdoc(getattr(thing, part))]


@pytest.mark.parametrize("module", MODULES)
def test_the_page_shows_every_public_name(module: str) -> None:
    page = f"{module.rpartition('.')[2]}.md"
    shown = re.findall(r"\.\. auto(?:class|function|exception):: (\w+)", (PAGES / page).read_text())
    check_complete(f"docs/api/{page}", shown, public(module))
    assert len(shown) == len(set(shown)), f"docs/api/{page} shows a name twice"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_docstring(module: str) -> None:
    assert not [part for name, thing in public(module).items() for part in undocumented(name, thing)]


@pytest.mark.parametrize("module", [*MODULES, "fastadv.pixels", "fastadv.reference"])
def test_completion_shows_public_names_alone(module: str) -> None:
    found = importlib.import_module(module)
    modules = {name.partition(".")[2] for name in (*MODULES, "fastadv.reference")} - {""}
    assert set(dir(found)) == {*found.__all__, *(modules if module == "fastadv" else ())}
    assert all(hasattr(found, name) for name in dir(found))


def test_a_name_without_a_docstring_would_be_found() -> None:
    class Silent:
        def method(self) -> None: ...

        def described(self) -> None:
            """This one is."""

    assert undocumented("Silent", Silent) == ["Silent", "Silent.method"]


@pytest.mark.parametrize("page", ["README.md", "docs/attacks.md"])
def test_a_list_of_attacks_has_all_of_them(page: str) -> None:
    text = (PAGES.parents[1] / page).read_text()
    check_complete(page, (name for name in attacks.names() if f"`{name}`" in text), attacks.names())


def test_every_page_is_of_a_module() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == {module.rpartition(".")[2] for module in MODULES}
