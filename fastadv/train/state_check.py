"""Check that the state in a checkpoint has the form that this run would save.

Its hashes prove only that it is what was written: it may come from another program, or be made up. Nothing in it is
used, and no number in it decides how much memory to allocate, before it is checked here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fastadv.train.config import OptimizerConfig
from fastadv.train.optim import create_optimizer

OPTIONAL = frozenset({"sentinel", "cost"})  # of a run's state: earlier versions had neither
_LARGEST = 2**63  # bound on numbers: counts of iterations and examples are below it, and float32 can hold it
# Keys that every version of PyTorch has; the others depend on the version.
_OF_SCHEDULES = ("last_epoch", "base_lrs")
_OF_GROUPS = ("params", "lr")


def state_problem(
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    *,
    step: int,
    processes: int,
    weights: Sequence[Tensor],
    buffers: Sequence[Tensor],
    optimizer: OptimizerConfig,
) -> str | None:
    """How the form of a run's state differs from the one that it would save; None if it does not.

    Args:
        found: the state that was read; has the keys of ``expected``, those of ``OPTIONAL`` perhaps not.
        expected: the state that the run would save before its first iteration; its ``processes`` has the main process
            only.
        step: iterations done.
        processes: number of processes that wrote the state.
        weights: parameters of the optimiser, in its order.
        buffers: buffers of the model, and of its copy with averaged weights.
        optimizer: configuration of the optimiser.
    """
    identity = found["training_set"]
    if not isinstance(identity, Mapping) or not expected["training_set"].keys() <= identity.keys():
        return f"training_set is {_described(identity)}"
    if any(isinstance(value, Tensor) for value in identity.values()):
        return "training_set has tensors"
    optional = sorted(OPTIONAL & found.keys() & expected.keys())
    return (
        _first(mismatch(found[name], expected[name], name) for name in ("task", "means", *optional))
        or _schedule_mismatch(found["schedule"], expected["schedule"], step)
        or _optimizer_mismatch(found["optimizer"], expected["optimizer"], weights, optimizer)
        or _processes_mismatch(found["processes"], processes, expected, buffers)
    )


def mismatch(found: Any, expected: Any, name: str) -> str | None:
    """How the form of a value that was read differs from one that would be saved; None if it does not.

    Mappings must have the keys of ``expected``, and may have more; lists its length, tensors its shape and dtype. None
    in ``expected`` stands for None or any tensor, and a list of None for a list of any length.

    Args:
        found: the value that was read.
        expected: the value that would be saved.
        name: its name in the message.
    """
    if expected is None:
        return None if found is None or _is_plain(found) else f"{name} is {_described(found)}, not nothing or a tensor"
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or not expected.keys() <= found.keys():
            return f"{name} is {_described(found)}, not a mapping with {', '.join(map(str, expected))}"
        return _first(mismatch(found[key], value, f"{name}.{key}") for key, value in expected.items())
    if isinstance(expected, (list, tuple)):
        of_any_length = bool(expected) and all(value is None for value in expected)
        if not isinstance(found, (list, tuple)) or (len(found) != len(expected) and not of_any_length):
            return f"{name} is {_described(found)}, not a list of {len(expected)}"
        of_each = [None] * len(found) if of_any_length else expected
        return _first(mismatch(one, of_one, name) for one, of_one in zip(found, of_each, strict=True))
    if isinstance(expected, Tensor):
        fits = _is_plain(found) and found.shape == expected.shape and found.dtype == expected.dtype
        return None if fits else f"{name} is {_described(found)}, not {_described(expected)}"
    if isinstance(expected, (str, bool)):
        return None if type(found) is type(expected) else f"{name} is {_described(found)}"
    return (
        None if _is_number(found, whole=isinstance(expected, int)) else f"{name} is {_described(found)}, not a number"
    )


def _schedule_mismatch(found: Any, expected: Mapping[str, Any], step: int) -> str | None:
    """The same for the state of a schedule, which is stepped once per iteration."""
    differs = mismatch(found, _common(expected, found, _OF_SCHEDULES), "schedule")
    if differs is None and found["last_epoch"] != step:
        return f"schedule has done {found['last_epoch']} iterations, not {step}"
    if differs is None and list(found["base_lrs"]) != list(expected["base_lrs"]):
        return "schedule has another learning rate than the configuration"
    return differs


def _optimizer_mismatch(
    found: Any, expected: Mapping[str, Any], weights: Iterable[Tensor], config: OptimizerConfig
) -> str | None:
    """The same for the state of an optimiser.

    Args:
        found: the state that was read.
        expected: the state of the optimiser before its first step.
        weights: its parameters, in its order.
        config: its configuration.
    """
    groups = expected["param_groups"]
    differs = mismatch(found, {"state": {}, "param_groups": [{}] * len(groups)}, "optimizer")
    if differs is not None:
        return differs
    for of_group, group in zip(found["param_groups"], groups, strict=True):
        form = of_group.get("fused") if isinstance(of_group, Mapping) else None
        if form is not None and not isinstance(form, bool):
            return f"optimizer.param_groups.fused is {_described(form)}, not true, false or nothing"
        group = {**group, "fused": form}  # it depends on the device where the run began, and stays
        differs = mismatch(of_group, _common(group, of_group, _OF_GROUPS), "optimizer.param_groups")
        if differs is not None or of_group["params"] != group["params"]:
            return differs or "optimizer.param_groups are of other weights"
        if any(isinstance(value, Tensor) for value in of_group.values()):
            return "optimizer.param_groups have tensors"
        if changed := [name for name in group if _differs(of_group.get(name, group[name]), group[name], name)]:
            return f"optimizer.param_groups have another {changed[0]} than the configuration"
    indices = [index for group in groups for index in group["params"]]
    shapes, moments = dict(zip(indices, weights, strict=True)), _moments(config)
    return _first(_moments_mismatch(index, state, shapes, moments) for index, state in found["state"].items())


def _moments_mismatch(index: Any, state: Any, shapes: Mapping[int, Tensor], moments: Mapping[str, Any]) -> str | None:
    """The same for the state of one parameter."""
    name = f"optimizer.state.{index}"
    if index not in shapes or not isinstance(state, Mapping) or state.keys() != moments.keys():
        return f"{name} is {_described(state)}, not a mapping with {', '.join(moments)}"
    for moment, of_one_weight in moments.items():
        kept = state[moment]
        has_shape = isinstance(of_one_weight, Tensor) and of_one_weight.dim() > 0
        if has_shape or of_one_weight is None:
            differs = mismatch(kept, shapes[index] if has_shape else None, f"{name}.{moment}")
        else:
            differs = None if _is_scalar(kept) else f"{name}.{moment} is {_described(kept)}, not a number"
        if differs is not None:
            return differs
    return None


def _moments(config: OptimizerConfig) -> dict[str, Any]:
    """State that the optimiser keeps for a parameter [1, 1]; SGD without momentum keeps none."""
    with torch.random.fork_rng([]):
        model = nn.Linear(1, 1, bias=False)
    optimizer = create_optimizer(model, config)
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    return dict(next(iter(optimizer.state.values()), {}))


def _processes_mismatch(found: Any, count: int, expected: Mapping[str, Any], buffers: Sequence[Tensor]) -> str | None:
    """The same for the states of the processes; the main one's buffers and task are stored elsewhere."""
    if not isinstance(found, (list, tuple)) or len(found) != count:
        return f"processes is {_described(found)}, not a list of {count}"
    return _first(_process_mismatch(state, expected, buffers) for state in found)


