"""What tables of studies say beside their numbers, of records made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fastadv.evaluate import Record
from fastadv.evaluate.tables import Table
from fastadv.study.layout import Row, accuracy_table
from fastadv.study.plan import Network, vary
from fastadv.study.results import Results
from tests.study.conftest import tiny

SCALE = tiny()
MakeRecord = Callable[..., Record]
NETWORKS = [Network(f"seed {seed}", vary(SCALE.base, {"seed": seed})) for seed in range(4)]


def table(make_record: MakeRecord, *measured: tuple[str, int, int, int], bold_ties: bool = False) -> Table:
    """A row for each attack: of how many images, those that its network has right when clean and at every eps."""
    rows, records = [], []
    for network, (attack, n, clean, attacked) in zip(NETWORKS, measured, strict=False):
        rows.append(Row((network.name,), network, attack))
        records.append(make_record(network.id, "clean", 0.0, clean, n=n))
        records += [make_record(network.id, attack, eps, attacked, n=n) for eps in SCALE.eps]
    return accuracy_table(
        SCALE, Results(records), rows, caption="", labels=("Network",), tops=(1,), bold_ties=bold_ties
    )


def test_the_best_is_that_of_rows_under_one_attack(make_record: MakeRecord) -> None:
    under_fgsm = [("fgsm", 1000, clean, attacked) for clean, attacked in ((900, 400), (700, 500), (890, 490))]
    made = table(make_record, *under_fgsm, ("step_ll", 1000, 600, 800), bold_ties=True)
    clean, *attacked = range(3, 8)
    # Of 900 and 890 of 1,000 the intervals meet, as of 500 and 490; the last row is judged more gently than the others.
    assert made.bold == {(0, clean), (2, clean)} | {(row, column) for row in (1, 2, 3) for column in attacked}


@pytest.mark.parametrize(
    ("measured", "bounds"),
    [
        ([("fgsm", 1000, 900, 0), ("step_ll", 1000, 900, 1)], "0.3 % with n = 1,000"),
        ([("fgsm", 1000, 900, 1), ("step_ll", 20, 19, 20)], "0.3 % with n = 1,000, 15 % with n = 20"),
        ([("fgsm", 1000, 999, 1)], None),
    ],
)
def test_none_of_so_many_is_not_shown_as_certain(
    make_record: MakeRecord, measured: list[tuple[str, int, int, int]], bounds: str | None
) -> None:
    found = [note for note in table(make_record, *measured).notes if "3 / n" in note]
    assert found == ([f"At 0 % and 100 % the ± is 0; the 95 % bound is then 3 / n away ({bounds})."] if bounds else [])
