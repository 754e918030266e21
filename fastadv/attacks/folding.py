"""BatchNorm folded into the convolution before it, while examples are generated in evaluation mode.

With running statistics BatchNorm is a scale and a shift of each filter. Folded into the convolution's weight and bias,
they cost one pass over the weights a call instead of passes over every activation, forward and backward. The function
is the same up to rounding. The folded weights are copies anyway: on a CPU they are laid out as convolutions there are
fastest, in channels_last, and so are the images.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from fastadv.callers import caller_level

if TYPE_CHECKING:
    from fastadv.attacks.gradient import GradientAttack

# Exactly these: a subclass may do something else in its forward.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_IMAGES = 4  # dimensions of a batch of images, and of a convolution's weights for them
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class NotFoldable(RuntimeError):
    """A model none of whose BatchNorm layers can be folded; the message is the reason."""


@dataclass(frozen=True)
class _Pair:
    """A convolution, the BatchNorm that alone reads its output, and the folded weight and bias."""

    convolution: nn.Module
    batch_norm: nn.Module
    weight: Tensor  # [F, C / groups, ...]
    bias: Tensor  # [F]

    def fits(self, dtype: torch.dtype | None) -> bool:
        """Whether the layers' weights are still on the device, and of the dtype, that the folded ones were made for."""
        own: Tensor = self.convolution.weight  # type: ignore[assignment]
        return self.weight.device == own.device and self.weight.dtype == (dtype or own.dtype)

    def refresh(self) -> None:
        """Fold the layers' present weights and statistics, into the same memory."""
        conv: Any = self.convolution
        bn: Any = self.batch_norm
        scale = torch.rsqrt(bn.running_var + bn.eps)  # [F]
        if bn.weight is not None:
            scale *= bn.weight
        shift = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean  # [F]
        shift = shift * scale if bn.bias is None else torch.addcmul(bn.bias, shift, scale)
        self.bias.copy_(shift)
        per_filter = scale.view(-1, *[1] * (self.weight.dim() - 1))  # [F, 1, ...]
        self.weight.copy_(conv.weight * per_filter)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution's forward, with the BatchNorm's in it."""
        result: Tensor = self.convolution._conv_forward(x, self.weight, self.bias)  # type: ignore[operator]
        return result


class FoldedModel:
    """A model's convolutions with their BatchNorm folded in, to be put in place for the time of a call.

    Args:
        model: in evaluation mode.
        forward: how it is called, with images [N, C, ...].
        images: an example of them: pairs are found by what the model does with it.
        dtype: of the folded weights, that of autocast where it is on; None is the weights' own.

    Raises:
        NotFoldable: nothing can be folded.
    """

    def __init__(
        self, model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor, dtype: torch.dtype | None
    ) -> None:
        self._modules = list(model.modules())
        self._dtype = dtype
        found = _pairs(model, forward, images)
        if not found:
            raise NotFoldable("the model has no BatchNorm layer that alone reads what a convolution makes")
        self._channels_last = images.device.type == "cpu" and _most_of_the_weights(model, found)
        self._pairs = [_folded(*pair, dtype, self._channels_last) for pair in found]

    def fits(self, model: nn.Module) -> bool:
        """Whether the model still consists of the layers that it was found to have, where and as they were."""
        return list(model.modules()) == self._modules and all(pair.fits(self._dtype) for pair in self._pairs)

    def tensors(self) -> Iterator[Tensor]:
        """The folded weights and biases, which stay where they are."""
        return (tensor for pair in self._pairs for tensor in (pair.weight, pair.bias))

    def arranged(self, images: Tensor) -> Tensor:  # [N, C, ...]
        """The images in the layout of the folded weights; themselves where they are."""
        last = self._channels_last and images.dim() == _IMAGES
        return images.contiguous(memory_format=torch.channels_last) if last else images

    @torch.no_grad()
    def refresh(self) -> None:
        """Follow the weights and statistics as they are now."""
        for pair in self._pairs:
            pair.refresh()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the block, the model runs folded."""
        modules = [module for pair in self._pairs for module in (pair.convolution, pair.batch_norm)]
        before = [module.__dict__.get("forward") for module in modules]
        try:
            for pair in self._pairs:
                pair.convolution.forward = pair.forward  # type: ignore[method-assign]
                pair.batch_norm.forward = _behind_batch_norm(pair.batch_norm)  # type: ignore[method-assign]
            yield
        finally:
            for module, forward in zip(modules, before, strict=True):
                if forward is None:
                    module.__dict__.pop("forward", None)
                else:
                    module.forward = forward  # type: ignore[method-assign]

    def __len__(self) -> int:
        return len(self._pairs)


