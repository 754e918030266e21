"""Table 5 and Figure 3: every one-step method in training, and every one in evaluation."""

from __future__ import annotations

from fastadv.study.layout import Panel, Row, accuracy_figure, accuracy_table
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

METHODS = {
    "none": "No adversarial training",
    "fgsm": "FGSM",
    "fgsm_pred": "Fast with predicted class",
    "fast_entropy": "Fast entropy",
    "step_rnd": "Step rnd.",
    "step_ll": "Step l.l.",
    "fast_grad_l2": "Fast grad. L2*",
    "fast_grad_linf": "Fast grad. Linf*",
    "random_sign": "Sign of random perturbation",
    "random_normal": "Random normal perturbation",
}
EVALUATED = ("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd")
NOISE = ("random_sign", "random_normal")


def networks(scale: Scale) -> dict[str, Network]:
    """By the method that each is trained with."""
    made = {"none": scale.standard(METHODS["none"], scale.of_table5)}
    for method in list(METHODS)[1:]:
        made[method] = scale.adversarial(METHODS[method], {"attack.name": method, **scale.of_table5})
    return made


def judge(method: str) -> str:
    """The method of evaluation, as the footnote of Table 5 has it."""
    return "step_ll" if method.startswith("fast_grad") else "fgsm"


def evaluations(scale: Scale) -> list[Robustness]:
    """Table 5, and for Figure 3 the network of step l.l. and the standard one under all methods."""
    found = networks(scale)
    table = [Robustness((network,), (judge(method),), scale.eps, scale.limit) for method, network in found.items()]
    figure = Robustness((found["step_ll"], found["none"]), (*EVALUATED, *NOISE), scale.eps, scale.limit)
    return [*table, figure]


def show(scale: Scale, results: Results) -> Shown:
    """Table 5 with the best of each column in bold, and the two panels."""
    found = networks(scale)
    rows = [Row((network.name,), network, judge(method), "table5", method) for method, network in found.items()]
    table = accuracy_table(
        scale,
        results,
        rows,
        caption="One-step methods in training",
        labels=("Training",),
        tops=(1,),
        notes=(
            "Evaluated under FGSM, and (*) under step l.l.; with FGSM in both, accuracy is too high by label leaking. "
            "Bold: the best of a column, and those whose 95 % interval reaches its own.",
        ),
        bold_ties=True,
    )
    titles = {method: title.rstrip("*") for method, title in METHODS.items()}
    panels = [
        Panel(f"trained: {name}", [(titles[method], found[row], method) for method in (*EVALUATED, *NOISE)])
        for row, name in (("step_ll", "step l.l."), ("none", "as usual"))
    ]
    return Shown({"one_step": table}, {"one_step": accuracy_figure(scale, results, panels)})


STUDY = Study("one_step", "Comparison of one-step methods", "Table 5, Figure 3", evaluations, show)
