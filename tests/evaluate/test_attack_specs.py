from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fastadv.cli import evaluate as evaluate_cli
from fastadv.evaluate import read_records
from fastadv.evaluate.attack_specs import attack_class, parse_attack
from fastadv.evaluate.records import Record
from tests.evaluate.test_evaluate_cli import save_run


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
        ("apgd_ce", {"fast": True}),
        ("fab_t:steps=2", {"steps": 2, "fast": True}),
        ("square", {"fast": True}),
        ("autoattack", {"fast": True}),
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


OWN = """
from fastadv.attacks import FGSM, IterativeAttack, PGD

class Mine(PGD):
    name = "mine"

class Targeted(FGSM):
    name = "towards"
    ascend = False

class Nameless(IterativeAttack):
    rule, ascend, needs_labels = "label", True, True

def function(images):
    return images
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own_attacks.py").write_text(OWN)
    return tmp_path / "own_attacks.py"


def test_an_attack_of_ones_own(own: Path) -> None:
    assert parse_attack(f"{own}:Mine:steps=2", fast=True) == (f"{own}:Mine", {"steps": 2, "fast": True})
    assert attack_class(f"{own}:Mine:steps=2").name == "mine"
    assert parse_attack("fastadv.attacks:PGD:steps=3") == ("fastadv.attacks:PGD", {"steps": 3})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{own}:Min", "does not define 'Min' (did you mean Mine?)"),
        ("{own}:Mine:steps=0", "steps must be at least 1, got 0"),
        ("{own}:Mine:stps=4", "mine has no option stps (did you mean steps?)"),
        ("{own}:function", "must be a class that derives from one of fastadv.attacks, got <function"),
        ("{own}:Nameless", "has no attribute name, which an attack needs"),
        ("no_such_module:Mine", "there is no module no_such_module"),
        ("gone.py:Mine", "there is no file gone.py"),
    ],
)
def test_refuses_attacks_of_ones_own(own: Path, text: str, said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        parse_attack(text.format(own=own))
    assert said in str(error.value)


def test_a_change_to_the_code_is_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, file = save_run(tmp_path / "run"), tmp_path / "own.py"
    command = [str(run), "--limit", "20", "--device", "cpu", "--eps", "8", "--out", str(tmp_path / "out")]
    counts = []
    for steps in (1, 1, 9):
        file.write_text(
            "from fastadv.attacks import PGD\n\n\nclass Mine(PGD):\n    name = 'mine'\n\n"
            f"    def step_sizes(self, size):\n        return [2.0] * {steps}\n"
        )
        sys.modules.pop(f"own ({file})", None)  # as in another process
        assert evaluate_cli.main([*command, "--attacks", f"{file}:Mine:random_start=false"]) == 0
        counts.append(len(read_records(tmp_path / "out/robustness.jsonl", Record)))
    assert counts == [2, 2, 3]  # the clean one, and that of each version
    tables = [path.name for path in (tmp_path / "out" / "tables").glob("*.md")]
    assert len(tables) == 1 and tables[0].endswith("own.py-Mine-random_start=false.md")
