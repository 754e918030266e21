"""The benchmarks that are not part of any gate still run, and count what they say they count."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cost_curves
from benchmarks import test_generation as generation
from benchmarks import test_training as training
from benchmarks.harness import Interleaved, Timing
from benchmarks.peers import PEERS
from fastadv import models

TINY = generation.Case(lambda: models.create("small_cnn", num_classes=5), 8, (2, 2), False)
MODULES = {"torchattacks": "torchattacks", "foolbox": "foolbox", "ART": "art", "cleverhans": "cleverhans"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("attack", "steps"), generation.ATTACKS.items())
def test_every_package_makes_the_same_images(attack: str, steps: int) -> None:
    bench = generation.Bench(TINY, attack, steps)
    made = {name: call() for name, call in bench.calls.items()}
    for name, adv in made.items():
        assert ((adv - made["fastadv, default"]).abs() > 1e-4).sum() <= 4, name
    known = {"foolbox"} if attack == "step_ll" else set()
    for peer, module in MODULES.items():
        found = importlib.util.find_spec(module) is not None
        assert (f"{peer}, default" in made) == (found and peer not in known)
    assert set(MODULES) == set(PEERS)


@pytest.mark.filterwarnings("ignore")
def test_passes_are_counted() -> None:
    """One forward and one backward a gradient are ours; the weights' gradients that others make are seen."""
    bench = generation.Bench(TINY, "step_ll", 1)
    assert bench.counts("fastadv, fast=True")[:3] == ["1", "1", "0"]
    assert bench.counts("torchattacks, default")[:3] == ["2", "1", "0"]
    assert bench.counts("ART, default")[:3] == ["2", "1", "1"]
    assert bench.counts("ART, best")[:3] == ["2", "1", "0"]


def test_an_iteration_is_one_of_training() -> None:
    case = training.Case("small_cnn", 4, 8)
    for attack in training.GRADIENTS:
        iteration = training.trainer(case, attack, 2, True)
        trainer = iteration.args[0]  # type: ignore[attr-defined]
        before = [parameter.clone() for parameter in trainer.model.parameters()]
        iteration()
        assert any((a != b).any() for a, b in zip(before, trainer.model.parameters(), strict=True))
        assert trainer.task.hits().examples == (2, 2)


def test_a_long_call_is_not_run_twice_a_round() -> None:
    calls: list[float] = []
    interleaved = Interleaved(
        {"long": lambda: calls.append(1)},
        quantum=0.01,
        clock=lambda work, n: [work() for _ in range(n)] and 1.0,
        run_up=1,
    )
    assert len(calls) == 2  # once to warm up, once to see how long it takes
    interleaved.round()
    assert len(calls) == 3


def test_straight_lines_of_cost() -> None:
    """2 ms + 3 ms each; where the best line would begin below zero, one through it."""
    x = (1, 10, 100)
    line = cost_curves.straight(x, [Timing(1e-3 * (2 + 3 * n), 0, 0) for n in x])
    assert (line.constant, line.slope) == pytest.approx((2, 3)) and line.worst < 1e-9
    line = cost_curves.straight((1, 2, 4), [Timing(1e-3 * ms, 0, 0) for ms in (1, 3, 9)])
    assert line.constant == 0 and 1 < line.slope < 2 and 0.2 < line.worst < 1


def test_curves_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [cost_curves.Curve("nothing", "of it", (1, 2), lambda n: lambda: np.ones(n))]
    monkeypatch.setattr(cost_curves, "CURVES", few)
    monkeypatch.setattr("sys.argv", ["cost_curves", "--out", str(tmp_path / "out"), "--rounds", "2"])
    cost_curves.main()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cost.md", "cost.svg", "cost.png"}
    assert re.search(r": -?[\d.]+ (ms|us|ns) for each of of it, ", (tmp_path / "out" / "cost.md").read_text())
