from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastadv.evaluate.statistics import Estimate
from fastadv.study.claims import CLAIMS, findings
from fastadv.study.recipes import STUDIES, table1, table3
from fastadv.study.results import NotMeasured, Results, Share
from fastadv.study.verdicts import FAILS, HOLDS, MISSING, UNCLEAR, Check, Claim, gain, judge
from tests.study.conftest import tiny

SCALE = tiny()


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
    assert Check("x", Estimate((low + high) / 2, low, high), above, below).verdict == verdict


YES, NO, MAYBE = (Check("x", Estimate(v, v - 0.01, v + 0.01), above=0) for v in (0.05, -0.05, 0.0))


@pytest.mark.parametrize(
    ("checks", "every", "any_suffices"),
    [
        ([YES, YES], HOLDS, HOLDS),
        ([YES, MAYBE], UNCLEAR, HOLDS),
        ([YES, NO, MAYBE], FAILS, HOLDS),
        ([NO, MAYBE], FAILS, UNCLEAR),
        ([NO, NO], FAILS, FAILS),
    ],
)
def test_claims_of_several_figures(checks: list[Check], every: str, any_suffices: str) -> None:
    claim = Claim("", "table1", "", "", lambda scale, results: checks)
    for one, verdict in ((claim, every), (replace(claim, any_suffices=True), any_suffices)):
        finding = judge(one, SCALE, Results())
        assert finding.verdict == verdict
        assert finding.deciding is not None and finding.deciding.verdict == verdict


def test_a_fraction_of_nothing_tells_nothing() -> None:
    assert Check("x", gain(Share(0, 0), Share(0, 5)), above=0).verdict == UNCLEAR
    assert Check("x", gain(Share(9, 10), Share(0, 0)), above=0).verdict == UNCLEAR


def test_a_figure_in_words() -> None:
    check = Check("clean", Estimate(0.0123, -0.004, 0.03), above=0, below=0.01)
    assert str(check) == "clean: +1.2 [-0.4, +3.0] points, claimed > 0 and < 1"
    assert str(Check("r", Estimate(0.9, 0.85, 0.95), above=0.9, unit="")) == "r: 0.900 [0.850, 0.950], claimed > 0.9"


def test_what_is_not_measured_is_no_verdict() -> None:
    found = findings(SCALE, Results(), STUDIES)
    assert {finding.verdict for finding in found} == {MISSING} and len(found) == len(CLAIMS)
    assert findings(SCALE, Results(), []) == []


def test_every_study_has_claims_and_names_are_unique() -> None:
    assert {claim.study for claim in CLAIMS} == set(STUDIES)
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@pytest.fixture
def table_of(make_record: Any) -> Any:
    """Results of 10,000 images from accuracies in percent, by network, attack and eps."""

    def results(*table: tuple[Any, str, list[float]]) -> Results:
        records = []
        for network, attack, values in table:
            places = [("clean", 0.0), *((attack, float(eps)) for eps in SCALE.eps)]
            for (name, eps), value in zip(places, values, strict=True):
                records.append(make_record(network.id, name, eps, round(100 * value), n=10_000))
        return Results(records)

    return results


def verdict(name: str, results: Results) -> str:
    [claim] = [claim for claim in CLAIMS if claim.name == name]
    return judge(claim, SCALE, results).verdict


@pytest.mark.parametrize(
    ("adversarial", "expected"),
    [
        # The paper's own Table 1, but of 10,000 images.
        ([77.6, 73.5, 74.0, 74.5, 73.9], {"robust": HOLDS, "on_a_par": UNCLEAR, "clean_cost": UNCLEAR}),
        ([77.6, 30.8, 74.0, 74.5, 73.9], {"robust": UNCLEAR, "on_a_par": FAILS, "clean_cost": UNCLEAR}),
        ([77.6, 20.0, 74.0, 74.5, 73.9], {"robust": FAILS, "on_a_par": FAILS}),
        ([70.0, 69.0, 69.0, 69.0, 69.0], {"robust": HOLDS, "on_a_par": HOLDS, "clean_cost": FAILS}),
    ],
)
def test_table_1_as_claimed(table_of: Any, adversarial: list[float], expected: dict[str, str]) -> None:
    found = table1.networks(SCALE)
    results = table_of(
        (found["baseline"], "step_ll", [78.4, 30.8, 27.2, 27.2, 29.5]),
        (found["adversarial"], "step_ll", adversarial),
    )
    assert {name: verdict(name, results) for name in expected} == expected
    assert verdict("deeper_robust", results) == MISSING


@pytest.mark.parametrize(
    ("fgsm", "expected"),
    [([76.6, 86.2, 87.6, 88.7, 87.0], HOLDS), ([76.6, 86.2, 87.6, 76.7, 87.0], UNCLEAR), ([76.6, 9, 9, 9, 9], FAILS)],
)
def test_label_leaking_as_claimed(table_of: Any, fgsm: list[float], expected: str) -> None:
    assert verdict("leaks", table_of((table3.networks(SCALE)["fgsm"], "fgsm", fgsm))) == expected


def test_results_by_network(make_record: Any) -> None:
    network, other = table1.networks(SCALE)["baseline"], table1.networks(SCALE)["adversarial"]
    results = Results(
        [
            make_record(network.id, "clean", 0.0, 90, n=100),
            make_record(network.id, "clean", 0.0, 800, n=1000),
            make_record(network.id, "step_ll", 2.0, 50, n=100),
            make_record(network.id, "step_ll", 2.0, 60, n=100),
        ]
    )
    assert results.accuracy(network, "step_ll", 2) == Share(60, 100)  # the last
    assert results.clean(network) == Share(800, 1000)  # of the most images
    assert results.clean(network, beside="step_ll", eps=2) == Share(90, 100)  # of the same images
    with pytest.raises(NotMeasured, match=r"Adv\. training under step_ll, eps = 2"):
        results.accuracy(other, "step_ll", 2)
    with pytest.raises(NotMeasured, match="top 5"):
        results.accuracy(network, "step_ll", 2, top=5)
