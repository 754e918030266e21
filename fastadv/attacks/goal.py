"""The options that choose what an attack is about: the class, the direction from or to it, and the loss on it."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from fastadv.utils.validation import check_one_of

LOSSES = ("ce", "dlr", "margin")
TARGETS = ("label", "predicted", "least_likely", "random")
_TOWARDS = ("least_likely", "random")  # leading away from them would change nothing, or help the network


class Goal(NamedTuple):
    """The class of an attack's cost, as a rule of :func:`fastadv.ops.target_grad`, and whether the cost shall grow."""

    rule: str
    ascend: bool


def goal_of(attack: Any, targets: str | None, targeted: bool) -> Goal:
    """Return the goal of an attack with these options.

    Args:
        attack: its class has the goal without them.
        targets: one of :data:`TARGETS`; None for the class's own.
        targeted: step towards the labels that a call is given.

    Raises:
        ValueError: if the options contradict each other, or the attack has another goal by its definition.
    """
    if targets is None and not targeted:
        return Goal(attack.rule, attack.ascend)
    if has_goal_of_its_own(attack):
        option = "targeted" if targets is None else "targets"
        raise ValueError(
            f"{attack.name} chooses its class by definition (rule = {attack.rule!r}, ascend = {attack.ascend}), so it "
            f"does not take the option {option}: {_instead(attack, targets)}"
        )
    if targets is not None:
        check_one_of("targets", targets, TARGETS)
    if targeted and targets not in (None, "label"):
        raise ValueError(
            f"targeted=True steps towards the labels of a call, and targets={targets!r} lets the attack choose the "
            f"class: pass one of the two"
        )
    rule = targets or "label"
    return Goal(rule, ascend=not (targeted or rule in _TOWARDS))


def _instead(attack: Any, targets: object) -> str:
    """What was probably meant by an option that the attack does not take."""
    if isinstance(targets, int) and "target_classes" in inspect.signature(type(attack)).parameters:
        return f"the number of its target classes is target_classes={targets}"
    return "use an attack that leads away from the true class, such as fgsm, iter_basic or pgd"


def has_goal_of_its_own(kind: Any) -> bool:
    """True for a class whose ``targeted`` and ``targets`` are fixed: any but those that lead away from the label."""
    return kind.fixed_goal or (kind.rule, kind.ascend) != ("label", True)


def has_fixed_cost(kind: Any) -> bool:
    """True for a class that is defined by its cost, so that there is no choice of a loss."""
    return kind.fixed_goal or kind.rule not in TARGETS


def checked_loss(attack: Any, name: str, *, has_own: bool) -> str:
    """Return the name of an attack's loss, one of :data:`LOSSES`.

    Args:
        attack: with its goal and its label smoothing.
        name: the option.
        has_own: whether its class has a loss of its own.

    Raises:
        ValueError: if the attack has no choice of a loss.
    """
    check_one_of("loss", name, LOSSES)
    if name == "ce":
        return name
    if has_own:
        raise ValueError(f"{attack.name} has a loss of its own, so it takes no option loss, got {name!r}")
    if has_fixed_cost(attack):
        raise ValueError(f"{attack.name} is defined by its cost, so it takes no option loss, got {name!r}")
    if attack.label_smoothing:
        raise ValueError(
            f"label_smoothing is of the cross-entropy: it must be 0 with loss={name!r}, got {attack.label_smoothing}"
        )
    return name
