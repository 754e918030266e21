from __future__ import annotations

from typing import Any

import pytest

from fastadv.evaluate.attack_text import parse_attack


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("step_ll", "step_ll", {}),
        ("pgd:steps=20:alpha=2", "pgd", {"steps": 20, "alpha": 2}),
        ("pgd:alpha=2.5", "pgd", {"alpha": 2.5}),
        ("pgd:random_start=false", "pgd", {"random_start": False}),
        ("fgsm:bn=batch", "fgsm", {"bn": "batch"}),
    ],
)
def test_name_and_options(text: str, name: str, options: dict[str, Any]) -> None:
    assert parse_attack(text) == (name, options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pgdd", "unknown attack 'pgdd'"),
        ("", "unknown attack ''"),
        ("clean", "unknown attack 'clean'"),
        ("step_ll:steps=2", "step_ll has no option steps; its options are bn, "),
        ("pgd:steps", "got 'steps' in 'pgd:steps'"),
        ("pgd:", "got '' in 'pgd:'"),
        ("pgd:steps=2.5", "pgd:steps=2.5: steps must be an integer, got float"),
        ("pgd:steps=0", "steps must be at least 1, got 0"),
        ("pgd:eps=4", "eps is the same for all attacks"),
        ("pgd:seed=4", "seed is the same for all attacks"),
    ],
)
def test_refuses(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_attack(text)
    assert said in str(error.value)
