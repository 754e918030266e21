"""Which names ``attack.options`` may have: they follow from the way of training and its attack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastadv import attacks
from fastadv.attacks.base import options_of
from fastadv.attacks.kl import KLAttack
from fastadv.train.tasks.paired import WITHOUT_EFFECT
from fastadv.utils.suggestions import did_you_mean, nearest

_OWN_FIELDS = {"bn", "eps", "label_smoothing", "seed", "space", "generator"}  # which the configuration has elsewhere


def check_attack_options(training: str, name: str, options: Mapping[str, Any]) -> None:
    """Check that an attack has these options, so that a message has their names in the configuration.

    Args:
        training: ``attack.training``.
        name: ``attack.name``, for the ways of training that use it.
        options: ``attack.options``.

    Raises:
        ValueError: if there is another option; names the field that was probably meant.
    """
    known, refused = _known(training, name, options)
    wrong = sorted(options.keys() - known)
    if wrong:
        method = f"attack.name {name}" if training == "algorithm1" else f"attack.training {training}"
        meant = did_you_mean([f"attack.options.{close}" for one in wrong for close in nearest(one, known)])
        raise ValueError(
            f"{method} has no option {', '.join(f'attack.options.{one}' for one in wrong)}{meant}; "
            f"attack.options may have {', '.join(sorted(known - refused))}"
        )


def _known(training: str, name: str, options: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """The options there are, and those among them whose values the attack or the training refuses."""
    if training == "free":
        return {"alpha"}, set()
    fast = attacks.NFGSM if options.get("start") == "noise" else attacks.PGD
    kind = {"trades": KLAttack, "fast": fast}.get(training) or attacks.get(name)
    known, refused = options_of(kind) - _OWN_FIELDS, kind.refused_options() | {"targeted", "restarts"}
    if training == "trades":
        known -= {"aux_weight"}
    if training == "fast":
        known = known - {"steps", "random_start"} | {"alpha", "start"}
    if training == "paired":
        known -= set(WITHOUT_EFFECT)
    return known, refused
