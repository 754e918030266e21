from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fastadv.evaluate import Record
from fastadv.evaluate.intervals import UNKNOWN, Estimate, quantile, wilson
from fastadv.study.claims import findings
from fastadv.study.comparisons import correlation, difference, gain, quotient, share, weighted_sum
from fastadv.study.experiments import STUDIES, table1
from fastadv.study.report import claims_json, claims_markdown
from fastadv.study.results import NotMeasured, Results, Share
from fastadv.study.verdicts import (
    FAILS,
    HOLDS,
    MARKS,
    NOT_APPLICABLE,
    NOT_MEASURED,
    UNCLEAR,
    Check,
    Claim,
    Finding,
    judge,
    summary,
)
from tests.study.conftest import tiny

SCALE = tiny()
MakeRecord = Callable[..., Record]


def figure(low: float, high: float) -> Callable[[float], Estimate]:
    """A figure with this 95 % interval; for other z it is scaled about its middle."""
    middle, reach = (low + high) / 2, (high - low) / 2
    return lambda z: Estimate(middle, middle - reach * z / quantile(), middle + reach * z / quantile())


@pytest.mark.parametrize(
    ("low", "high", "above", "below", "verdict"),
    [
        (0.01, 0.03, 0.0, None, HOLDS),
        (-0.01, 0.03, 0.0, None, UNCLEAR),
        (-0.03, -0.01, 0.0, None, FAILS),
        (0.0, 0.0, 0.0, None, FAILS),  # more than 0 is claimed
        (0.01, 0.03, None, 0.05, HOLDS),
        (0.01, 0.06, None, 0.05, UNCLEAR),
        (0.06, 0.08, None, 0.05, FAILS),
        (0.001, 0.009, 0.0, 0.01, HOLDS),
        (-0.02, 0.02, 0.0, 0.01, UNCLEAR),
        (0.02, 0.03, 0.0, 0.01, FAILS),
        (-0.03, -0.02, 0.0, 0.01, FAILS),
    ],
)
def test_verdicts_by_hand(low: float, high: float, above: float | None, below: float | None, verdict: str) -> None:
    assert Check("x", figure(low, high), above, below).verdict() == verdict


# At the level 1 - 0.05 / 3 intervals are 1.22 times as wide as at 95 %: BARELY is inside or outside at 95 % only.
YES, NO, MAYBE = (Check("x", figure(v - 0.01, v + 0.01), above=0) for v in (0.05, -0.05, 0.0))
BARELY_YES, BARELY_NO = (Check("x", figure(v - 0.01, v + 0.01), above=0) for v in (0.011, -0.011))


@pytest.mark.parametrize(
    ("checks", "every", "any_suffices"),
    [
        ([YES, YES, YES], HOLDS, HOLDS),
        ([YES, MAYBE, YES], UNCLEAR, HOLDS),
        ([YES, NO, MAYBE], FAILS, HOLDS),
        ([NO, MAYBE, MAYBE], FAILS, UNCLEAR),
        ([NO, NO, NO], FAILS, FAILS),
        ([YES, YES, BARELY_YES], HOLDS, HOLDS),  # each needs to hold only on its own
        (
            [YES, YES, BARELY_NO],
            UNCLEAR,
            HOLDS,
        ),  # by chance, one of three is barely outside more often than once in twenty
        ([BARELY_NO], FAILS, FAILS),
        ([NO, NO, BARELY_NO], FAILS, FAILS),
        ([NO, NO, BARELY_YES], FAILS, UNCLEAR),
        ([BARELY_YES], HOLDS, HOLDS),
    ],
)
def test_claims_of_several_figures(checks: list[Check], every: str, any_suffices: str) -> None:
    claim = Claim("", "table1", "", "", lambda scale, results: checks)
    for one, verdict in ((claim, every), (replace(claim, any_suffices=True), any_suffices)):
        finding = judge(one, SCALE, Results())
        assert finding.verdict == verdict
        assert finding.deciding is not None and dict(finding.checks)[finding.deciding] == verdict


