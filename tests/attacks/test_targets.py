"""The options targets and targeted: which class an attack is about, and on which side of it the images end."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from fastadv.train import AdversarialTask, PairedTask
from tests.attacks.models import CLASSES, ConvNet, PixelLogits, batch
from tests.attacks.test_agreement import HANDFUL, elements_that_differ

UNIT, RAW = PixelSpace.unit(), PixelSpace.raw()
WITH_A_CHOICE = ("fgsm", "fast_grad_l2", "fast_grad_linf", "iter_basic", "pgd", "mi_fgsm", "n_fgsm")
WITHOUT = ("fgsm_pred", "fast_entropy", "step_ll", "step_rnd", "iter_ll", "apgd_ce", "apgd_dlr", "apgd_t")
SAME = (  # an attack with targets, and the method of the paper that it then is
    *(("fgsm", "predicted", "fgsm_pred"), ("fgsm", "least_likely", "step_ll"), ("fgsm", "random", "step_rnd")),
    ("iter_basic", "least_likely", "iter_ll"),
)


@pytest.mark.parametrize(("name", "targets", "paper"), SAME)
def test_the_papers_methods_are_others_with_targets(name: str, targets: str, paper: str) -> None:
    images, labels = batch()
    model = ConvNet()
    attack, same = (
        attacks.create(name, model, eps=4, seed=1, targets=targets),
        attacks.create(paper, model, eps=4, seed=1),
    )
    for _ in range(2):  # further random numbers
        adv = attack(images)
        assert torch.equal(adv, same(images)) and not torch.equal(adv, images)
    assert all(map(torch.equal, attack.at_each(images, eps=[2, 8]), same.at_each(images, eps=[2, 8])))
    assert attack.draws == same.draws and attack.stream.offset == same.stream.offset
    assert attack.true_labels(labels) is None


@pytest.mark.parametrize("name", WITH_A_CHOICE)
def test_the_choice_that_is_made_anyway(name: str) -> None:
    images, labels = batch()
    plain, asked = (attacks.create(name, ConvNet(), eps=4, seed=1, **own) for own in ({}, {"targets": "label"}))
    assert torch.equal(asked(images, labels), plain(images, labels))
    assert asked.true_labels(labels) is labels


def test_one_step_towards_a_target_by_hand() -> None:
    """The logits are the pixels: their sum's other terms fall, and the target's pixel rises."""
    images = torch.full((1, 3, 1, 1), 100.0)
    adv = attacks.FGSM(PixelLogits(RAW), eps=8, space=RAW, targeted=True)(images, torch.tensor([2]))
    assert adv.flatten().tolist() == [92.0, 92.0, 108.0]
    away = attacks.FGSM(PixelLogits(RAW), eps=8, space=RAW)(images, torch.tensor([2]))
    assert away.flatten().tolist() == [108.0, 108.0, 92.0]


def test_pgd_towards_targets_in_plain_pytorch() -> None:
    images, labels = batch(dtype=torch.float64)
    model = ConvNet().double().eval()
    targets = (labels + 1) % CLASSES
    attack = attacks.PGD(model, eps=8, alpha=2, steps=5, random_start=False, targeted=True)
    adv = images.clone()
    for _ in range(5):
        adv.requires_grad_()
        (grad,) = torch.autograd.grad(functional.cross_entropy(model(adv), targets, reduction="sum"), adv)
        adv = (adv.detach() - 2 / 255 * grad.sign()).clamp(images - 8 / 255, images + 8 / 255).clamp(0, 1)
    torch.testing.assert_close(attack(images, targets), adv, rtol=0, atol=1e-12)


def test_torchattacks() -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")
    images, labels = batch(16)
    model = ConvNet().eval()
    theirs = torchattacks.PGD(model, eps=8 / 255, alpha=2 / 255, steps=5, random_start=False)
    theirs.set_mode_targeted_by_label(quiet=True)
    targets = (labels + 1) % CLASSES
    adv = attacks.PGD(model, eps=8, alpha=2, steps=5, random_start=False, targeted=True)(images, targets)
    assert elements_that_differ(255 * adv, 255 * theirs(images, targets)) <= HANDFUL


@pytest.mark.parametrize("name", WITH_A_CHOICE)
def test_every_attack_nears_its_targets(name: str) -> None:
    images, labels = batch(dtype=torch.float64)
    model = ConvNet().double().eval()

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(model(x), y)

    attack = attacks.create(name, model, eps=2, seed=0, targeted=True)
    assert loss(attack(images, labels), labels) < loss(images, labels)
    least_likely = model(images).argmin(1)
    towards = attacks.create(name, model, eps=2, seed=0, targets="least_likely")
    assert loss(towards(images), least_likely) < loss(images, least_likely)


@pytest.mark.parametrize("option", [{"capture": True}, {"compile": True}, {"fold_bn": True}], ids=str)
def test_with_the_options_for_speed(used: Counter[str], option: dict[str, bool]) -> None:
    model = ConvNet().double()
    for own in ({"targeted": True}, {"targets": "random"}):
        fast, plain = (attacks.PGD(model, eps=4, steps=3, seed=1, **own, **extra) for extra in (option, {}))
        for seed in range(3):
            images, labels = batch(dtype=torch.float64, seed=seed)
            given = [images, labels] if fast.targeted else [images]
            torch.testing.assert_close(fast(*given), plain(*given), rtol=0, atol=1e-9)
    assert used[next(iter(option))] > 0


@pytest.mark.parametrize("name", ["apgd_t", "step_ll"])
def test_a_number_of_targets_has_another_name(name: str) -> None:
    with pytest.raises(ValueError, match="does not take the option targets") as error:
        attacks.create(name, ConvNet(), targets=3)
    assert ("the number of its target classes is target_classes=3" in str(error.value)) == (name == "apgd_t")


@pytest.mark.parametrize("name", WITHOUT)
@pytest.mark.parametrize("own", [{"targets": "label"}, {"targets": "predicted"}, {"targeted": True}], ids=str)
def test_methods_that_are_defined_by_their_class(name: str, own: dict[str, Any]) -> None:
    option = next(iter(own))
    message = f"^{name} chooses its class by definition .* so it does not take the option {option}: use .* such as fgsm"
    with pytest.raises(ValueError, match=message):
        attacks.create(name, ConvNet(), **own)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"targets": "likely"}, "^targets must be one of label, predicted, least_likely, random, got 'likely'"),
        ({"targets": 3}, "^targets must be one of label"),
        ({"targeted": "yes"}, "^targeted must be true or false, got 'yes'"),
        ({"targeted": True, "targets": "random"}, "^targeted=True steps towards .* pass one of the two$"),
        ({"targeted": True, "targets": "predicted"}, "pass one of the two$"),
    ],
)
def test_refusals(own: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.PGD(ConvNet(), **own)


def test_noise_has_no_class() -> None:
    with pytest.raises(ValueError, match="random_sign has no option targets"):
        attacks.create("random_sign", ConvNet(), targets="random")


def test_missing_targets() -> None:
    with pytest.raises(ValueError, match=r"^pgd needs targets: call it with labels"):
        attacks.PGD(ConvNet(), targeted=True)(batch()[0])


def test_an_own_class_that_descends_takes_no_options() -> None:
    class Towards(attacks.PGD):
        """Steps towards its labels."""

        ascend = False

    with pytest.raises(ValueError, match="does not take the option targeted"):
        Towards(ConvNet(), targeted=True)


def test_an_own_loss_with_targets() -> None:
    """It is descended towards the targets, which an evaluation still refuses."""

    class Margin(attacks.PGD):
        """The margin."""

        name = "margin"

        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
            others = logits.scatter(1, target[:, None], -torch.inf)  # [N, K]
            return others.amax(1) - logits.gather(1, target[:, None])[:, 0]

    images, labels = batch()
    model = ConvNet().eval()
    attack = Margin(model, eps=16, targeted=True)
    assert (attack.loss(model(attack(images, labels)), labels) < attack.loss(model(images), labels)).all()
    with pytest.raises(ValueError, match="margin is targeted"):
        attack.true_labels(labels)


def test_an_evaluation() -> None:
    images, labels = batch(12)
    model = ConvNet()
    common: dict[str, Any] = {"eps": 8, "space": UNIT}
    with pytest.raises(ValueError, match=r"fgsm is targeted: .* true classes"):
        evaluate(model, [(images, labels)], attack="fgsm", targeted=True, **common)
    found = evaluate(model, [(images, labels)], attack="fgsm", targets="least_likely", **common)
    assert found == evaluate(model, [(images, labels)], attack="step_ll", **common)


def test_training() -> None:
    images, labels = batch(8)
    soft = functional.one_hot(labels, CLASSES).float()
    with pytest.raises(ValueError, match="fgsm is targeted"):
        AdversarialTask(ConvNet(), attack="fgsm", space=UNIT, attack_options={"targeted": True})
    losses = []
    for attack, own in (("fgsm", {"targets": "least_likely"}), ("step_ll", {})):
        for y in (labels, soft):  # which say nothing about the class that is attacked
            task = AdversarialTask(ConvNet().eval(), attack=attack, k=4, eps=8, space=UNIT, attack_options=own)
            losses.append(task(images.clone(), y).item())
    assert losses[:2] == losses[2:]
    with pytest.raises(ValueError, match="fgsm uses the true label, which soft labels"):
        AdversarialTask(ConvNet(), attack="fgsm", space=UNIT, attack_options={"targets": "label"})(images, soft)


def test_paired_training_does_not_take_the_losss_gradient_for_another() -> None:
    images, labels = batch(8)
    made = []
    for attack, own in (("fgsm", {"targets": "least_likely"}), ("step_ll", {})):
        task = PairedTask(ConvNet().eval(), attack=attack, eps=8, space=UNIT, attack_options=own)
        overwritten = images.clone()
        task.backward(overwritten, labels)
        made.append(overwritten)
    assert torch.equal(*made) and not torch.equal(made[0], images)


def test_the_text() -> None:
    assert "targeted=True, targets=None" in repr(attacks.FGSM(ConvNet(), targeted=True))
    assert "targeted=False, targets='random'" in repr(attacks.PGD(ConvNet(), targets="random"))
