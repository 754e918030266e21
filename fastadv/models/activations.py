"""Activation functions by name: those of the paper's appendix D, and the ELU of its model C (section 4.4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_PLAIN: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "elu": nn.ELU}


class ReluDecay(nn.Module):
    """``relu(x) / (1 + beta * relu(x)^2)`` (appendix D): at most ``1 / (2 sqrt(beta))``, and decaying beyond.

    Args:
        beta: positive; the paper tried 0.1, 0.01 and 0.001.

    Raises:
        ValueError: if beta is not positive and finite.
    """

    def __init__(self, *, beta: float) -> None:
        super().__init__()
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta must be positive and finite, got {beta}")
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        positive = torch.relu(x)
        # Multiply by beta first: positive^2 alone would overflow float16 from 256 on.
        return positive / (1 + self.beta * positive * positive)

    def extra_repr(self) -> str:
        return f"beta={self.beta:g}"


def create_activation(name: str) -> nn.Module:
    """Create the activation ``name``: relu, relu6, tanh, elu, or ``relu_decay:<beta>``, e.g. ``relu_decay:0.1``.

    Raises:
        ValueError: if the name is unknown, or beta is not a positive number.
    """
    if name in _PLAIN:
        return _PLAIN[name]()
    kind, _, beta = str(name).partition(":")
    if kind != "relu_decay":
        raise ValueError(f"unknown activation {name!r}; accepted: {', '.join(_PLAIN)}, relu_decay:<beta>")
    try:
        return ReluDecay(beta=float(beta))
    except ValueError as error:
        raise ValueError(f"{name!r}: write relu_decay:<beta> with a positive number, e.g. relu_decay:0.1") from error