@pytest.mark.parametrize(
    ("intervals", "below", "nearest"),
    [
        ([(-0.010, 0.008), (-0.007, 0.037), (-0.02, 0.00)], None, 1),  # the second nearly excludes 0
        ([(-0.02, 0.05), (-0.001, 0.009)], None, 1),  # by its interval, not by its size
        ([(0.01, 0.02), (0.03, 0.05)], None, 1),
        ([(-0.03, -0.02), (-0.05, -0.01), (-0.09, -0.08)], None, 1),  # of those that are outside
        ([(-0.01, 0.05), (-0.005, 0.02)], 0.02, 1),  # of two bounds the nearer one counts
    ],
)
def test_where_one_figure_suffices_the_best_is_listed_first(
    intervals: list[tuple[float, float]], below: float | None, nearest: int
) -> None:
    checks = [Check(f"x{number}", figure(*ends), 0, below) for number, ends in enumerate(intervals)]
    claim = Claim("", "table1", "", "", lambda scale, results: checks)
    finding = judge(replace(claim, any_suffices=True), SCALE, Results())
    assert finding.deciding == checks[nearest]
    shown = [check for check, _ in finding.listed]
    assert shown == [checks[nearest], *(check for check in checks if check != checks[nearest])]
    assert [check for check, _ in judge(claim, SCALE, Results()).listed] == checks
    figures = claims_markdown([finding], {}).splitlines()[-1].split(" | ")[-1]
    assert figures.startswith(f"x{nearest}: ")


@pytest.mark.parametrize(("figures", "folded"), [(8, 0), (11, 3)])
def test_a_cell_shows_eight_figures_and_folds_the_others_away(figures: int, folded: int) -> None:
    claim = Claim("", "table1", "", "", lambda s, r: [replace(MAYBE, what=f"x{number}") for number in range(figures)])
    cell = claims_markdown([judge(claim, SCALE, Results())], {}).splitlines()[-1]
    shown, _, away = cell.partition("<details>")
    assert (shown.count("claimed"), away.count("claimed")) == (figures - folded, folded)
    assert (f"<summary>{folded} more</summary>" in away) == bool(folded)


def test_undefined_figures_are_the_farthest_from_holding() -> None:
    claim = Claim("", "table1", "", "", lambda s, r: [Check("x", lambda z: UNKNOWN, above=0), MAYBE], any_suffices=True)
    assert judge(claim, SCALE, Results()).deciding == MAYBE


def test_the_best_of_several_gets_a_wider_interval() -> None:
    assert BARELY_YES.verdict() == HOLDS and replace(BARELY_YES, best_of=3).verdict() == UNCLEAR
    assert BARELY_NO.verdict() == FAILS and replace(BARELY_NO, best_of=3).verdict() == UNCLEAR
    assert replace(BARELY_YES, best_of=3).estimate() == BARELY_YES.estimate(3)


@pytest.mark.parametrize(
    ("premise", "verdict"), [([YES], FAILS), ([NO], NOT_APPLICABLE), ([MAYBE], UNCLEAR), ([YES, NO], NOT_APPLICABLE)]
)
def test_claims_with_a_premise(premise: list[Check], verdict: str) -> None:
    effect = Claim("effect", "table1", "", "There is.", lambda scale, results: premise)
    claim = Claim("vanishes", "table1", "", "It vanishes.", lambda scale, results: [NO], premise=effect)
    finding = judge(claim, SCALE, Results())
    assert finding.verdict == verdict and finding.checks == ((NO, FAILS),)
    assert judge(replace(claim, premise=replace(claim, name="x")), SCALE, Results()).verdict == (
        NOT_APPLICABLE if verdict in (FAILS, NOT_APPLICABLE) else UNCLEAR
    )


