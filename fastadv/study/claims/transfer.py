"""Section 4.4 and appendix C: transfer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastadv.evaluate.transfer import TransferCounts
from fastadv.study.claims.common import at
from fastadv.study.comparisons import gain, quotient
from fastadv.study.layout import TITLES
from fastadv.study.recipes import transfer
from fastadv.study.results import Results, Share
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _counts(scale: Scale, results: Results, attack: str, eps: float, target: str = "B") -> TransferCounts:
    """Of images made with A. Which they are is not recorded: comparisons take them for independent, and are wider."""
    found = transfer.networks(scale)
    record = results.transfer(found["A"], found[target], attack, eps)
    return TransferCounts(record.n, *record.top1)


def _rate(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    """From A to B, of the images that fool A."""
    counts = _counts(scale, results, attack, eps)
    return Share(counts.transferred, counts.fooled)


def _error(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    """From A to B, of all images."""
    counts = _counts(scale, results, attack, eps)
    return Share(counts.wrong, counts.n)


def _error_of_source(scale: Scale, results: Results, attack: str, eps: float) -> Share:
    counts = _counts(scale, results, attack, eps, "A")
    return Share(counts.wrong, counts.n)


_Measure = Callable[[Scale, Results, str, float], Share]


def _ordered(measure: _Measure, what: str, pairs: Sequence[tuple[str, str]]) -> Callable[[Scale, Results], list[Check]]:
    """The first attack of each pair over the second, at the largest size."""

    def checks(scale: Scale, results: Results) -> list[Check]:
        eps = scale.eps[-1]
        return [
            Check(
                f"{what}, {TITLES[one]} over {TITLES[other]} {at(eps)}",
                gain(measure(scale, results, one, eps), measure(scale, results, other, eps)),
                above=0,
            )
            for one, other in pairs
        ]

    return checks


def _grows(measure: _Measure, what: str) -> Callable[[Scale, Results], list[Check]]:
    """For each attack, the largest size over the smallest."""

    def checks(scale: Scale, results: Results) -> list[Check]:
        smallest, largest = scale.eps[0], scale.eps[-1]
        return [
            Check(
                f"{what} of {TITLES[attack]}, largest over smallest eps",
                gain(measure(scale, results, attack, largest), measure(scale, results, attack, smallest)),
                above=0,
            )
            for attack in transfer.ATTACKS
        ]

    return checks


def _numerator_grows(scale: Scale, results: Results) -> list[Check]:
    checks = []
    for attack in transfer.ATTACKS:
        before, after = (_counts(scale, results, attack, eps) for eps in scale.eps[-2:])
        checks += [
            Check(
                f"images that transfer, {TITLES[attack]}, largest by second largest eps",
                quotient(Share(after.transferred, after.n), Share(before.transferred, before.n)),
                above=1.2,
                unit="",
            ),
            Check(
                f"images that fool A, {TITLES[attack]}, largest by second largest eps",
                quotient(Share(after.fooled, after.n), Share(before.fooled, before.n)),
                below=1.01,
                unit="",
            ),
        ]
    return checks


_BY_TRANSFER = tuple(zip(transfer.ATTACKS, transfer.ATTACKS[1:], strict=False))

CLAIMS = (
    Claim(
        "order_of_transfer",
        "transfer",
        "Section 4.4",
        "FGSM examples transfer more often than iter. basic, and these than iter. l.l. (56, 46, 13 % from A to B); "
        "judged at the largest size.",
        _ordered(_rate, "transfer rate from A to B", _BY_TRANSFER),
    ),
    Claim(
        "order_of_error",
        "transfer",
        "Appendix C",
        "Error rates on transferred examples are ordered as transfer rates are (52, 51, 32 % from A to B); judged at "
        "the largest size.",
        _ordered(_error, "error rate from A to B", _BY_TRANSFER),
    ),
    Claim(
        "order_of_fooling",
        "transfer",
        "Section 4.4",
        "Iter. l.l. fools its own network most often (100 % against 78 and 65); judged at the largest size.",
        _ordered(_error_of_source, "error of the source A", [("iter_ll", "fgsm"), ("iter_ll", "iter_basic")]),
    ),
    Claim(
        "fgsm_fools_least",
        "transfer",
        "Section 4.4",
        "FGSM is the least likely to fool its own network (65 % against 78 and 100); judged at the largest size.",
        _ordered(_error_of_source, "error of the source A", [("iter_basic", "fgsm"), ("iter_ll", "fgsm")]),
    ),
    Claim(
        "transfer_grows",
        "transfer",
        "Figure 2",
        "The transfer rate of each method grows with eps; judged by the largest size against the smallest, from A to "
        "B.",
        _grows(_rate, "transfer rate from A to B"),
    ),
    Claim(
        "error_grows",
        "transfer",
        "Appendix C",
        "The error rate on transferred examples grows with eps, as the transfer rate does; judged by the largest size "
        "against the smallest, from A to B.",
        _grows(_error, "error rate from A to B"),
    ),
    Claim(
        "numerator_grows",
        "transfer",
        "Figure 2",
        "The numerator of the transfer rate grows much faster than its denominator: from eps = 8 to 16 the images that "
        "transfer by more than 20 %, those that fool their source by less than 1 %; judged from the second largest to "
        "the largest size.",
        _numerator_grows,
    ),
)
