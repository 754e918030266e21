from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from fastadv.evaluate.attack_specs import parse_attack


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("step_ll", "step_ll", {}),
        ("pgd:steps=20:alpha=2", "pgd", {"steps": 20, "alpha": 2}),
        ("pgd:alpha=2.5", "pgd", {"alpha": 2.5}),
        ("pgd:random_start=false", "pgd", {"random_start": False}),
        ("fgsm:bn=batch", "fgsm", {"bn": "batch"}),
        ("pgd:steps=20:restarts=5:loss=dlr", "pgd", {"steps": 20, "restarts": 5, "loss": "dlr"}),
        ("pgd:targets=least_likely", "pgd", {"targets": "least_likely"}),
        ("pgd:norm=l2:eot=2", "pgd", {"norm": "l2", "eot": 2}),
        ("step_ll:aux_weight=0.4", "step_ll", {"aux_weight": 0.4}),  # for models that are not known yet
    ],
)
def test_name_and_options(text: str, name: str, options: dict[str, Any]) -> None:
    assert parse_attack(text) == (name, options)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("step_ll", {"fast": True}),
        ("pgd:steps=20", {"steps": 20, "fast": True}),
        ("pgd:fast=false", {"fast": False}),
        ("random_sign", {}),  # makes no gradient
    ],
)
def test_fast(text: str, options: dict[str, Any]) -> None:
    assert parse_attack(text, fast=True)[1] == options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pgdd", "unknown attack 'pgdd'"),
        ("", "unknown attack ''"),
        ("clean", "unknown attack 'clean'"),
        ("step_ll:steps=2", "step_ll has no option steps; its options are aux_weight, bn, "),
        ("pgd:steps", "got 'steps' in 'pgd:steps'"),
        ("pgd:", "got '' in 'pgd:'"),
        ("pgd:steps=2.5", "pgd:steps=2.5: steps must be an integer, got 2.5"),
        ("pgd:steps=0", "steps must be at least 1, got 0"),
        ("pgd:eps=4", "eps is the same for all attacks"),
        ("pgd:stps=4", "pgd has no option stps (did you mean steps?); its options are alpha"),
        ("pgd:seed=4", "seed is the same for all attacks"),
        ("pgd:targeted=true", "pgd is targeted: it steps towards the labels"),
        ("step_ll:targets=random", "step_ll chooses its class by definition"),
        ("fgsm:restarts=2", "fgsm draws no random numbers here"),
        ("pgd:loss=cw", "loss must be one of ce, dlr, margin, got 'cw'"),
    ],
)
def test_refuses(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_attack(text)
    assert said in str(error.value)


def test_a_model_that_an_attack_cannot_follow() -> None:
    with pytest.raises(ValueError, match=r"aux_weight=0.4 needs a model with a method forward_with_aux.*got Flatten"):
        parse_attack("step_ll:aux_weight=0.4", nn.Flatten())
