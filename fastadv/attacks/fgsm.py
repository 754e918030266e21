"""The fast gradient sign method."""

from __future__ import annotations

from fastadv.attacks.one_step import OneStepAttack


class FGSM(OneStepAttack):
    """X + eps * sign(dJ(X, y_true) / dX) (Goodfellow et al., 2014; equation 1).

    Do not measure robustness with it: a network trained on it learns to read the true label from its examples (section
    4.2, label leaking).
    """

    name = "fgsm"
    rule = "label"
    ascend = True
    needs_labels = True
