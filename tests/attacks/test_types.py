"""Type checkers know attacks and their options."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from fastadv import attacks
from fastadv.attacks import options

ROOT = Path(__file__).parents[2]
TYPED = {
    attacks.Attack: options.AttackOptions,
    attacks.GradientAttack: options.GradientAttackOptions,
    attacks.IterativeAttack: options.IterativeAttackOptions,
}


@pytest.mark.parametrize(("kind", "typed"), TYPED.items(), ids=[kind.__name__ for kind in TYPED])
def test_options_are_typed_as_their_class_takes_them(kind: type[attacks.Attack], typed: type) -> None:
    taken = {name: hint for base in reversed(kind.__mro__) for name, hint in get_type_hints(base.__init__).items()}
    shown = [name for name in inspect.signature(kind).parameters if name != "model"]
    assert list(typed.__annotations__) == shown
    assert get_type_hints(typed) == {name: taken[name] for name in shown}


def test_what_mypy_makes_of_them() -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "tests/attacks/typed.py"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
