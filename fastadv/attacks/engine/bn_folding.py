"""Folds BatchNorm into the convolution before it while examples are generated in evaluation mode.

With running statistics, BatchNorm is a scale and a shift per filter. Folded into the convolution's weight and bias,
they cost one pass over the weights per call instead of passes over every activation, forward and backward. The function
is the same up to rounding. Since the folded weights are copies anyway, on a CPU they are stored in channels_last, where
convolutions are fastest, and so are the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastadv.attacks.engine.bn_folding_pair import IMAGES, FoldedPair
from fastadv.attacks.engine.bn_folding_search import CONVOLUTIONS, Search
from fastadv.attacks.engine.bn_folding_weights import fold_weights
from fastadv.utils.text import counted

# Largest difference of logits from rounding alone, relative to their norm. Convolutions in float32 may run in TF32.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 0.03, torch.float16: 0.03, torch.bfloat16: 0.1}
_CHANGED = (
    "in this call, a convolution's output was also used outside its BatchNorm or passed through a custom gradient, or "
    "a weight of the two layers was replaced"
)


class NotFoldable(RuntimeError):
    """The model cannot run folded; the message is the reason."""


class FoldedModel:
    """A model's convolutions with BatchNorm folded in, which replace its layers during a call.

    Args:
        model: in evaluation mode.
        forward: calls the model with images [N, C, ...].
        images: a batch, which the model processes to find the pairs of layers.
        dtype: of the folded weights: autocast's if it is on; None is the weights' own.

    Raises:
        NotFoldable: if nothing can be folded, or folding makes the model fail or changes the batch's logits.
    """

    def __init__(
        self, model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor, dtype: torch.dtype | None
    ) -> None:
        self._modules = list(model.modules())
        self._dtype = dtype
        search = Search(model, forward, images)
        if not search.pairs:
            raise NotFoldable(_nothing_found(search.left_out))
        faster = images.device.type == "cpu" and _most_of_the_weights(model, search.pairs)
        try:
            self._fold(search, forward, images, channels_last=faster)
        except NotFoldable:
            if not faster:
                raise
            self._fold(search, forward, images, channels_last=False)  # a model's own view() calls may need this layout

    def _fold(self, search: Search, forward: Callable[[Tensor], Any], images: Tensor, *, channels_last: bool) -> None:
        self._channels_last = channels_last
        self._pairs = [FoldedPair.create(*pair, self._dtype, channels_last) for pair in search.pairs]
        self.refresh()
        try:
            with torch.no_grad(), self.in_place(), self.watched():
                output = forward(self.in_layout(images).clone())  # the model may write to its input
        except (NotFoldable, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # any kind: unfolded, the model has just run without one
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise NotFoldable(f"folding makes the model fail: {reason}") from error
        self._compare(output, search.output)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch a folded forward pass within the block.

        Raises:
            NotFoldable: if the layers are not connected as when they were found.
        """
        for pair in self._pairs:
            pair.begin()
        yield
        if not all([pair.end() for pair in self._pairs]):
            raise NotFoldable(_CHANGED)

    def check_backward(self) -> None:
        """Check the backward pass of a watched forward pass.

        Raises:
            NotFoldable: if it read a convolution's output, which is a different tensor when folded.
        """
        if any(pair.was_read for pair in self._pairs):
            raise NotFoldable(_CHANGED)

    def _compare(self, output: Any, plain: Any) -> None:
        """Compare the logits: the search for layers misses what a model reads other than through operators."""
        tolerance = max(_ROUNDING[tensor.dtype] for tensor in self.tensors())
        for one, other in zip(tree_leaves(output), tree_leaves(plain), strict=True):
            if not isinstance(one, Tensor) or not one.is_floating_point():
                continue
            difference, norm = float((one - other).detach().norm()), float(other.detach().norm())
            if not difference <= tolerance * norm:  # also if either is NaN
                raise NotFoldable(
                    f"folding changed the logits (difference norm {difference:.2g}, logit norm {norm:.2g}), or the "
                    "model is stochastic"
                )

    def fits(self, model: nn.Module) -> bool:
        """True if the model still consists of the same layers, unchanged."""
        return list(model.modules()) == self._modules and all(pair.fits(self._dtype) for pair in self._pairs)

    def tensors(self) -> Iterator[Tensor]:
        """Yield the folded weights and biases, whose memory does not change."""
        return (tensor for pair in self._pairs for tensor in (pair.weight, pair.bias))

    def in_layout(self, images: Tensor) -> Tensor:  # [N, C, ...]
        """Return the images in the memory layout of the folded weights; copies them only if necessary."""
        last = self._channels_last and images.dim() == IMAGES
        return images.contiguous(memory_format=torch.channels_last) if last else images

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold the current weights and statistics."""
        fold_weights(
            [pair.convolution for pair in self._pairs],
            [pair.batch_norm for pair in self._pairs],
            [pair.weight for pair in self._pairs],
            [pair.bias for pair in self._pairs],
        )
        for pair in self._pairs:
            pair.remember_source()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Run the model folded within the block."""
        try:
            for pair in self._pairs:
                pair.convolution.forward = pair.convolve  # type: ignore[method-assign]
                pair.batch_norm.forward = pair.skip_batch_norm  # type: ignore[method-assign]
            yield
        finally:
            for pair in self._pairs:  # plain layers have no forward of their own to restore
                for module in (pair.convolution, pair.batch_norm):
                    vars(module).pop("forward", None)
                pair.begin()

    def __len__(self) -> int:
        return len(self._pairs)


def _nothing_found(left_out: int) -> str:
    reason = "the model has no BatchNorm layer that is the only user of a convolution's output"
    if left_out:
        reason += (
            f"; left out for hooks, a custom forward, or weights that the model computes: {counted(left_out, 'layer')}"
        )
    return reason


def _most_of_the_weights(model: nn.Module, found: list[tuple[nn.Module, nn.Module]]) -> bool:
    """True if the folded convolutions have most of all convolutions' weights, so that one layout suits nearly all."""

    def count(convolutions: Iterable[Any]) -> int:
        return sum(int(module.weight.numel()) for module in convolutions)

    every = (module for module in model.modules() if type(module) in CONVOLUTIONS)
    return 2 * count(convolution for convolution, _ in found) > count(every)