def test_a_premise_that_is_not_measured() -> None:
    def missing(scale: object, results: Results) -> list[Check]:
        raise NotMeasured

    claim = Claim("", "table1", "", "", lambda scale, results: [YES], premise=Claim("", "table1", "", "", missing))
    assert judge(claim, SCALE, Results()).verdict == NOT_MEASURED


def test_claims_without_records_are_not_measured() -> None:
    assert {finding.verdict for finding in findings(SCALE, Results(), STUDIES)} == {NOT_MEASURED}
    assert findings(SCALE, Results(), []) == []


# --- as text ---------------------------------------------------------------------------------------------------------


def test_figures_as_text() -> None:
    check = Check("clean", figure(-0.004, 0.03), above=0, below=0.01)
    assert str(check) == "clean: +1.3 [-0.4, +3.0] points, claimed > 0 and < 1"
    assert str(Check("r", figure(0.85, 0.95), above=0.9, unit="")) == "r: 0.900 [0.850, 0.950], claimed > 0.9"
    assert (
        str(Check("r", lambda z: UNKNOWN, above=0.9, unit="")) == "r: undefined (nothing to divide by), claimed > 0.9"
    )


def test_claims_as_text() -> None:
    effect = Claim("effect", "table1", "Table 1", "There is.", lambda scale, results: [NO])
    some = Claim("some", "table1", "Table 2", "It vanishes.", lambda s, r: [YES], any_suffices=True, premise=effect)
    unknown = Check("x", lambda z: UNKNOWN, above=0)
    nothing = Claim("none", "table1", "Table 3", "Some.", lambda scale, results: [unknown], added_later=True)
    found = [judge(claim, SCALE, Results()) for claim in (effect, some, nothing)]
    assert summary(found) == (
        "3 claims. ✗ does not hold at this scale: 1; ? inconclusive: 1; ○ not applicable at this scale: 1."
    )
    text = claims_markdown(found, {"some": "For a reason."})
    assert "| ○ | `some` It vanishes. One figure suffices. Premise: effect.<br>For a reason. | Table 2 |" in text
    assert "| ? | `none` Some. Added after the first results were known. | Table 3 |" in text
    assert "1 - 0.05 / N" in text and "x: +5.0 [+4.0, +6.0] points, claimed > 0 ✓ |" in text
    first, second, third = json.loads(claims_json(found))
    assert (first["premise"], first["one_is_enough"], first["verdict"]) == (None, False, FAILS)
    assert (second["premise"], second["one_is_enough"], second["verdict"]) == ("effect", True, NOT_APPLICABLE)
    assert [one["added"] for one in (first, second, third)] == [False, False, True]
    assert second["figures"][0]["estimate"] == pytest.approx({"value": 0.05, "low": 0.04, "high": 0.06})
    assert third["figures"][0]["estimate"] == {"value": None, "low": None, "high": None}


def test_every_verdict_has_its_own_mark() -> None:
    assert set(MARKS) == {HOLDS, FAILS, UNCLEAR, NOT_APPLICABLE, NOT_MEASURED} and len(set(MARKS.values())) == len(
        MARKS
    )
    assert Finding(Claim("", "", "", "", lambda scale, results: []), NOT_MEASURED).deciding is None


# --- shares ----------------------------------------------------------------------------------------------------------


def hits(*right: int, images: str = "same") -> Share:
    """A share of 100 images: those in the ranges right[0]..right[1], right[2]..right[3], ..."""
    found = np.zeros(100, dtype=bool)  # [100]
    for first, last in zip(right[::2], right[1::2], strict=True):
        found[first:last] = True
    return Share(int(found.sum()), 100, found, images)


