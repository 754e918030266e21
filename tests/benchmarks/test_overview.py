"""The README's chart shows what the committed measurements say."""

from __future__ import annotations

from benchmarks import overview


def test_the_chart_shows_the_measured_values() -> None:
    drawn = overview.CHART.read_text()
    for bars in (overview.training(), overview.attacks()):
        for label, values in bars.items():
            assert f">{label}</text>" in drawn
            assert all(f">{value:.2f}</text>" in drawn for value in values)


def test_values_are_read_from_their_rows() -> None:
    assert overview.training()["--fast"] == [1.37, 1.36, 1.27]
    assert overview.attacks()["torchattacks, default"] == [1.0, 1.0, 1.0]
    assert overview.attacks()["fastadv, fast=True"] == [2.19, 1.91, 2.17]
