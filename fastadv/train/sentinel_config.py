"""Configuration of the sentinel, and which ways of training it watches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

from fastadv.utils.validation import check_integer, check_one_of, check_real

Then = Literal["warn", "stop", "recover"]


class Method(NamedTuple):
    """How a phase trains: fields of ``attack``."""

    training: str
    name: str
    k: int
    options: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SentinelConfig:
    """Checks for catastrophic overfitting in training on a one-step attack. Unless it acts, it changes no weight."""

    every: int | None = None
    """Iterations between two checks: PGD of 10 steps and FGSM on 64 training images. null is the smallest number at
    which they add at most 1 % to the images that go forward and backward; with a smaller one they cost more. 0 switches
    the sentinel off. Training on clean images, on noise, in several steps or in the L2 ball is not watched, nor are
    phases of such training."""

    then: Then = "warn"
    """What follows an alarm, beside the line that says so. warn: the run goes on. stop: it stops with a checkpoint.
    recover: it returns to the last checkpoint from before robust accuracy fell, and goes on with n_fgsm; not with
    attack.training free or paired, with attack.sources, or where the attack is n_fgsm already."""

    fall: float = 0.2
    """How far robust accuracy must fall below its best for an alarm, as a share of the images."""

    def __post_init__(self) -> None:
        if self.every is not None:
            check_integer("sentinel.every", self.every, least=0)
        check_one_of("sentinel.then", self.then, get_args(Then))
        check_real("sentinel.fall", self.fall, above=0, below=1)

    def check_use(self, phases: Sequence[Method], sources: Sequence[str]) -> None:
        """Check that no option is set that has no effect: phases that are not watched are left alone.

        Args:
            phases: how each trains.
            sources: ``attack.sources``.

        Raises:
            ValueError: if there is one.
        """
        if self.every == 0:
            return
        reasons = [why_unwatched(phase) for phase in phases]
        if None not in reasons and self.changed:
            changed = ", ".join(f"sentinel.{field} {value}" for field, value in self.changed.items())
            raise ValueError(
                f"{changed}: the sentinel watches training on a one-step attack, and {reasons[0]}; leave it out"
            )
        if self.then != "recover":
            return
        for phase, unwatched in zip(phases, reasons, strict=True):
            if unwatched is None and (reason := _why_no_recovery(phase, sources)) is not None:
                raise ValueError(f"sentinel.then recover does not go with {reason}: choose warn or stop")

    @property
    def changed(self) -> dict[str, Any]:
        """The fields that do not have their defaults."""
        return {field: value for field, value in asdict(self).items() if value != _DEFAULTS[field]}


_DEFAULTS = asdict(SentinelConfig())


def why_unwatched(phase: Method) -> str | None:
    """Why a phase does not train on a one-step attack in the Linf ball; None if it does."""
    from fastadv import attacks
    from fastadv.attacks.base import ball_of, options_of

    training, name, k, options = phase
    if training in ("free", "fast"):
        return None
    if training == "trades":
        return "attack.training trades follows another cost, in several steps"
    if training == "algorithm1" and k == 0:
        return "attack.k 0 is training on clean images"
    attack = attacks.get(name)
    if ball_of(attack, options) == "l2":
        return f"attack.name {name} is bounded in L2"
    if not issubclass(attack, attacks.GradientAttack):
        return f"attack.name {name} is noise" if "fold_bn" not in options_of(attack) else f"attack.name {name} searches"
    if not issubclass(attack, attacks.OneStepAttack) and options.get("steps") != 1:
        return f"attack.name {name} takes several steps"
    return None


def _why_no_recovery(phase: Method, sources: Sequence[str]) -> str | None:
    """Why training cannot go on with n_fgsm; None if it can."""
    training, name, _, options = phase
    if sources:
        return "attack.sources, whose attacks stay as they are"
    if training == "free":
        return "attack.training free, whose steps are part of the training pass"
    if training == "paired":
        return "attack.training paired, whose steps start at the clean images"
    if training == "fast" and options.get("start") == "noise":
        return "attack.options.start noise, which is n_fgsm already"
    if training == "algorithm1" and name == "n_fgsm":
        return "attack.name n_fgsm: there is no other attack to go on with"
    return None
