"""Table 3 and section 4.2: label leaking."""

from __future__ import annotations

from fastadv.evaluate.intervals import combination, phi
from fastadv.evaluate.label_leaking import LeakRecord
from fastadv.study.claims.common import at, below_clean
from fastadv.study.comparisons import Quantity, gain, share
from fastadv.study.layout import TITLES
from fastadv.study.recipes import table3
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


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
        Check(f"{TITLES[attack]} over clean {at(eps)}", gain(*below_clean(results, network, attack, eps)), above, below)
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
    for eps in table3.LEAK_EPS:
        record = results.leaking(network, *table3.PAIRS[0], eps)
        checks.append(Check(f"added error over leaked labels {at(eps)}", _error_over_leaked(record), above=0))
    return checks


def _most_at_0_3(scale: Scale, results: Results) -> list[Check]:
    network = table3.networks(scale)["fgsm"]
    found = {eps: results.leaking(network, *table3.PAIRS[0], eps) for eps in table3.LEAK_EPS}
    leaked = {eps: Share(record.leaked, record.n) for eps, record in found.items()}
    [most] = (eps for eps, size in zip(leaked, table3.LEAK_SIZES, strict=True) if size == 0.3)
    return [
        Check(f"labels leaked {at(most)} over {eps:g}", gain(leaked[most], leaked[eps]), above=0)
        for eps in leaked
        if eps != most
    ]


def _error_over_leaked(record: LeakRecord) -> Quantity:
    """By how much the errors that the attack adds to those on clean images exceed the labels that it leaks.

    A leaked label is correct on the example made with it, and wrong on the clean image, for fgsm_pred differs from fgsm
    on such images alone; both correlations follow. That of the accuracies on clean and on adversarial images is not
    recorded: taken for 0, it makes the interval wider than need be.
    """
    n, leaked = record.n, record.leaked
    with_label, clean = phi(leaked, record.with_label, leaked, n), phi(0, record.clean, leaked, n)
    correlations = [[1, 0, clean], [0, 1, with_label], [clean, with_label, 1]]
    shares = [(1, Share(record.clean, n)), (-1, Share(record.with_label, n)), (-1, Share(leaked, n))]
    return lambda z: combination([(weight, share(one)(z)) for weight, one in shares], correlations)


_LEAKS = Claim(
    "leaks",
    "table3",
    "Table 3",
    "A network trained on FGSM is more accurate on FGSM examples than on clean images (by 9.6 to 12.1 points).",
    _leaks,
)

CLAIMS = (
    _LEAKS,
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
        premise=_LEAKS,
    ),
    Claim(
        "vanishes_iterated",
        "table3",
        "Section 4.2",
        "The effect vanishes for iterative methods.",
        _vanishes_iterated,
        premise=_LEAKS,
    ),
    Claim(
        "leak_is_small",
        "table3",
        "Section 4.2",
        "Few labels are leaked (79 of 10,000 on MNIST) in comparison with the errors that FGSM adds to those on clean "
        "images; labels leaked against FGSM-pred.",
        _leak_is_small,
    ),
    Claim(
        "most_at_0.3",
        "table3",
        "Section 4.2",
        "Most labels are leaked at an eps of 0.3 of the range (on MNIST); labels leaked against FGSM-pred.",
        _most_at_0_3,
        added=True,
    ),
)
