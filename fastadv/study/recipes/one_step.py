"""Table 5 and Figure 3: every one-step method in training, and every one in evaluation."""

from __future__ import annotations

from fastadv.study.layout import TITLES, Panel, Row, accuracy_plot, accuracy_table
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

EVALUATED = ("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd")
NOISE = ("random_sign", "random_normal")
# In the order of the table.
TRAINED = ("fgsm", "fgsm_pred", "fast_entropy", "step_rnd", "step_ll", "fast_grad_l2", "fast_grad_linf", *NOISE)


def networks(scale: Scale) -> dict[str, Network]:
    """By the method that each is trained with."""
    made = {"none": scale.standard("no adversarial training", scale.of_table5)}
    for method in TRAINED:
        star = "*" if judge(method) == "step_ll" else ""
        made[method] = scale.adversarial(TITLES[method] + star, {"attack.name": method, **scale.of_table5})
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
    """Table 5 with the best of comparable rows in bold, and the two panels."""
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
            "Evaluated under FGSM, and (*) under step l.l.; with FGSM in both, label leaking can make it too high. "
            "Bold: the best of a column, and those whose 95 % interval reaches its own; on adversarial images among "
            "rows under the same method, those with and those without (*).",
            _note_on_l2(scale),
        ),
        bold_ties=True,
    )
    panels = [
        Panel(f"trained: {name}", [(TITLES[method], found[row], method) for method in (*EVALUATED, *NOISE)])
        for row, name in (("step_ll", "step l.l."), ("none", "as usual"))
    ]
    of = "A network trained on step l.l. and one trained as usual, each under every one-step method and under noise"
    return Shown({"one_step": table}, {"one_step": accuracy_plot(scale, results, panels, of=of)})


def _note_on_l2(scale: Scale) -> str:
    values, eps = scale.channels * scale.image_size**2, scale.eps[-1]
    return (
        f"For {TITLES['fast_grad_l2']} eps is the L2 norm of the whole perturbation, in training, too: {eps:g} spread "
        f"over {values:,} values is {eps / values**0.5:.2g} each."
    )


STUDY = Study("one_step", "Comparison of one-step methods", "Table 5, Figure 3", evaluations, show)
