"""The pretended GPU itself: what a real one does, as far as the host sees it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, ops
from tests.fake_cuda.runtime import GENERATOR_LEFT_CAPTURING, Counts, Runtime


def test_tensors_say_where_they_are() -> None:
    made = [
        torch.ones(2, device="cuda"),
        torch.ones(2).cuda(),
        torch.ones(2).to("cuda"),
        torch.tensor([1.0, 1.0], device=torch.device("cuda")),
        torch.ones(2, device="cuda").double() + 1,
        nn.Linear(2, 2).to("cuda").weight,
    ]
    assert all(tensor.device == torch.device("cuda", 0) and tensor.is_cuda for tensor in made)
    assert torch.ones(2).device == torch.ones(2, device="cuda").cpu().device == torch.device("cpu")


def test_a_backward_pass() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    images = torch.rand(5, 3, 8, 8)
    layers(images)
    grads = []
    for device in ("cpu", "cuda"):
        layers.to(device).zero_grad()
        layers(images.to(device)).square().sum().backward()
        grads.append([parameter.grad.cpu().clone() for parameter in layers.parameters()])
    assert all(map(torch.equal, *grads))


WORK: dict[str, tuple[Callable[[Tensor], object], dict[str, int], dict[str, int]]] = {
    "item": (lambda t: t.sum().item(), {"_local_scalar_dense": 1}, {}),
    "tolist": (lambda t: t.tolist(), {"_to_copy to the host": 1}, {}),
    "a mask": (lambda t: t[t > 1], {"index": 1}, {}),
    "to the host": (lambda t: t.cpu(), {"_to_copy to the host": 1}, {}),
    "to the host, later": (lambda t: t.to("cpu", non_blocking=True), {}, {}),
    "from the host": (lambda t: torch.ones(3).to(t.device), {}, {"_to_copy": 1}),
    "from the host, without waiting": (lambda t: torch.ones(3).to(t.device, non_blocking=True), {}, {}),
    "into a tensor from the host": (lambda t: t.copy_(torch.ones(3)), {}, {"copy_": 1}),
    "numbers": (lambda t: torch.tensor([1.0, 2.0], device=t.device), {}, {"_to_copy": 1}),
    "an index from the host": (lambda t: t[torch.tensor([0, 2])], {}, {"index": 1}),
    "synchronize": (lambda t: torch.cuda.synchronize(), {"synchronize": 1}, {}),
    "arithmetic": (lambda t: (t * 2 + 1).relu(), {}, {}),
}


@pytest.mark.parametrize(("work", "waits", "copies"), WORK.values(), ids=WORK)
def test_what_waits(
    gpu: Runtime, work: Callable[[Tensor], object], waits: dict[str, int], copies: dict[str, int]
) -> None:
    tensor = torch.arange(3.0).to("cuda")
    gpu.counts = Counts()
    work(tensor)
    assert (+gpu.counts.waits, +gpu.counts.blocking_copies) == (waits, copies)


def test_views_and_allocations_launch_nothing(gpu: Runtime) -> None:
    tensor = torch.arange(6.0).to("cuda")
    gpu.counts = Counts()
    tensor.view(2, 3).t()[0].detach().expand(4, 2)
    torch.empty_like(tensor)
    assert gpu.counts.launched == 0
    tensor.mul_(2)
    assert gpu.counts.launches == {"mul_": 1}


def test_values_on_their_way_are_not_there_before_a_wait() -> None:
    arrived = torch.cuda.Event()
    values = torch.ones(3, device="cuda").to("cpu", non_blocking=True)
    assert values.isnan().all()
    arrived.record()
    arrived.synchronize()
    assert values.tolist() == [1, 1, 1]


def test_devices_do_not_mix() -> None:
    with pytest.raises(RuntimeError, match=r"Expected all tensors to be on the same device"):
        torch.ones(2, device="cuda") + torch.ones(2)
    assert (torch.ones(2, device="cuda") + torch.tensor(1.0)).tolist() == [2, 2]
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        torch.ones(2, device="cuda").numpy()


def test_a_device_without_a_number_is_not_made_the_current_one() -> None:
    with pytest.raises(ValueError, match=r"Expected a torch.device with a specified index or an integer"):
        torch.cuda.set_device(torch.device("cuda"))
    torch.cuda.set_device(0)


def test_a_graph_computes_when_it_is_replayed(gpu: Runtime) -> None:
    source, total = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = source * 2
        total.add_(doubled)
    assert total.tolist() == [0, 0, 0] and doubled.isnan().all()
    source.fill_(3.0)
    gpu.counts = Counts()
    graph.replay()
    graph.replay()
    assert gpu.counts.launches == {"graph": 2}
    assert doubled.tolist() == [6, 6, 6] and total.tolist() == [12, 12, 12]


def test_a_graph_cannot_hold_a_wait() -> None:
    """And the generator of the device is left as torch 2.11 leaves it, until its state is set."""
    ones, graph = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph()
    with (
        pytest.raises(RuntimeError, match="previous error during capture"),
        torch.cuda.graph(graph),
        pytest.raises(RuntimeError, match="not permitted when stream is capturing"),
    ):
        ones.sum().item()
    assert not torch.cuda.is_current_stream_capturing()
    with pytest.raises(RuntimeError, match=GENERATOR_LEFT_CAPTURING):
        nn.functional.dropout(ones)
    (generator,) = torch.cuda.default_generators
    generator.graphsafe_set_state(generator.clone_state())
    nn.functional.dropout(ones)


def test_recording_leaves_no_trace() -> None:
    """Neither in running statistics, which the schema of cuDNN's BatchNorm does not mention, nor in the generator."""
    images, norm, graph = torch.rand(4, 2, 3, 3, device="cuda"), nn.BatchNorm2d(2).to("cuda"), torch.cuda.CUDAGraph()
    assert norm.running_mean is not None
    state = torch.get_rng_state()
    with torch.cuda.graph(graph):
        kept = nn.functional.dropout(norm(images))
    assert norm.running_mean.tolist() == [0, 0] and torch.equal(torch.get_rng_state(), state)
    drawn = []
    for _ in range(2):
        graph.replay()
        drawn.append(kept.clone())
    assert norm.running_mean.min() > 0 and not torch.equal(*drawn)


def test_what_returns_nothing_is_computed_when_it_is_replayed() -> None:
    """The CPU's operators refuse sizes that are not numbers, as those are that have yet to be drawn."""
    adv, clean = (torch.full((2, 3, 2, 2), 0.5, device="cuda") for _ in range(2))
    graph = torch.cuda.CUDAGraph()
    grad = torch.ones(2, 3, 2, 2, device="cuda")
    with torch.cuda.graph(graph):
        eps = ops.sample_eps(2, 8.0, 16.0, seed=1, device="cuda")
        ops.sign_step_(adv, clean, grad, eps, eps, PixelSpace.unit())
    assert torch.equal(adv, clean)
    graph.replay()
    assert (adv > clean).all()
