"""PyTorch's requirements for operators: opcheck, torch.compile without graph breaks, no full-size temporaries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.library import opcheck

from fastadv import PixelSpace, ops
from tests.completeness import check_complete, operators
from tests.ops.cases import DTYPES, operands

RAW = ([1.0], [0.0], [255.0])
RGB = ([1.0] * 3, [0.0] * 3, [255.0] * 3)
PER_EXAMPLE = torch.tensor([1.0, 2.0])


def x() -> torch.Tensor:
    return 255 * torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))


OPERATORS = torch.ops.fastadv
SAMPLES = {
    "sign_step_ first": (OPERATORS.sign_step_, (x(), None, x(), 1.0, None, 8.0, None, *RAW), {}),
    "sign_step_": (OPERATORS.sign_step_, (x(), x(), x(), 1.0, PER_EXAMPLE, 1.0, PER_EXAMPLE, *RGB), {}),
    "normalized_step_ l2": (OPERATORS.normalized_step_, (x(), x(), x(), 1.0, None, 8.0, None, "l2", *RAW), {}),
    "normalized_step_ linf": (OPERATORS.normalized_step_, (x(), None, x(), 1.0, None, 8.0, None, "linf", *RGB), {}),
    "apgd_step_ linf": (OPERATORS.apgd_step_, (x(), x(), x(), x(), 1.0, None, 8.0, None, "linf", 0.75, *RGB), {}),
    "apgd_step_ l2": (
        OPERATORS.apgd_step_,
        (x(), x(), x(), x(), 1.0, PER_EXAMPLE, 8.0, PER_EXAMPLE, "l2", 0.75, *RAW),
        {},
    ),
    "keep_best_": (OPERATORS.keep_best_, (x(), None, x(), None, PER_EXAMPLE > 1), {}),
    "keep_best_ with gradients": (OPERATORS.keep_best_, (x(), x(), x(), x(), PER_EXAMPLE > 1), {}),
    "noise_step_": (OPERATORS.noise_step_, (x(), x(), 8.0, None, "truncated_normal", 1, 2, None, *RAW), {}),
    "noise_step_ stream": (OPERATORS.noise_step_, (x(), None, 8.0, None, "sign", 0, 2, torch.tensor([1, 2]), *RAW), {}),
    "from_pixels_": (OPERATORS.from_pixels_, (x().bfloat16(), x().byte(), None, [0.0], *RAW), {}),
    "from_pixels_ mirrored": (OPERATORS.from_pixels_, (x(), x().byte(), PER_EXAMPLE > 1, [1.0] * 3, *RGB), {}),
    "truncated_normal_": (OPERATORS.truncated_normal_, (torch.ones(5), 8.0, 16.0, 1, 2, None), {}),
    "sample_eps": (OPERATORS.sample_eps, (5, 8.0, 16.0, 1, 2, None), {"device": torch.device("cpu")}),
    "target_grad": (OPERATORS.target_grad, (torch.randn(4, 5), "random", None, 0.1, 1, 2, None, None), {}),
    "scaled_target_grad": (
        OPERATORS.scaled_target_grad,
        (torch.randn(4, 5), "random", None, 0.1, 1, 2, None, None),
        {},
    ),
    "scaled_target_grad targeted_dlr": (
        OPERATORS.scaled_target_grad,
        (torch.randn(4, 5), "targeted_dlr", torch.arange(4), 0.0, 0, 0, None, torch.arange(1, 5)),
        {},
    ),
    "row_losses": (OPERATORS.row_losses, (torch.randn(4, 5).half(), torch.arange(4), "ce", None), {}),
    "row_losses targeted_dlr": (
        OPERATORS.row_losses,
        (torch.randn(4, 5), torch.arange(4), "targeted_dlr", torch.arange(1, 5)),
        {},
    ),
    "target_grad label": (
        OPERATORS.target_grad,
        (torch.randn(4, 5), "label", torch.arange(4), 0.0, 0, 0, None, None),
        {},
    ),
    "scaled_kl_grad": (OPERATORS.scaled_kl_grad, (torch.randn(4, 5), torch.randn(4, 5)), {}),
    "trades_loss": (
        OPERATORS.trades_loss,
        (*(torch.randn(4, 5, requires_grad=True) for _ in range(2)), torch.arange(4), 6.0, 0.1),
        {},
    ),
    "mixed_cross_entropy": (
        OPERATORS.mixed_cross_entropy,
        (torch.randn(4, 5, requires_grad=True), torch.arange(4), 2, 0.3, 0.1),
        {},
    ),
}


@pytest.mark.parametrize(("op", "args", "kwargs"), SAMPLES.values(), ids=SAMPLES)
def test_opcheck(op, args, kwargs) -> None:
    opcheck(op.default, args, kwargs)


def test_samples_cover_every_operator() -> None:
    sampled = {packet.__name__ for packet, _, _ in SAMPLES.values()}
    check_complete("SAMPLES of tests/ops/test_torch_contract.py", sampled, operators())


def step_chain(adv, clean, grad, logits, labels):
    """Every wrapper once, as a user's compiled function would mix them with PyTorch."""
    space = PixelSpace.raw()
    moved = ops.noise_step_(adv * 1.0, clean, 4.0, "uniform", 3, 1, space)
    eps = ops.truncated_normal_(torch.empty(adv.shape[0], dtype=torch.float32, device=adv.device), seed=4)
    eps = eps + ops.sample_eps(adv.shape[0], seed=5, device=adv.device)
    moved = ops.sign_step_(moved, clean, grad, 2.0, eps, space)
    moved = ops.normalized_step_(moved, clean, grad, -3.0, 8.0, "linf", space)
    previous = moved * 1.0
    moved = ops.apgd_step_(moved, previous, clean, grad, 3.0, eps, space, momentum=0.75)
    moved = ops.keep_best_(moved, previous, clean, grad, eps > 4)
    moved = (
        moved + previous + ops.from_pixels(adv.to(torch.uint8), adv[:, 0, 0, 0] > 100, adv.dtype, PixelSpace.imagenet())
    )
    target, dlogits = ops.target_grad(logits, "least_likely")
    scaled = ops.scaled_target_grad(logits, "entropy")
    loss = ops.mixed_cross_entropy(logits, labels, 1) + ops.trades_loss(logits, logits * 0.9, labels)
    dlr = ops.target_grad(logits, "dlr", labels)
    losses = ops.row_losses(logits, labels, "targeted_dlr", target)
    return moved + 1, target, dlogits, *scaled, *dlr, losses, *ops.scaled_kl_grad(logits * 0.9, logits), loss


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
def test_compiles_without_graph_breaks(channels_last: bool, dtype: torch.dtype) -> None:
    o = operands((2, 3, 6, 5), dtype, channels_last=channels_last)
    logits, labels = torch.randn(2, 5), torch.tensor([1, 4])
    compiled = torch.compile(step_chain, fullgraph=True, backend="aot_eager")
    for eager, other in zip(
        step_chain(o.adv, o.clean, o.grad, logits, labels),
        compiled(o.adv, o.clean, o.grad, logits, labels),
        strict=True,
    ):
        assert torch.equal(eager, other)


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed, offset: ops.noise_step_(
            torch.full((2, 3), 9.0), torch.full((2, 3), 9.0), 4.0, "sign", seed, offset
        ),
        lambda seed, offset: ops.sample_eps(5, seed=seed, offset=offset),
        lambda seed, offset: ops.truncated_normal_(torch.empty(5), seed=seed, offset=offset),
        lambda seed, offset: ops.target_grad(torch.ones(5, 9), "random", None, 0.0, seed, offset).target,
    ],
    ids=["noise_step_", "sample_eps", "truncated_normal_", "target_grad"],
)
def test_a_compiled_function_draws_on(draw) -> None:
    """An advancing stream, or none, compiles once and not in every call."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(draw, fullgraph=True, backend=counter)
    for offset in range(12):
        assert torch.equal(compiled(3, offset), draw(3, offset))
    assert counter.frame_count <= 2
    torch._dynamo.reset()
    torch.manual_seed(0)
    drawn = torch.stack([compiled(None, 0) for _ in range(8)])
    assert len(drawn.unique(dim=0)) > 1
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.stack([compiled(None, 0) for _ in range(8)]))


def test_a_compiled_step_takes_any_amount() -> None:
    o = operands((2, 3, 6, 5))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    def step(adv: torch.Tensor, alpha: float, eps: float) -> torch.Tensor:
        return ops.sign_step_(adv, o.clean, o.grad, alpha, eps)

    compiled = torch.compile(step, fullgraph=True, backend=counter)
    for alpha in range(12):
        amounts = alpha + 0.5, 8.0 - alpha / 2
        assert torch.equal(compiled(o.adv.clone(), *amounts), step(o.adv.clone(), *amounts))
    assert counter.frame_count <= 3


def test_compiles_with_inductor_and_backward() -> None:
    o = operands((2, 3, 6, 5))
    labels = torch.tensor([1, 4])

    def train(weight: torch.Tensor) -> torch.Tensor:
        adv = ops.sign_step_(o.adv.clone(), o.clean, o.grad, 2.0, 8.0)
        logits = adv.flatten(1) @ weight / 1e4
        return ops.mixed_cross_entropy(logits, labels, 1) + ops.trades_loss(logits, 2 * logits, labels)

    grads = []
    for function in (train, torch.compile(train, fullgraph=True)):
        weight = torch.randn(90, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
        function(weight).backward()
        grads.append(weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def peak_growth(function) -> int:
    """Bytes by which the process's resident memory is larger at its peak during a call than before it.

    The operating system's count, which sees what PyTorch allocates and what C++ does.
    """
    function()  # once for what is allocated once
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew

    def resident(name: str) -> int:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return 1024 * int(line.split()[1])

    before = resident("VmRSS:")
    function()
    return resident("VmHWM:") - before


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_full_size_temporary(dtype: torch.dtype) -> None:
    # 64 MB: above what the C library keeps for later, so that every allocation of the size is new pages.
    o = operands((8, 3, 1024, 2731 // dtype.itemsize), dtype)
    full, previous = o.adv.nbytes, o.adv.clone()
    eps = torch.ones(8)
    assert peak_growth(lambda: o.adv + 1) > 0.9 * full  # the count sees what it should
    steps = {
        "sign": lambda: ops.sign_step_(o.adv, o.clean, o.grad, 1.0, eps),
        "first": lambda: ops.sign_step_(o.adv, o.adv, o.grad, 1.0, 8.0),
        "l2": lambda: ops.normalized_step_(o.adv, o.clean, o.grad, 1.0, eps, "l2"),
        "linf": lambda: ops.normalized_step_(o.adv, o.clean, o.grad, 1.0, eps, "linf"),
        "apgd": lambda: ops.apgd_step_(o.adv, previous, o.clean, o.grad, 1.0, eps),
        "apgd, l2": lambda: ops.apgd_step_(o.adv, previous, o.clean, o.grad, 1.0, eps, norm="l2"),
        "best": lambda: ops.keep_best_(o.adv, previous, o.clean, o.grad, eps > 0),
        "noise": lambda: ops.noise_step_(o.adv, o.clean, eps, "truncated_normal", 1),
    }
    for name, step in steps.items():
        assert peak_growth(step) < full / 20, name
    pixels, mirrored = torch.zeros(o.adv.shape, dtype=torch.uint8), torch.ones(8, dtype=torch.bool)
    assert peak_growth(lambda: ops.from_pixels(pixels, mirrored, dtype)) < 1.05 * full  # the result itself


DIGEST = """
import hashlib, torch
from fastadv import ops, _C
from tests.completeness import check_complete, operators
from tests.ops.cases import operands, DTYPES, SPACES
digest = hashlib.sha256()
for dtype in DTYPES:
    for last in (False, True):
        o = operands((3, 3, 17, 19), dtype, SPACES["imagenet"], last)
        ops.sign_step_(o.adv, o.clean, o.grad, 1.0, 8.0, SPACES["imagenet"])
        ops.normalized_step_(o.adv, o.clean, o.grad, 1.0, 8.0, "l2", SPACES["imagenet"])
        for norm in ("linf", "l2"):
            previous = (o.adv + o.clean) / 2
            ops.apgd_step_(o.adv, previous, o.clean, o.grad, 1.0, 8.0, SPACES["imagenet"], norm=norm)
        for kind in ("sign", "truncated_normal", "normal", "uniform"):
            ops.noise_step_(o.adv, o.adv, 8.0, kind, 3, 0, SPACES["imagenet"])
        pixels, mirrored = o.clean.to(torch.uint8), torch.tensor([True, False, True])
        o.adv += ops.from_pixels(pixels, mirrored, dtype, SPACES["imagenet"])
        digest.update(o.adv.contiguous().view(torch.uint8).numpy().tobytes())
digest.update(ops.sample_eps(10000, seed=1).numpy().tobytes())
print(_C.cpu_isa(), digest.hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    digests = {}
    for isa in ops._C.build_info()["cpu_isas"].split():
        environment = {**os.environ, "FASTADV_ISA": isa}
        run = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, cwd=".")
        if "names no instruction set" in run.stderr:
            continue  # compiled, but not of this machine
        assert run.returncode == 0, run.stderr
        used, digest = run.stdout.split()
        assert used == isa
        digests[isa] = digest
    assert "baseline" in digests and len(set(digests.values())) == 1, digests
