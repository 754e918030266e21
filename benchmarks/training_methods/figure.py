"""Draws robust accuracy against cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import rc_context

from benchmarks.harness import Interleaved
from benchmarks.training_methods.report import Row
from benchmarks.training_methods.robustness import ATTACKS
from benchmarks.training_methods.ways import STANDARD
from fastadv.evaluate.figures import COLOURS, MARKERS, SVG_STYLE

_COSTS = (1, 1.5, 2, 3, 5, 10)


def draw(shown: Sequence[Row], times: Interleaved, n: int, eps: float, file: Path) -> None:
    """One point for each way: accuracy under the strongest attack against the time of an iteration.

    Args:
        shown: the ways.
        times: of their iterations.
        n: test images.
        eps: of the attack.
        file: the SVG.
    """
    strongest = ATTACKS[-1].title
    with rc_context({**SVG_STYLE, "font.size": 9, "font.family": "sans-serif"}):
        # As wide as a telephone's screen, with room below for the names, which would cover each other at the points.
        figure, axes = plt.subplots(figsize=(4.6, 5.2), layout="constrained")
        for index, row in enumerate(shown):
            counts = row.correct[strongest]
            mean = statistics.mean(counts)
            colour = COLOURS[index % len(COLOURS)]
            axes.errorbar(
                [times.ratio(row.way.name, STANDARD).median],
                [100 * mean / n],
                yerr=[[100 * (mean - min(counts)) / n], [100 * (max(counts) - mean) / n]],
                label=row.way.name,
                color=colour,
                marker=MARKERS[index % len(MARKERS)],
                markerfacecolor="white" if index % 2 else colour,
                markersize=6,
                linestyle="none",
                capsize=2,
            )
        axes.set_xscale("log")
        axes.set_xticks(_COSTS, labels=[f"{cost:g}" for cost in _COSTS])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("time of an iteration over standard training's")
        axes.set_ylabel(f"accuracy under {strongest}, eps = {eps:g} (%)")
        axes.grid(alpha=0.3)
        spacing = {"handletextpad": 0.1, "columnspacing": 0.8}
        figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False, **spacing)
        figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
