"""Section 4.1, appendix A, Table 5 and Figure 3: one-step methods in training."""

from __future__ import annotations

from fastadv.study.claims.common import POINT, at, over_eps
from fastadv.study.comparisons import gain, share
from fastadv.study.layout import TITLES
from fastadv.study.recipes import one_step
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _any_method_helps(scale: Scale, results: Results) -> list[Check]:
    found = one_step.networks(scale)
    checks = []
    for method in one_step.EVALUATED:
        attack = one_step.judge(method)
        checks += over_eps(
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
    found = one_step.networks(scale)
    return [
        check
        for best in ("step_ll", "step_rnd")
        for other in ("fgsm_pred", "fast_entropy")
        for check in over_eps(
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
    found = one_step.networks(scale)
    return [
        check
        for noise in one_step.NOISE
        for check in over_eps(
            scale,
            results,
            f"trained by {TITLES[noise]} over none, under FGSM",
            (found[noise], "fgsm"),
            (found["none"], "fgsm"),
            below=5 * POINT,
        )
    ]


def _one_for_all(scale: Scale, results: Results) -> list[Check]:
    found = one_step.networks(scale)
    return [
        check
        for attack in one_step.EVALUATED
        if attack != "fast_grad_l2"  # whose eps is an L2 norm: at these sizes it moves next to nothing
        for check in over_eps(
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
    network = one_step.networks(scale)["step_ll"]
    return [
        Check(
            f"under {TITLES[attack]}, eps = {after:g} over {before:g}",
            gain(results.accuracy(network, attack, after), results.accuracy(network, attack, before)),
            above=0,
        )
        for attack in one_step.EVALUATED
        for before, after in zip(scale.eps, scale.eps[1:], strict=False)
    ]


def _fgsm_error(scale: Scale, results: Results) -> list[Check]:
    network = one_step.networks(scale)["none"]
    return [
        Check(
            f"error of the standard network under FGSM {at(eps)}",
            share(results.accuracy(network, "fgsm", eps).wrong),
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
        "middle sizes.",
        _any_method_helps,
    ),
    Claim(
        "best_methods",
        "one_step",
        "Table 5",
        "Step l.l. and step rnd. train more robust networks than the other methods without the true label; judged "
        "against FGSM-pred and fast entropy, not against noise, at the three larger sizes.",
        _best_methods,
    ),
    Claim(
        "noise_does_not_help",
        "one_step",
        "Appendix A",
        "Training on random noise does not help against adversarial examples (it costs 2 to 5 points); judged by a "
        "gain of less than 5 points, a bound that is chosen, not the paper's.",
        _noise_does_not_help,
    ),
    Claim(
        "one_for_all",
        "one_step",
        "Appendix A",
        "Training with step l.l. alone gives robustness to all one-step methods; judged at the three larger sizes, "
        "without fast grad. L2, whose eps is the norm of the whole perturbation: at these sizes it moves next to "
        "nothing.",
        _one_for_all,
    ),
    Claim(
        "rises_with_eps",
        "one_step",
        "Figure 3",
        "Under some one-step methods the accuracy of a network trained on step l.l. rises with eps over part of the "
        "curve (FGSM, from 72.9 % at eps 2 to 76.2 % at 8).",
        _rises_with_eps,
        any_suffices=True,
    ),
    Claim(
        "fgsm_error",
        "one_step",
        "Section 2.2",
        "The top-1 error of a standard network under FGSM is about 63 to 69 % at all sizes from 2 to 32 (on ImageNet).",
        _fgsm_error,
        added=True,
    ),
)
