"""benchmarks.training_methods: what it counts, the tables and the figure that it makes, and what it does again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.training_methods import jobs, report, robustness
from benchmarks.training_methods.__main__ import main, parser
from benchmarks.training_methods.bench import Bench
from benchmarks.training_methods.cost import Passes
from benchmarks.training_methods.report import Row
from benchmarks.training_methods.robustness import ATTACKS, Spec
from benchmarks.training_methods.ways import Method, methods

OPTIONS = "--limit 64 --test-limit 20 --epochs 2 --replays 2 --minibatch 32 --width 0.1 --rounds 1 --device cpu"
# Of each: epochs, changes of the weights, examples; forwards, backwards to the weights and to the images alone; clean
# epochs, and one divided by those of standard training.
EXPECTED = {
    "standard": ["2", "4", "128", "1", "1", "0", "2", "1.00"],
    "Algorithm 1, step_ll, k = m / 2": ["2", "4", "128", "1.5", "1", "0.5", "2.67", "1.33"],
    "Algorithm 1, step_ll, static sources": ["2", "4", "128", "1.5", "1", "0.5", "2.67", "1.33"],
    "pairs, step_ll": ["1 x 2", "4", "128", "1", "1", "0.5", "2.33", "1.17"],
    "Algorithm 1, fgsm, k = m / 2": ["2", "4", "128", "1.5", "1", "0.5", "2.67", "1.33"],
    "pairs, fgsm": ["1 x 2", "4", "128", "1", "1", "0", "2", "1.00"],
    "the same in bfloat16": ["2", "4", "128", "1.5", "1", "0.5", "2.67", "1.33"],
    "Algorithm 1, step_ll, k = m": ["2", "4", "128", "2", "1", "1", "3.33", "1.67"],
    "fast": ["2", "4", "128", "2", "1", "1", "3.33", "1.67"],
    "fast, from noise": ["2", "4", "128", "2", "1", "1", "3.33", "1.67"],
    "free, r = 2": ["1 x 2", "4", "128", "1", "1", "0", "2", "1.00"],
    "TRADES, 10 steps": ["2", "4", "128", "13", "2", "10", "18", "9.00"],
    "pgd, 10 steps, k = m": ["2", "4", "128", "11", "1", "10", "15.3", "7.67"],
}
CHEAP = ("standard", "fast")  # enough for what is the same for all


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways and short attacks."""
    few = lambda *given: {name: way for name, way in methods(*given).items() if name in CHEAP}  # noqa: E731
    for module in ("jobs", "__main__"):
        monkeypatch.setattr(f"benchmarks.training_methods.{module}.methods", few)
    attacks = (Spec("fgsm", "fgsm"), Spec("pgd-2", "pgd", {"steps": 2}, after=("clean", "fgsm")))
    for module in ("robustness", "report", "figure"):
        monkeypatch.setattr(f"benchmarks.training_methods.{module}.ATTACKS", attacks)


