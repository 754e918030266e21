"""Records an attack's iteration as CUDA graphs, once for each shape of the images, and replays them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastadv.attacks.engine import cuda_graph_recorder
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.state import AttackState
from fastadv.attacks.engine.steps import Steps
from fastadv.utils import devices
from fastadv.utils.log import logger
from fastadv.utils.recorded_number import RecordedNumber
from fastadv.utils.stacklevel import user_stacklevel

_MOST_SHAPES = 4  # each keeps the memory of an iteration
_MOST_CAPTURES = 3  # of one shape, each used only a few times: weights whose memory keeps changing are not worth it
_FEW_CALLS = 10


@dataclass
class _Shape:
    """The state of one shape of images: seen once, captured (with a count of captures), or refused."""

    recorder: cuda_graph_recorder.Recorder
    captured: CapturedIteration | None = None
    captures: int = 0
    refused: bool = False


class CapturedIterations:
    """The captured iterations of one attack."""

    def __init__(self) -> None:
        self._shapes: dict[Hashable, _Shape] = {}  # the least recently used first
        self._reasons: set[str] = set()

    def run_(self, gradient: InputGradient, steps: Steps, state: AttackState, alphas: Sequence[float | Tensor]) -> bool:
        """Run an attack by replaying its captured iteration; return False, with nothing done, if there is none.

        The first images of a shape are left to an eager run, which checks them and the model's outputs, and in which
        libraries choose their kernels. If an iteration cannot be captured, a warning says so once.

        Args:
            gradient: computes the gradients, of an isolated and, if requested, folded model.
            steps: the steps to capture.
            state: where to start; its adv is mutated in place.
            alphas: length of each step, a number or [N].
        """
        if devices.is_captured(state.adv):
            return False  # the caller captures the whole call
        try:
            captured = self._find(gradient, steps, state)
        except Exception as error:  # any kind: the caller's model may still run uncaptured
            self._warn(gradient.user, str(error) or type(error).__name__)
            return False
        if captured is not None:
            captured.run_(state, alphas)
        return captured is not None

    def _find(self, gradient: InputGradient, steps: Steps, state: AttackState) -> CapturedIteration | None:
        if not isinstance(gradient.model, nn.Module):
            raise cuda_graph_recorder.NotCapturable(
                f"a {type(gradient.model).__name__} is not an nn.Module: pass the module itself, so that its "
                "weights can be watched"
            )
        fixed = _fixed(gradient, steps, state.adv)
        known = fixed in self._shapes
        shape = self._used(gradient.user, fixed, state.adv.device)
        if not known or gradient.checks_outputs:
            return None
        weights = tuple(tensor.data_ptr() for tensor in gradient.tensors())
        if shape.refused or (shape.captured is not None and shape.captured.weights == weights):
            return shape.captured
        if shape.captured is not None:
            self._drop(shape)
            shape.recorder = cuda_graph_recorder.create_recorder(state.adv.device)
        shape.refused = True  # unless everything below succeeds
        if shape.captures == _MOST_CAPTURES:
            raise cuda_graph_recorder.NotCapturable("the memory of the model's weights changes from call to call")
        shape.captures += 1
        shape.captured = CapturedIteration(steps, state, weights, shape.recorder)
        shape.refused = False
        return shape.captured

    def log_skipped(self, user: str, reason: str, *, by_fast: bool) -> None:
        """Report once why iterations are not captured: as a warning, or in the log if only fast=True requested it."""
        if not by_fast:
            self._warn(user, reason)
        elif reason not in self._reasons:
            self._reasons.add(reason)
            logger.info("%s: fast=True skips capture: %s", user, reason)

    def _used(self, user: str, fixed: Hashable, device: torch.device) -> _Shape:
        """Return the shape's entry, creating it if necessary; the least recently used one may be dropped for it."""
        shape = self._shapes.pop(fixed, None) or _Shape(cuda_graph_recorder.create_recorder(device))
        self._shapes[fixed] = shape  # last
        if len(self._shapes) > _MOST_SHAPES:
            self._drop(self._shapes.pop(next(iter(self._shapes))))
            self._warn(user, f"there are more than {_MOST_SHAPES} shapes of images, and only those used last are kept")
        return shape

    def _drop(self, shape: _Shape) -> None:
        if shape.captured is not None and shape.captured.calls > _FEW_CALLS:
            shape.captures = 0
        shape.recorder.finish()
        shape.captured = None

    def _warn(self, user: str, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            warnings.warn(f"{user} runs without capture=True: {reason}", stacklevel=user_stacklevel())


class CapturedIteration:
    """The first step of an attack and a further one, recorded on separate tensors.

    Args:
        steps: the steps to record.
        state: an example of a start, for the rehearsal.
        weights: addresses of the weights and buffers that the steps read.
        recorder: records them.

    Attributes:
        calls: number of runs so far.
    """

    def __init__(
        self, steps: Steps, state: AttackState, weights: tuple[int, ...], recorder: cuda_graph_recorder.Recorder
    ) -> None:
        self.weights = weights
        self.calls = 0
        self._recorder = recorder
        adv = state.adv  # [N, C, ...]
        self._adv = torch.empty_like(adv)
        self._clean = torch.empty_like(adv) if steps.keeps_clean else self._adv
        wide = torch.float64 if adv.dtype == torch.float64 else torch.float32
        self._eps, self._alpha = (RecordedNumber(adv.new_empty(len(adv), dtype=wide)) for _ in range(2))  # [N], [N]
        self._labels = None if state.target is None else torch.empty_like(state.target)  # [N]
        draws = torch.empty(2, dtype=torch.int64, device=adv.device)  # seed and offset of a random stream
        self._seed, self._offset = RecordedNumber(draws[0]), RecordedNumber(draws[1])
        self._load(state)
        self._alpha.set(state.alpha)
        own = AttackState(self._adv, self._clean, self._eps.place, self._alpha.place, self._labels, draws, offset=0)
        with _uncached_autocast(adv.device.type):
            recorder.rehearse(lambda: steps.first_(own))
            if steps.several:
                recorder.rehearse(lambda: steps.next_(own))
            own.direction = None
            self._first = recorder.record(lambda: steps.first_(own))
            self._without_gradient = own.without_gradient  # scalar
            self._next = recorder.record(lambda: _next_(steps, own)) if steps.several else None

    def run_(self, state: AttackState, alphas: Sequence[float | Tensor]) -> None:
        """Make state.adv adversarial in place by steps of these lengths."""
        self.calls += 1
        with self._recorder.in_order():
            self._load(state)
            for number, alpha in enumerate(alphas):
                self._alpha.set(alpha)
                step = self._next if number else self._first
                assert step is not None
                step()
            state.adv.copy_(self._adv)
            if self._without_gradient is not None:
                state.without_gradient = self._without_gradient.clone()

    def _load(self, state: AttackState) -> None:
        self._adv.copy_(state.adv)
        if self._clean is not self._adv:
            self._clean.copy_(state.adv)
        self._eps.set(state.eps)
        if self._labels is not None and state.target is not None:
            self._labels.copy_(state.target)
        self._seed.set(state.seed)
        self._offset.set(state.offset)


def _next_(steps: Steps, own: AttackState) -> None:
    """Run a further step, and store its direction in the memory of the previous one."""
    direction = own.direction
    steps.next_(own)
    if direction is not None and own.direction is not None and own.direction is not direction:
        direction.copy_(own.direction)
        own.direction = direction


def _fixed(gradient: InputGradient, steps: Steps, adv: Tensor) -> Hashable:
    """Return everything, besides the weights' addresses, whose change requires another capture."""
    device = adv.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    images = (adv.shape, adv.stride(), adv.dtype, adv.device)
    return (images, autocast, gradient.modes(), steps.keeps_clean, steps.several, steps.options)


def _uncached_autocast(device: str) -> AbstractContextManager[object]:
    """Return the caller's autocast without its cache, which would pass weights cast in one recording to another."""
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, torch.get_autocast_dtype(device), cache_enabled=False)
