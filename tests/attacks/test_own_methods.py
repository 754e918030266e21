"""Methods of your own attack that do not do what the loop needs: nothing is ignored in silence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from fastadv.train import AdversarialTask, PairedTask
from tests.attacks.models import ConvNet, batch

SPACE = PixelSpace.unit()


class ReturnsStep(attacks.FGSM):
    name = "returns_step"

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> Any:
        return (adv + grad.sign() * alpha / 255).clamp(0, 1)


class RebindsStep(attacks.FGSM):
    name = "rebinds_step"

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        adv = (adv + grad.sign() * alpha / 255).clamp(0, 1)


class ReturnsAdv(attacks.FGSM):
    name = "returns_adv"

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> Any:
        return adv.add_(grad.sign() * alpha / 255).clamp_(0, 1)


class ReturnsStart(attacks.PGD):
    name = "returns_start"

    def start_(self, adv: Tensor, clean: Tensor, eps: Any, seed: Any, offset: int) -> Any:
        return clean + 0.01


class ReturnsRun(attacks.Attack):
    name = "returns_run"

    def run_(self, adv: Tensor, labels: Any, size: Any, seed: Any, offset: int) -> Any:
        return (adv - 0.01).clamp(0, 1)


def by_call(attack: type[attacks.Attack]) -> None:
    attack(ConvNet(), eps=8, space=SPACE)(*batch())


def by_evaluate(attack: type[attacks.Attack]) -> None:
    evaluate(ConvNet().eval(), [batch()], attack=attack, eps=8, space=SPACE)


def by_training(attack: type[attacks.Attack]) -> None:
    AdversarialTask(ConvNet(), attack=attack, k=6, eps=8, space=SPACE)(*batch())


def by_pairs(attack: type[attacks.Attack]) -> None:
    PairedTask(ConvNet(), attack=attack, eps=8, space=SPACE).backward(*batch())


WAYS = [by_call, by_evaluate, by_training]


@pytest.mark.parametrize("use", [*WAYS, by_pairs])
def test_a_returned_step_is_refused(use: Any) -> None:
    with pytest.raises(TypeError, match=r"returns_step: ReturnsStep.step_ must change its first argument in place"):
        use(ReturnsStep)


@pytest.mark.parametrize("use", WAYS)
@pytest.mark.parametrize(("attack", "method"), [(ReturnsStart, "start_"), (ReturnsRun, "run_")])
def test_other_returned_images_are_refused(attack: type[attacks.Attack], method: str, use: Any) -> None:
    with pytest.raises(TypeError, match=rf"{attack.__name__}.{method} must change its first argument in place"):
        use(attack)


@pytest.mark.parametrize("use", [*WAYS, by_pairs])
def test_images_that_do_not_move_are_warned_of(use: Any) -> None:
    with pytest.warns(UserWarning, match=r"RebindsStep.step_ made are the clean images: the method must write to adv"):
        use(RebindsStep)


@pytest.mark.parametrize("use", [*WAYS, by_pairs])
def test_the_changed_images_may_be_returned(use: Any) -> None:
    use(ReturnsAdv)


class RunOfOneStep(attacks.FGSM):
    name = "run_of_one_step"

    def run_(self, adv: Tensor, labels: Any, size: Any, seed: Any, offset: int) -> None:
        adv.sub_(8 / 255).clamp_(0, 1)


def test_a_run_of_a_one_step_attack_is_used_everywhere() -> None:
    images, labels = batch()
    expected = (images - 8 / 255).clamp(0, 1)
    attack = RunOfOneStep(ConvNet().eval(), eps=8, space=SPACE)
    torch.testing.assert_close(attack(images, labels), expected)
    torch.testing.assert_close(next(attack.at_each(images, labels, eps=[8])), expected)
    with pytest.raises(ValueError, match=r"attack must be a one-step method.*got run_of_one_step"):
        by_pairs(RunOfOneStep)


@pytest.mark.parametrize("method", ["__call__", "perturb_", "at_each"])
def test_methods_that_are_not_always_called_are_refused(method: str) -> None:
    with pytest.raises(TypeError, match=f"Own overrides {method}, but evaluations and training do not always call it"):
        type("Own", (attacks.FGSM,), {method: lambda self, images: images})


def test_a_ball_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"Own.ball must be 'linf', 'l2' or None, got 'Linf'"):
        type("Own", (attacks.FGSM,), {"ball": "Linf"})


class NoDirection(attacks.FGSM):
    name = "no_direction"

    def direction(self, grad: Tensor, previous: Any) -> Any:
        grad.sign()


class TwoSteps(attacks.FGSM):
    name = "two_steps"

    def step_sizes(self, size: Any) -> Any:
        return [1.0, 2.0]


@pytest.mark.parametrize("use", [by_evaluate, by_pairs])
def test_other_mistakes_name_the_method(use: Any) -> None:
    with pytest.raises(TypeError, match="no_direction: direction must return a tensor like the gradient, got NoneType"):
        use(NoDirection)
    with pytest.raises(ValueError, match=r"two_steps is a one-step attack with 2 steps|one-step method.*got two_steps"):
        use(TwoSteps)


def test_steps_that_leave_the_ball_are_refused_in_evaluations() -> None:
    class Far(attacks.FGSM):
        name = "far"

        def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
            adv.add_(3 * alpha / 255 * grad.sign()).clamp_(0, 1)

    with pytest.raises(ValueError, match=r"far: the images that .*Far.step_ made leave the eps ball"):
        by_evaluate(Far)
