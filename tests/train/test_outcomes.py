"""When the outcomes of iterations are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastadv.train.outcomes import Outcome, Outcomes
from fastadv.train.step_metrics import StepTotals


def outcome(seconds: float) -> Outcome:
    """Of an iteration whose totals took ``seconds``."""
    totals = StepTotals(1.0, 1, (1, 0), (2, 0), finite=True, stop=False, seconds=seconds)
    shared: Any = SimpleNamespace(wait=lambda: None, totals=lambda: totals)
    return Outcome(cast(Any, None), shared, [], 2, 0.0)


def read_after(outcomes: Outcomes, seconds: list[float]) -> list[int]:
    """The iterations, from 1, before whose update the outcomes are read; ``seconds`` are theirs."""
    read = []
    for iteration, took in enumerate(seconds, 1):
        outcomes.add(outcome(took))
        if outcomes.due(iteration):
            read.append(iteration)
            outcomes.read()
    return read


@pytest.mark.parametrize(
    ("log_every", "seconds", "expected"),
    [
        (4, [0.01] * 12, [1, 3, 4, 8, 12]),
        (100, [0.01] * 40, [1, 3, 7, 15, 31]),  # the number of iterations between doubles
        (100, [0.2] * 20, [1, 3, 7, 12, 17]),  # up to a second
        (100, [2.0] * 4, [1, 2, 3, 4]),
        (100, [0.0] * 8, [1, 3, 7]),
        # The host is ahead of a GPU that takes half a second for each: after a reading it has waited for all of them.
        (100, [0.01, 0.5, 0.01, 1.0, 0.01, 0.01, 1.5, 0.01, 1.0], [1, 3, 6, 8, 9]),
        (100, [0.01] * 7 + [4.0] + [0.5] * 10, [1, 3, 7, 15, 16, 18]),  # iterations become slower
    ],
)
def test_when_it_reads(log_every: int, seconds: list[float], expected: list[int]) -> None:
    assert read_after(Outcomes(at_once=False, log_every=log_every), seconds) == expected


def test_at_once() -> None:
    assert read_after(Outcomes(at_once=True, log_every=100), [0.01] * 5) == [1, 2, 3, 4, 5]


def test_what_is_read() -> None:
    outcomes = Outcomes(at_once=False, log_every=100)
    given = [outcome(seconds) for seconds in (1.0, 2.0, 3.0)]
    for one in given:
        outcomes.add(one)
    assert [(one, totals.seconds) for one, totals in outcomes.read()] == list(zip(given, (1.0, 2.0, 3.0), strict=True))
    assert outcomes.read() == []
    outcomes.add(given[0])
    outcomes.forget()
    assert outcomes.read() == []
