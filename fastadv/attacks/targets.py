"""The options that choose the class an attack is about, and whether it leads away from that class or towards it."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastadv.utils.validation import check_one_of, check_switches

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
    check_switches(targeted=targeted)
    if targets is not None:
        check_one_of("targets", targets, TARGETS)
    elif not targeted:
        return Goal(attack.rule, attack.ascend)
    if attack.fixed_goal or (attack.rule, attack.ascend) != ("label", True):
        option = "targeted" if targets is None else "targets"
        raise ValueError(
            f"{attack.name} chooses its class by definition (rule = {attack.rule!r}, ascend = {attack.ascend}), so it "
            f"takes no {option}: use an attack that leads away from the true class, such as fgsm, iter_basic or pgd"
        )
    if targeted and targets not in (None, "label"):
        raise ValueError(
            f"targeted=True steps towards the labels of a call, and targets={targets!r} lets the attack choose the "
            f"class: pass one of the two"
        )
    rule = targets or "label"
    return Goal(rule, ascend=not (targeted or rule in _TOWARDS))
