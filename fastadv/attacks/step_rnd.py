"""Step rnd., which trains as well as step l.l. in the paper."""

from __future__ import annotations

from fastadv.attacks.one_step import OneStepAttack


class StepRnd(OneStepAttack):
    """X - eps * sign(dJ(X, y_random) / dX), y_random any class but the predicted one (section 2.2)."""

    name = "step_rnd"
    rule = "random"
    draws = True
    ascend = False
