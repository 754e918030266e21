"""Step l.l., the attack that the paper trains with."""

from __future__ import annotations

from fastadv.attacks.one_step import OneStepAttack


class StepLL(OneStepAttack):
    """X - eps * sign(dJ(X, y_LL) / dX), y_LL the class that the network finds least likely (equation 2)."""

    name = "step_ll"
    rule = "least_likely"
    ascend = False
