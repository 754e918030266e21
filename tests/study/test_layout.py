"""What tables of studies say beside their numbers, of records made up."""

from __future__ import annotations

from collections.abc import Callable

from fastadv.evaluate import Record
from fastadv.study.layout import Row, accuracy_table
from fastadv.study.plan import Network, vary
from fastadv.study.results import Results
from tests.study.conftest import tiny

SCALE = tiny()
MakeRecord = Callable[..., Record]
NETWORKS = [Network(f"seed {seed}", vary(SCALE.base, {"seed": seed})) for seed in range(4)]


def results(make_record: MakeRecord, *rows: tuple[str, int, int]) -> Results:
    """For each network its attack, and of 1,000 images those that it has right when clean and at every eps."""
    records = []
    for network, (attack, clean, attacked) in zip(NETWORKS, rows, strict=False):
        records.append(make_record(network.id, "clean", 0.0, clean, n=1000))
        records += [make_record(network.id, attack, eps, attacked, n=1000) for eps in SCALE.eps]
    return Results(records)


def test_the_best_is_that_of_rows_under_one_attack(make_record: MakeRecord) -> None:
    measured = [("fgsm", 900, 400), ("fgsm", 700, 500), ("fgsm", 890, 490), ("step_ll", 600, 800)]
    rows = [Row((one.name,), one, attack) for one, (attack, _, _) in zip(NETWORKS, measured, strict=True)]
    table = accuracy_table(
        SCALE, results(make_record, *measured), rows, caption="", labels=("Network",), tops=(1,), bold_ties=True
    )
    clean, *attacked = range(3, 8)
    # Of 900 and 890 of 1,000 the intervals meet, as of 500 and 490; the last row is judged more gently than the others.
    assert table.bold == {(0, clean), (2, clean)} | {(row, column) for row in (1, 2, 3) for column in attacked}
