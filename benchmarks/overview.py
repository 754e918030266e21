"""Draws the README's chart: the cost of an adversarial iteration, and the speed of attacks next to other packages.

    python -m benchmarks.overview

writes docs/performance/overview.svg from the tables of two files in benchmarks/results; it measures nothing.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib import rc_context
from matplotlib.axes import Axes

from fastadv.evaluate.figures import SVG_STYLE

ROOT = Path(__file__).parent.parent
TRAINING, ATTACKS = (
    ROOT / "benchmarks/results" / name for name in ("2026-11-intel-xeon-2-threads.md", "2026-11-amd-epyc-attacks.md")
)
CHART = ROOT / "docs/performance/overview.svg"

NETWORKS = ("small_cnn", "ResNet-50", "Inception v3")
PASS_COUNT = 4 / 3  # forward and backward passes of a one-step attack on half of the examples: docs/performance.md
HALF = {"small_cnn": "32", "ResNet-50": "4", "Inception v3": "2"}  # k = m / 2, in the training file
OPTIONS = {"default options": "", "--fast": "fast"}  # as named in the training file
PACKAGES = ("cleverhans, default", "ART, default", "torchattacks, default", "fastadv, default", "fastadv, fast=True")
GREYS, BLUES = ("#c9c9c9", "#a6a6a6", "#7d7d7d"), ("#7fb2dd", "#1f6fb4")
Bars = dict[str, list[float]]  # one value per network


def main() -> None:
    with rc_context({**SVG_STYLE, "font.size": 9, "font.family": "sans-serif"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4), width_ratios=(2, 3))
        _bars(left, training(), BLUES)
        left.axhline(PASS_COUNT, color="#b5533d", linestyle="--", label=f"by pass count, {PASS_COUNT:.2f}")
        left.legend(fontsize=7, loc="upper left", ncols=2, frameon=False)
        left.set(title="Training iteration, half adversarial", ylabel="times a clean iteration", ylim=(0, 2.3))
        _bars(right, attacks(), (*GREYS, *BLUES))
        right.set(title="Speed of the attack step l.l.", ylabel="times torchattacks' default", ylim=(0, 2.9))
        right.legend(fontsize=7, loc="upper left", ncols=2, frameon=False)
        figure.tight_layout()
        figure.savefig(CHART, metadata={"Date": None})


def training() -> Bars:
    """Time of an iteration of step l.l. training, divided by the fastest clean one."""
    rows = _table(TRAINING, "clean iterations (quartiles)")
    found = {
        (row["network"], row["options"]): _median(row["clean iterations (quartiles)"])
        for row in rows
        if row["attack"] == "step_ll" and row["k"] == HALF[row["network"]]
    }
    return {label: [found[network, option] for network in NETWORKS] for label, option in OPTIONS.items()}


def attacks() -> Bars:
    """Speed of step l.l. in each package, relative to torchattacks."""
    rows = _table(ATTACKS, "torchattacks' default takes (quartiles)")
    found = {
        (row["network"], row["package"]): _median(row["torchattacks' default takes (quartiles)"])
        for row in rows
        if row["attack, steps"] == "step_ll, 1"
    }
    return {package: [found[network, package] for network in NETWORKS] for package in PACKAGES}


def _table(file: Path, column: str) -> list[dict[str, str]]:
    """The rows of the first table in a Markdown file that has the column."""
    lines = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in file.read_text().splitlines()]
    start = next(number for number, cells in enumerate(lines) if column in cells)
    header, rows = lines[start], []
    for cells in lines[start + 2 :]:
        if len(cells) != len(header):
            break
        rows.append(dict(zip(header, cells, strict=True)))
    return rows


def _median(cell: str) -> float:
    return float(cell.split()[0])


def _bars(axes: Axes, bars: Bars, colours: tuple[str, ...]) -> None:
    width = 0.8 / len(bars)
    for index, ((label, values), colour) in enumerate(zip(bars.items(), colours, strict=True)):
        places = [place + (index - (len(bars) - 1) / 2) * width for place in range(len(values))]
        drawn = axes.bar(places, values, 0.92 * width, color=colour, label=label)
        axes.bar_label(drawn, fmt="{:.2f}", fontsize=7, padding=2, bbox={"color": "white", "pad": 0.4})
    axes.set_xticks(range(len(NETWORKS)), NETWORKS)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
