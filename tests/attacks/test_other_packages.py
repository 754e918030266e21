"""Who looks for another package's name is told what to write here."""

from __future__ import annotations

import copy

import pytest
from torch import nn

from fastadv import attacks
from fastadv.attacks import other_packages


@pytest.mark.parametrize("name", other_packages.CLASSES)
def test_a_class(name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; use "):
        getattr(attacks, name)


@pytest.mark.parametrize("name", other_packages.METHODS)
def test_a_method(name: str) -> None:
    attack = attacks.FGSM(nn.Identity())
    with pytest.raises(AttributeError, match=f"FGSM has no attribute '{name}'; here, "):
        getattr(attack, name)


@pytest.mark.parametrize(("name", "here"), other_packages.ATTACKS.items())
def test_a_name(name: str, here: str) -> None:
    assert here in attacks.names()
    with pytest.raises(ValueError, match=rf"unknown attack '{name.upper()}' .did you mean {here}..; accepted: fgsm"):
        attacks.create(name.upper(), nn.Identity())


def test_what_is_said_to_use_exists() -> None:
    for instead in other_packages.CLASSES.values():
        assert instead.partition("(")[0] in attacks.__all__ or instead.startswith("fastadv.evaluate.evaluate_each")


def test_other_attributes_are_missed_as_usual() -> None:
    attack = attacks.FGSM(nn.Identity())
    with pytest.raises(AttributeError, match=r"FGSM has no attribute 'epsilon'$"):
        attack.epsilon  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'fastadv.attacks' has no attribute 'Nothing'$"):
        attacks.Nothing  # noqa: B018
    assert not hasattr(attack, "epsilon")
    assert copy.deepcopy(attack).eps == attack.eps
