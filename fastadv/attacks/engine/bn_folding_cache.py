"""Caches the folded forms of an attack's model, and gives up on those that do not work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fastadv.attacks.engine.bn_folding import FoldedModel, NotFoldable
from fastadv.attacks.engine.forward import Forward
from fastadv.utils.input_hints import explain_model_errors
from fastadv.utils.log import logger
from fastadv.utils.stacklevel import user_stacklevel

T = TypeVar("T")


class FoldingCache:
    """The folded forms of one attack's model, by the weights' dtype.

    Attributes:
        current: the folded form in use, within :meth:`run`.
    """

    def __init__(self) -> None:
        self.current: FoldedModel | None = None
        self._found: dict[torch.dtype | None, FoldedModel | None] = {}
        self._logged = False

    def run(self, forward: Forward, images: Tensor, work: Callable[[], T]) -> T:
        """Return the result of ``work``, with the model folded if possible; otherwise, or on NotFoldable, unfolded.

        Args:
            forward: the model's forward pass, in evaluation mode.
            images: its input [N, C, ...].
            work: must refresh ``current``, unless it is None, before it runs the model.
        """
        self.current = self._find(forward, images)
        if self.current is not None:
            try:
                with self.current.in_place():
                    return work()
            except NotFoldable as error:
                self._give_up(forward.user, _dtype(images), str(error))
            finally:
                self.current = None
        return work()

    def log_skipped(self, user: str, reason: str) -> None:
        """Log once why fast=True does not fold."""
        if not self._logged:
            logger.info("%s: fast=True skips fold_bn: %s", user, reason)
            self._logged = True

    def _find(self, forward: Forward, images: Tensor) -> FoldedModel | None:
        """Return the folded form of a model in evaluation mode; None, with a warning once, if there is none."""
        model, user = forward.model, forward.user
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            reason = f"a {kind} is not an nn.Module: pass the module itself, so that its layers can be folded"
            self._give_up(user, None, reason)
            return None
        dtype = _dtype(images)
        folded = self._found.get(dtype)
        if dtype not in self._found or (folded is not None and not folded.fits(model)):

            def outputs(x: Tensor) -> Any:  # [N, C, ...]
                with explain_model_errors(model, x, user=user):
                    return forward(x)

            try:
                folded = self._found[dtype] = FoldedModel(model, outputs, images, dtype)
            except NotFoldable as error:
                self._give_up(user, dtype, str(error))
                return None
        return folded

    def _give_up(self, user: str, dtype: torch.dtype | None, reason: str) -> None:
        if dtype not in self._found or self._found[dtype] is not None:
            warnings.warn(f"{user} runs without fold_bn=True: {reason}", stacklevel=user_stacklevel())
        self._found[dtype] = None


def _dtype(images: Tensor) -> torch.dtype | None:
    """Return the dtype of the folded weights: autocast's if it is on; None is the weights' own."""
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
