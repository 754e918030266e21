"""Names from other packages, and their equivalents here, for error messages."""

from __future__ import annotations

ATTACKS = {
    "bim": "iter_basic",
    "i_fgsm": "iter_basic",
    "ifgsm": "iter_basic",
    "mifgsm": "mi_fgsm",
    "fgm": "fast_grad_l2",
    "apgd": "apgd_ce",
    "auto_attack": "autoattack",
}

CLASSES = {
    "APGD": "APGDCE(model, eps=8, steps=10), or APGDDLR",
    "BIM": "IterBasic(model, eps=8, alpha=1, steps=10)",
    "FFGSM": "PGD(model, eps=8, alpha=10, steps=1)",
    "RFGSM": "PGD(model, eps=8, alpha=4, steps=1)",
    "PGDL2": "FastGradL2(model, eps=128) for one step; several steps in L2 are not implemented",
    "MultiAttack": "fastadv.evaluate.evaluate_each, or one evaluation for each attack",
}

METHODS = {
    "set_normalization_used": "pass space=fastadv.PixelSpace.normalized(mean, std) and normalised images",
    "set_mode_default": "the attack's class determines the target",
    "set_mode_targeted_by_label": "derive a class with ascend = False and needs_labels = True",
    "set_mode_targeted_by_function": "derive a class with ascend = False and needs_labels = True",
    "set_mode_targeted_least_likely": "use StepLL or IterLL, which are called without labels",
    "set_mode_targeted_random": "use StepRnd, which is called without labels",
    "set_model_training_mode": "pass bn='eval' or bn='batch'; dropout is always off",
}


def instead_of(name: str) -> str:
    """Return a hint for an attribute that attacks of another package have; "" for other names."""
    return f"; here, {METHODS[name]}" if name in METHODS else ""
