"""Finding: what a check has seen."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A sign that a network's gradient is masked, so that its accuracy under attack says little.

    Args:
        check: the check that found it, named by what is seen, such as ``"no_gradient"``.
        evidence: what was counted: "12 of 64 gradients are zero or not finite".
        advice: what that means, and what to do about it, in one line.
    """

    check: str
    evidence: str
    advice: str
