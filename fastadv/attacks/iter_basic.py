"""The basic iterative method."""

from __future__ import annotations

from fastadv.attacks.iterative import PaperIterativeAttack


class IterBasic(PaperIterativeAttack):
    """Iter. basic: steps of alpha = 1 away from the true class (section 2.2; Kurakin et al., 2016)."""

    name = "iter_basic"
    rule = "label"
    ascend = True
    needs_labels = True
