"""The suites of attacks, all in Linf, so that a worst case over one of them is about one ball."""

from __future__ import annotations

SUITES: dict[str, tuple[str, ...]] = {
    # Seconds to minutes: one step, many steps, and steps that adapt.
    "quick": ("fgsm", "pgd:steps=20", "apgd_ce:steps=20"),
    # The parts of AutoAttack (Croce and Hein, 2020), each on all images.
    "standard": ("apgd_ce", "apgd_t", "fab_t", "square"),
    # The attacks of the paper, but for fast_grad_l2, whose ball is another one.
    "paper": (
        *("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_linf", "step_ll", "step_rnd", "iter_basic", "iter_ll"),
        *("random_sign", "random_normal"),
    ),
}