@pytest.mark.parametrize(
    ("one", "other", "value"),
    [
        (hits(0, 50), hits(0, 50), (2500 - 50) / 2500),
        (hits(0, 50), hits(25, 75), 0),
        (hits(0, 50), hits(50, 100), -1),
        (hits(0, 60), hits(0, 40), (1600 - 50) / 2400),
        (hits(0, 60), hits(0, 40).complement, -1600 / 2400),
        (hits(0, 50), hits(0, 50, images="other"), 0),
        (hits(0, 50), Share(50, 100), 0),
        (Share(50, 100), Share(50, 100), 0),
        (hits(0, 100), hits(0, 50), 0),
    ],
)
def test_correlations_by_hand(one: Share, other: Share, value: float) -> None:
    assert correlation(one, other) == correlation(other, one) == pytest.approx(value)


def test_hits_narrow_comparisons_on_the_same_images() -> None:
    one, other, z = hits(0, 60), hits(0, 40), quantile()
    apart = Share(60, 100), Share(40, 100)
    for compare in (gain, quotient):
        paired, unpaired = compare(one, other)(z), compare(*apart)(z)
        assert paired.value == unpaired.value
        assert unpaired.low < paired.low < paired.value < paired.high < unpaired.high
    assert gain(one, other)(z) == weighted_sum([(1, one), (-1, other)])(z)
    # The difference is 20 of 100 images; the interval of that fraction is close.
    alone = wilson(20, 100)
    assert (gain(one, other)(z).low, gain(one, other)(z).high) == pytest.approx((alone.low, alone.high), abs=0.02)
    # Two ratios are treated as independent.
    found = difference(quotient(one, other), quotient(one, other))(z)
    assert found.value == 0 and found.low < -0.1


def test_fractions_of_no_images_are_inconclusive() -> None:
    assert Check("x", share(Share(0, 0)), above=0).verdict() == UNCLEAR
    assert Check("x", gain(Share(0, 0), Share(0, 5)), above=0).verdict() == UNCLEAR
    assert Check("x", gain(Share(9, 10), Share(0, 0)), above=0).verdict() == UNCLEAR
    assert Check("x", quotient(Share(9, 10), Share(0, 10)), above=0, unit="").verdict() == UNCLEAR


# --- results ---------------------------------------------------------------------------------------------------------


def test_results_by_network(make_record: MakeRecord) -> None:
    network, other = table1.networks(SCALE)["baseline"], table1.networks(SCALE)["adversarial"]
    results = Results(
        [
            make_record(network.id, "clean", 0.0, 90, n=100),
            make_record(network.id, "clean", 0.0, 800, n=1000),
            make_record(network.id, "step_ll", 2.0, 50, n=100),
            make_record(network.id, "step_ll", 2.0, 60, n=100),
        ]
    )
    assert results.accuracy(network, "step_ll", 2) == Share(60, 100)  # the last record
    assert results.clean(network) == Share(800, 1000)  # the record with the most images
    assert results.clean(network, images_of="step_ll", eps=2) == Share(90, 100)  # on the same images
    with pytest.raises(NotMeasured, match=r"Adv\. training under step_ll, eps = 2"):
        results.accuracy(other, "step_ll", 2)
    with pytest.raises(NotMeasured, match="top 5"):
        results.accuracy(network, "step_ll", 2, top=5)


def test_shares_record_which_images_were_hit(make_record: MakeRecord) -> None:
    network = table1.networks(SCALE)["baseline"]
    results = Results(
        [
            make_record(network.id, "clean", 0.0, 3, 5, n=5, images="five"),
            make_record(network.id, "step_ll", 2.0, 1, 2, n=5, images="five"),
        ]
    )
    clean, attacked = results.clean(network), results.accuracy(network, "step_ll", 2)
    assert clean.hits is not None and clean.hits.tolist() == [True, True, True, False, False]
    assert clean.complement.hits is not None and clean.complement.hits.tolist() == [False, False, False, True, True]
    assert (clean.images, attacked.images, clean.complement.images) == ("five", "five", "five")
    assert results.clean(network, top=5).hits is None
