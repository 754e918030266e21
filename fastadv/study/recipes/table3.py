"""Table 3 and section 4.2: label leaking of a network that is trained on FGSM, and the count by its definition."""

from __future__ import annotations

from dataclasses import replace

from fastadv.evaluate.figures import draw_line, legend_below, panels_of
from fastadv.evaluate.intervals import proportion, wilson
from fastadv.evaluate.tables import INTERVALS, Cell, Table, notes_on_gradients
from fastadv.study import paper
from fastadv.study.layout import TITLES, Panel, Row, accuracy_plot, accuracy_table, tops_of
from fastadv.study.plan import Leaking, Network, Plot, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

# Of the range: the sizes of section 4.2's check on MNIST, completed.
LEAK_SIZES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
LEAK_EPS = tuple(round(255 * size, 2) for size in LEAK_SIZES)  # in pixel values
PAIRS = (("fgsm", "fgsm_pred"), ("fgsm", "step_ll"))
TRAINED = "Trained on FGSM"


def networks(scale: Scale) -> dict[str, Network]:
    """By the rows of the paper's table, each trained and evaluated with the same method."""
    return {
        "step_ll": scale.adversarial("Trained on step l.l.", scale.of_table3),
        "fgsm": scale.adversarial(TRAINED, {"attack.name": "fgsm", **scale.of_table3}),
    }


def evaluations(scale: Scale) -> list[Robustness | Leaking]:
    """The table; the FGSM-trained network under methods that show whether the effect vanishes; the counts."""
    found = networks(scale)
    by_label, without = found["fgsm"], found["step_ll"]
    return [
        Robustness((without,), ("step_ll", "fgsm"), scale.eps, scale.limit),
        Robustness((by_label,), ("fgsm", "fgsm_pred", "step_ll"), scale.eps, scale.limit),
        Robustness((by_label,), ("iter_basic",), scale.eps, scale.iterative_limit),
        Leaking((by_label,), PAIRS, LEAK_EPS, scale.limit),
    ]


def show(scale: Scale, results: Results) -> Shown:
    """The table, the counts, and the curves of both."""
    found = networks(scale)
    rows = [Row((network.name,), network, row, "table3", row) for row, network in found.items()]
    table = accuracy_table(
        scale,
        results,
        rows,
        caption="Label leaking: each network under the method that it was trained on",
        labels=("Network",),
        tops=tops_of(scale),
    )
    of = "The network trained on FGSM, under methods with and without the true label"
    lines = [(TITLES[attack], found["fgsm"], attack) for attack in ("fgsm", "fgsm_pred", "step_ll", "iter_basic")]
    return Shown(
        {"table3": table, "table3-leaking": _leak_table(scale, results, found["fgsm"])},
        {
            "table3": accuracy_plot(scale, results, [Panel(TRAINED, lines)], of=of),
            "table3-leaking": _leak_plot(scale, results, found["fgsm"]),
        },
    )


def _leak_table(scale: Scale, results: Results, network: Network) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for size, eps in zip(LEAK_SIZES, LEAK_EPS, strict=True):
        pair = [results.leaking(network, *names, eps) for names in PAIRS]
        first = pair[0]
        cells: list[Cell] = [
            proportion(first.n - first.clean, first.n),
            proportion(first.n - first.with_label, first.n),
        ]
        cells += [proportion(record.n - record.without_label, record.n) for record in pair]
        rows.append((f"{size:g}", f"{eps:g}", *cells, *(str(record.leaked) for record in pair)))
    theirs = paper.numbers()["leaking"]
    header = (
        *("eps of the range", "eps", "Error, clean", "FGSM", *(TITLES[without] for _, without in PAIRS)),
        *(f"Leaked against {TITLES[without]}" for _, without in PAIRS),
    )
    measured = results.leaking(network, *PAIRS[0], LEAK_EPS[0])
    notes = (
        f"{TRAINED}; {measured.n:,} images. Leaked: classified correctly on the FGSM example and wrongly on the one "
        f"made without the true label. FGSM and {TITLES['fgsm_pred']} differ only for images that are misclassified "
        "when clean.",
        f"The paper counts {theirs['leaked']} of {theirs['n']:,} at {theirs['eps_of_range']:g} of the range, for a "
        f"network that others trained on MNIST. Here its sizes are tried on this network and on {measured.dataset}.",
        INTERVALS,
        *notes_on_gradients(replace(results.leaking(network, *PAIRS[0], eps), model=TRAINED) for eps in LEAK_EPS),
    )
    return Table("Labels leaked, by the definition of section 4.2", header, tuple(rows), labels=2, notes=notes)


def _leak_plot(scale: Scale, results: Results, network: Network) -> Plot:
    figure, [axes] = panels_of(1, lines=len(PAIRS))
    for index, (attack, without) in enumerate(PAIRS):
        records = [results.leaking(network, attack, without, eps) for eps in LEAK_EPS]
        points = [(record.eps, wilson(record.leaked, record.n)) for record in records]
        draw_line(axes, f"FGSM against {TITLES[without]}", points, index, len(PAIRS))
    axes.set(title=TRAINED, xlabel="eps (pixel values)", ylabel="labels leaked (% of all)")
    axes.grid(alpha=0.3)
    legend_below(figure, axes)
    return Plot(figure, "Labels leaked, the counts of the table, as a share of all images with its 95 % interval.")


STUDY = Study("table3", "Label leaking", "Table 3, section 4.2", evaluations, show)
