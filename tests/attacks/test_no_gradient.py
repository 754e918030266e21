"""Images without a gradient: the attack warns and counts them, in all its modes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operators import Operators
from fastadv import attacks
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, batch
from tests.attacks.tape import TapeRecorder

FOLLOWING = [name for name in attacks.names() if issubclass(attacks.get(name), attacks.GradientAttack)]
NET = ConvNet().eval()


def quantized(images: Tensor) -> Tensor:
    levels = torch.fake_quantize_per_tensor_affine(images, 0.1, 0, 0, 5)  # passes gradients on within its range
    return NET(levels.round())


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "round": lambda x: NET((8 * x).round() / 8),
    "quantize": quantized,
    "detach": lambda x: NET(x.detach() + 0 * x),
    "one-hot": lambda x: 2 * nn.functional.one_hot(NET(x).argmax(1), 5) + 0 * NET(x),
    "cast": lambda x: NET((255 * x).to(torch.uint8) / 255 + 0 * x),
    "sign": lambda x: NET((x - 0.5).sign()),
    "saturated softmax": lambda x: (1e6 * NET(x)).softmax(1) * 3,
    "saturated sigmoid": lambda x: (1e6 * (NET(x) + 10)).sigmoid() * torch.arange(5.0),
    "clamp": lambda x: NET(x.clamp(2, 3)),
    "dead units": lambda x: NET((x - 2).relu()),
    "square root at 0": lambda x: NET((0 * x).sqrt()),
}


def said_by(attack: attacks.Attack, *batches: tuple[Tensor, Tensor]) -> list[str]:
    """Return the warnings of calls, which must point at this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for images, labels in batches:
            attack(images, attack.true_labels(labels))
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_a_zero_or_infinite_gradient_warns_once(name: str, mask: Callable[[Tensor], Tensor]) -> None:
    attack = attacks.create(name, mask, eps=4, seed=0)
    [said] = said_by(attack, batch(), batch())
    assert f"{name}: the gradient is zero or not finite for 6 of 6 images" in said and "more robust than it is" in said


@pytest.mark.parametrize("name", FOLLOWING)
def test_every_attack_says_so_and_none_does_of_a_usual_network(name: str) -> None:
    assert len(said_by(attacks.create(name, MASKS["round"], eps=4, seed=0), batch())) == 1
    assert said_by(attacks.create(name, NET, eps=4, seed=0), batch()) == []


class Masked(nn.Module):
    """A network that hides some images' gradient."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.net = ConvNet()
        self.hidden = nn.Buffer(hidden)  # [N] bool

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.hidden[: len(images), None, None, None]
        return self.net(torch.where(hidden, images.detach(), images))


@pytest.mark.parametrize(
    ("n", "count", "warns"), [(100, 0, False), (6, 1, True), (100, 1, True), (101, 1, False), (250, 3, True)]
)
def test_one_image_in_a_hundred_is_enough(n: int, count: int, warns: bool) -> None:
    attack = attacks.create("fgsm", Masked(torch.arange(n) >= n - count), eps=4)
    assert [f"for {count} of {n} images" in said for said in said_by(attack, batch(n))] == [True] * warns


def test_outputs_that_are_warned_of_are_warned_of_once() -> None:
    [said] = said_by(attacks.create("fgsm", lambda x: (1e6 * NET(x)).softmax(1), eps=4), batch())
    assert "look like probabilities" in said


def test_never_is_never() -> None:
    attack = attacks.create("fgsm", MASKS["round"], eps=4, validate="never")
    assert said_by(attack, batch()) == [] and attack.without_gradient is None


FORMS: dict[str, dict[str, Any]] = {"eager": {}, "folded": {"fold_bn": True}, "captured": {"capture": True}}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", ["step_ll", "fast_entropy", "pgd", "mi_fgsm"])
def test_each_call_counts_its_own(monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]) -> None:
    monkeypatch.setattr("fastadv.attacks.engine.cuda_graph_recorder.create_recorder", TapeRecorder)
    model = Masked(torch.arange(6) < 2)
    attack = attacks.create(name, model, eps=4, seed=0, validate="never", **options)
    attack.counting = True
    for count in (2, 2, 5, 0, 3):
        model.hidden.copy_(torch.arange(6) < count)
        images, labels = batch()
        attack(images, attack.true_labels(labels))
        assert attack.without_gradient is not None and attack.without_gradient.item() == count


@pytest.mark.parametrize("name", GRADIENTS)
def test_each_size_counts_its_own_and_nothing_is_waited_for(name: str) -> None:
    attack = attacks.create(name, Masked(torch.arange(6) < 2), eps=4, seed=0, validate="never")
    attack.counting = True
    images, labels = batch()
    found = []
    with Operators(images) as counted:
        for _ in attack.at_each(images, attack.true_labels(labels), eps=[2, 4, 8]):
            found.append(attack.without_gradient)
    assert not +counted.waits
    assert [None if count is None else count.item() for count in found] == [2 if name in FOLLOWING else None] * 3


def test_no_images_are_not_those_of_the_call_before() -> None:
    attack = attacks.create("fgsm", MASKS["round"], eps=4, validate="never")
    attack.counting = True
    images, labels = batch()
    for call in (attack, lambda x, y: list(attack.at_each(x, y, eps=[2]))):
        call(images, labels)
        assert attack.without_gradient is not None
        call(images[:0], labels[:0])
        assert attack.without_gradient is None


def test_the_gradient_of_an_own_loss_is_checked_too() -> None:
    class Mine(attacks.FGSM):
        name = "mine"

        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
            return 0 * super().loss(logits, target)

    [said] = said_by(attacks.create(Mine, NET, eps=4), batch(), batch())
    assert "mine: the gradient is zero" in said


class ReadsBackwards(torch.autograd.Function):
    """The identity with a zero gradient, whose backward reads a convolution's output."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.save_for_backward(images)
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 0 * ctx.saved_tensors[0] * grad


def test_a_model_that_cannot_be_folded_is_checked_unfolded() -> None:
    model = ConvNet().eval()
    model.features[0].register_forward_hook(lambda layer, given, made: ReadsBackwards.apply(made))
    attack = attacks.create("fgsm", model, eps=4, fold_bn=True)
    said = said_by(attack, batch(), batch())
    assert any("the gradient is zero or not finite for 6 of 6 images" in one for one in said)
