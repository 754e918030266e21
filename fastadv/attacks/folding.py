"""BatchNorm folded into the convolution before it, while examples are generated in evaluation mode.

With running statistics BatchNorm is a scale and a shift of each filter. Folded into the convolution's weight and bias,
they cost one pass over the weights a call instead of passes over every activation, forward and backward. The function
is the same up to rounding. The folded weights are copies anyway: on a CPU they are laid out as convolutions there are
fastest, in channels_last, and so are the images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from fastadv.attacks.foldable import BATCH_NORMS, CONVOLUTIONS, Search, is_plain
from fastadv.callers import caller_level
from fastadv.remarks import remarks

if TYPE_CHECKING:
    from fastadv.attacks.gradient import GradientAttack

T = TypeVar("T")
_IMAGES = 4  # dimensions of a batch of images, and of a convolution's weights for them
# How far logits may be apart by rounding alone, over their norm. Convolutions in float32 may run in TF32.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 0.03, torch.float16: 0.03, torch.bfloat16: 0.1}


class NotFoldable(RuntimeError):
    """A model none of whose BatchNorm layers can be folded; the message is the reason."""


@dataclass(eq=False)
class _Pair:
    """A convolution, the BatchNorm that alone reads its output, and the folded weight and bias."""

    convolution: nn.Module
    batch_norm: nn.Module
    weight: Tensor  # [F, C / groups, ...]
    bias: Tensor  # [F]
    made: Tensor | None = None  # by the convolution, until its BatchNorm reads it
    astray: bool = False

    def fits(self, dtype: torch.dtype | None) -> bool:
        """Whether the layers are still plain, their weights on the device, and of the dtype, of the folded ones."""
        if not (is_plain(self.convolution) and is_plain(self.batch_norm)):
            return False
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

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution's forward, with the BatchNorm's in it."""
        result: Tensor = self.convolution._conv_forward(x, self.weight, self.bias)  # type: ignore[operator]
        if not torch.compiler.is_compiling():
            self.astray |= self.made is not None
            self.made = result
        return result

    def pass_on(self, x: Tensor) -> Tensor:
        """The BatchNorm's forward: what it does besides, nothing or, in one of timm's, an activation."""
        if not torch.compiler.is_compiling():
            self.astray |= x is not self.made
            self.made = None
        if type(self.batch_norm) in BATCH_NORMS:
            return x
        result: Tensor = self.batch_norm.act(self.batch_norm.drop(x))  # type: ignore[operator]
        return result


class FoldedModel:
    """A model's convolutions with their BatchNorm folded in, to be put in place for the time of a call.

    Args:
        model: in evaluation mode.
        forward: how it is called, with images [N, C, ...].
        images: a batch: pairs are found by what the model does with it.
        dtype: of the folded weights, that of autocast where it is on; None is the weights' own.

    Raises:
        NotFoldable: nothing can be folded, or the batch's logits are others then.
    """

    def __init__(
        self, model: nn.Module, forward: Callable[[Tensor], Any], images: Tensor, dtype: torch.dtype | None
    ) -> None:
        self._modules = list(model.modules())
        self._dtype = dtype
        search = Search(model, forward, images)
        if not search.pairs:
            raise NotFoldable(_nothing_found(search.left_out))
        self._channels_last = images.device.type == "cpu" and _most_of_the_weights(model, search.pairs)
        self._pairs = [_folded(*pair, dtype, self._channels_last) for pair in search.pairs]
        self.refresh()
        with torch.no_grad(), self.in_place():
            output = forward(self.arranged(images))
            self.check()
        self._compare(output, search.output)

    def check(self) -> None:
        """After a forward pass in place: the layers were connected as they were when they were found.

        Raises:
            NotFoldable: a convolution's output went elsewhere than to its BatchNorm, or that read another's.
        """
        if any(pair.astray or pair.made is not None for pair in self._pairs):
            raise NotFoldable("its layers are not connected in the same way in each call")

    def _compare(self, output: Any, plain: Any) -> None:
        """Refuse to fold where it shows: what a model reads past all operators, the search for layers does not see."""
        tolerance = max(_ROUNDING[tensor.dtype] for tensor in self.tensors())
        for one, other in zip(tree_leaves(output), tree_leaves(plain), strict=True):
            if not isinstance(one, Tensor) or not one.is_floating_point():
                continue
            apart, size = float((one - other).detach().norm()), float(other.detach().norm())
            if not apart <= tolerance * size:  # nor where either is NaN
                raise NotFoldable(f"folded, its logits are others, by {apart:.2g} of a norm of {size:.2g}")

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
        try:
            for pair in self._pairs:
                pair.convolution.forward = pair.convolve  # type: ignore[method-assign]
                pair.batch_norm.forward = pair.pass_on  # type: ignore[method-assign]
            yield
        finally:
            for pair in self._pairs:  # plain layers, which had none of their own
                for module in (pair.convolution, pair.batch_norm):
                    vars(module).pop("forward", None)
                pair.made, pair.astray = None, False

    def __len__(self) -> int:
        return len(self._pairs)


def _nothing_found(left_out: int) -> str:
    reason = "the model has no BatchNorm layer that alone reads what a convolution makes"
    if left_out:
        reason += f"; layers left out for hooks, a computed weight or a forward of their own: {left_out}"
    return reason


def _most_of_the_weights(model: nn.Module, found: list[tuple[nn.Module, nn.Module]]) -> bool:
    """Whether the convolutions that are folded have most of all convolutions' weights: one layout serves nearly all."""

    def count(convolutions: Iterable[Any]) -> int:
        return sum(int(module.weight.numel()) for module in convolutions)

    every = (module for module in model.modules() if type(module) in CONVOLUTIONS)
    return 2 * count(convolution for convolution, _ in found) > count(every)


def _folded(convolution: nn.Module, batch_norm: nn.Module, dtype: torch.dtype | None, channels_last: bool) -> _Pair:
    like: Tensor = convolution.weight  # type: ignore[assignment]
    layout = torch.channels_last if channels_last and like.dim() == _IMAGES else torch.preserve_format
    with torch.no_grad():
        bias = like.new_empty(len(like), dtype=dtype or like.dtype)
        weight = torch.empty_like(like, dtype=dtype, requires_grad=False, memory_format=layout)
    return _Pair(convolution, batch_norm, weight, bias)


def _dtype(images: Tensor) -> torch.dtype | None:
    """That of the folded weights: autocast's where it is on; None is the weights' own."""
    device = images.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


class Folds:
    """The folded forms of one attack's model, by the dtype of the weights."""

    def __init__(self) -> None:
        self._found: dict[torch.dtype | None, FoldedModel | None] = {}
        self._in_place: FoldedModel | None = None
        self._left_out = False

    def run(
        self, attack: GradientAttack, model: Callable[..., Any], images: Tensor, run: Callable[[FoldedModel | None], T]
    ) -> T:
        """What run makes with the model folded, if that can be; as it is, if not, or once :meth:`check` finds so."""
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

    def check(self) -> None:
        """After a forward pass: raise what ends :meth:`run` with the folded model, if it has run as another one."""
        if self._in_place is not None:
            self._in_place.check()

    def of(self, attack: GradientAttack, model: Callable[..., Any], images: Tensor) -> FoldedModel | None:
        """The folded form of a model in evaluation mode, up to date; None, and a warning once, if there is none."""
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
            try:
                folded = self._found[dtype] = FoldedModel(model, partial(attack.heads, model), images, dtype)
            except NotFoldable as error:
                self._refuse(attack, dtype, str(error))
                return None
        if folded is not None:
            folded.refresh()
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
