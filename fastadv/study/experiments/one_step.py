"""Table 5 and Figure 3: every one-step method in training and in evaluation."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, at_eps
from fastadv.study.comparisons import gain, share
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import TITLES, Panel, Row, accuracy_plot, accuracy_table
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

EVALUATION_ATTACKS = ("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd")
NOISE = ("random_sign", "random_normal")
# The panels of the figure, which nine lines would fill too much.
SIGNS = tuple(method for method in EVALUATION_ATTACKS if not method.startswith("fast_grad"))
OTHERS = ("fast_grad_l2", "fast_grad_linf", *NOISE)
# In the order of Table 5.
TRAINING_ATTACKS = (
    "fgsm",
    "fgsm_pred",
    "fast_entropy",
    "step_rnd",
    "step_ll",
    "fast_grad_l2",
    "fast_grad_linf",
    *NOISE,
)


def networks(scale: Scale) -> dict[str, Network]:
    """Networks keyed by the method that they are trained with."""
    made = {"none": scale.standard("no adversarial training", scale.table5_changes)}
    for method in TRAINING_ATTACKS:
        star = "*" if evaluation_attack(method) == "step_ll" else ""
        made[method] = scale.adversarial(TITLES[method] + star, {"attack.name": method, **scale.table5_changes})
    return made


def evaluation_attack(method: str) -> str:
    """The method that a network is evaluated with, according to the footnote of Table 5."""
    return "step_ll" if method.startswith("fast_grad") else "fgsm"


def evaluations(scale: Scale) -> list[Robustness]:
    """Table 5; and for Figure 3 the step l.l. network and the standard network under all methods."""
    found = networks(scale)
    table = [
        Robustness((network,), (evaluation_attack(method),), scale.eps, scale.limit)
        for method, network in found.items()
    ]
    figure = Robustness((found["step_ll"], found["none"]), (*EVALUATION_ATTACKS, *NOISE), scale.eps, scale.limit)
    return [*table, figure]


def show(scale: Scale, results: Results) -> StudyOutput:
    """Table 5 with the best of comparable rows in bold, and the two panels of Figure 3."""
    found = networks(scale)
    rows = [
        Row((network.name,), network, evaluation_attack(method), "table5", method) for method, network in found.items()
    ]
    table = accuracy_table(
        scale,
        results,
        rows,
        caption="One-step methods in training",
        labels=("Training",),
        tops=(1,),
        notes=(
            "Evaluated under FGSM, rows with (*) under step l.l.; for training and evaluation both with FGSM, label "
            "leaking can inflate accuracy. Bold: the best of a column, and those whose 95 % intervals overlap with "
            "its own; on adversarial images, rows with and without (*) are compared separately.",
            _note_on_l2(scale),
        ),
        bold_ties=True,
    )
    panels = [
        Panel(f"training: {name}; {kind}", [(TITLES[method], found[row], method) for method in methods], first_style)
        for row, name in (("step_ll", "step l.l."), ("none", "standard"))
        for kind, methods, first_style in (("sign of a gradient", SIGNS, 0), ("other steps", OTHERS, len(SIGNS)))
    ]
    subject = (
        "A network trained on step l.l. and one trained as usual, each under every one-step method and under noise"
    )
    plot = accuracy_plot(scale, results, panels, subject=subject, columns=2)
    return StudyOutput({"one_step": table}, {"one_step": plot})


def _note_on_l2(scale: Scale) -> str:
    values, eps = scale.channels * scale.image_size**2, scale.eps[-1]
    return (
        f"For {TITLES['fast_grad_l2']} eps is the L2 norm of the whole perturbation, also in training: {eps:g} spread "
        f"evenly over {values:,} values is {eps / values**0.5:.2g} per value."
    )


STUDY = Study("one_step", "Comparison of one-step methods", "Table 5, Figure 3", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _any_method_helps(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    checks = []
    for method in EVALUATION_ATTACKS:
        attack = evaluation_attack(method)
        checks += accuracy_gains(
            scale,
            results,
            f"trained by {TITLES[method]} over none, under {TITLES[attack]}",
            (found[method], attack),
            (found["none"], attack),
            above=0,
            sizes=scale.eps[1:3],
        )
    return checks


def _best_methods(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for best in ("step_ll", "step_rnd")
        for other in ("fgsm_pred", "fast_entropy")
        for check in accuracy_gains(
            scale,
            results,
            f"trained by {TITLES[best]} over {TITLES[other]}, under FGSM",
            (found[best], "fgsm"),
            (found[other], "fgsm"),
            above=0,
            sizes=scale.eps[1:],
        )
    ]


def _noise_does_not_help(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for noise in NOISE
        for check in accuracy_gains(
            scale,
            results,
            f"trained by {TITLES[noise]} over none, under FGSM",
            (found[noise], "fgsm"),
            (found["none"], "fgsm"),
            below=5 * POINT,
        )
    ]


def _one_for_all(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for attack in EVALUATION_ATTACKS
        if attack != "fast_grad_l2"  # whose eps is an L2 norm: these sizes hardly change an image
        for check in accuracy_gains(
            scale,
            results,
            f"trained by step l.l. over none, under {TITLES[attack]}",
            (found["step_ll"], attack),
            (found["none"], attack),
            above=0,
            sizes=scale.eps[1:],
        )
    ]


def _rises_with_eps(scale: Scale, results: Results) -> list[Check]:
    network = networks(scale)["step_ll"]
    return [
        Check(
            f"under {TITLES[attack]}, eps = {after:g} over {before:g}",
            gain(results.accuracy(network, attack, after), results.accuracy(network, attack, before)),
            above=0,
        )
        for attack in EVALUATION_ATTACKS
        for before, after in zip(scale.eps, scale.eps[1:], strict=False)
    ]


def _fgsm_error(scale: Scale, results: Results) -> list[Check]:
    network = networks(scale)["none"]
    return [
        Check(
            f"error of the standard network under FGSM {at_eps(eps)}",
            share(results.accuracy(network, "fgsm", eps).complement),
            above=0.63,
            below=0.69,
            unit="%",
        )
        for eps in scale.eps
    ]


CLAIMS = (
    Claim(
        "any_method_helps",
        "one_step",
        "Section 4.1",
        "Training with any one-step method increases robustness to one-step examples; judged as in Table 5, at the two "
        "middle eps.",
        _any_method_helps,
    ),
    Claim(
        "best_methods",
        "one_step",
        "Table 5",
        "Step l.l. and step rnd. train more robust networks than the other methods without the true label; judged "
        "against FGSM-pred and fast entropy, not against noise, at the three larger eps.",
        _best_methods,
    ),
    Claim(
        "noise_does_not_help",
        "one_step",
        "Appendix A",
        "Training on random noise does not help against adversarial examples (it costs 2 to 5 points); judged by a "
        "gain of less than 5 points, a bound chosen by us.",
        _noise_does_not_help,
    ),
    Claim(
        "one_for_all",
        "one_step",
        "Appendix A",
        "Training with step l.l. alone gives robustness to all one-step methods; judged at the three larger eps, "
        "without fast grad. L2, whose eps is the norm of the whole perturbation: these sizes hardly change an image.",
        _one_for_all,
    ),
    Claim(
        "rises_with_eps",
        "one_step",
        "Figure 3",
        "Under some one-step methods, the accuracy of a network trained on step l.l. rises with eps over part of the "
        "curve (FGSM: from 72.9 % at eps 2 to 76.2 % at 8).",
        _rises_with_eps,
        any_suffices=True,
    ),
    Claim(
        "fgsm_error",
        "one_step",
        "Section 2.2",
        "The top-1 error of a standard network under FGSM is about 63 to 69 % at all eps from 2 to 32 (on ImageNet).",
        _fgsm_error,
        added_later=True,
    ),
)
