"""The iterative least-likely class method."""

from __future__ import annotations

from fastadv.attacks.iterative import PaperIterativeAttack


class IterLL(PaperIterativeAttack):
    """Iter. l.l.: steps of alpha = 1 towards the least likely class of the clean image (section 2.2)."""

    name = "iter_ll"
    rule = "least_likely"
    ascend = False
