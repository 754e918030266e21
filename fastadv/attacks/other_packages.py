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
    "PGDL2": "PGD(model, norm='l2', eps=128, alpha=51, steps=10)",
    "EOTPGD": "PGD(model, eps=8, alpha=2, steps=10, eot=2)",
    "MultiAttack": "fastadv.evaluate.evaluate_each, or one evaluation for each attack",
}

METHODS = {
    "set_normalization_used": "pass space=fastadv.PixelSpace.normalized(mean, std) and normalised images",
    "set_mode_default": "create another attack without the options targeted and targets",
    "set_mode_targeted_by_label": "create the attack with targeted=True and call it with the targets",
    "set_mode_targeted_by_function": "create the attack with targeted=True and call it with the function's targets",
    "set_mode_targeted_least_likely": "create the attack with targets='least_likely' and call it without labels",
    "set_mode_targeted_random": "create the attack with targets='random' and call it without labels",
    "set_model_training_mode": "pass bn='eval' or bn='batch'; dropout is always off",
}


def instead_of(name: str) -> str:
    """Return a hint for an attribute that attacks of another package have; "" for other names."""
    return f"; here, {METHODS[name]}" if name in METHODS else ""
