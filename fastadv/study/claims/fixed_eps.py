"""Section 3: one eps in training."""

from __future__ import annotations

from fastadv.study.claims.common import over_eps
from fastadv.study.recipes import fixed_eps
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _fixed_is_narrow(scale: Scale, results: Results) -> list[Check]:
    found = fixed_eps.networks(scale)
    return [
        *over_eps(
            scale,
            results,
            f"random eps over {found['small'].name}",
            (found["random"], "step_ll"),
            (found["small"], "step_ll"),
            above=0,
            sizes=scale.eps[-1:],
        ),
        *over_eps(
            scale,
            results,
            f"random eps over {found['large'].name}",
            (found["random"], "step_ll"),
            (found["large"], "step_ll"),
            above=0,
            sizes=scale.eps[:2],
        ),
    ]


CLAIMS = (
    Claim(
        "fixed_is_narrow",
        "fixed_eps",
        "Section 3",
        "A network trained at one eps is robust at that eps only: at others, random eps in training is better; judged "
        "against training at the second size by the largest, and against training at the largest by the two smallest.",
        _fixed_is_narrow,
    ),
)
