"""Options that do nothing in a run are said before its first iteration."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from fastadv.train import TrainConfig, create_trainer


@pytest.mark.usefixtures("few_digits")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start_after": 15}, ["attack.start_after 15 is not before the run's end, after 15 iterations: no example"]),
        ({"start_after": 14}, []),
        ({"start_after": 5, "eps_warmup": 10}, []),
        ({"start_after": 5, "eps_warmup": 40}, ["attack.eps_warmup 40 goes beyond the run's end, after 15 iterations"]),
        (
            {"eps_warmup": 10_000},
            ["attack.eps_warmup 10,000 goes beyond the run's end, after 15 iterations: eps reaches less"],
        ),
        ({"start_after": 20, "eps_warmup": 40}, ["attack.start_after 20 is not before the run's end"]),
    ],
)
def test_attacks_after_the_end(options: dict[str, int], said: list[str], config: TrainConfig, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = create_trainer(replace(config, attack=replace(config.attack, **options)), tmp_path)
    messages = [str(warning.message) for warning in caught]
    assert trainer.total_steps == 15 and len(messages) == len(said)
    assert all(message.startswith(start) for message, start in zip(messages, said, strict=True))
    if options == {"start_after": 5, "eps_warmup": 40}:
        assert messages[0].endswith("eps reaches 25% of its size")
