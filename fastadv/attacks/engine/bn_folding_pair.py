"""A convolution with its BatchNorm folded in, and what shows that a call of the model does something else with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastadv.attacks.engine.bn_folding_search import BATCH_NORMS, is_plain, memory_of

State: TypeAlias = tuple[tuple[int, int], ...]
History: TypeAlias = tuple[object, bool]
IMAGES = 4  # dimensions of a batch of images, and of a convolution's weights for them


@dataclass(eq=False)
class FoldedPair:
    """A convolution, the BatchNorm that alone reads its output, and the folded weight and bias.

    Attributes:
        astray: whether, in a forward pass, the output did not reach the BatchNorm as it left the convolution, or a
            weight was not the one that is folded.
        was_read: whether something else read the output, in the forward pass or in the backward pass after it.
    """

    convolution: nn.Module
    batch_norm: nn.Module
    weight: Tensor  # [F, C / groups, ...]
    bias: Tensor  # [F]
    astray: bool = False
    was_read: bool = False
    _on_its_way: _OnItsWay | None = None  # [N, F, ...]
    _folded_from: tuple[State, State] = ((), ())  # the convolution's, the BatchNorm's

    @classmethod
    @torch.no_grad()
    def create(
        cls, convolution: nn.Module, batch_norm: nn.Module, dtype: torch.dtype | None, channels_last: bool
    ) -> FoldedPair:
        """Of two layers; the folded tensors have the dtype, or None for the layers' own, and are not filled yet."""
        like: Tensor = convolution.weight  # type: ignore[assignment]  # [F, C / groups, ...]
        layout = torch.channels_last if channels_last and like.dim() == IMAGES else torch.preserve_format
        bias = like.new_empty(len(like), dtype=dtype or like.dtype)  # [F]
        weight = torch.empty_like(like, dtype=dtype, requires_grad=False, memory_format=layout)
        return cls(convolution, batch_norm, weight, bias)

    def fits(self, dtype: torch.dtype | None) -> bool:
        """Whether the layers are still plain, their weights on the device, and of the dtype, of the folded ones."""
        if not (is_plain(self.convolution) and is_plain(self.batch_norm)):
            return False
        own: Tensor = self.convolution.weight  # type: ignore[assignment]
        return self.weight.device == own.device and self.weight.dtype == (dtype or own.dtype)

    def note_source(self) -> None:
        """Take the layers' present weights and statistics for those that are folded."""
        self._folded_from = _state(self.convolution), _state(self.batch_norm)

    def begin(self) -> None:
        """Before a forward pass, whatever became of an earlier one."""
        self._on_its_way, self.astray, self.was_read = None, False, False

    def end(self) -> bool:
        """After a forward pass: whether the BatchNorm alone read what the convolution made, of the folded weights."""
        alone = self._on_its_way is None and not self.astray and not self.was_read
        self.begin()
        return alone

    # Both take their argument by the name that it has in the layers.

    def convolve(self, input: Tensor) -> Tensor:  # [N, C, ...] -> [N, F, ...]
        """The convolution's forward, with the BatchNorm's in it."""
        output: Tensor = self.convolution._conv_forward(input, self.weight, self.bias)  # type: ignore[operator]
        if torch.compiler.is_compiling():
            return output
        self.astray |= self._on_its_way is not None or _state(self.convolution) != self._folded_from[0]
        self._on_its_way = _OnItsWay.create(output, self)
        return self._on_its_way

    def pass_on(self, input: Tensor) -> Tensor:  # [N, F, ...] -> [N, F, ...]
        """The BatchNorm's forward: what it does besides, nothing or, in one of timm's, an activation."""
        if not torch.compiler.is_compiling():
            arrived = input is self._on_its_way and _history(input) == self._on_its_way.history
            self.astray |= not arrived or _state(self.batch_norm) != self._folded_from[1]
            self._on_its_way = None
        output: Tensor = input.plain if isinstance(input, _OnItsWay) else input
        if type(self.batch_norm) in BATCH_NORMS:
            return output
        result: Tensor = self.batch_norm.act(self.batch_norm.drop(output))  # type: ignore[operator]
        return result


def _state(layer: nn.Module) -> State:
    """Where the layer's tensors lie, and how often they were written, as far as autograd knows."""
    tensors = [x for x in (*layer._parameters.values(), *layer._buffers.values()) if x is not None]
    return tuple((memory_of(x), 0 if x.is_inference() else x._version) for x in tensors)


def _history(tensor: Tensor) -> History:
    """How autograd made a tensor, and whether it records what is made of it now.

    A ``torch.autograd.Function``, such as reentrant checkpointing's, can return the very tensor that a convolution made
    inside it, and yet compute the gradient in its own way.
    """
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.grad_fn, torch.is_grad_enabled()


class _OnItsWay(Tensor):
    """What a convolution made, until its BatchNorm takes it: an operator that reads it leaves a mark, also later."""

    pair: FoldedPair
    plain: Tensor
    history: History

    @classmethod
    def create(cls, output: Tensor, pair: FoldedPair) -> _OnItsWay:
        made = output.as_subclass(cls)  # type: ignore[arg-type]
        made.plain, made.pair, made.history = output, pair, _history(made)
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _OF_THE_SHAPE:
            for argument in tree_leaves((args, kwargs)):
                if isinstance(argument, cls):
                    argument.pair.was_read = True
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


# What says nothing of a tensor's values.
_OF_THE_SHAPE = {
    *(Tensor.size, Tensor.dim, Tensor.stride, Tensor.numel, Tensor.__len__, Tensor.is_contiguous),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.get_device),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda", "is_cpu", "is_leaf")
    ),
}
