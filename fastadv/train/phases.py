"""Phases of a run: what a phase may change of a configuration, and which phase an iteration belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

from fastadv.utils.suggestions import did_you_mean, nearest

T = TypeVar("T")

CHANGEABLE = (
    *("epochs", "m", "precision", "data.size", "data.least_area", "optimizer.lr"),
    *("attack.name", "attack.k", "attack.lambda_", "attack.eps", "attack.eps_sigma", "attack.eps_upper"),
    "attack.options",
)
_SECTIONS = frozenset(field.partition(".")[0] for field in CHANGEABLE if "." in field)


def check_phase(phase: Any, name: str) -> None:
    """Check that a phase names its epochs, and nothing that phases cannot change.

    Args:
        phase: nested mapping of fields to values, as in a YAML file.
        name: of the phase, for messages.

    Raises:
        ValueError: if it is anything else; names the field.
    """
    if not isinstance(phase, Mapping) or not phase:
        raise ValueError(f"{name} must map fields to values, as in {{epochs: 2, data: {{size: 128}}}}, got {phase!r}")
    for section in sorted(_SECTIONS & phase.keys()):
        if not isinstance(phase[section], Mapping) or not phase[section]:
            raise ValueError(f"{name}.{section} must map fields to values, got {phase[section]!r}")
    for dotted in CHANGEABLE:
        section, dot, field = dotted.partition(".")
        if dot and dotted in phase:
            raise ValueError(f"{name}.{dotted}: fields of a section are nested here: write {section}: {{{field}: ...}}")
    given = dict(leaves(phase))
    for field in given:
        if field not in CHANGEABLE:
            ending = [known for known in CHANGEABLE if known.endswith(f".{field}")]  # eps for attack.eps
            meant = did_you_mean(ending or nearest(field, CHANGEABLE))
            raise ValueError(
                f"{name}.{field} is not a field that phases change{meant}; these are {', '.join(CHANGEABLE)}"
            )
    if "epochs" not in given:
        raise ValueError(f"{name} needs epochs, the number that it lasts")
    if "attack.options" in given and not isinstance(given["attack.options"], Mapping):
        raise ValueError(f"{name}.attack.options must map options to values, got {given['attack.options']!r}")


def epochs_clash(epochs: int, total: int) -> str:
    """The message for ``epochs`` of a configuration whose phases have another total."""
    return f"epochs is {epochs}, and those of the phases add up to {total}: leave epochs out"


def leaves(phase: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each field that a phase names."""
    for name, value in phase.items():
        if name in _SECTIONS:
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())
        else:
            yield str(name), value


def changed(config: T, phase: Mapping[str, Any]) -> T:
    """Replace fields of nested dataclasses by a phase's; of options that are a mapping, those that it names."""
    known = {field.name: getattr(config, field.name) for field in fields(config)}  # type: ignore[arg-type]
    return replace(config, **{name: _changed(known[name], value) for name, value in phase.items()})  # type: ignore[type-var]


def _changed(before: Any, value: Any) -> Any:
    if is_dataclass(before) and not isinstance(before, type):
        return changed(before, value)
    return {**before, **value} if isinstance(before, Mapping) else value


class Position(NamedTuple):
    """Where an iteration is in a run.

    Args:
        phase: number of its phase, from 0, like the next two.
        epoch: number of its epoch in the whole run.
        start: iterations of that epoch before it.
        steps_per_epoch: iterations of an epoch of that phase.
    """

    phase: int
    epoch: int
    start: int
    steps_per_epoch: int


class Timeline:
    """Phase and epoch of each iteration: they follow from its number alone.

    Args:
        epochs: of each phase.
        steps_per_epoch: iterations of an epoch of each phase.
    """

    def __init__(self, epochs: Sequence[int], steps_per_epoch: Sequence[int]) -> None:
        self.epochs = list(epochs)
        self.steps_per_epoch = list(steps_per_epoch)
        self.steps = [count * steps for count, steps in zip(epochs, steps_per_epoch, strict=True)]
        self._first_steps = [0, *accumulate(self.steps)]  # the last is the end of the run
        self._first_epochs = [0, *accumulate(epochs)]

    @property
    def total_steps(self) -> int:
        """Iterations of the whole run."""
        return self._first_steps[-1]

    @property
    def total_epochs(self) -> int:
        """Epochs of the whole run."""
        return self._first_epochs[-1]

    def first_step(self, phase: int) -> int:
        """The first iteration of a phase, both from 0."""
        return self._first_steps[phase]

    def position(self, step: int) -> Position:
        """Position of iteration ``step``, from 0; from the end of the run on, the last phase goes on."""
        phase = max(number for number, first in enumerate(self._first_steps[:-1]) if first <= step)
        steps_per_epoch = self.steps_per_epoch[phase]
        epoch, start = divmod(step - self._first_steps[phase], steps_per_epoch)
        return Position(phase, self._first_epochs[phase] + epoch, start, steps_per_epoch)

    def position_of_last(self, done: int) -> Position:
        """Position of the last of ``done`` iterations; of the first if there was none."""
        return self.position(max(0, done - 1))

    def epochs_done(self, done: int) -> int:
        """Whole epochs in the first ``done`` iterations."""
        return self.position(done).epoch
