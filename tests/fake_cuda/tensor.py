"""DeviceTensor: a tensor of the CPU that says it is on ``cuda:0``, and what operators do with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

from fastadv.attacks.engine.cuda_graph_recorder import waits
from tests.fake_cuda.runtime import Runtime, poison

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten
# Operators that run no kernel: they allocate, or look at a tensor in another way without the schema saying so.
ALLOCATING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "detach_"}
# Arguments that are written to without the schema saying so.
WRITTEN = dict.fromkeys(
    (aten.cudnn_batch_norm.default, aten.native_batch_norm.default), ("running_mean", "running_var")
)
WITH_CPU_INDICES = ("aten::index", "aten::_unsafe_index")  # which PyTorch moves to the device itself


def _cudnn_batch_norm(
    images: Tensor, weight: Tensor, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> tuple[Tensor, ...]:
    outputs = torch.native_batch_norm(images, weight, bias, mean, var, training, momentum, eps)
    return (*outputs, images.new_empty(0, dtype=torch.uint8))


def _cudnn_batch_norm_backward(
    images: Tensor, grad: Tensor, weight: Tensor, mean: Any, var: Any, saved: Any, scale: Any, eps: float, own: Tensor
) -> tuple[Tensor, ...]:
    return aten.native_batch_norm_backward(grad, images, weight, mean, var, saved, scale, True, eps, [True] * 3)


# Operators of cuDNN, by the CPU's of the same meaning.
ON_THE_HOST: dict[Any, Callable[..., Any]] = {
    aten.cudnn_batch_norm.default: _cudnn_batch_norm,
    aten.cudnn_batch_norm_backward.default: _cudnn_batch_norm_backward,
}


class DeviceTensor(Tensor):
    """Claims to be on the GPU.

    Attributes:
        host: the values, on the CPU.
    """

    host: Tensor
    runtime: Runtime

    @staticmethod
    def __new__(cls, host: Tensor, runtime: Runtime) -> DeviceTensor:
        return Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            storage_offset=host.storage_offset(),
            dtype=host.dtype,
            device=CUDA,
            requires_grad=host.requires_grad,
        )

    def __init__(self, host: Tensor, runtime: Runtime) -> None:
        self.host = host.detach()
        self.runtime = runtime

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.host})"

    def data_ptr(self) -> int:
        return self.host.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.host.untyped_storage()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        return self.numpy()

    def as_subclass(self, kind: type[Tensor]) -> Any:
        """What PyTorch does for tensors of its own class alone."""
        alias = self.view_as(self)
        alias.__class__ = _both(kind)
        return alias

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied = DeviceTensor(self.host.clone(), self.runtime)
        if isinstance(self, nn.Parameter):
            return nn.Parameter(copied, self.requires_grad)
        return copied.requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.host.__reduce_ex__(protocol)  # as a file of a GPU's tensors is read where there is none

    def __tensor_flatten__(self) -> tuple[list[str], Runtime]:
        return ["host"], self.runtime

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], runtime: Runtime, size: Any, stride: Any) -> DeviceTensor:
        return DeviceTensor(inner["host"], runtime)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        (runtime, *_) = (leaf.runtime for leaf in _leaves((args, kwargs)) if isinstance(leaf, DeviceTensor))
        return run(runtime, func, args, kwargs or {})


class OnDevice(TorchDispatchMode):
    """Within the block, what is made on ``cuda`` is made of DeviceTensors."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._runtime = runtime

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(self._runtime, func, args, kwargs or {})


class NumberedDevice(TorchFunctionMode):
    """Within the block, ``cuda`` is ``cuda:0``: PyTorch would ask the driver which device is the current one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.cuda:
            return args[0].to(CUDA, **kwargs)
        if func is Tensor.to:
            args = tuple(CUDA if argument in ("cuda", "cuda:0") else argument for argument in args)
        if kwargs.get("device") is not None and _is_cuda(kwargs["device"]):
            if func in (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy):  # of the host's numbers
                return func(*args, **{**kwargs, "device": None}).to(CUDA)
            kwargs = {**kwargs, "device": CUDA}
        return func(*map(_numbered, args), **kwargs)


@cache
def _both(kind: type[Tensor]) -> type[Tensor]:
    return type(kind.__name__, (kind, DeviceTensor), {})


def _numbered(value: Any) -> Any:
    return CUDA if isinstance(value, torch.device) and value.type == "cuda" else value


def run(runtime: Runtime, func: Any, args: Any, kwargs: Any) -> Any:
    """The operator's result, computed on the CPU, and what it made the host and the device do."""
    given = _tensors((args, kwargs))
    on_device = any(isinstance(leaf, DeviceTensor) for leaf in given)
    target = kwargs.get("device")
    if func in (aten._to_copy.default, aten.copy_.default) and (on_device or _is_cuda(target)):
        return _copy(runtime, func, args, kwargs)
    if func is aten._pin_memory.default:
        return args[0].clone()
    if not (on_device or _is_cuda(target)):
        return func(*args, **kwargs)
    _check_devices(runtime, func, given)
    if func is aten._local_scalar_dense.default or func is aten.equal.default or waits(func, given):
        runtime.wait(_name(func))
    if torch.Tag.nondeterministic_seeded in func.tags:
        runtime.count_draw()
    result = _compute(runtime, func, args, kwargs)
    wrapped = _wrapped(runtime, result)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if _aliases(func) else wrapped