def test_the_tables_and_the_figure(tmp_path: Path) -> None:
    main([*OPTIONS.split(), "--out", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    costs, accuracies = (part.split("\n\n")[1] for part in text.split("\n## ")[1:])
    (_, *cost_rows), (header, *accuracy_rows) = _cells(costs), _cells(accuracies)
    assert {name: cells[:8] for name, *cells in cost_rows} == EXPECTED
    assert header == ["training", "clean", *(attack.title for attack in ATTACKS)]
    assert [row[0] for row in accuracy_rows] == [row[0] for row in cost_rows]
    assert all("%" in cell and "-" in cell for row in accuracy_rows for cell in row[1:])
    assert "64 training examples, 2 times each" in text and "on 20 test images" in text
    assert "one of 2 others of the same kind, with standard training" in text
    drawn = (tmp_path / "table.svg").read_text()
    assert all(f">{name}</text>" in drawn for name in EXPECTED) and f"accuracy under {ATTACKS[-1].title}" in drawn


def _cells(table: str) -> list[list[str]]:
    lines = table.splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


def test_an_accuracy_of_several_seeds() -> None:
    row = Row(Method("one", lambda model: model), Passes(1, 1, 0), {"clean": [50, 60, 70]})  # type: ignore[arg-type, return-value]
    found = row.accuracy("clean", 100)
    assert found.value == 0.6 and 0.50 < found.low < 0.51 and 0.69 < found.high < 0.70  # Wilson's, of 60 of 100
    assert report._accuracy(row, "clean", 100) == f"60.0% [{100 * found.low:.1f}-{100 * found.high:.1f}], 50.0-70.0"


def test_work_is_kept(cheap: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run trains and attacks nothing, or with another attack that one alone; the table is the same."""
    work, out = tmp_path / "work", tmp_path / "table.md"
    command = [*OPTIONS.split(), "--seeds", "2", "--work", str(work), "--out", str(out)]
    main(command)
    before = out.read_text()
    assert sorted(file.name for file in work.glob("*.pt")) == [
        *(f"fast-{seed}.pt" for seed in (0, 1)),
        *(f"standard-{seed}.pt" for seed in range(4)),  # two of them as sources alone
    ]
    results = {file: json.loads(file.read_text()) for file in work.glob("*.json") if file.stem[-1].isdigit()}
    assert len(results) == 4
    monkeypatch.setattr(jobs, "train", None)
    attacked: list[str] = []
    evaluate = robustness.evaluate
    monkeypatch.setattr(
        robustness, "evaluate", lambda *args, **more: attacked.append(more["attack"]) or evaluate(*args, **more)
    )
    main(command)
    assert out.read_text() == before and not attacked
    for module in ("robustness", "report", "figure"):
        name = f"benchmarks.training_methods.{module}.ATTACKS"
        monkeypatch.setattr(name, (*robustness.ATTACKS[:2], Spec("step_ll", "step_ll")))
    main(command)
    assert attacked == ["step_ll"] * 4 and "step_ll" in out.read_text().split("## Accuracy")[1].split("\n")[2]
    for file, kept in results.items():
        assert {name: json.loads(file.read_text())[name] for name in kept} == kept


def test_the_worst_case_is_over_both_attacks(cheap: None, tmp_path: Path) -> None:
    """An attack that comes after another one can only lower the accuracy, image by image."""
    options = parser().parse_args([*OPTIONS.split(), "--out", str(tmp_path / "table.md")])
    bench = Bench.of(options)
    kept = tmp_path / "results.json"
    robustness.counted(bench, bench.network(0), kept)
    results = json.loads(kept.read_text())
    clean, fgsm, pgd = (torch.tensor(results[key]) for key in ("clean", *(a.key(16) for a in robustness.ATTACKS)))
    assert len(clean) == 20 and not (fgsm & ~clean).any() and not (pgd & ~fgsm).any()


def test_work_of_other_options_is_refused(cheap: None, tmp_path: Path) -> None:
    options = parser().parse_args([*OPTIONS.split(), "--out", "unused.md"])
    jobs.check_setting(options, tmp_path)
    options.lr, options.rounds = 0.1, 2  # rounds change no network
    with pytest.raises(SystemExit, match=r"other options \(lr 0.002\): choose another --work"):
        jobs.check_setting(options, tmp_path)


@pytest.mark.parametrize(("half", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_the_dtype_of_an_iteration(half: bool, dtype: torch.dtype) -> None:
    model = torch.nn.Linear(2, 2)
    seen = []

    def task(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        seen.append(model(images).dtype)
        return model(images).float().sum()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Method("one", lambda model: task, half=half).step(task, optimizer, torch.ones(1, 2), torch.ones(1))
    assert seen == [dtype]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--epochs 6", "--epochs must be a multiple of --replays, 4, got 6"),
        ("--seeds 0", "--seeds must be at least 1, got 0"),
        ("--processes 0", "--processes must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_be(given: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main([*given.split(), "--out", "unused.md"])
