"""benchmarks.training_methods: what it counts, and the table it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.training_methods import Method, main

OPTIONS = "--limit 64 --test-limit 20 --epochs 2 --replays 2 --minibatch 32 --width 0.1 --rounds 1 --device cpu"
# Of each: epochs, changes of the weights, examples; forwards, backwards to the weights and to the images alone.
EXPECTED = {
    "standard": ["2", "4", "128", "1", "1", "0"],
    "Algorithm 1, step_ll, k = m / 2": ["2", "4", "128", "1.5", "1", "0.5"],
    "Algorithm 1, step_ll, static sources": ["2", "4", "128", "1.5", "1", "0.5"],
    "pairs, step_ll": ["1 x 2", "4", "128", "1", "1", "0.5"],
    "Algorithm 1, fgsm, k = m / 2": ["2", "4", "128", "1.5", "1", "0.5"],
    "pairs, fgsm": ["1 x 2", "4", "128", "1", "1", "0"],
    "the same in bfloat16": ["2", "4", "128", "1.5", "1", "0.5"],
    "Algorithm 1, step_ll, k = m": ["2", "4", "128", "2", "1", "1"],
    "fast": ["2", "4", "128", "2", "1", "1"],
    "fast, from noise": ["2", "4", "128", "2", "1", "1"],
    "free, r = 2": ["1 x 2", "4", "128", "1", "1", "0"],
    "TRADES, 10 steps": ["2", "4", "128", "13", "2", "10"],
    "pgd, 10 steps, k = m": ["2", "4", "128", "11", "1", "10"],
}


def test_the_table(tmp_path: Path) -> None:
    main([*OPTIONS.split(), "--out", str(tmp_path / "table.md")])
    text = (tmp_path / "table.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    header, _, *body = rows
    assert header[-5:] == ["clean", "fgsm", "step_ll", "iter_basic", "pgd-20"]
    assert {name: cells[:6] for name, *cells in body} == EXPECTED
    assert all(len(row) == len(header) and all("%" in cell and "-" in cell for cell in row[-5:]) for row in body)
    assert "64 training examples, 2 times each" in text and "on 20 test images" in text
    assert "one of 2 others, trained before in the standard way" in text


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


def test_epochs_that_cannot_be_replayed() -> None:
    with pytest.raises(SystemExit, match="--epochs must be a multiple of --replays, 4, got 6"):
        main(["--epochs", "6", "--out", "unused.md"])
