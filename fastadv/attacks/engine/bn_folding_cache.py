"""The folded forms of an attack's model: found when they are first asked for, given up where they do not fit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from fastadv.attacks.engine.bn_folding import FoldedModel, NotFoldable
from fastadv.utils.input_hints import explaining
from fastadv.utils.log import remarks
from fastadv.utils.stacklevel import caller_level

if TYPE_CHECKING:
    from fastadv.attacks.gradient import GradientAttack

T = TypeVar("T")


class Folds:
    """The folded forms of one attack's model, by the dtype of the weights."""

    def __init__(self) -> None:
        self._found: dict[torch.dtype | None, FoldedModel | None] = {}
        self._in_place: FoldedModel | None = None
        self._left_out = False

    def run(
        self, attack: GradientAttack, model: Callable[..., Any], images: Tensor, run: Callable[[FoldedModel | None], T]
    ) -> T:
        """What run makes with the model folded, if that can be; as it is, if not, or once :meth:`watched` finds so.

        The folded form that run is given is to be refreshed, unless a recording does that.
        """
        self._in_place = self.of(attack, model, images)
        if self._in_place is not None:
            try:
                with self._in_place.in_place():
                    return run(self._in_place)
            except NotFoldable as error:
                self._refuse(attack, _dtype(images), str(error))
            finally:
                self._in_place = None
        return run(None)

    def watched(self) -> AbstractContextManager[None]:
        """Around a forward pass: raises what ends :meth:`run` with the folded model, if it runs as another one."""
        return nullcontext() if self._in_place is None else self._in_place.watched()

    def check_backward(self) -> None:
        """After the backward pass of a watched forward pass: raises like :meth:`watched`."""
        if self._in_place is not None:
            self._in_place.check_backward()

    def of(self, attack: GradientAttack, model: Callable[..., Any], images: Tensor) -> FoldedModel | None:
        """The folded form of a model in evaluation mode; None, and a warning once, if there is none."""
        if not isinstance(model, nn.Module):
            self._refuse(
                attack,
                None,
                f"a {type(model).__name__} is no nn.Module: pass the module itself, whose layers can be folded",
            )
            return None
        dtype = _dtype(images)
        folded = self._found.get(dtype)
        if dtype not in self._found or (folded is not None and not folded.fits(model)):

            def forward(x: Tensor) -> Any:  # [N, C, ...]
                with explaining(model, x, user=attack.name):
                    return attack.heads(model, x)

            try:
                folded = self._found[dtype] = FoldedModel(model, forward, images, dtype)
            except NotFoldable as error:
                self._refuse(attack, dtype, str(error))
                return None
        return folded

    def leave_out(self, attack: GradientAttack, reason: str) -> None:
        """Remark once why fast=True folds nothing."""
        if not self._left_out:
            remarks.info("%s: fast=True leaves fold_bn out: %s", attack.name, reason)
            self._left_out = True

    def _refuse(self, attack: GradientAttack, dtype: torch.dtype | None, reason: str) -> None:
        if dtype not in self._found or self._found[dtype] is not None:
            warnings.warn(f"{attack.name} runs without fold_bn=True: {reason}", stacklevel=caller_level())
        self._found[dtype] = None


def _dtype(images: Tensor) -> torch.dtype | None:
    """That of the folded weights: autocast's where it is on; None is the weights' own."""
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
