"""Figures made from records: accuracy against eps."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from fastadv.attacks.engine.zero_gradients import LEAST_SHARE
from fastadv.evaluate.attack_specs import run_options
from fastadv.evaluate.intervals import Estimate, wilson
from fastadv.evaluate.records import CLEAN, Record
from fastadv.evaluate.tables import check_same_images, images_of, norm_of, records_under
from fastadv.utils.optional_deps import require
from fastadv.utils.text import printable_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform


# Seven hues that are also seven levels of grey: neighbours are far apart in both, for print and for colour-blind
# readers, and no colour is too faint on white. With ten markers and four dashes, no combination repeats before the
# 141st.
COLOURS = ("#0080C0", "#E69A00", "#000000", "#AA1144", "#2FAE7A", "#332288", "#7FC4F0")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "p")
LINES = ("-", "--", "-.", ":")

PANELS_PER_ROW = 3
_APART, _WIDEST = 3.0, 15.0  # points between lines that would cover each other; at most between the outermost two

# Text stays text, and ids are the same in each run, so that an SVG can be searched and compared with earlier ones.
SVG_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "fastadv"}


def robustness_figure(records: Sequence[Record], *, top: int = 1) -> Figure:
    """Draw accuracy against eps with 95 % confidence intervals: a panel per attack, a line per model, clean at eps = 0.

    The legend marks models for which one image in a hundred or more has no gradient: they may look more robust than
    they are.

    Args:
        records: of any number of models and attacks on the same images.
        top: 1 or 5.

    Raises:
        ValueError: if there are no adversarial records, records are of different images, or top 5 was not measured.
    """
    check_same_images(records, attrgetter("model"))
    attacks = list(dict.fromkeys(record.attack for record in records if record.attack != CLEAN))
    models = list(dict.fromkeys(record.model for record in records))
    if not attacks:
        raise ValueError("there are no adversarial records to draw")
    hidden = {r.model for r in records if (r.without_gradient or 0) >= max(1, LEAST_SHARE * r.n)}
    figure, panels = panels_of(len(attacks), lines=len(models))
    in_l2 = {record.attack: norm_of(record) == "l2" for record in records if record.attack != CLEAN}
    for attack, axes in zip(attacks, panels, strict=True):
        for index, model in enumerate(models):
            own = [r for r in records_under(attack, records) if r.model == model]
            label = f"{model} (without a gradient)" if model in hidden else model
            draw_line(axes, label, _accuracies(sorted(own, key=lambda r: r.eps), top), index, len(models))
        alike = {r.eps for r in records if r.attack != CLEAN and in_l2[r.attack] == in_l2[attack]}
        eps_axis(axes, sorted(alike), in_l2=in_l2[attack])
        axes.set(title=escape_label(_with_options(attack, records)), ylim=(-3, 103))
        axes.tick_params(labelleft=axes in panels[::PANELS_PER_ROW])
    for axes in panels[::PANELS_PER_ROW]:
        axes.set_ylabel(f"top-{top} accuracy (%)")
    for norm in (False, True):  # sizes in two norms are not comparable
        alike_panels = [axes for attack, axes in zip(attacks, panels, strict=True) if in_l2[attack] == norm]
        limits = [limit for axes in alike_panels for limit in axes.get_xlim()]
        for axes in alike_panels:
            axes.set_xlim(min(limits), max(limits))
    what = f"Top-{top} accuracy with 95 % confidence intervals"
    set_title(figure, what, images_of(records[0]), records[0].seed)
    legend_below(figure, panels[:1])
    return figure


def with_top5(records: Sequence[Record]) -> list[Record]:
    """Select the records that a figure of top 5 can show; none if no attack has any."""
    missing = {record.attack for record in records if record.top5 is None}
    chosen = [record for record in records if record.attack not in missing]
    return [] if all(record.attack == CLEAN for record in chosen) else chosen


def _with_options(attack: str, records: Sequence[Record]) -> str:
    """The attack with its options, which its name has unless they apply to all attacks, such as ``fast``."""
    options = run_options(next(record.options for record in records if record.attack == attack))
    return ":".join([attack, *(f"{name}={value}" for name, value in options.items() if f":{name}=" not in attack)])


def set_title(figure: Figure, what: str, images: str, seed: int) -> None:
    """Say above all panels what is drawn, on which images and with which seed of the attacks' random numbers."""
    letters = int(13 * figure.get_figwidth())  # of this size, in a line
    lines = [line for text in (what, f"{images}, seed {seed}") for line in textwrap.wrap(escape_label(text), letters)]
    figure.suptitle("\n".join(lines), fontsize="medium")


def escape_label(text: str) -> str:
    """A name escaped for Matplotlib: no formula at a dollar sign, and no underscore that hides a line in the legend."""
    shown = printable_lines(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def legend_below(figure: Figure, panels: Sequence[Axes], *, x: str = "eps") -> None:
    """Put the legend of all panels' lines below them, each label once; several lines are shifted, and it says so.

    Args:
        figure: the figure.
        panels: those whose lines the legend lists.
        x: the quantity on the x axis.
    """
    shown = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    columns = int(figure.get_figwidth() / (0.8 + 0.075 * max(map(len, shown))))  # inches: key and letters
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside lower center",
        ncols=max(1, columns),
        frameon=False,
        title=f"Points at the same {x} are drawn side by side." if len(shown) > 1 else None,
        title_fontsize="small",
    )


