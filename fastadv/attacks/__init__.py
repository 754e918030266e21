"""Attacks by name: the eleven of the paper, and later ones for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fastadv.attacks import other_packages
from fastadv.attacks.adaptive_pgd import AdaptivePGD
from fastadv.attacks.apgd import APGDCE, APGDDLR, APGDT
from fastadv.attacks.autoattack import AutoAttack
from fastadv.attacks.base import Attack, no_such_option, options_of
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.fab import FAB, FABT
from fastadv.attacks.fast_entropy import FastEntropy
from fastadv.attacks.fast_grad import FastGradL2, FastGradLinf
from fastadv.attacks.fgsm import FGSM
from fastadv.attacks.fgsm_pred import FGSMPred
from fastadv.attacks.gradient import GradientAttack
from fastadv.attacks.iter_basic import IterBasic
from fastadv.attacks.iter_ll import IterLL
from fastadv.attacks.iterative import IterativeAttack
from fastadv.attacks.mi_fgsm import MIFGSM
from fastadv.attacks.n_fgsm import NFGSM
from fastadv.attacks.noise import RandomNormal, RandomSign
from fastadv.attacks.one_step import OneStepAttack
from fastadv.attacks.pgd import PGD
from fastadv.attacks.search import SearchAttack
from fastadv.attacks.square import Square
from fastadv.attacks.step_ll import StepLL
from fastadv.attacks.step_rnd import StepRnd
from fastadv.utils.suggestions import did_you_mean, nearest

__all__ = [
    "APGDCE",
    "APGDDLR",
    "APGDT",
    "FAB",
    "FABT",
    "FGSM",
    "MIFGSM",
    "NFGSM",
    "PGD",
    "AdaptivePGD",
    "Attack",
    "AutoAttack",
    "FGSMPred",
    "FastEntropy",
    "FastGradL2",
    "FastGradLinf",
    "GradientAttack",
    "IterBasic",
    "IterLL",
    "IterativeAttack",
    "OneStepAttack",
    "RandomNormal",
    "RandomSign",
    "SearchAttack",
    "Size",
    "Square",
    "StepLL",
    "StepRnd",
    "create",
    "get",
    "names",
]

OneAttack = TypeVar("OneAttack", bound=Attack)
_ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (
        *(FGSM, FGSMPred, FastEntropy, FastGradL2, FastGradLinf, StepLL, StepRnd, IterBasic, IterLL),
        *(RandomSign, RandomNormal, PGD, MIFGSM, NFGSM, APGDCE, APGDDLR, APGDT),
        *(FAB, FABT, Square, AutoAttack),
    )
}


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # a type checker would accept any name of this module

    def __getattr__(name: str) -> Any:
        """Name the equivalent of a class of another package in the error."""
        equivalent = other_packages.CLASSES.get(name)
        hint = f"; use {equivalent}" if equivalent else ""
        raise AttributeError(f"module 'fastadv.attacks' has no attribute {name!r}{hint}")


def names() -> list[str]:
    """List the names that :func:`create` accepts."""
    return list(_ATTACKS)


def get(name: str) -> type[Attack]:
    """Return an attack's class.

    Raises:
        ValueError: if the name is unknown; the message lists the known ones.
        TypeError: if the name is not a string.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"an attack is a name or a class, got {type(name).__name__}; in create(name, model) it comes first"
        )
    if name not in _ATTACKS:
        other = other_packages.ATTACKS.get(name.lower().replace("-", "_"))
        hint = did_you_mean([other] if other else nearest(name, _ATTACKS))
        if name.partition(":")[0] in _ATTACKS:
            hint = ": options follow the name only in an evaluation, and are keywords or a dictionary elsewhere"
        raise ValueError(f"unknown attack {name!r}{hint}; accepted: {', '.join(_ATTACKS)}")
    return _ATTACKS[name]


@overload
def create(name: type[OneAttack], model: Callable[..., Any], **options: Any) -> OneAttack: ...
@overload
def create(name: str | type[Attack], model: Callable[..., Any], **options: Any) -> Attack: ...
def create(name: str | type[Attack], model: Callable[..., Any], **options: Any) -> Attack:
    """Create an attack by its name, e.g. ``create("step_ll", model, eps=16, space=PixelSpace.imagenet())``.

    Args:
        name: one of :func:`names`, or your own subclass of :class:`Attack`.
        model: maps images [N, C, ...] to logits [N, K].
        options: the attack's options as keywords: eps, space, seed and so on; ``help(fastadv.attacks.get(name))`` lists
            them all.

    Raises:
        ValueError: if the name or an option is unknown; the message lists the known ones.
        TypeError: if ``name`` is neither a name nor a class.
    """
    if isinstance(name, Attack):
        raise TypeError(f"pass the attack's name or its class, such as {type(name).__name__}, not an instance of it")
    attack = name if isinstance(name, type) and issubclass(name, Attack) else get(name)  # type: ignore[arg-type]
    unknown = set(options) - options_of(attack)
    if unknown:
        raise ValueError(no_such_option(attack, unknown))
    return attack(model, **options)
