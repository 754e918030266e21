"""One step that fools more images than many."""

from __future__ import annotations

from fastadv import attacks
from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import Sample
from fastadv.evaluate.checks.sign_test import beats, only


def one_step_beats_many(sample: Sample) -> Finding | None:
    """Speaks if one-step attacks fool more images than attacks of many steps in the same ball.

    Costs an answer for FGSM, unless a one-step attack was measured, and gradients that other checks share.
    """
    given = [(one.name, one.fooled) for one in sample.measured_at_eps(attacks.OneStepAttack)]
    measured = given or [("fgsm", sample.wrong | sample.fooled_by(sample.one_step.images))]
    for name, fooled in measured:
        if beats(fooled, sample.by_gradient, comparisons=len(measured)):
            return Finding(
                "one_step_beats_many",
                f"at eps {sample.eps:g}, {name} fools {only(fooled, sample.by_gradient)} of {len(sample)} images that "
                f"many steps do not, which fool {only(sample.by_gradient, fooled)} that {name} does not",
                "many steps get stuck, as where the gradient is masked around the images: use other step sizes and "
                "losses, restarts, or autoattack",
            )
    return None
