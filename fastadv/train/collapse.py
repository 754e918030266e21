"""CollapseRule: from a series of checks, tells a collapse of robustness from the ups and downs of training."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Check(NamedTuple):
    """Shares of the kept images that were classified correctly, and how many images there are."""

    robust: float  # under PGD
    one_step: float  # under FGSM
    n: int


_NONE = Check(0.0, 0.0, 0)


class CollapseRule:
    """In two checks in a row, robust accuracy is far below its best while one-step accuracy is not: it has collapsed.

    In healthy training both accuracies rise and fall together, by more than the noise of the images: at a large
    learning rate, a few iterations can cost a network half of both, and the next ones bring it back. So single checks
    count for nothing. The means of two checks in a row are a collapse if

    - robust accuracy is lower than in the best such pair by more than ``fall``, and by more than two standard errors of
      the difference (Wald's, of independent images),
    - in each of the two checks it is lower by more than half of ``fall``,
    - one-step accuracy is lower by less than half as much as robust accuracy, or higher.

    Args:
        fall: share of the images, in (0, 1).

    Attributes:
        best: means of the pair with the best robust accuracy; None before the second check.
        last: the last check; None before the first.
        healthy: iteration of the last check whose robust accuracy was lower than the best by at most half of ``fall``;
            0 before the first.
        collapsed: whether the last two checks are a collapse.
    """

    def __init__(self, fall: float) -> None:
        self.fall = fall
        self.best: Check | None = None
        self.last: Check | None = None
        self.healthy = 0
        self.collapsed = False

    def add(self, step: int, check: Check) -> bool:
        """Add the check after iteration ``step``; returns whether a collapse begins with it."""
        last, self.last, before = self.last, check, self.collapsed
        if last is None:
            self.healthy = step
            return False
        pair = Check((last.robust + check.robust) / 2, (last.one_step + check.one_step) / 2, check.n)
        if self.best is None or pair.robust > self.best.robust:
            self.best = pair
        least = self.best.robust - self.fall / 2
        if check.robust >= least:
            self.healthy = step
        self.collapsed = max(last.robust, check.robust) < least and _has_fallen(self.best, pair, self.fall)
        return self.collapsed and not before

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, of the same form at any time."""
        return {
            "best": list(self.best or _NONE),
            "last": list(self.last or _NONE),
            "healthy": self.healthy,
            "collapsed": self.collapsed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        best, last = (Check(*state[name]) for name in ("best", "last"))
        self.best, self.last = (check if check.n else None for check in (best, last))
        self.healthy, self.collapsed = state["healthy"], state["collapsed"]


def _has_fallen(best: Check, now: Check, fall: float) -> bool:
    lost = best.robust - now.robust
    variance = sum(share * (1 - share) for share in (best.robust, now.robust)) / now.n
    noise = 2 * math.sqrt(max(0.0, variance))  # a checkpoint may hold any number
    return lost > max(fall, noise) and best.one_step - now.one_step < lost / 2
