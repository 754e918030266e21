"""Names, classes, options, and how attacks print themselves."""

from __future__ import annotations

import inspect
import pydoc
import re
from typing import Any

import pytest
import torch
from torch import nn

import fastadv
from fastadv import PixelSpace, attacks
from fastadv.attacks.base import no_such_option, options_of
from fastadv.attacks.engine.cost import MARGINS
from fastadv.attacks.kl import KLAttack
from tests.attacks.models import ConvNet, batch

PAPER = [
    *("fgsm", "fgsm_pred", "fast_entropy", "fast_grad_l2", "fast_grad_linf", "step_ll", "step_rnd"),
    *("iter_basic", "iter_ll", "random_sign", "random_normal"),
]
CLASSES = {name: attacks.get(name) for name in attacks.names()}


def test_names() -> None:
    assert attacks.names()[:11] == PAPER
    assert {"pgd", "mi_fgsm", "n_fgsm"} <= set(attacks.names()[11:])
    attacks.names().clear()  # a copy
    assert attacks.names()


@pytest.mark.parametrize(("name", "kind"), CLASSES.items(), ids=CLASSES)
def test_every_class_is_exported_named_and_documented(name: str, kind: type[attacks.Attack]) -> None:
    assert kind.name == name
    assert kind.__name__ in attacks.__all__ and getattr(attacks, kind.__name__) is kind
    assert kind.__doc__ and kind.__doc__ != attacks.Attack.__doc__
    assert inspect.getmodule(kind).__doc__


def test_everything_exported_is_there() -> None:
    assert sorted(attacks.__all__) == sorted(set(attacks.__all__))
    assert all(hasattr(attacks, name) for name in attacks.__all__)


def test_each_attack_that_needs_labels_says_so() -> None:
    needing = {name for name, kind in CLASSES.items() if kind.needs_labels}
    assert needing & set(PAPER) == {"fgsm", "fast_grad_l2", "fast_grad_linf", "iter_basic"}
    by_rule = {name for name, kind in CLASSES.items() if getattr(kind, "rule", None) in ("label", *MARGINS)}
    assert needing == {*by_rule, "fab", "fab_t", "square", "autoattack"}
    with pytest.raises(ValueError, match="step_ll"):
        attacks.get("step")


@pytest.mark.parametrize(("name", "kind"), CLASSES.items(), ids=CLASSES)
def test_called_as_in_torchattacks(name: str, kind: type[attacks.Attack]) -> None:
    model = ConvNet()
    images, labels = batch()
    atk = kind(model, eps=16, seed=0)
    adv = atk(images, labels)
    assert torch.equal(adv, attacks.create(name, model, eps=16, seed=0)(images, labels))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("FGSM", {}, "unknown attack 'FGSM' .did you mean fgsm... accepted: fgsm, fgsm_pred, .*mi_fgsm"),
        ("iter-ll", {}, "unknown attack 'iter-ll' .did you mean iter_ll"),
        ("deepfool", {}, "unknown attack 'deepfool'; accepted: "),
        (
            "pgd:steps=5",
            {},
            "unknown attack .pgd:steps=5.: options follow the name only in an evaluation, and are keywords",
        ),
        ("", {}, "unknown attack ''"),
        (
            "fgsm",
            {"epsilon": 8},
            "fgsm has no option epsilon .did you mean eps... its options are aux_weight, .*eps, fast, .*validate",
        ),
        ("step_ll", {"steps": 8, "alpha": 1}, "step_ll has no option alpha, steps; its options are"),
        ("iter_ll", {"random_start": True}, "iter_ll has no option random_start; its options are alpha, .*steps"),
        ("pgd", {"decay": 1.0}, "pgd has no option decay; its options are .*random_start"),
        ("pgd", {"step": 5}, "pgd has no option step .did you mean steps... its options are alpha"),
    ],
)
def test_create_says_what_it_knows(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create(name, ConvNet(), **options)


def test_a_class_says_what_it_knows_as_python_does() -> None:
    with pytest.raises(
        TypeError,
        match=r"^fgsm has no option fold_nb \(did you mean fold_bn\?\); its options are aux_weight, bn, .*fold_bn",
    ):
        attacks.FGSM(ConvNet(), fold_nb=True)


def test_create_with_its_arguments_in_the_other_order() -> None:
    with pytest.raises(TypeError, match=r"a name or a class, got ConvNet; in create\(name, model\) it comes first"):
        attacks.create(ConvNet(), "fgsm")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "kind"), CLASSES.items(), ids=CLASSES)
def test_a_signature_shows_every_option(name: str, kind: type[attacks.Attack]) -> None:
    shown, common = inspect.signature(kind).parameters, inspect.signature(attacks.Attack).parameters
    assert list(shown)[: len(common)] == list(common) and "options" not in shown
    attack = kind(ConvNet(), **{name: shown[name].default for name in shown if name != "model"})
    assert all(hasattr(attack, option) for option in shown if option not in ("seed", "generator"))


