"""The benchmarks that are not part of any gate still run, and count what they say they count."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import cost_curves, harness
from benchmarks import test_generation as generation
from benchmarks import test_training as training
from benchmarks.harness import Interleaved, Table, Timing
from benchmarks.operators import Operators
from benchmarks.peers import PEERS
from fastadv import models

TINY = generation.Case(lambda: models.create("small_cnn", num_classes=5), 8, (2, 2), ())
MODULES = {"torchattacks": "torchattacks", "foolbox": "foolbox", "ART": "art", "cleverhans": "cleverhans"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("attack", "steps"), generation.ATTACKS.items())
def test_every_package_makes_the_same_images(attack: str, steps: int) -> None:
    bench = generation.Bench(TINY, attack, steps)
    made = {name: call() for name, call in bench.calls.items()}
    for name, adv in made.items():
        assert ((adv - made["fastadv, default"]).abs() > 1e-4).sum() <= 4, name
        assert bench.agree(adv, made["fastadv, default"]), name
    assert not bench.agree(bench.images, made["fastadv, default"])
    known = {"foolbox"} if attack == "step_ll" else set()
    for peer, module in MODULES.items():
        found = importlib.util.find_spec(module) is not None
        assert (f"{peer}, default" in made) == (found and peer not in known)
    assert set(MODULES) == set(PEERS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("attack", "name", "counts"),
    [
        # One forward and one backward a gradient; of the images' size the step, the model's copy and the one returned.
        ("step_ll", "fastadv, default", ["1", "1", "0", "3", "2"]),
        ("step_ll", "fastadv, fast=True", ["1", "1", "0", "5", "3"]),  # and to channels_last and back
        ("iter_basic", "fastadv, default", ["10", "10", "0", "2.2", "1.2"]),  # a copy a step, and two more
        # A forward for the class; zero the gradient, sign, scale, add, clamp.
        ("step_ll", "torchattacks, default", ["2", "1", "0", "5", "5"]),
        ("step_ll", "torchattacks, best", ["2", "1", "0", "5", "5"]),
        ("iter_basic", "torchattacks, default", ["10", "10", "0", "23.2", "23.2"]),
        # At best without the forward pass that shows whether the attack succeeded.
        ("fgsm", "foolbox, default", ["2", "1", "1", "16", "12"]),
        ("fgsm", "foolbox, best", ["1", "1", "0", "11", "9"]),
        ("iter_basic", "foolbox, best", ["10", "10", "0", "9.2", "9"]),
        ("step_ll", "ART, default", ["2", "1", "1", "8", "8"]),  # weights' gradients that nobody reads
        ("step_ll", "ART, best", ["2", "1", "0", "8", "8"]),
    ],
)
def test_what_a_call_runs_is_counted(attack: str, name: str, counts: list[str]) -> None:
    """Passes in a call, full-size operators and tensors in an iteration."""
    bench = generation.Bench(TINY, attack, generation.ATTACKS[attack])
    assert bench.first(name)[1] == counts


def test_an_iteration_is_one_of_training() -> None:
    case = training.Case("small_cnn", 4, 32, ())
    for attack in training.GRADIENTS:
        iteration = training.trainer(case, attack, 2, True)
        trainer = iteration.args[0]  # type: ignore[attr-defined]
        before = [parameter.clone() for parameter in trainer.model.parameters()]
        iteration()
        assert any((a != b).any() for a, b in zip(before, trainer.model.parameters(), strict=True))
        assert trainer.task.hits().examples == (2, 2)


def test_a_hollow_network_costs_no_pass_and_moves_no_less() -> None:
    """It is folded, its images move and its weights get gradients, and no layer of it runs."""
    case = training.Case("small_cnn", 4, 32, ())
    iteration = training.trainer(case, "step_ll", 2, True, hollow=True)
    trainer = iteration.args[0]  # type: ignore[attr-defined]
    with Operators(torch.empty(4, 3, 32, 32)) as counted:
        iteration()
    assert counted.names["convolution"] == counted.names["convolution_backward"] == 0
    assert counted.names["_foreach_rsqrt"] == 1  # the BatchNorm layers are folded anew, all together
    assert counted.names["fastadv::sign_step_"] == 1
    assert all((parameter.grad == 0).all() for parameter in trainer.model.parameters())


def test_ratios_are_taken_in_each_round() -> None:
    """The quotients 2, 3, 1 have the median 2, where the medians' quotient is 3 / 2; the quartiles are of quotients."""
    interleaved = Interleaved({"a": int, "b": int}, quantum=0)
    interleaved.seconds = {"a": [2.0, 9.0, 3.0], "b": [1.0, 3.0, 3.0]}
    assert interleaved.ratio("a", "b").text == "2.00 (1.00-3.00)"
    assert interleaved.ratio("b", "b").percent == "100 % (100-100)"
    assert interleaved.rounds == 3


@pytest.mark.parametrize(("round_takes", "rounds"), [(0.01, 15), (10.0, 5), (1000.0, 3)])
def test_rounds_fill_their_time(monkeypatch: pytest.MonkeyPatch, round_takes: float, rounds: int) -> None:
    now = [0.0]
    monkeypatch.setattr(harness.time, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += round_takes

    interleaved = Interleaved({"one": work}, quantum=0, run_up=0)
    interleaved.run(45.0)
    assert interleaved.rounds == rounds


def test_rows_that_are_missing_are_named() -> None:
    table = Table("a table", [], rows=[["net", "8", "fgsm"]], wanted=[("net", "fgsm"), ("net", "step_ll")])
    assert table.missing == ["net, step_ll"]


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
    assert re.search(r": -?[\d.]+(e[+]\d+)? (ms|us|ns) for each of of it, ", (tmp_path / "out" / "cost.md").read_text())
