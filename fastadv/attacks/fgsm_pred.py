"""FGSM without the true label."""

from __future__ import annotations

from fastadv.attacks.one_step import OneStepAttack


class FGSMPred(OneStepAttack):
    """FGSM away from the predicted class: the paper's remedy for label leaking (section 4.2, appendix A)."""

    name = "fgsm_pred"
    rule = "predicted"
    ascend = True
