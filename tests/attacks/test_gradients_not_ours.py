"""Attacks never write to the gradient: a model may keep the tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from tests.attacks.models import ConvNet, batch
from tests.attacks.tape import TapeRecorder

RAW = PixelSpace.raw()


class Momentum(attacks.IterBasic):
    """Keeps the gradient itself and adds to it in place."""

    name = "momentum"

    def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
        return grad if previous is None else previous.add_(grad)


class Hands(torch.autograd.Function):
    """The sum of an example's pixels divided by 100, with a gradient tensor that the model keeps."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kept: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.gradient = kept(images)
        return images.flatten(1).sum(1) / 100

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None


class Keeps(nn.Module):
    """Returns its own buffer, or else its input, as the gradient."""

    def __init__(self, buffer: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("buffer", buffer)

    def forward(self, images: Tensor) -> Tensor:  # [N, ...] -> [N, 2]
        lead = Hands.apply(images, lambda x: x if self.buffer is None else self.buffer)  # [N]
        return torch.stack((lead, -lead), dim=1)


def images_and_labels() -> tuple[Tensor, Tensor]:
    return torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 100 + 50, torch.arange(4) % 2


# Every step rule, schedule and memory.
KINDS = [attacks.FGSM, attacks.FastGradL2, attacks.IterLL, attacks.PGD, attacks.MIFGSM, Momentum]
each_attack = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
captured_too = pytest.mark.parametrize("capture", [False, True], ids=["eager", "captured"])


@captured_too
@each_attack
def test_a_stored_tensor_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, kind: type[attacks.Attack], capture: bool
) -> None:
    monkeypatch.setattr("fastadv.attacks.engine.cuda_graph_recorder.create_recorder", TapeRecorder)
    images, labels = images_and_labels()
    model = Keeps(torch.linspace(-1, 1, 48).view(4, 3, 2, 2))
    attack = attacks.create(kind, model, eps=4, space=RAW, capture=capture)
    for _ in range(3):  # the second is recorded
        attack(images, labels)
    assert torch.equal(model.buffer, torch.linspace(-1, 1, 48).view(4, 3, 2, 2))


@each_attack
def test_what_a_hook_kept_is_left_as_it_is(kind: type[attacks.Attack]) -> None:
    model, kept = ConvNet(), []
    model.features[0].register_full_backward_hook(lambda _, grads, __: kept.append((grads[0], grads[0].clone())))
    images, labels = batch()
    attacks.create(kind, model, eps=4)(images, labels)
    assert kept and all(torch.equal(seen, as_it_was) for seen, as_it_was in kept)


@captured_too
@each_attack
def test_a_gradient_that_is_the_input(
    monkeypatch: pytest.MonkeyPatch, kind: type[attacks.Attack], capture: bool
) -> None:
    """Return the images of each step, read before the step writes them."""
    monkeypatch.setattr("fastadv.attacks.engine.cuda_graph_recorder.create_recorder", TapeRecorder)
    images, labels = images_and_labels()

    class Copies(Keeps):
        def forward(self, images: Tensor) -> Tensor:
            lead = Hands.apply(images, Tensor.clone)
            return torch.stack((lead, -lead), dim=1)

    def made(model: nn.Module) -> list[Tensor]:
        attack = attacks.create(kind, model, eps=4, space=RAW, seed=0, capture=capture)
        return [attack(images, labels) for _ in range(3)]

    adv = made(Keeps(None))
    assert all(map(torch.equal, adv, made(Copies(None))))
    assert not torch.equal(adv[0], images)


@each_attack
def test_a_gradient_that_is_one_number_everywhere(kind: type[attacks.Attack]) -> None:
    """Like the gradient of a sum, whose memory has one element per example."""
    images, labels = images_and_labels()
    adv = attacks.create(kind, lambda x: x.flatten(1).sum(1)[:, None] * torch.tensor([0.01, -0.01]), eps=4, space=RAW)(
        images, labels
    )
    assert (adv != images).all()
