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

    In a healthy run both accuracies rise and fall together, by more than the noise of the images: an iteration with a
    large learning rate can cost a network half of both, and the next ones bring it back. So

    - the best is what two checks in a row reached: its best pair's lower value;
    - a check has fallen if its robust accuracy is lower by more than ``fall`` and by more than two standard errors of
      the difference, and its one-step accuracy by less than half as much;
    - two checks in a row that have fallen are a collapse.

    Args:
        fall: share of the images, in (0, 1).

    Attributes:
        best: lower values of the best pair; None before the second check.
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
        last, self.last = self.last, check
        if last is not None:
            lower = Check(min(last.robust, check.robust), min(last.one_step, check.one_step), check.n)
            if self.best is None or lower.robust > self.best.robust:
                self.best = lower
        best = check.robust if self.best is None else self.best.robust
        if check.robust >= best - self.fall / 2:
            self.healthy = step
        before, self.collapsed = self.collapsed, last is not None and self._has_fallen(last) and self._has_fallen(check)
        return self.collapsed and not before

    def _has_fallen(self, check: Check) -> bool:
        assert self.best is not None
        lost = self.best.robust - check.robust
        variances = (share * (1 - share) for share in (self.best.robust, check.robust))
        noise = 2 * math.sqrt(sum(variances) / check.n)
        return lost > max(self.fall, noise) and self.best.one_step - check.one_step < lost / 2

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint, of the same form at any time."""
        checks = [_NONE if check is None else check for check in (self.best, self.last)]
        return {
            "best": list(checks[0]),
            "last": list(checks[1]),
            "healthy": self.healthy,
            "collapsed": self.collapsed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        best, last = (Check(*state[name]) for name in ("best", "last"))
        self.best, self.last = (check if check.n else None for check in (best, last))
        self.healthy, self.collapsed = state["healthy"], state["collapsed"]
