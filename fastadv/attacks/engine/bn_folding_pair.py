"""A convolution with its BatchNorm folded in, which notices if a call of the model uses it differently."""

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
    """A convolution, the BatchNorm that is the only user of its output, and the folded weight and bias.

    Attributes:
        misrouted: true if, in a forward pass, the output did not reach the BatchNorm unchanged, or a weight was not the
            folded one.
        was_read: true if something else read the output, in the forward pass or the following backward pass.
    """

    convolution: nn.Module
    batch_norm: nn.Module
    weight: Tensor  # [F, C / groups, ...]
    bias: Tensor  # [F]
    misrouted: bool = False
    was_read: bool = False
    _pending: _ConvolutionOutput | None = None  # [N, F, ...]
    _folded_from: tuple[State, State] = ((), ())  # the convolution's, the BatchNorm's

    @classmethod
    @torch.no_grad()
    def create(
        cls, convolution: nn.Module, batch_norm: nn.Module, dtype: torch.dtype | None, channels_last: bool
    ) -> FoldedPair:
        """Create a pair with uninitialised folded tensors of this dtype; None is the layers' own."""
        like: Tensor = convolution.weight  # type: ignore[assignment]  # [F, C / groups, ...]
        layout = torch.channels_last if channels_last and like.dim() == IMAGES else torch.preserve_format
        bias = like.new_empty(len(like), dtype=dtype or like.dtype)  # [F]
        weight = torch.empty_like(like, dtype=dtype, requires_grad=False, memory_format=layout)
        return cls(convolution, batch_norm, weight, bias)

    def fits(self, dtype: torch.dtype | None) -> bool:
        """True if the layers are still plain, and their weights on the folded ones' device, with a matching dtype."""
        if not (is_plain(self.convolution) and is_plain(self.batch_norm)):
            return False
        own: Tensor = self.convolution.weight  # type: ignore[assignment]
        return self.weight.device == own.device and self.weight.dtype == (dtype or own.dtype)

    def remember_source(self) -> None:
        """Remember that the layers' current weights and statistics are the folded ones."""
        self._folded_from = _state(self.convolution), _state(self.batch_norm)

    def begin(self) -> None:
        """Reset before a forward pass, also after one that failed."""
        self._pending, self.misrouted, self.was_read = None, False, False

    def end(self) -> bool:
        """After a forward pass, return true if only the BatchNorm read the output, of current folded weights."""
        alone = self._pending is None and not self.misrouted and not self.was_read
        self.begin()
        return alone

    # Both name their argument as the layers do.

    def convolve(self, input: Tensor) -> Tensor:  # [N, C, ...] -> [N, F, ...]
        """Replace the convolution's forward, and include the BatchNorm."""
        output: Tensor = self.convolution._conv_forward(input, self.weight, self.bias)  # type: ignore[operator]
        if torch.compiler.is_compiling():
            return output
        self.misrouted |= self._pending is not None or _state(self.convolution) != self._folded_from[0]
        self._pending = _ConvolutionOutput.create(output, self)
        return self._pending

    def skip_batch_norm(self, input: Tensor) -> Tensor:  # [N, F, ...] -> [N, F, ...]
        """Replace the BatchNorm's forward: apply only the activation that timm's layers include."""
        if not torch.compiler.is_compiling():
            arrived = input is self._pending and _history(input) == self._pending.history
            self.misrouted |= not arrived or _state(self.batch_norm) != self._folded_from[1]
            self._pending = None
        output: Tensor = input.plain if isinstance(input, _ConvolutionOutput) else input
        if type(self.batch_norm) in BATCH_NORMS:
            return output
        result: Tensor = self.batch_norm.act(self.batch_norm.drop(output))  # type: ignore[operator]
        return result


def _state(layer: nn.Module) -> State:
    """Return where the layer's tensors lie, and how often autograd saw them being written."""
    tensors = [x for x in (*layer._parameters.values(), *layer._buffers.values()) if x is not None]
    return tuple((memory_of(x), 0 if x.is_inference() else x._version) for x in tensors)


def _history(tensor: Tensor) -> History:
    """Return a tensor's grad_fn and whether autograd is recording now.

    A ``torch.autograd.Function``, such as reentrant checkpointing's, can return the same tensor that a convolution
    returned inside it, and still compute the gradient differently.
    """
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.grad_fn, torch.is_grad_enabled()


class _ConvolutionOutput(Tensor):
    """A convolution's output on its way to the BatchNorm; notes any operator that reads it, now or later."""

    pair: FoldedPair
    plain: Tensor
    history: History

    @classmethod
    def create(cls, output: Tensor, pair: FoldedPair) -> _ConvolutionOutput:
        made = output.as_subclass(cls)  # type: ignore[arg-type]
        made.plain, made.pair, made.history = output, pair, _history(made)
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in _METADATA:
            for argument in tree_leaves((args, kwargs)):
                if isinstance(argument, cls):
                    argument.pair.was_read = True
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


# Functions that do not depend on a tensor's values.
_METADATA = {
    *(Tensor.size, Tensor.dim, Tensor.stride, Tensor.numel, Tensor.__len__, Tensor.is_contiguous),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.get_device),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda", "is_cpu", "is_leaf")
    ),
}