@pytest.mark.parametrize(("name", "kind"), CLASSES.items(), ids=CLASSES)
def test_a_docstring_describes_every_option_that_is_accepted_once_with_its_default(
    name: str, kind: type[attacks.Attack]
) -> None:
    text = kind.__doc__ or ""
    described = re.findall(r"^    (\w+)(?: \(default: (.*?)\))?: \S", text, flags=re.MULTILINE)
    taken = inspect.signature(kind).parameters.values()
    shown = [option for option in taken if option.name not in kind.refused_options()]
    defaults = ["" if option.default is option.empty else repr(option.default) for option in shown]
    assert described == list(zip((option.name for option in shown), defaults, strict=True))
    assert text.count("labels are ignored if given") == (not kind.needs_labels)
    assert text.count("with images and their true labels") == kind.needs_labels
    assert max(map(len, text.splitlines())) <= 116
    assert "size of the perturbation in pixel values of [0, 255]: a number" in pydoc.render_doc(
        kind, renderer=pydoc.plaintext
    )


def test_a_description_of_ones_own_comes_before_that_of_a_base() -> None:
    texts = {kind: " ".join((kind.__doc__ or "").split()) for kind in (attacks.PGD, attacks.MIFGSM, attacks.IterLL)}
    for kind, what in (
        (attacks.PGD, "None takes 2.5 eps / steps."),
        (attacks.MIFGSM, "None takes eps / steps."),
        (attacks.IterLL, "None takes 1."),
    ):
        assert texts[kind].count("alpha (default: None): length of a step in pixel values; " + what) == 1


def test_own_attacks_are_described_too() -> None:
    class Mine(attacks.RandomSign):
        """Own words.

        Args:
            eps: as I like it,
                on two lines.
            times: how often.

        Raises:
            ValueError: never.
        """

        def __init__(self, model: nn.Module, *, times: int = 3, **options: Any) -> None:
            super().__init__(model, **options)

    class Silent(Mine):
        pass

    text = Mine.__doc__ or ""
    assert text.startswith("Own words.\n\nCall it with images alone; labels are ignored if given.\n\nArgs:\n")
    assert "\n    eps (default: 16): as I like it, on two lines.\n    space (default: None): how pixel" in text
    assert text.endswith("\n    times (default: 3): how often.\n\nRaises:\n    ValueError: never.")
    assert (Silent.__doc__ or "").startswith("Call it with images alone") and "times (default: 3)" in Silent.__doc__


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        ("step_ll", {"eps": 16}, ["StepLL(ConvNet", "eps=16", "PixelSpace.unit()", "bn='eval'"]),
        ("step_ll", {"eps": fastadv.TruncatedNormalEps()}, ["eps=TruncatedNormalEps(sigma=8.0, upper=16.0)"]),
        ("iter_ll", {"alpha": 2, "steps": 7, "bn": "batch"}, ["IterLL(", "alpha=2", "steps=7", "bn='batch'"]),
        ("pgd", {"random_start": False}, ["PGD(", "random_start=False"]),
        ("mi_fgsm", {"decay": 0.5}, ["MIFGSM(", "decay=0.5"]),
        ("fast_grad_l2", {"label_smoothing": 0.1}, ["FastGradL2(", "label_smoothing=0.1"]),
    ],
)
def test_attacks_print_themselves(name: str, options: dict[str, object], shown: list[str]) -> None:
    text = repr(attacks.create(name, ConvNet(), **options))
    assert all(part in text for part in shown), text
    assert text.count("\n") == 0


def test_defaults() -> None:
    attack = attacks.create("fgsm", ConvNet())
    assert attack.eps == 16 and attack.space == PixelSpace.unit()
    assert attack.bn == "eval" and attack.validate == "always"


class WithAux(ConvNet):
    def forward_with_aux(self, images: torch.Tensor) -> Any:
        raise NotImplementedError


# Values other than the default ones.
OTHER_VALUES: dict[str, Any] = {
    **{"targeted": True, "targets": "predicted", "loss": "margin", "restarts": 2},
    **{"label_smoothing": 0.1, "aux_weight": 0.4},
}


@pytest.mark.parametrize("option", OTHER_VALUES)
@pytest.mark.parametrize("name", [*attacks.names(), "kl"])
def test_an_option_is_listed_if_some_value_of_it_is_accepted(name: str, option: str) -> None:
    kind = KLAttack if name == "kl" else attacks.get(name)
    if option not in options_of(kind):
        return
    others = [{}, {"targets": "random"}] if "targets" in options_of(kind) else [{}]  # random classes are drawn
    accepted = False
    for other in others:
        try:
            kind(WithAux(), **{**other, option: OTHER_VALUES[option]})
        except ValueError:
            continue
        accepted = True
    listed = no_such_option(kind, ["nothing"]).split("its options are ")[1].split(", ")
    assert (option in listed) == accepted
    assert (f"\n    {option} (default" in (kind.__doc__ or "")) == accepted
