from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks import scaling_model
from benchmarks.scaling_model import (
    MLPERF,
    Network,
    Public,
    Work,
    all_reduce_seconds,
    backward_share,
    fitted,
    hiding_bandwidth,
    predicted,
    step_seconds,
)

NETWORK = Network(bandwidth=100.0, latency=0.5, stragglers=0.25)


@pytest.mark.parametrize(
    ("gpus", "seconds"),
    [(1, 0.0), (2, 0.5 + 1.0 * 200 / 100), (4, 1.0 + 1.5 * 200 / 100), (8, 1.5 + 1.75 * 200 / 100)],
)
def test_all_reduce_by_hand(gpus: int, seconds: float) -> None:
    assert all_reduce_seconds(200.0, gpus, NETWORK) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("overlap", "gpus", "seconds"),
    [
        (0.0, 1, 10.0),  # alone: no exchange, nobody to wait for
        (0.0, 4, 10 + 4 + 0.25),
        (3.0, 4, 10 + 1 + 0.25),
        (4.5, 4, 10 + 0.25),  # what fits behind the passes costs nothing, and gains nothing
    ],
)
def test_step_by_hand(overlap: float, gpus: int, seconds: float) -> None:
    work = Work(seconds=10.0, gradient_bytes=200.0, overlap=overlap)
    assert step_seconds(work, gpus, NETWORK) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("gpus", "latency", "bandwidth"),
    [
        (2, 0.0, 1.0 * 200 / 4),
        (4, 0.0, 1.5 * 200 / 4),
        (4, 0.5, 1.5 * 200 / 3),
        (4, 2.0, math.inf),  # the messages alone take as long as the passes that they may hide behind
        (4, 3.0, math.inf),
    ],
)
def test_bandwidth_that_hides_the_exchange_by_hand(gpus: int, latency: float, bandwidth: float) -> None:
    work = Work(seconds=10.0, gradient_bytes=200.0, overlap=4.0)
    assert hiding_bandwidth(work, gpus, latency) == pytest.approx(bandwidth)
    if bandwidth < math.inf:
        for share, waits in ((1.01, False), (0.9, True)):
            network = Network(bandwidth=share * bandwidth, latency=latency)
            assert (step_seconds(work, gpus, network) > work.seconds) is waits


def test_line_through_two_figures() -> None:
    speed = fitted(Public(8, 100, 50.0), Public(64, 20, 25.0))  # 2 s for 100 images, 0.8 s for 20
    assert (speed.fixed, speed.image) == pytest.approx((0.5, 0.015))
    assert speed.seconds(10) == pytest.approx(0.65)


@pytest.mark.parametrize(("adversarial_share", "share"), [(0, 2 / 3), (0.5, 1 / 2), (1, 2 / 5)])
def test_backward_share(adversarial_share: float, share: float) -> None:
    assert backward_share(adversarial_share) == pytest.approx(share)


def test_the_public_figure_that_was_not_fitted() -> None:
    largest = MLPERF[2]
    assert predicted(largest, fitted(*MLPERF[:2]), Network()) == pytest.approx(largest.images_per_s, rel=0.05)


@pytest.mark.parametrize("table", [scaling_model.paper_run(), scaling_model.needed()], ids=["iterations", "needed"])
def test_the_documentation_has_what_the_model_says(table: scaling_model.Table) -> None:
    documented = (Path(__file__).parent.parent / "docs" / "scaling.md").read_text()
    for row in (table.header, *table.rows):
        assert "| " + " | ".join(row) + " |" in documented