def _process_mismatch(found: Any, expected: Mapping[str, Any], buffers: Sequence[Tensor]) -> str | None:
    (own,) = expected["processes"]
    if not isinstance(found, Mapping) or not own.keys() <= found.keys():
        return f"processes has {_described(found)}, not a mapping with {', '.join(own)}"
    both = found["cuda_rng"] is not None and own["cuda_rng"] is not None  # a run may move between CPU and GPU
    return (
        _generator_mismatch(found["rng"])
        or mismatch(found["cuda_rng"], own["cuda_rng"] if both else None, "cuda_rng")
        or (mismatch(found["buffers"], buffers, "buffers") if found["buffers"] != [] else None)
        or (mismatch(found["task"], expected["task"], "task") if found["task"] is not None else None)
    )


def _generator_mismatch(state: Any) -> str | None:
    """The same for the state of PyTorch's CPU generator."""
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError) as error:
        return f"rng is not the state of a generator ({next(iter(str(error).splitlines()), '')})"
    return None


def _differs(found: Any, expected: Any, name: str) -> bool:
    """Whether an optimiser's option differs from the configuration, except lr, which the schedule changes."""
    return name != "lr" and isinstance(expected, (int, float, tuple)) and found != expected


def _common(expected: Mapping[str, Any], found: Any, needed: Iterable[str]) -> dict[str, Any]:
    """Entries of ``expected`` that the state has, too, or that are ``needed``: others depend on PyTorch's version."""
    keys = found if isinstance(found, Mapping) else ()
    return {name: value for name, value in expected.items() if name in keys or name in needed}


def _first(differences: Iterable[str | None]) -> str | None:
    return next((difference for difference in differences if difference is not None), None)


def _is_plain(value: Any) -> bool:
    """Whether it is a dense tensor with memory for all of its values; using an expanded one would allocate the rest."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_meta:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def _is_number(value: Any, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return False
    return abs(value) < _LARGEST  # NaN is not


def _is_scalar(value: Any) -> bool:
    return _is_number(value, whole=False) or (_is_plain(value) and value.numel() == 1)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {value.dtype}"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, list(value)[:4])) or 'nothing'}"
    return repr(value) if _is_number(value, whole=False) or value is None else type(value).__name__
