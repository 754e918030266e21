"""Attacks of one's own whose options are declared as people declare them elsewhere."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import nn

from fastadv import attacks

NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
IMAGES, LABELS = torch.rand(2, 3, 2, 2), torch.tensor([0, 2])


class Defaults(attacks.PGD):
    """With a default that is not behind a star."""

    name = "defaults"

    def __init__(self, model: Any, kappa: float = 0.5, **options: Any) -> None:
        super().__init__(model, **options)
        self.kappa = kappa


class OverridingDefaults(attacks.PGD):
    """With other defaults for known options."""

    name = "overriding"

    def __init__(self, model: Any, eps: float = 8, alpha: float = 2, steps: int = 3) -> None:
        super().__init__(model, eps=eps, alpha=alpha, steps=steps)


class Anything(attacks.FGSM):
    """With whatever comes."""

    name = "anything"

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)


@pytest.mark.parametrize("kind", [Defaults, OverridingDefaults, Anything])
def test_it_runs(kind: type[attacks.Attack]) -> None:
    moved = kind(NETWORK, eps=4)(IMAGES, LABELS)
    assert 0 < (moved - IMAGES).abs().max() <= 4 / 255 + 1e-6
    assert "eps" in inspect.signature(kind).parameters


def test_a_forward_that_nothing_would_call_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Ported defines forward, .* nothing calls it: override"):

        class Ported(attacks.PGD):
            def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                return images


def test_its_option_is_given_by_name() -> None:
    assert Defaults(NETWORK, kappa=2.0).kappa == 2.0
    with pytest.raises(TypeError, match="its options as keywords"):
        Defaults(NETWORK, 2.0)
