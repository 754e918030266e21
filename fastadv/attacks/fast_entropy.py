"""Fast entropy: a step towards the most uncertain prediction."""

from __future__ import annotations

from fastadv.attacks.one_step import OneStepAttack


class FastEntropy(OneStepAttack):
    """A step that raises the entropy of the predicted distribution (appendix A)."""

    name = "fast_entropy"
    rule = "entropy"
    ascend = True
