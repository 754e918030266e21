"""What the paper claims, each as checks on records.

The bounds are the paper's words where it gives numbers ("less than 1 %"), and otherwise the nearest round number beyond
what its own tables show; they were written before any study had been run, and a verdict follows from them by the one
rule of :mod:`fastadv.study.verdicts`. An interval covers the draw of test images, not that of a training: another seed
would move most accuracies by some tenths of a point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fastadv.evaluate.statistics import combination
from fastadv.study.plan import Network
from fastadv.study.recipes import (
    activations,
    capacity,
    delay,
    fixed_eps,
    iterative_training,
    k_sweep,
    one_step,
    regularizers,
    table1,
    table2,
    table3,
    transfer,
)
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim, Finding, gain, judge, quotient_gain, share

_POINT = 0.01


def findings(scale: Scale, results: Results, studies: Iterable[str]) -> list[Finding]:
    """The verdicts on the claims of these studies."""
    chosen = set(studies)
    return [judge(claim, scale, results) for claim in CLAIMS if claim.study in chosen]


def _at(eps: float) -> str:
    return f"at eps = {eps:g}"


def _over_eps(
    scale: Scale,
    results: Results,
    what: str,
    one: tuple[Network, str],
    other: tuple[Network, str],
    *,
    above: float | None = None,
    below: float | None = None,
    sizes: Sequence[float] | None = None,
) -> list[Check]:
    """At each eps, by how much the accuracy of one network under an attack exceeds that of another."""
    return [
        Check(f"{what} {_at(eps)}", gain(results.accuracy(*one, eps), results.accuracy(*other, eps)), above, below)
        for eps in sizes or scale.eps
    ]


def _clean_gain(
    results: Results,
    one: Network,
    other: Network,
    what: str,
    *,
    above: float | None = None,
    below: float | None = None,
) -> Check:
    return Check(f"clean, {what}", gain(results.clean(one), results.clean(other)), above, below)


def _below_clean(results: Results, network: Network, attack: str, eps: float) -> tuple[Share, Share]:
    """Accuracy under an attack, and on the same images when clean."""
    return results.accuracy(network, attack, eps), results.clean(network, beside=attack, eps=eps)


# --- Table 1 ---------------------------------------------------------------------------------------------------------


def _robust(scale: Scale, results: Results) -> list[Check]:
    found = table1.networks(scale)
    one, other = (found["adversarial"], "step_ll"), (found["baseline"], "step_ll")
    return _over_eps(scale, results, "adversarial over standard training", one, other, above=0)


def _on_a_par(scale: Scale, results: Results) -> list[Check]:
    network = table1.networks(scale)["adversarial"]
    checks = []
    for eps in scale.eps:
        adversarial, clean = _below_clean(results, network, "step_ll", eps)
        checks.append(Check(f"clean over step l.l. {_at(eps)}", gain(clean, adversarial), below=5 * _POINT))
    return checks


def _clean_cost(scale: Scale, results: Results) -> list[Check]:
    found = table1.networks(scale)
    what = "standard over adversarial training"
    return [_clean_gain(results, found["baseline"], found["adversarial"], what, above=0, below=_POINT)]


def _deeper_clean(scale: Scale, results: Results) -> list[Check]:
    found = {name: share(results.clean(network)) for name, network in table1.networks(scale).items()}
    loss = [(1, found["baseline"]), (-1, found["adversarial"])]
    deeper = [(-1, found["deeper_baseline"]), (1, found["deeper_adversarial"])]
    return [Check("loss of clean accuracy, base over deeper network", combination([*loss, *deeper]), above=0)]


def _deeper_robust(scale: Scale, results: Results) -> list[Check]:
    found = table1.networks(scale)
    one, other = (found["deeper_adversarial"], "step_ll"), (found["adversarial"], "step_ll")
    return _over_eps(scale, results, "deeper over base network", one, other, above=0)


# --- Table 2 ---------------------------------------------------------------------------------------------------------


def _not_iterative(scale: Scale, results: Results) -> list[Check]:
    found = table2.networks(scale)
    return [
        check
        for attack, title in table2.ATTACKS.items()
        for check in _over_eps(
            scale,
            results,
            f"{title}, adversarial over standard training",
            (found["adversarial"], attack),
            (found["baseline"], attack),
            below=10 * _POINT,
        )
    ]


def _fools(scale: Scale, results: Results) -> list[Check]:
    baseline, eps = table2.networks(scale)["baseline"], scale.eps[-1]
    error = share(results.accuracy(baseline, "iter_ll", eps).wrong)
    return [Check(f"error of the standard network {_at(eps)}", error, above=0.99, unit="%")]


# --- Table 3 and section 4.2 -----------------------------------------------------------------------------------------


def _over_clean(
    scale: Scale,
    results: Results,
    row: str,
    attack: str,
    *,
    above: float | None = None,
    below: float | None = None,
) -> list[Check]:
    network = table3.networks(scale)[row]
    return [
        Check(f"{attack} over clean {_at(eps)}", gain(*_below_clean(results, network, attack, eps)), above, below)
        for eps in scale.eps
    ]


def _leaks(scale: Scale, results: Results) -> list[Check]:
    return _over_clean(scale, results, "fgsm", "fgsm", above=0)


def _does_not_leak(scale: Scale, results: Results) -> list[Check]:
    return _over_clean(scale, results, "step_ll", "step_ll", below=0)


def _vanishes_without(scale: Scale, results: Results) -> list[Check]:
    return [
        check for attack in ("fgsm_pred", "step_ll") for check in _over_clean(scale, results, "fgsm", attack, below=0)
    ]


def _vanishes_iterated(scale: Scale, results: Results) -> list[Check]:
    return _over_clean(scale, results, "fgsm", "iter_basic", below=0)


def _leak_is_small(scale: Scale, results: Results) -> list[Check]:
    network = table3.networks(scale)["fgsm"]
    checks = []
    for eps in table3.leak_eps(scale):
        record = results.leaking(network, *table3.PAIRS[0], eps)
        leaked, right = Share(record.leaked, record.n), Share(record.without_label, record.n)
        checks.append(Check(f"error over leaked labels {_at(eps)}", gain(right.wrong, leaked), above=0))
    return checks


# --- Figures 1 and 4 -------------------------------------------------------------------------------------------------


def _clean_grows(scale: Scale, results: Results) -> list[Check]:
    found, narrow, wide = capacity.networks(scale), scale.widths[0], scale.widths[-1]
    return [
        _clean_gain(results, found[kind, wide], found[kind, narrow], f"{kind}, widest over narrowest", above=0)
        for kind in ("standard", "adversarial")
    ]


def _ratio_gain(scale: Scale, results: Results, kind: str, attack: str, wide: float, narrow: float) -> list[Check]:
    found = capacity.networks(scale)
    return [
        Check(
            f"{capacity.ATTACKS[attack]}, ratio at rho = {wide:g} over rho = {narrow:g} {_at(eps)}",
            quotient_gain(
                _below_clean(results, found[kind, wide], attack, eps),
                _below_clean(results, found[kind, narrow], attack, eps),
            ),
            above=0,
            unit="",
        )
        for eps in scale.eps
    ]


def _robustness_grows(scale: Scale, results: Results) -> list[Check]:
    return _ratio_gain(scale, results, "adversarial", "step_ll", scale.widths[-1], scale.widths[0])


def _robustness_grows_iterative(scale: Scale, results: Results) -> list[Check]:
    return [
        check
        for attack in ("iter_ll", "iter_basic")
        for check in _ratio_gain(scale, results, "adversarial", attack, scale.widths[-1], scale.widths[0])[:2]
    ]


def _optimum_inside(scale: Scale, results: Results) -> list[Check]:
    """By step l.l. at the second size; the best of the inner widths is chosen from the same records."""
    eps = scale.eps[1]
    found = {rho: capacity.networks(scale)["standard", rho] for rho in scale.widths}
    ratios = {rho: capacity.accuracy_ratio(results, network, "step_ll", eps) for rho, network in found.items()}
    best = max(scale.widths[1:-1], key=lambda rho: ratios[rho].value)
    return [
        Check(
            f"ratio at rho = {best:g} over rho = {end:g} {_at(eps)}",
            combination([(1, ratios[best]), (-1, ratios[end])]),
            above=0,
            unit="",
        )
        for end in (scale.widths[0], scale.widths[-1])
    ]


def _near_one(scale: Scale, results: Results) -> list[Check]:
    network = capacity.networks(scale)["adversarial", scale.widths[-1]]
    return [
        Check(
            f"ratio of the widest network under step l.l. {_at(eps)}",
            capacity.accuracy_ratio(results, network, "step_ll", eps),
            above=0.9,
            unit="",
        )
        for eps in scale.eps
    ]


# --- Tables 4 and 6 --------------------------------------------------------------------------------------------------


def _rate(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    """From A to B, of the images that fool A."""
    found = transfer.networks(scale)
    fooled, transferred, _ = results.transfer(found["A"], found["B"], attack, eps).top1
    return Share(transferred, fooled)


def _order_of_transfer(scale: Scale, results: Results) -> list[Check]:
    eps = scale.eps[-1]
    rates = {attack: _rate(scale, results, attack, eps) for attack in transfer.ATTACKS}
    pairs = zip(transfer.ATTACKS, transfer.ATTACKS[1:], strict=False)
    return [
        Check(f"transfer rate from A to B, {one} over {other} {_at(eps)}", gain(rates[one], rates[other]), above=0)
        for one, other in pairs
    ]


def _order_of_fooling(scale: Scale, results: Results) -> list[Check]:
    network, eps = transfer.networks(scale)["A"], scale.eps[-1]
    wrong = {}
    for attack in transfer.ATTACKS:
        record = results.transfer(network, network, attack, eps)
        wrong[attack] = Share(record.top1[2], record.n)
    return [
        Check(
            f"error of the source A, iter_ll over {attack} {_at(eps)}", gain(wrong["iter_ll"], wrong[attack]), above=0
        )
        for attack in ("fgsm", "iter_basic")
    ]


def _transfer_grows(scale: Scale, results: Results) -> list[Check]:
    checks = []
    for attack in transfer.ATTACKS:
        small, large = (_rate(scale, results, attack, eps) for eps in (scale.eps[0], scale.eps[-1]))
        what = f"transfer rate of {attack} from A to B, largest over smallest eps"
        checks.append(Check(what, gain(large, small), above=0))
    return checks


# --- Table 5 and Figure 3 --------------------------------------------------------------------------------------------


def _any_method_helps(scale: Scale, results: Results) -> list[Check]:
    found = one_step.networks(scale)
    checks = []
    for method in one_step.EVALUATED:
        attack = one_step.judge(method)
        checks += _over_eps(
            scale,
            results,
            f"trained by {method} over none, under {attack}",
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
        for check in _over_eps(
            scale,
            results,
            f"trained by {best} over {other}, under fgsm",
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
        for check in _over_eps(
            scale,
            results,
            f"trained by {noise} over none, under fgsm",
            (found[noise], "fgsm"),
            (found["none"], "fgsm"),
            below=5 * _POINT,
        )
    ]


def _one_for_all(scale: Scale, results: Results) -> list[Check]:
    found = one_step.networks(scale)
    return [
        check
        for attack in one_step.EVALUATED
        if attack != "fast_grad_l2"  # whose eps is an L2 norm: at these sizes it moves next to nothing
        for check in _over_eps(
            scale,
            results,
            f"trained by step_ll over none, under {attack}",
            (found["step_ll"], attack),
            (found["none"], attack),
            above=0,
            sizes=scale.eps[1:],
        )
    ]


# --- Table 7 ---------------------------------------------------------------------------------------------------------


def _lossy_activations(scale: Scale, results: Results) -> list[Check]:
    found = activations.networks(scale)
    checks = []
    for name in ("tanh", "relu_decay:0.1"):
        checks.append(_clean_gain(results, found["relu"], found[name], f"relu over {name}", above=0))
        one, other = (found["relu"], "step_ll"), (found[name], "step_ll")
        checks += _over_eps(scale, results, f"step l.l., relu over {name}", one, other, above=0)
    return checks


def _similar_activations(scale: Scale, results: Results) -> list[Check]:
    found = activations.networks(scale)
    return [
        _clean_gain(results, found[name], found["relu"], f"{name} over relu", above=-_POINT, below=_POINT)
        for name in ("relu6", "relu_decay:0.01", "relu_decay:0.001")
    ]


def _iterative_defence(name: str) -> Callable[[Scale, Results], list[Check]]:
    def checks(scale: Scale, results: Results) -> list[Check]:
        found = activations.networks(scale)
        z = 2.73  # 95 % for the best of eight comparisons (Bonferroni)
        return [
            Check(
                f"{attack}, {name} over relu {_at(eps)}",
                gain(results.accuracy(found[name], attack, eps), results.accuracy(found["relu"], attack, eps), z),
                above=0,
            )
            for attack in ("iter_ll", "iter_basic")
            for eps in scale.eps
        ]

    return checks


# --- Table 8 ---------------------------------------------------------------------------------------------------------


def _more_k_more_robust(scale: Scale, results: Results) -> list[Check]:
    found = k_sweep.networks(scale)
    one, other = (found[16], "step_ll"), (found[4], "step_ll")
    return _over_eps(scale, results, "k = m/2 over m/8", one, other, above=0, sizes=scale.eps[1:])


def _more_k_less_clean(scale: Scale, results: Results) -> list[Check]:
    found = k_sweep.networks(scale)
    return [_clean_gain(results, found[4], found[32], "k = m/8 over m", above=0)]


def _half_is_enough(scale: Scale, results: Results) -> list[Check]:
    found = k_sweep.networks(scale)
    one, other = (found[32], "step_ll"), (found[16], "step_ll")
    return _over_eps(scale, results, "k = m over m/2", one, other, below=_POINT)


# --- section 4: delay, regularisers; section 3: eps; section 4.1: iterative training ---------------------------------


def _delay_leaves_clean(scale: Scale, results: Results) -> list[Check]:
    found = delay.networks(scale)
    bounds = {"above": -0.2 * _POINT, "below": 0.2 * _POINT}
    return [
        _clean_gain(results, found[later], found[0], f"{later:,} over no delay", **bounds)
        for later in delay.OF_PAPER[1:]
    ]


def _late_is_less_robust(scale: Scale, results: Results) -> list[Check]:
    found = delay.networks(scale)
    one, other = (found[0], "step_ll"), (found[40_000], "step_ll")
    return _over_eps(scale, results, "no delay over 40,000", one, other, above=0, sizes=scale.eps[-1:])


def _fixed_is_narrow(scale: Scale, results: Results) -> list[Check]:
    found = fixed_eps.networks(scale)
    small, large = scale.fixed
    return [
        *_over_eps(
            scale,
            results,
            f"random eps over {found['small'].name}",
            (found["random"], "step_ll"),
            (found["small"], "step_ll"),
            above=0,
            sizes=scale.eps[small + 1 :][-1:],
        ),
        *_over_eps(
            scale,
            results,
            f"random eps over {found['large'].name}",
            (found["random"], "step_ll"),
            (found["large"], "step_ll"),
            above=0,
            sizes=scale.eps[:large][:2],
        ),
    ]


def _iterative_costs(scale: Scale, results: Results) -> list[Check]:
    found = iterative_training.networks(scale)
    return [
        _clean_gain(results, found["standard"], found[kind], f"standard over training on {kind}", above=_POINT)
        for kind in iterative_training.ATTACKS
    ]


def _iterative_gains_nothing(scale: Scale, results: Results) -> list[Check]:
    found = iterative_training.networks(scale)
    return [
        check
        for kind in iterative_training.ATTACKS
        for check in _over_eps(
            scale,
            results,
            f"under {kind}, trained on it over trained on step l.l.",
            (found[kind], kind),
            (found["step_ll"], kind),
            below=10 * _POINT,
        )
    ]


def _without_two(scale: Scale, results: Results) -> list[Check]:
    found = regularizers.networks(scale)
    return [
        _clean_gain(results, found["none"], found[off], f"all three over without {off}", above=0, below=_POINT)
        for off in ("dropout", "smoothing", "both")
    ]


def _without_two_robust(scale: Scale, results: Results) -> list[Check]:
    found = regularizers.networks(scale)
    return [
        check
        for off in ("dropout", "smoothing", "both")
        for check in _over_eps(
            scale,
            results,
            f"without {off} over all three",
            (found[off], "step_ll"),
            (found["none"], "step_ll"),
            above=0,
            sizes=scale.eps[-1:],
        )
    ]


def _without_decay(scale: Scale, results: Results) -> list[Check]:
    found = regularizers.networks(scale)
    one, other = (found["none"], "step_ll"), (found["decay"], "step_ll")
    clean = _clean_gain(results, found["none"], found["decay"], "all three over without weight decay", above=0)
    what = "all three over without weight decay"
    return [clean, *_over_eps(scale, results, what, one, other, above=0, sizes=scale.eps[-1:])]


CLAIMS = (
    Claim(
        "robust",
        "table1",
        "Table 1",
        "Adversarial training raises accuracy under step l.l. (by 43 to 47 points at every eps).",
        _robust,
    ),
    Claim(
        "on_a_par",
        "table1",
        "Section 4.1",
        "An adversarially trained network is about as accurate under step l.l. as on clean images (within 4.1 points).",
        _on_a_par,
    ),
    Claim("clean_cost", "table1", "Section 4.1", "It costs less than 1 point of clean accuracy (0.8).", _clean_cost),
    Claim(
        "deeper_clean",
        "table1",
        "Table 1",
        "A deeper network loses less clean accuracy by adversarial training (0.6 against 0.8 points).",
        _deeper_clean,
    ),
    Claim(
        "deeper_robust",
        "table1",
        "Table 1",
        "A deeper network becomes more robust by it (by 0.5 to 1.9 points).",
        _deeper_robust,
    ),
    Claim(
        "not_iterative",
        "table2",
        "Table 2",
        "Training on step l.l. does not confer robustness to iterative methods (at most 5.8 points).",
        _not_iterative,
    ),
    Claim(
        "iter_ll_fools",
        "table2",
        "Section 2.2",
        "Iter. l.l. examples are misclassified by a standard network in more than 99 % of cases (99.3 % at eps 16).",
        _fools,
    ),
    Claim(
        "leaks",
        "table3",
        "Table 3",
        "A network trained on FGSM is more accurate on FGSM examples than on clean images (by 9.6 to 12.1 points).",
        _leaks,
    ),
    Claim(
        "does_not_leak",
        "table3",
        "Table 3",
        "A network trained on step l.l. is less accurate on step l.l. examples than on clean images.",
        _does_not_leak,
    ),
    Claim(
        "vanishes_without_label",
        "table3",
        "Section 4.2",
        "The effect vanishes for methods that do not use the true label.",
        _vanishes_without,
    ),
    Claim(
        "vanishes_iterated",
        "table3",
        "Section 4.2",
        "The effect vanishes for iterative methods.",
        _vanishes_iterated,
    ),
    Claim(
        "leak_is_small",
        "table3",
        "Section 4.2",
        "Few labels are leaked in comparison with the errors that adversarial examples cause (79 of 10,000 on MNIST).",
        _leak_is_small,
    ),
    Claim("clean_grows", "capacity", "Section 4.3", "Clean accuracy grows with the number of filters.", _clean_grows),
    Claim(
        "robustness_grows",
        "capacity",
        "Figure 1",
        "The robustness of adversarially trained networks under step l.l. grows with their size.",
        _robustness_grows,
    ),
    Claim(
        "robustness_grows_iterative",
        "capacity",
        "Figure 1",
        "The trend remains under iterative methods, with exceptions; judged at the two smallest sizes.",
        _robustness_grows_iterative,
    ),
    Claim(
        "optimum_inside",
        "capacity",
        "Section 4.3",
        "Of networks trained as usual, neither the narrowest nor the widest is the most robust.",
        _optimum_inside,
    ),
    Claim(
        "near_one",
        "capacity",
        "Section 4.3",
        "With twice the filters, adversarial accuracy under one-step methods approaches the clean one (ratio near 1).",
        _near_one,
    ),
    Claim(
        "order_of_transfer",
        "transfer",
        "Section 4.4",
        "FGSM examples transfer more often than basic iter., and these than iter. l.l. (56, 46, 13 % from A to B).",
        _order_of_transfer,
    ),
    Claim(
        "order_of_fooling",
        "transfer",
        "Section 4.4",
        "Iter. l.l. fools its own network most often (100 % against 78 and 65).",
        _order_of_fooling,
    ),
    Claim(
        "transfer_grows", "transfer", "Figure 2", "The transfer rate of each method grows with eps.", _transfer_grows
    ),
    Claim(
        "any_method_helps",
        "one_step",
        "Section 4.1",
        "Training with any one-step method increases robustness to one-step examples; judged as in Table 5, at the "
        "two middle sizes.",
        _any_method_helps,
    ),
    Claim(
        "best_methods",
        "one_step",
        "Table 5",
        "Step l.l. and step rnd. train more robust networks than the other methods without the true label.",
        _best_methods,
    ),
    Claim(
        "noise_does_not_help",
        "one_step",
        "Appendix A",
        "Training on random noise does not help against adversarial examples (it costs 2 to 5 points).",
        _noise_does_not_help,
    ),
    Claim(
        "one_for_all",
        "one_step",
        "Appendix A",
        "Training with step l.l. alone gives robustness to all one-step methods.",
        _one_for_all,
    ),
    Claim(
        "lossy_activations",
        "activations",
        "Appendix D",
        "Tanh and ReluDecay 0.1 lose accuracy on clean (2 to 3 points) and on step l.l. images.",
        _lossy_activations,
    ),
    Claim(
        "similar_activations",
        "activations",
        "Appendix D",
        "Relu6 and ReluDecay 0.01 and 0.001 are within 1 point of relu on clean images.",
        _similar_activations,
    ),
    *(
        Claim(
            f"iterative_defence_{name.replace(':', '_')}",
            "activations",
            "Appendix D",
            f"{name} is more accurate than relu on some iterative examples.",
            _iterative_defence(name),
            any_suffices=True,
        )
        for name in ("relu6", "relu_decay:0.001", "relu_decay:0.01", "relu_decay:0.1", "tanh")
    ),
    Claim(
        "more_k_more_robust",
        "k_sweep",
        "Appendix E",
        "More adversarial examples per minibatch give more robustness (k = 4 to 16: 2 to 10 points).",
        _more_k_more_robust,
    ),
    Claim(
        "more_k_less_clean",
        "k_sweep",
        "Appendix E",
        "More adversarial examples per minibatch cost clean accuracy (k = 4 to 32: 2.0 points).",
        _more_k_less_clean,
    ),
    Claim(
        "half_is_enough",
        "k_sweep",
        "Appendix E",
        "More than half of the minibatch brings no significant gain under step l.l. (at most 0.4 points).",
        _half_is_enough,
    ),
    Claim(
        "delay_leaves_clean",
        "delay",
        "Section 4",
        "Delaying adversarial training changes clean accuracy by less than 0.2 points.",
        _delay_leaves_clean,
    ),
    Claim(
        "late_is_less_robust",
        "delay",
        "Section 4",
        "A delay of 40,000 iterations costs accuracy at high eps (up to 4 points).",
        _late_is_less_robust,
    ),
    Claim(
        "fixed_is_narrow",
        "fixed_eps",
        "Section 3",
        "A network trained at one eps is robust at that eps only: at others, random eps in training is better.",
        _fixed_is_narrow,
    ),
    Claim(
        "iterative_costs",
        "iterative_training",
        "Section 4.1",
        "Training on iterative examples reduces clean accuracy significantly (more than the 1 point of step l.l.).",
        _iterative_costs,
    ),
    Claim(
        "iterative_gains_nothing",
        "iterative_training",
        "Section 4.1",
        "Training on iterative examples gives no robustness to them.",
        _iterative_gains_nothing,
    ),
    Claim(
        "without_two",
        "regularizers",
        "Section 4",
        "Without dropout, label smoothing or both, clean accuracy falls a little (0.1 to 0.5 points).",
        _without_two,
    ),
    Claim(
        "without_two_robust",
        "regularizers",
        "Section 4",
        "Without dropout, label smoothing or both, adversarial accuracy rises a little (1 to 1.5 points); judged at "
        "the largest eps.",
        _without_two_robust,
    ),
    Claim(
        "without_decay",
        "regularizers",
        "Section 4",
        "Less weight decay reduces accuracy on clean and on adversarial images.",
        _without_decay,
    ),
)
