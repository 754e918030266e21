"""How many gradients each attack computes: what the tests of passes, recordings and compilation start from."""

from __future__ import annotations

GRADIENTS = {  # at eps = 4
    **dict.fromkeys(("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd"), 1),
    "n_fgsm": 1,
    **dict.fromkeys(("iter_basic", "iter_ll"), 5),
    **dict.fromkeys(("random_sign", "random_normal"), 0),
    **dict.fromkeys(("pgd", "mi_fgsm"), 10),
}
# Attacks that stop for an image as soon as it is misclassified: what they compute depends on the images. Tests of their
# own count it.
SEARCHES = ("fab", "fab_t", "square")  # which return the clean image if they find none
STOPPING = ("apgd_ce", "apgd_dlr", "apgd_t", *SEARCHES, "autoattack")
