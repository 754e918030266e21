"""Iterations recorded once for each shape of the images, as CUDA graphs, and replayed from then on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fastadv import devices
from fastadv.attacks import recorder
from fastadv.attacks.iterate import Iterate
from fastadv.callers import caller_level
from fastadv.recorded_number import RecordedNumber
from fastadv.remarks import remarks

if TYPE_CHECKING:
    from fastadv.attacks.folding import FoldedModel
    from fastadv.attacks.gradient import GradientAttack

_MOST_SHAPES = 4  # each keeps the memory of an iteration
_MOST_CAPTURES = 3  # of one shape, each used a few times only: weights that keep moving are not worth following
_FEW_CALLS = 10


@dataclass
class _Shape:
    """Images of one shape: they came once, their iteration was captured (so often), or it cannot be."""

    recorder: recorder.Recorder
    captured: CapturedIteration | None = None
    captures: int = 0
    refused: bool = False


class Captures:
    """The captured iterations of one attack."""

    def __init__(self) -> None:
        self._shapes: dict[Hashable, _Shape] = {}  # in the order in which they were used
        self._reasons: set[str] = set()

    def run_(
        self,
        attack: GradientAttack,
        model: Callable[..., Any],
        at: Iterate,
        alphas: Sequence[float | Tensor],
        apart: bool,
        folded: FoldedModel | None,
    ) -> bool:
        """Run an attack by replaying its captured iteration; False, with nothing done, where there is none.

        The first images of a shape are left to an eager run, in which they and the model's outputs are looked at and
        libraries choose their kernels. What cannot be captured is said in a warning, once.

        Args:
            attack: whose iterations they are.
            model: the raw module, isolated.
            at: where to start from; its adv is mutated in place.
            alphas: the steps.
            apart: whether adv and clean must be two tensors.
            folded: what is in place of the model's BatchNorm layers, which a recording brings up to date.
        """
        if devices.is_captured(at.adv):
            return False  # by the caller, with all that is in the call
        try:
            captured = self._find(attack, model, at, apart, folded)
        except Exception as error:  # of any kind: the model is the caller's, and may yet run uncaptured
            self._warn(attack, str(error) or type(error).__name__)
            return False
        if captured is not None:
            captured.run_(at, alphas)
        return captured is not None

    def _find(
        self,
        attack: GradientAttack,
        model: Callable[..., Any],
        at: Iterate,
        apart: bool,
        folded: FoldedModel | None,
    ) -> CapturedIteration | None:
        if not isinstance(model, nn.Module):
            raise recorder.NotCapturable(
                f"a {type(model).__name__} is no nn.Module: pass the module itself, whose weights can be watched"
            )
        fixed = _fixed(attack, model, at.adv, apart)
        known = fixed in self._shapes
        shape = self._used(attack, fixed, at.adv.device)
        if not known or not attack.outputs_seen:
            return None
        weights = _addresses(model, folded)
        if shape.refused or (shape.captured is not None and shape.captured.weights == weights):
            return shape.captured
        if shape.captured is not None:
            self._drop(shape)
            shape.recorder = recorder.create_recorder(at.adv.device)
        shape.refused = True  # unless all of the following succeeds
        if shape.captures == _MOST_CAPTURES:
            raise recorder.NotCapturable("the model's weights lie elsewhere in memory each time")
        shape.captures += 1
        shape.captured = CapturedIteration(attack, model, at, apart, folded, weights, shape.recorder)
        shape.refused = False
        return shape.captured

    def leave_out(self, attack: GradientAttack, reason: str) -> None:
        """Say once why iterations are not captured: in a warning, or in a remark where fast=True alone asks for it."""
        if attack.capture:
            self._warn(attack, reason)
        elif reason not in self._reasons:
            self._reasons.add(reason)
            remarks.info("%s: fast=True leaves capture out: %s", attack.name, reason)

    def _used(self, attack: GradientAttack, fixed: Hashable, device: torch.device) -> _Shape:
        """The shape, known from now on; the one that was used longest ago makes room for it."""
        shape = self._shapes.pop(fixed, None) or _Shape(recorder.create_recorder(device))
        self._shapes[fixed] = shape  # last
        if len(self._shapes) > _MOST_SHAPES:
            self._drop(self._shapes.pop(next(iter(self._shapes))))
            self._warn(attack, f"more than {_MOST_SHAPES} shapes of images come, and those used last alone are kept")
        return shape

    def _drop(self, shape: _Shape) -> None:
        if shape.captured is not None and shape.captured.calls > _FEW_CALLS:
            shape.captures = 0
        shape.recorder.finish()
        shape.captured = None

    def _warn(self, attack: GradientAttack, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            warnings.warn(f"{attack.name} runs without capture=True: {reason}", stacklevel=caller_level())


class CapturedIteration:
    """The first step of an attack and the steps after it, recorded on tensors of their own.

    Args:
        attack: whose steps they are.
        model: the raw module, isolated.
        at: an example of what the steps start from, with which they are rehearsed.
        apart: whether adv and clean must be two tensors.
        folded: what is in place of the model's BatchNorm layers, and is brought up to date before the first step.
        weights: where the weights and buffers lie that they read.
        tape: what records them.

    Attributes:
        calls: how often it was replayed.
    """

    def __init__(
        self,
        attack: GradientAttack,
        model: nn.Module,
        at: Iterate,
        apart: bool,
        folded: FoldedModel | None,
        weights: tuple[int, ...],
        tape: recorder.Recorder,
    ) -> None:
        self.weights = weights
        self.calls = 0
        self._tape = tape
        adv = at.adv  # [N, C, ...]
        self._adv = torch.empty_like(adv)
        self._clean = torch.empty_like(adv) if apart else self._adv
        wide = torch.float64 if adv.dtype == torch.float64 else torch.float32
        self._eps, self._alpha = (RecordedNumber(adv.new_empty(len(adv), dtype=wide)) for _ in range(2))  # [N], [N]
        self._labels = None if at.target is None else torch.empty_like(at.target)  # [N]
        draws = torch.empty(2, dtype=torch.int64, device=adv.device)  # a stream of random numbers
        self._seed, self._offset = RecordedNumber(draws[0]), RecordedNumber(draws[1])
        self._load(at)
        self._alpha.set(at.alpha)
        own = Iterate(self._adv, self._clean, self._eps.place, self._alpha.place, self._labels, draws, offset=0)

        def first() -> None:
            if folded is not None:
                folded.refresh()
            attack.first_(model, own)

        with _uncached_autocast(at.adv.device.type):
            tape.rehearse(first)
            if apart:
                tape.rehearse(lambda: attack.next_(model, own))
            own.direction = None
            self._first = tape.record(first)
            self._without_gradient = own.without_gradient  # scalar
            self._next = tape.record(lambda: _next_(attack, model, own)) if apart else None

    def run_(self, at: Iterate, alphas: Sequence[float | Tensor]) -> None:
        """Make at.adv adversarial in place by steps of these lengths."""
        self.calls += 1
        with self._tape.in_order():
            self._load(at)
            for number, alpha in enumerate(alphas):
                self._alpha.set(alpha)
                step = self._next if number else self._first
                assert step is not None
                step()
            at.adv.copy_(self._adv)
            if self._without_gradient is not None:
                at.without_gradient = self._without_gradient.clone()

    def _load(self, at: Iterate) -> None:
        self._adv.copy_(at.adv)
        if self._clean is not self._adv:
            self._clean.copy_(at.adv)
        self._eps.set(at.eps)
        if self._labels is not None and at.target is not None:
            self._labels.copy_(at.target)
        self._seed.set(at.seed)
        self._offset.set(at.offset)


def _next_(attack: GradientAttack, model: nn.Module, own: Iterate) -> None:
    """A further step, which leaves its direction where it found the previous one."""
    direction = own.direction
    attack.next_(model, own)
    if direction is not None and own.direction is not None and own.direction is not direction:
        direction.copy_(own.direction)
        own.direction = direction


def _fixed(attack: GradientAttack, model: nn.Module, adv: Tensor, apart: bool) -> Hashable:
    """All that a captured iteration cannot follow if it changes, besides the places of the weights."""
    device = adv.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    frozen = tuple(module.training for module in model.modules()) if attack.bn == "batch" else ()
    return (adv.shape, adv.stride(), adv.dtype, adv.device, apart, autocast, frozen, attack.captured_options())


def _addresses(model: nn.Module, folded: FoldedModel | None) -> tuple[int, ...]:
    own = () if folded is None else folded.tensors()
    return tuple(tensor.data_ptr() for tensor in chain(model.parameters(), model.buffers(), own))


def _uncached_autocast(device: str) -> AbstractContextManager[object]:
    """The caller's autocast without its cache, which would hand weights cast in one recording to another."""
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, torch.get_autocast_dtype(device), cache_enabled=False)