def _compute(runtime: Runtime, func: Any, args: Any, kwargs: Any) -> Any:
    """On the host's tensors; while a graph is recorded, without a trace in them."""
    host_args, host_kwargs = _mapped(_host, args), _mapped(_host, kwargs)
    if "device" in host_kwargs:
        host_kwargs["device"] = torch.device("cpu")

    def compute() -> Any:
        return ON_THE_HOST.get(func, func)(*host_args, **host_kwargs)

    name = _name(func)
    if name in ALLOCATING or _is_view(func):
        return compute()
    if runtime.recording is None:
        runtime.launch(name)
        return compute()
    return _record(runtime, func, compute, host_args, host_kwargs)


def _record(runtime: Runtime, func: Any, compute: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """Record an operator: its results have a place from now on, and values when they are replayed.

    One that returns nothing is not computed now: the CPU's would refuse sizes that have yet to be drawn.
    """
    assert runtime.recording is not None
    if not func._schema.returns:
        runtime.recording.record(lambda: compute())
        return None
    written = _tensors(_written(func, args, kwargs))
    before = [tensor.clone() for tensor in written]
    generator = torch.get_rng_state()
    result = compute()
    torch.set_rng_state(generator)
    for tensor, values in zip(written, before, strict=True):
        tensor.copy_(values)
    places = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
    made = _tensors(result)
    own = [leaf.untyped_storage().data_ptr() not in places for leaf in made]
    for leaf, is_own in zip(made, own, strict=True):
        if is_own:
            poison(leaf)

    def step() -> None:
        for leaf, new, is_own in zip(made, _tensors(compute()), own, strict=True):
            if is_own:
                leaf.copy_(new)

    runtime.recording.record(step)
    return result


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that the operator writes to."""
    by_name = dict(zip((one.name for one in func._schema.arguments), args, strict=False), **kwargs)
    names = [one.name for one in func._schema.arguments if one.alias_info is not None and one.alias_info.is_write]
    return [by_name[name] for name in (*names, *WRITTEN.get(func, ())) if name in by_name]


def _copy(runtime: Runtime, func: Any, args: Any, kwargs: Any) -> Any:
    """Between the host and the device, or on the device."""
    if func is aten.copy_.default:
        place, source = args[0], args[1]
        blocking = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        crosses = isinstance(place, DeviceTensor) != isinstance(source, DeviceTensor) and source.dim() > 0
    else:
        place, source = None, args[0]
        blocking = not kwargs.get("non_blocking", False)
        target = kwargs.get("device")
        crosses = target is not None and _is_cuda(target) != isinstance(source, DeviceTensor)
    to_host = isinstance(source, DeviceTensor) and crosses
    if crosses and blocking:
        if to_host:
            runtime.wait(_name(func) + " to the host")
        else:
            runtime.counts.blocking_copies[_name(func)] += 1
    result = _compute(runtime, func, args, {k: v for k, v in kwargs.items() if k != "non_blocking"})
    if place is not None:
        return place
    if to_host:
        return result if blocking else runtime.copy_later(result)
    return _wrapped(runtime, result)


def _check_devices(runtime: Runtime, func: Any, given: list[Tensor]) -> None:
    strangers = [leaf for leaf in given if not isinstance(leaf, DeviceTensor) and leaf.dim() > 0]
    if not strangers:
        return
    if func._schema.name in WITH_CPU_INDICES:
        runtime.counts.blocking_copies["index"] += 1
        return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu: {_name(func)}"
    )


@cache
def _aliases(func: Any) -> bool:
    """Whether what it returns is, or shares memory with, an argument."""
    return any(one.alias_info is not None for one in func._schema.returns)


@cache
def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returns)


@cache
def _name(func: Any) -> str:
    return str(func._schema.name).removeprefix("aten::")


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in _leaves(tree) if isinstance(leaf, Tensor)]


# torch.utils._pytree took more time than the operators themselves.
def _leaves(tree: Any) -> list[Any]:
    """What lies in lists, tuples and the values of dictionaries, which are all that operators take and return."""
    if isinstance(tree, dict):
        tree = [*tree.values()]
    if not isinstance(tree, (tuple, list)):
        return [tree]
    leaves = []
    for value in tree:
        if isinstance(value, (tuple, list, dict)):
            leaves += _leaves(value)
        else:
            leaves.append(value)
    return leaves


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The same lists, tuples and dictionaries, of what the function makes of their leaves."""
    if isinstance(tree, (tuple, list)):
        return type(tree)([_mapped(function, value) for value in tree])
    if isinstance(tree, dict):
        return {key: _mapped(function, value) for key, value in tree.items()}
    return function(tree)


def _is_cuda(device: object) -> bool:
    return device is not None and torch.device(device).type == "cuda"  # type: ignore[call-overload]


def _host(value: Any) -> Any:
    return value.host if isinstance(value, DeviceTensor) else value


def _wrapped(runtime: Runtime, result: Any) -> Any:
    return _mapped(lambda value: DeviceTensor(value, runtime) if isinstance(value, Tensor) else value, result)
