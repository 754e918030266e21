"""Section 4.3, Figures 1 and 4: the number of filters."""

from __future__ import annotations

from collections.abc import Sequence

from fastadv.evaluate.intervals import quantile
from fastadv.study.claims.common import at, clean_gain
from fastadv.study.comparisons import difference, total
from fastadv.study.layout import TITLES
from fastadv.study.recipes import capacity
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim


def _clean_grows(scale: Scale, results: Results) -> list[Check]:
    found, narrow, wide = capacity.networks(scale), scale.widths[0], scale.widths[-1]
    return [
        clean_gain(results, found[kind, wide], found[kind, narrow], f"{kind}, widest over narrowest", above=0)
        for kind in ("standard", "adversarial")
    ]


def _growth_slows(scale: Scale, results: Results) -> list[Check]:
    found, narrow, wide = capacity.networks(scale), scale.widths[0], scale.widths[-1]
    return [
        Check(
            f"clean, {kind}, rho = {narrow:g} to 1 over 1 to {wide:g}",
            total(
                [(2, results.clean(found[kind, 1])), *((-1, results.clean(found[kind, end])) for end in (narrow, wide))]
            ),
            above=0,
        )
        for kind in ("standard", "adversarial")
    ]


def _ratio_grows(scale: Scale, results: Results, attack: str, sizes: Sequence[float]) -> list[Check]:
    """Of adversarially trained networks, the widest against the narrowest."""
    found, narrow, wide = capacity.networks(scale), scale.widths[0], scale.widths[-1]
    return [
        Check(
            f"{TITLES[attack]}, ratio at rho = {wide:g} over rho = {narrow:g} {at(eps)}",
            difference(
                capacity.accuracy_ratio(results, found["adversarial", wide], attack, eps),
                capacity.accuracy_ratio(results, found["adversarial", narrow], attack, eps),
            ),
            above=0,
            unit="",
        )
        for eps in sizes
    ]


def _robustness_grows(scale: Scale, results: Results) -> list[Check]:
    return _ratio_grows(scale, results, "step_ll", scale.eps)


def _robustness_grows_iterative(scale: Scale, results: Results) -> list[Check]:
    return [
        check for attack in ("iter_ll", "iter_basic") for check in _ratio_grows(scale, results, attack, scale.eps[:2])
    ]


def _optimum_inside(scale: Scale, results: Results) -> list[Check]:
    """The best of the inner widths is chosen from the same records."""
    eps = scale.eps[1]
    narrowest, *inner, widest = scale.widths
    found = {rho: capacity.networks(scale)["standard", rho] for rho in scale.widths}
    ratios = {rho: capacity.accuracy_ratio(results, network, "step_ll", eps) for rho, network in found.items()}
    best = max(inner, key=lambda rho: ratios[rho](quantile()).value)
    return [
        Check(
            f"ratio at rho = {best:g} over rho = {end:g} {at(eps)}",
            difference(ratios[best], ratios[end]),
            above=0,
            unit="",
            among=len(inner),
        )
        for end in (narrowest, widest)
    ]


def _near_one(scale: Scale, results: Results) -> list[Check]:
    network = capacity.networks(scale)["adversarial", scale.widths[-1]]
    return [
        Check(
            f"ratio of the widest network under step l.l. {at(eps)}",
            capacity.accuracy_ratio(results, network, "step_ll", eps),
            above=0.9,
            unit="",
        )
        for eps in scale.eps
    ]


def _never_near_one(scale: Scale, results: Results) -> list[Check]:
    found = capacity.networks(scale)
    return [
        Check(
            f"{TITLES[attack]}, ratio at rho = {rho:g} {at(eps)}",
            capacity.accuracy_ratio(results, found["adversarial", rho], attack, eps),
            below=0.9,
            unit="",
        )
        for attack in ("iter_ll", "iter_basic")
        for rho in scale.widths
        for eps in scale.eps
    ]


CLAIMS = (
    Claim(
        "clean_grows",
        "capacity",
        "Section 4.3",
        "Clean accuracy grows with the number of filters; judged by the widest against the narrowest network.",
        _clean_grows,
    ),
    Claim(
        "growth_slows",
        "capacity",
        "Section 4.3",
        "The growth of clean accuracy slows down with the number of filters; judged by one doubling, to rho = 1, "
        "against the next.",
        _growth_slows,
        added=True,
    ),
    Claim(
        "robustness_grows",
        "capacity",
        "Figure 1",
        "The robustness of adversarially trained networks under step l.l. grows with their size; judged by the widest "
        "against the narrowest.",
        _robustness_grows,
    ),
    Claim(
        "robustness_grows_iterative",
        "capacity",
        "Figure 1",
        "The trend remains under iterative methods, with exceptions; judged by the widest against the narrowest "
        "network, at the two smallest sizes.",
        _robustness_grows_iterative,
    ),
    Claim(
        "optimum_inside",
        "capacity",
        "Section 4.3",
        "Of networks trained as usual, neither the narrowest nor the widest is the most robust; judged under step l.l. "
        "at the second size, by the most robust of those between.",
        _optimum_inside,
    ),
    Claim(
        "near_one",
        "capacity",
        "Section 4.3",
        "With twice the filters, adversarial accuracy under one-step methods approaches the clean one; judged by a "
        "ratio above 0.9 under step l.l., a bound that is chosen.",
        _near_one,
    ),
    Claim(
        "never_near_one",
        "capacity",
        "Section 4.3",
        "No adversarially trained network, of any width, is nearly as accurate under iterative methods as on clean "
        "images; judged by ratios below 0.9, a bound that is chosen.",
        _never_near_one,
    ),
)
