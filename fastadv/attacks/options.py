"""The options of attacks as types, for checkers and editors; the classes' docstrings say what they mean."""

from __future__ import annotations

from typing import TypedDict

import torch

from fastadv.attacks.engine.step_sizes import Eps
from fastadv.pixels import PixelSpace


class AttackOptions(TypedDict, total=False):
    """Of every attack, see :class:`fastadv.attacks.Attack`."""

    eps: Eps
    space: PixelSpace | None
    validate: str
    bn: str
    label_smoothing: float
    fast: bool
    seed: int | None
    generator: torch.Generator | None


class GradientAttackOptions(AttackOptions, total=False):
    """Of attacks that follow a gradient, see :class:`fastadv.attacks.GradientAttack`."""

    aux_weight: float
    fold_bn: bool
    compile: bool
    capture: bool


class IterativeAttackOptions(GradientAttackOptions, total=False):
    """Of attacks of many steps, see :class:`fastadv.attacks.IterativeAttack`."""

    alpha: float | None
    steps: int | None
