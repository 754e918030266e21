"""Options that a run can have, but that do nothing in it: found once its length is known."""

from __future__ import annotations

from collections.abc import Iterator

from fastadv.train.run import Run
from fastadv.train.sentinel import unwatched


def without_effect(run: Run) -> Iterator[str]:
    """A line about each option of a run that has no effect, or not all that it could have."""
    attack, total = run.config.attack, run.total_steps
    if attack.start_after >= total:
        yield (
            f"attack.start_after {attack.start_after:,} is not before the run's end, after {total:,} iterations: no "
            f"example becomes adversarial"
        )
    elif attack.start_after + attack.eps_warmup > total:
        reached = (total - attack.start_after) / attack.eps_warmup
        share = f"{reached:.0%}" if reached >= 0.005 else "less than 1%"
        yield (
            f"attack.eps_warmup {attack.eps_warmup:,} goes beyond the run's end, after {total:,} iterations: eps "
            f"reaches {share} of its size"
        )
    if run.config.sentinel.changed and run.config.sentinel.every != 0:
        reasons = [(number, unwatched(stage.config)) for number, stage in enumerate(run.stages)]
        left_out = [f"phases[{number}] ({reason})" for number, reason in reasons if reason is not None]
        if left_out:
            yield f"the sentinel does not watch {', '.join(left_out)}"
