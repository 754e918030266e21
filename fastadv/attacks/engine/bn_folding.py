"""BatchNorm folded into the convolution before it, while examples are generated in evaluation mode.

With running statistics BatchNorm is a scale and a shift of each filter. Folded into the convolution's weight and bias,
they cost one pass over the weights a call instead of passes over every activation, forward and backward. The function
is the same up to rounding. The folded weights are copies anyway: on a CPU they are laid out as convolutions there are
fastest, in channels_last, and so are the images.
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

# How far logits may be apart by rounding alone, over their norm. Convolutions in float32 may run in TF32.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 0.03, torch.float16: 0.03, torch.bfloat16: 0.1}
_ASTRAY = (
    "in this call a convolution's output was used by more than its BatchNorm, reached it through a function with a "
    "gradient of its own, or a weight of the two was replaced"
)


class NotFoldable(RuntimeError):
    """A model none of whose BatchNorm layers can be folded; the message is the reason."""


class FoldedModel:
    """A model's convolutions with their BatchNorm folded in, to be put in place for the time of a call.

    Args:
        model: in evaluation mode.
        forward: how it is called, with images [N, C, ...].
        images: a batch: pairs are found by what the model does with it.
        dtype: of the folded weights, that of autocast where it is on; None is the weights' own.

    Raises:
        NotFoldable: nothing can be folded, or the model fails or the batch's logits are others then.
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
            self._fold(search, forward, images, channels_last=False)  # which a model's own views may need

    def _fold(self, search: Search, forward: Callable[[Tensor], Any], images: Tensor, *, channels_last: bool) -> None:
        self._channels_last = channels_last
        self._pairs = [FoldedPair.create(*pair, self._dtype, channels_last) for pair in search.pairs]
        self.refresh()
        try:
            with torch.no_grad(), self.in_place(), self.watched():
                output = forward(self.in_layout(images).clone())  # which the model may write to
        except (NotFoldable, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # of any kind: as it is, the model has just run
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise NotFoldable(f"folded, the model fails: {reason}") from error
        self._compare(output, search.output)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a forward pass in place.

        Raises:
            NotFoldable: the layers are not connected as they were when they were found.
        """
        for pair in self._pairs:
            pair.begin()
        yield
        if not all([pair.end() for pair in self._pairs]):
            raise NotFoldable(_ASTRAY)

    def check_backward(self) -> None:
        """After the backward pass of a watched forward pass.

        Raises:
            NotFoldable: it read what a convolution made, which is another tensor when folded.
        """
        if any(pair.was_read for pair in self._pairs):
            raise NotFoldable(_ASTRAY)

    def _compare(self, output: Any, plain: Any) -> None:
        """Refuse to fold where it shows: what a model reads past all operators, the search for layers does not see."""
        tolerance = max(_ROUNDING[tensor.dtype] for tensor in self.tensors())
        for one, other in zip(tree_leaves(output), tree_leaves(plain), strict=True):
            if not isinstance(one, Tensor) or not one.is_floating_point():
                continue
            apart, size = float((one - other).detach().norm()), float(other.detach().norm())
            if not apart <= tolerance * size:  # nor where either is NaN
                raise NotFoldable(f"folded, its logits are others, by {apart:.2g} of a norm of {size:.2g}, or it draws")

    def fits(self, model: nn.Module) -> bool:
        """Whether the model still consists of the layers that it was found to have, where and as they were."""
        return list(model.modules()) == self._modules and all(pair.fits(self._dtype) for pair in self._pairs)

    def tensors(self) -> Iterator[Tensor]:
        """The folded weights and biases, which stay where they are."""
        return (tensor for pair in self._pairs for tensor in (pair.weight, pair.bias))

    def in_layout(self, images: Tensor) -> Tensor:  # [N, C, ...]
        """The images in the memory layout of the folded weights; themselves where they are."""
        last = self._channels_last and images.dim() == IMAGES
        return images.contiguous(memory_format=torch.channels_last) if last else images

    @torch.no_grad()
    def refresh(self) -> None:
        """Follow the weights and statistics as they are now."""
        fold_weights(
            [pair.convolution for pair in self._pairs],
            [pair.batch_norm for pair in self._pairs],
            [pair.weight for pair in self._pairs],
            [pair.bias for pair in self._pairs],
        )
        for pair in self._pairs:
            pair.note_source()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the model runs folded."""
        try:
            for pair in self._pairs:
                pair.convolution.forward = pair.convolve  # type: ignore[method-assign]
                pair.batch_norm.forward = pair.pass_on  # type: ignore[method-assign]
            yield
        finally:
            for pair in self._pairs:  # plain layers, which had none of their own
                for module in (pair.convolution, pair.batch_norm):
                    vars(module).pop("forward", None)
                pair.begin()

    def __len__(self) -> int:
        return len(self._pairs)


def _nothing_found(left_out: int) -> str:
    reason = "the model has no BatchNorm layer that alone reads what a convolution makes"
    if left_out:
        reason += f"; layers left out for hooks, a computed or written weight or a forward of their own: {left_out}"
    return reason


def _most_of_the_weights(model: nn.Module, found: list[tuple[nn.Module, nn.Module]]) -> bool:
    """Whether the convolutions that are folded have most of all convolutions' weights: one layout serves nearly all."""

    def count(convolutions: Iterable[Any]) -> int:
        return sum(int(module.weight.numel()) for module in convolutions)

    every = (module for module in model.modules() if type(module) in CONVOLUTIONS)
    return 2 * count(convolution for convolution, _ in found) > count(every)