def panels_of(panels: int, *, lines: int, columns: int = PANELS_PER_ROW) -> tuple[Figure, list[Axes]]:
    """Create a figure with panels, and room below them for a legend of ``lines`` lines."""
    columns, rows = min(panels, columns), -(-panels // columns)
    size = (max(3.6 * columns, 5.0), 3.0 * rows + 0.2 * lines)
    figure = require("matplotlib.figure", extra="evaluate").Figure(figsize=size, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(panels)]


def eps_axis(axes: Axes, levels: Sequence[float], *, clean: bool = True, in_l2: bool = False) -> None:
    """Make the x axis logarithmic from the smallest eps on and, with ``clean`` images, linear from there down to 0.

    0, 2, 4, 8, 16 are evenly spaced. With ``in_l2`` the label says that eps bounds the L2 norm.
    """
    shown = [0.0, *levels] if clean else list(levels)
    if clean:
        axes.set_xscale("symlog", base=2, linthresh=levels[0], linscale=0.5)
    else:
        axes.set_xscale("log", base=2)
    # Independent of what is drawn: a line may have no point at an end, or no points at all.
    axes.update_datalim([(level, 0) for level in shown], updatey=False)
    axes.autoscale_view(scaley=False)
    axes.set_xticks(shown, labels=[f"{level:g}" for level in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(f"eps{' in L2' if in_l2 else ''} (pixel values, log scale{'; 0 is clean' if clean else ''})")
    axes.grid(alpha=0.3)


def _accuracies(records: Sequence[Record], top: int) -> list[tuple[float, Estimate]]:
    """Compute (eps, accuracy) for each record."""
    if top == 5 and any(record.top5 is None for record in records):
        raise ValueError("top 5 was not measured: there are fewer than six classes, or the attack stops early")
    return [(r.eps, wilson(r.top1 if top == 1 else r.top5 or 0, r.n)) for r in records]


def draw_line(
    axes: Axes,
    label: str,
    points: Sequence[tuple[float, Estimate]],
    place: int,
    of: int,
    *,
    style: int | None = None,
    factor: float = 100,
    counts: Sequence[int] | None = None,
) -> None:
    """Draw a line of fractions with their intervals, shifted a little so that lines do not cover each other.

    Args:
        axes: the panel.
        label: for the legend.
        points: x, and the fraction there.
        place: index of the line among those of the panel.
        of: how many lines the panel has.
        style: index of colour, marker and dash; ``place`` by default.
        factor: 100 shows fractions in percent, 1 as they are.
        counts: the number of images behind each point, written above its interval; None writes nothing.
    """
    style = place if style is None else style
    colour = COLOURS[style % len(COLOURS)]
    drawn = axes.errorbar(
        [x for x, _ in points],
        [factor * found.value for _, found in points],
        yerr=[
            [factor * (found.value - found.low) for _, found in points],
            [factor * (found.high - found.value) for _, found in points],
        ],
        label=escape_label(label),
        color=colour,
        marker=MARKERS[style % len(MARKERS)],
        markerfacecolor="white" if style % 2 else colour,
        linestyle=LINES[style % len(LINES)],
        markersize=5,
        linewidth=1.4,
        capsize=2,
    )
    axes.margins(x=0.08)  # room for the outermost of the lines
    shift = _shift(axes, place, of)
    for part in drawn.get_children():  # only now, since the limits of the axes come from the data
        part.set_transform(axes.transData + shift)
    for (x, found), n in zip(points, counts or (), strict=counts is not None):
        axes.annotate(
            f"{n:,}",
            (x, factor * found.high),
            xycoords=axes.transData + shift,
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation="vertical",
            fontsize=6,
            color=colour,
        )


def _shift(axes: Axes, place: int, of: int) -> Transform:
    """A shift in points on paper, which leaves the data unchanged on any axis."""
    transforms = require("matplotlib.transforms", extra="evaluate")
    inches = (place - (of - 1) / 2) * min(_APART, _WIDEST / of) / 72
    moved: Transform = transforms.ScaledTranslation(inches, 0, axes.figure.dpi_scale_trans)
    return moved


def fit_axis(panels: Sequence[Axes], *, least: float) -> None:
    """Give panels the same y axis, which fits the lines and intervals of all of them and has at least this span."""
    low = min(axes.dataLim.ymin for axes in panels)
    high = max(axes.dataLim.ymax for axes in panels)
    margin = 0.05 * (high - low) + max(0.0, least - (high - low)) / 2
    for axes in panels:
        axes.set_ylim(low - margin, high + margin)


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.svg and .png, with the folders above them; returns the paths."""
    matplotlib = require("matplotlib", extra="evaluate")
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, png = (stem.with_name(stem.name + suffix) for suffix in (".svg", ".png"))
    with matplotlib.rc_context(SVG_STYLE):
        figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=150)
    return [svg, png]
