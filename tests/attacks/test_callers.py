"""Attacks called under every grad mode and autocast, with models of every kind."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import attacks
from tests.attacks.models import ConvNet, batch

CALLERS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
    "set_grad_enabled(False)": lambda: torch.set_grad_enabled(False),
}


@pytest.mark.parametrize("made_inside", [False, True], ids=["made outside", "made inside"])
@pytest.mark.parametrize("call", ["__call__", "perturb_"])
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("name", attacks.names())
def test_callers(name: str, caller: Callable[[], Any], call: str, made_inside: bool) -> None:
    """Images, labels and eps created under inference_mode cannot be saved for a gradient, and need not be."""
    model, eps = ConvNet(), torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    expected = attacks.create(name, model, eps=eps, seed=0)(*batch())
    images, labels = batch()
    with caller():
        if made_inside:
            (images, labels), eps = batch(), eps.clone()
        assert torch.equal(getattr(attacks.create(name, model, eps=eps, seed=0), call)(images, labels), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", attacks.names())
def test_autocast(name: str, dtype: torch.dtype) -> None:
    images, labels = batch()
    model, seen = ConvNet(), set()
    model.head.register_forward_hook(lambda _, args, logits: seen.add(logits.dtype))
    attack = attacks.create(name, model, eps=4, seed=0)
    exact = attack(images, labels)
    with torch.autocast("cpu", dtype):
        adv = attacks.create(name, model, eps=4, seed=0)(images, labels)
    assert adv.dtype == torch.float32 and (adv - images).abs().max() <= (12.001 if name == "n_fgsm" else 4.001) / 255
    assert seen == (set() if name.startswith("random") else {torch.float32, dtype})
    assert ((adv - exact).abs() < 0.1 / 255).double().mean() > 0.8  # elements; the others had small gradients


@pytest.mark.parametrize("name", attacks.names())
def test_images_from_an_inference_mode_loader(name: str) -> None:
    with torch.inference_mode():
        images, labels = batch()
    model = ConvNet()
    adv = attacks.create(name, model, eps=4, seed=0)(images, labels)
    assert not adv.is_inference()
    assert torch.equal(adv, attacks.create(name, model, eps=4, seed=0)(*batch()))


class Wrapped:
    """A callable that is not a module."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, images: Tensor) -> Tensor:
        return self.model(images)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model.forward,
        lambda model: lambda images: model(images),
        lambda model: functools.partial(torch.func.functional_call, model, dict(model.named_parameters())),
        Wrapped,
        lambda model: nn.Sequential(nn.Identity(), model).eval(),
        lambda model: model.requires_grad_(False),
        lambda model: model.to(memory_format=torch.channels_last),
    ],
    ids=["method", "lambda", "partial", "object", "Sequential", "all frozen", "channels_last"],
)
@pytest.mark.parametrize("name", attacks.names())
def test_any_callable(name: str, wrap: Callable[[nn.Module], Callable[..., Tensor]]) -> None:
    images, labels = batch(dtype=torch.float64)
    expected = attacks.create(name, ConvNet().double().eval(), eps=4, seed=0)(images, labels)
    adv = attacks.create(name, wrap(ConvNet().double().eval()), eps=4, seed=0)(images, labels)
    torch.testing.assert_close(adv, expected, rtol=0, atol=1e-12)
