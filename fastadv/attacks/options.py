"""Types of the attacks' options, for type checkers and editors; the classes' docstrings describe them."""

from __future__ import annotations

from typing import TypedDict

import torch

from fastadv.attacks.engine.step_sizes import Eps
from fastadv.pixels import PixelSpace


class AttackOptions(TypedDict, total=False):
    """Options of every attack, see :class:`fastadv.attacks.Attack`."""

    eps: Eps
    space: PixelSpace | None
    validate: str
    bn: str
    label_smoothing: float
    fast: bool
    seed: int | None
    generator: torch.Generator | None


class GradientAttackOptions(AttackOptions, total=False):
    """Options of attacks that follow a gradient, see :class:`fastadv.attacks.GradientAttack`."""

    aux_weight: float
    fold_bn: bool
    compile: bool
    capture: bool
    targeted: bool
    targets: str | None
    loss: str
    restarts: int
    eot: int
    early_stop: bool


class IterativeAttackOptions(GradientAttackOptions, total=False):
    """Options of attacks with several steps, see :class:`fastadv.attacks.IterativeAttack`."""

    alpha: float | None
    steps: int | None


class AdaptivePGDOptions(GradientAttackOptions, total=False):
    """Options of attacks that find their own step sizes, see :class:`fastadv.attacks.AdaptivePGD`."""

    norm: str
    steps: int
    rho: float


class SearchAttackOptions(AttackOptions, total=False):
    """Options of attacks that search until an image is fooled, see :class:`fastadv.attacks.SearchAttack`."""

    norm: str
    restarts: int
    fold_bn: bool


class FABOptions(SearchAttackOptions, total=False):
    """Options of both forms of FAB, see :class:`fastadv.attacks.FABT`."""

    steps: int
    alpha_max: float
    eta: float
    beta: float
    minimize: bool