def _behind_batch_norm(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a BatchNorm layer does besides: nothing, or an activation in one of timm's."""
    if type(module) in _BATCH_NORMS:
        return _unchanged
    return lambda x: module.act(module.drop(x))  # type: ignore[operator]


def _unchanged(x: Tensor) -> Tensor:
    return x


def _is_batch_norm(module: nn.Module) -> bool:
    timm = sys.modules.get("timm.layers")  # where it is not loaded, the model has none of its layers
    known = (*_BATCH_NORMS, timm.BatchNormAct2d) if timm is not None else _BATCH_NORMS
    return type(module) in known and module.running_mean is not None


def _most_of_the_weights(model: nn.Module, found: list[tuple[nn.Module, nn.Module]]) -> bool:
    """Whether the convolutions that are folded have most of all convolutions' weights: one layout serves nearly all."""

    def count(convolutions: Iterable[Any]) -> int:
        return sum(int(module.weight.numel()) for module in convolutions)

    every = (module for module in model.modules() if type(module) in _CONVOLUTIONS)
    return 2 * count(convolution for convolution, _ in found) > count(every)


def _folded(convolution: nn.Module, batch_norm: nn.Module, dtype: torch.dtype | None, channels_last: bool) -> _Pair:
    like: Tensor = convolution.weight  # type: ignore[assignment]
    layout = torch.channels_last if channels_last and like.dim() == _IMAGES else torch.preserve_format
    with torch.no_grad():
        bias = like.new_empty(len(like), dtype=dtype or like.dtype)
        weight = torch.empty_like(like, dtype=dtype, requires_grad=False, memory_format=layout)
    return _Pair(convolution, batch_norm, weight, bias)


def _pairs(model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Convolutions and the BatchNorm layers that alone read what they make, by one call of the model."""
    made: dict[Node, nn.Module] = {}  # what a convolution's output comes from
    read: list[tuple[Node, nn.Module]] = []
    calls: dict[nn.Module, int] = {}

    def after_convolution(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if output.grad_fn is not None:
            made[output.grad_fn] = module

    def before_batch_norm(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        if inputs and inputs[0].grad_fn in made:
            read.append((inputs[0].grad_fn, module))

    handles = []
    for module in model.modules():
        if type(module) in _CONVOLUTIONS and module.padding_mode == "zeros":
            handles.append(module.register_forward_hook(after_convolution))
        elif _is_batch_norm(module):
            handles.append(module.register_forward_pre_hook(before_batch_norm))
    try:
        with torch.enable_grad():
            output = forward(images.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    readers = _readers(output)
    return [
        (made[node], batch_norm)
        for node, batch_norm in read
        if readers.get(node) == 1 and calls[made[node]] == 1 and calls[batch_norm] == 1
    ]


def _readers(output: Any) -> dict[Node, int]:
    """How many operators read the result of each node that the output comes from."""
    waiting = [leaf.grad_fn for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]
    readers: dict[Node, int] = dict.fromkeys(waiting, 1)
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if node is None:
                continue
            if node not in readers:
                waiting.append(node)
            readers[node] = readers.get(node, 0) + 1
    return readers


class Folds:
    """The folded forms of one attack's model, by the dtype of the weights."""

    def __init__(self) -> None:
        self._found: dict[torch.dtype | None, FoldedModel | None] = {}

    def of(self, attack: GradientAttack, model: Callable[..., Any], images: Tensor) -> FoldedModel | None:
        """The folded form of a model in evaluation mode, up to date; None, and a warning once, if there is none."""
        if not isinstance(model, nn.Module):
            self._refuse(
                attack,
                None,
                f"a {type(model).__name__} is no nn.Module: pass the module itself, whose layers can be folded",
            )
            return None
        device = images.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        folded = self._found.get(dtype)
        if dtype not in self._found or (folded is not None and not folded.fits(model)):
            try:
                folded = self._found[dtype] = FoldedModel(model, partial(attack.heads, model), images[:1], dtype)
            except NotFoldable as error:
                self._refuse(attack, dtype, str(error))
                return None
        if folded is not None:
            folded.refresh()
        return folded

    def _refuse(self, attack: GradientAttack, dtype: torch.dtype | None, reason: str) -> None:
        if dtype not in self._found or self._found[dtype] is not None:
            warnings.warn(f"{attack.name} runs without fold_bn=True: {reason}", stacklevel=caller_level())
        self._found[dtype] = None
