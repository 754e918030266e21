"""Streams, graphs, compilation and several devices: what an operator is used in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastadv import ops
from tests.gpu.device import DEVICE, moved, needs_streams, needs_two_gpus
from tests.ops.cases import DTYPES, Operands, operands
from tests.ops.test_torch_contract import step_chain

pytestmark = pytest.mark.gpu
LONG = 50_000_000  # clock cycles: tens of milliseconds


def on_device(device: torch.device = DEVICE, dtype: torch.dtype = torch.float32) -> Operands:
    o = operands((4, 3, 65, 63), dtype)
    return Operands(*(moved(tensor, device) for tensor in (o.adv, o.clean, o.grad)))


def labels_of(logits: Tensor) -> Tensor:
    return torch.arange(len(logits), device=logits.device) % logits.shape[1]


# Each uses what is in its argument [4, 3, 65, 63] when it runs on the stream, not when it is called.
USES: dict[str, Callable[[Tensor], Tensor]] = {
    "sign_step_": lambda x: ops.sign_step_(x.clone(), x, x - 100, 1.0, 8.0),
    "normalized_step_ l2": lambda x: ops.normalized_step_(x.clone(), x, x - 100, 1.0, 8.0, "l2"),
    "normalized_step_ linf": lambda x: ops.normalized_step_(x.clone(), x, x - 100, 1.0, 8.0, "linf"),
    "apgd_step_ linf": lambda x: ops.apgd_step_(x.clone(), x + 1, x, x - 100, 4.0, 8.0),
    "apgd_step_ l2": lambda x: ops.apgd_step_(x.clone(), x + 1, x, x - 100, 4.0, 8.0, norm="l2"),
    "keep_best_": lambda x: ops.keep_best_(x.clone(), x + 1, x - 5, x - 6, x[:, 0, 0, 0] > 100),
    "noise_step_": lambda x: ops.noise_step_(x.clone(), x, 8.0, "truncated_normal", 3),
    "from_pixels": lambda x: ops.from_pixels(x.to(torch.uint8), x[:, 0, 0, 0] > 100, x.dtype),
    # What is drawn on another stream is overwritten by the copy, which is late.
    "truncated_normal_": lambda x: ops.truncated_normal_(x[0, 0, 0].clone(), seed=3),
    "target_grad": lambda x: ops.target_grad(x.flatten(1), "least_likely").dlogits,
    "target_grad dlr": lambda x: ops.target_grad(x.flatten(1) / 50, "dlr", labels_of(x.flatten(1))).dlogits,
    "row_losses": lambda x: ops.row_losses(x.flatten(1) / 50, labels_of(x.flatten(1)), "log_odds"),
    "scaled_kl_grad": lambda x: ops.scaled_kl_grad(x.flatten(1) / 50, x.flatten(1).flip(1) / 50).dlogits,
    "trades_loss": lambda x: ops.trades_loss(x.flatten(1) / 50, x.flatten(1).flip(1) / 50, labels_of(x.flatten(1))),
    "mixed_cross_entropy": lambda x: ops.mixed_cross_entropy(x.flatten(1) / 50, labels_of(x.flatten(1)), 2),
}


each_use = pytest.mark.parametrize("use", USES.values(), ids=USES)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


@each_dtype
@each_use
def test_runs_as_on_the_cpu(use: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    """Every operator, briefly: test_operators.py has its shapes, layouts and amounts."""
    values = on_device(dtype=dtype).clean
    torch.testing.assert_close(use(values).cpu(), use(values.cpu()))


@needs_streams
@each_dtype
@each_use
def test_runs_on_the_current_stream(use: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    """Behind a long kernel and a late write on the same stream: anywhere else it would read the old values."""
    values = on_device(dtype=dtype).clean
    expected = use(values)
    late = torch.zeros_like(values)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(LONG)
        late.copy_(values)
        result = use(late)
    torch.cuda.current_stream().wait_stream(side)
    assert torch.equal(result, expected)


@needs_streams
def test_nothing_waits_for_the_device() -> None:
    values = on_device().clean
    stream = torch.tensor([3, 4], device=DEVICE)
    for use in USES.values():
        use(values)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for use in USES.values():
            use(values)
        ops.noise_step_(values.clone(), values, 8.0, "sign", stream)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_streams
def test_a_captured_graph_draws_anew() -> None:
    """The stream in a tensor is what changes: each replay is the call with its numbers."""
    o, stream = on_device(), torch.tensor([4, 0], device=DEVICE)
    eps = torch.empty(4, device=DEVICE)
    logits = torch.randn(64, 1000, device=DEVICE)

    def draw() -> tuple[Tensor, Tensor]:
        ops.truncated_normal_(eps, seed=stream)
        ops.noise_step_(o.adv, o.clean, eps, "uniform", stream)
        return o.adv, ops.target_grad(logits, "random", seed=stream).target

    draw()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = draw()
    seen = []
    for offset in (0, 100, 0):
        stream[1].fill_(offset)
        graph.replay()
        drawn = ops.sample_eps(4, seed=4, offset=offset, device=DEVICE)
        adv = ops.noise_step_(o.clean.clone(), o.clean, drawn, "uniform", 4, offset)
        target = ops.target_grad(logits, "random", seed=4, offset=offset).target
        assert torch.equal(results[0], adv) and torch.equal(results[1], target)
        seen.append(results[0].clone())
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])


@needs_streams
@each_dtype
@each_use
def test_a_captured_operator_reads_what_is_there_then(use: Callable[[Tensor], Tensor], dtype: torch.dtype) -> None:
    values = on_device(dtype=dtype).clean
    static = values.clone()
    use(static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = use(static)
    for shift in (0.0, 5.0):
        static.copy_(values + shift)
        graph.replay()
        assert torch.equal(result, use(values + shift))


@each_dtype
def test_compiles(dtype: torch.dtype) -> None:
    o = on_device(dtype=dtype)
    logits = torch.randn(4, 5, device=DEVICE)
    compiled = torch.compile(step_chain, fullgraph=True, backend="aot_eager")
    arguments = (o.adv, o.clean, o.grad, logits, labels_of(logits))
    for eager, other in zip(step_chain(*arguments), compiled(*arguments), strict=True):
        assert eager.device.type == DEVICE.type and torch.equal(eager, other)


def test_compiles_with_inductor() -> None:
    o = on_device()
    logits = torch.randn(4, 5, device=DEVICE)
    arguments = (o.adv, o.clean, o.grad, logits, labels_of(logits))
    for eager, other in zip(step_chain(*arguments), torch.compile(step_chain, fullgraph=True)(*arguments), strict=True):
        torch.testing.assert_close(eager, other)


@needs_two_gpus
@each_use
def test_runs_on_the_device_of_its_tensors(use: Callable[[Tensor], Tensor]) -> None:
    values = on_device(torch.device("cuda:1")).clean  # while cuda:0 is the current one
    result = use(values)
    assert result.device == values.device and torch.equal(result.cpu(), use(values.to("cuda:0")).cpu())
    assert torch.cuda.current_device() == 0
