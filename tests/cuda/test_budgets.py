"""What the hot kernels may cost for each pack of 16 bytes on an H100 or H200, counted from their machine code.

A budget is what nvcc 13.0 makes, and 3 % of slack for instructions; benchmarks/sass.py says what is counted. A change
that costs less lowers its budget. ``python -m tests.cuda.test_budgets`` prints the table for the built module.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest

from benchmarks.machine_code import Kernel, find_cuobjdump, kernels
from fastadv import _C
from tests.completeness import check_complete, cuda_kernels

ARCH, NVCC = "sm_90", "13.0."
BUILD = _C.build_info()

compiled_here = [
    pytest.mark.skipif(not BUILD["cuda"], reason="built without CUDA kernels"),
    pytest.mark.skipif(find_cuobjdump() is None, reason="needs cuobjdump, of the CUDA toolkit or of triton"),
    pytest.mark.skipif(
        not BUILD["cuda"].startswith(NVCC), reason=f"budgets are for nvcc {NVCC}*, and this is {BUILD['cuda']}"
    ),
    pytest.mark.skipif("90" not in BUILD["cuda_archs"], reason=f"built without {ARCH}"),
]


# Kernels whose time does not depend on their instructions: one number an example or a row, or the rare layout.
WITHOUT_BUDGET = ("formula_kernel", "prepare_kernel", "finish_kernel", "total_kernel", "truncated_normal_kernel")


class Budget(NamedTuple):
    """The most instructions of the main path and of the main loop, for each pack; the most fused multiply-adds, and the
    least bytes in flight before the first use. Without a figure there is no budget.
    """

    path: int | None
    loop: int | None
    fused: int
    in_flight: int


# Where nothing may be fused, because the result is the CPU's to the bit, `fused` is 0: --fmad=false in cuda.cmake. What
# is left elsewhere are divisions and square roots that are written out where they are used.
BUDGETS: dict[str, Budget] = {
    # kernel: path, loop, fused, in flight
    "tile_step_kernel<float, 1, SignRule<true>>": Budget(68, None, 0, 64),
    "tile_step_kernel<float, 1, SignRule<false>>": Budget(93, None, 0, 64),
    "tile_step_kernel<float, 3, SignRule<true>>": Budget(79, None, 0, 64),
    "tile_step_kernel<float, 3, SignRule<false>>": Budget(99, None, 0, 96),
    "tile_step_kernel<__nv_bfloat16, 1, SignRule<true>>": Budget(134, None, 0, 64),
    "tile_step_kernel<__nv_bfloat16, 1, SignRule<false>>": Budget(222, None, 0, 48),
    "tile_step_kernel<__nv_bfloat16, 3, SignRule<true>>": Budget(145, None, 0, 64),
    "tile_step_kernel<__nv_bfloat16, 3, SignRule<false>>": Budget(200, None, 0, 96),
    "tile_step_kernel<__half, 1, SignRule<true>>": Budget(126, None, 0, 64),
    "tile_step_kernel<__half, 1, SignRule<false>>": Budget(214, None, 0, 48),
    "tile_step_kernel<__half, 3, SignRule<true>>": Budget(135, None, 0, 64),
    "tile_step_kernel<__half, 3, SignRule<false>>": Budget(192, None, 0, 96),
    "tile_step_kernel<float, 1, NormalizedRule<true>>": Budget(160, None, 0, 32),
    "tile_step_kernel<float, 1, NormalizedRule<false>>": Budget(166, None, 0, 48),
    "tile_step_kernel<float, 3, NormalizedRule<true>>": Budget(183, None, 0, 32),
    "tile_step_kernel<float, 3, NormalizedRule<false>>": Budget(187, None, 0, 48),
    "tile_step_kernel<__nv_bfloat16, 1, NormalizedRule<true>>": Budget(269, None, 0, 32),
    "tile_step_kernel<__nv_bfloat16, 1, NormalizedRule<false>>": Budget(283, None, 0, 48),
    "tile_step_kernel<__nv_bfloat16, 3, NormalizedRule<true>>": Budget(291, None, 0, 32),
    "tile_step_kernel<__nv_bfloat16, 3, NormalizedRule<false>>": Budget(303, None, 0, 48),
    "tile_step_kernel<float, 1, ApgdSignRule<float>>": Budget(92, None, 0, 64),
    "tile_step_kernel<float, 3, ApgdSignRule<float>>": Budget(100, None, 0, 64),
    "tile_step_kernel<__nv_bfloat16, 1, ApgdSignRule<float>>": Budget(177, None, 0, 64),
    "tile_step_kernel<__nv_bfloat16, 3, ApgdSignRule<float>>": Budget(183, None, 0, 64),
    "tile_step_kernel<__half, 1, ApgdSignRule<float>>": Budget(173, None, 0, 64),
    "tile_step_kernel<__half, 3, ApgdSignRule<float>>": Budget(178, None, 0, 64),
    "tile_step_kernel<float, 1, ApgdUnitRule<float>>": Budget(108, None, 0, 64),
    "tile_step_kernel<float, 3, ApgdUnitRule<float>>": Budget(123, None, 0, 64),
    "tile_step_kernel<__nv_bfloat16, 1, ApgdUnitRule<float>>": Budget(199, None, 0, 64),
    "tile_step_kernel<__nv_bfloat16, 3, ApgdUnitRule<float>>": Budget(215, None, 0, 64),
    "tile_step_kernel<__half, 1, ApgdUnitRule<float>>": Budget(194, None, 0, 64),
    "tile_step_kernel<__half, 3, ApgdUnitRule<float>>": Budget(210, None, 0, 64),
    "step_kernel<float, 4, false, SignRule<true>>": Budget(154, None, 0, 32),
    "step_kernel<float, 4, false, SignRule<false>>": Budget(179, None, 0, 48),
    "step_kernel<float, 4, true, SignRule<true>>": Budget(206, None, 0, 32),
    "step_kernel<float, 4, true, SignRule<false>>": Budget(220, None, 0, 48),
    "step_kernel<__nv_bfloat16, 8, false, SignRule<true>>": Budget(220, None, 0, 32),
    "step_kernel<__nv_bfloat16, 8, false, SignRule<false>>": Budget(282, None, 0, 48),
    "step_kernel<__nv_bfloat16, 8, true, SignRule<true>>": Budget(358, None, 0, 32),
    "step_kernel<__nv_bfloat16, 8, true, SignRule<false>>": Budget(395, None, 0, 48),
    "step_kernel<float, 4, false, ApgdSignRule<float>>": Budget(121, None, 0, 64),
    "step_kernel<float, 4, true, ApgdSignRule<float>>": Budget(143, None, 0, 64),
    "step_kernel<__nv_bfloat16, 8, false, ApgdSignRule<float>>": Budget(202, None, 0, 64),
    "step_kernel<__nv_bfloat16, 8, true, ApgdSignRule<float>>": Budget(258, None, 0, 64),
    "step_kernel<float, 4, false, ApgdUnitRule<float>>": Budget(132, None, 0, 64),
    "step_kernel<float, 4, true, ApgdUnitRule<float>>": Budget(152, None, 0, 64),
    "step_kernel<__nv_bfloat16, 8, false, ApgdUnitRule<float>>": Budget(223, None, 0, 64),
    "step_kernel<__nv_bfloat16, 8, true, ApgdUnitRule<float>>": Budget(269, None, 0, 64),
    "keep_best_kernel<unsigned short, 8>": Budget(None, 15, 0, 16),
    "keep_best_kernel<unsigned int, 4>": Budget(None, 15, 0, 16),
    "keep_best_kernel<unsigned long, 2>": Budget(None, 15, 0, 16),
    "noise_kernel<float, 4, false>": Budget(247, None, 14, 16),
    "noise_kernel<float, 4, true>": Budget(312, None, 14, 16),
    "noise_kernel<__nv_bfloat16, 8, false>": Budget(388, None, 22, 16),
    "noise_kernel<__nv_bfloat16, 8, true>": Budget(536, None, 22, 16),
    "tile_lookup_kernel<float, 1>": Budget(None, 27, 8, 0),
    "tile_lookup_kernel<float, 3>": Budget(None, 30, 8, 0),
    "tile_lookup_kernel<__nv_bfloat16, 1>": Budget(None, 67, 8, 0),
    "tile_lookup_kernel<__nv_bfloat16, 3>": Budget(None, 75, 8, 0),
    "tile_lookup_kernel<__half, 1>": Budget(None, 67, 8, 0),
    "tile_lookup_kernel<__half, 3>": Budget(None, 75, 8, 0),
    "lookup_kernel<float, false>": Budget(None, 102, 8, 0),
    "lookup_kernel<float, true>": Budget(None, 120, 8, 0),
    "lookup_kernel<__nv_bfloat16, false>": Budget(None, 127, 8, 0),
    "lookup_kernel<__nv_bfloat16, true>": Budget(None, 161, 8, 0),
    # A round in which each thread has one pack, of the two or four that it may have under way.
    "partial_kernel<float, 4, false, GradientMax, Larger>": Budget(None, 18, 0, 64),
    "partial_kernel<float, 4, false, GradientSquares, Add>": Budget(None, 16, 0, 64),
    "partial_kernel<float, 4, false, DistanceSquares, Add>": Budget(None, 21, 0, 96),
    "partial_kernel<float, 4, true, GradientMax, Larger>": Budget(None, 22, 0, 64),
    "partial_kernel<float, 4, true, GradientSquares, Add>": Budget(None, 20, 0, 64),
    "partial_kernel<float, 4, true, DistanceSquares, Add>": Budget(None, 28, 0, 96),
    "partial_kernel<__nv_bfloat16, 8, false, GradientMax, Larger>": Budget(None, 41, 0, 64),
    "partial_kernel<__nv_bfloat16, 8, false, GradientSquares, Add>": Budget(None, 37, 0, 64),
    "partial_kernel<__nv_bfloat16, 8, false, DistanceSquares, Add>": Budget(None, 78, 0, 48),
    "partial_kernel<__nv_bfloat16, 8, true, GradientMax, Larger>": Budget(None, 46, 0, 64),
    "partial_kernel<__nv_bfloat16, 8, true, GradientSquares, Add>": Budget(None, 42, 0, 64),
    "partial_kernel<__nv_bfloat16, 8, true, DistanceSquares, Add>": Budget(None, 111, 0, 48),
    "partial_kernel<float, 4, false, MomentumDistanceSquares<float>, Add>": Budget(None, 7, 0, 128),
    "partial_kernel<float, 4, true, MomentumDistanceSquares<float>, Add>": Budget(None, 31, 0, 128),
    "partial_kernel<__nv_bfloat16, 8, false, MomentumDistanceSquares<float>, Add>": Budget(None, 13, 0, 64),
    "partial_kernel<__nv_bfloat16, 8, true, MomentumDistanceSquares<float>, Add>": Budget(None, 13, 0, 64),
    # A row of one round, of 128 classes in float32 and 256 in half precision.
    "target_grad_kernel<RegisterRow<float, float, true>>": Budget(285, None, 152, 128),
    "target_grad_kernel<RegisterRow<__nv_bfloat16, __nv_bfloat16, true>>": Budget(400, None, 152, 64),
    "target_grad_kernel<RegisterRow<__half, __half, true>>": Budget(403, None, 152, 64),
    "entropy_grad_kernel<RegisterRow<float, float, true>>": Budget(385, None, 285, 128),
    "entropy_grad_kernel<RegisterRow<__nv_bfloat16, __nv_bfloat16, true>>": Budget(530, None, 269, 64),
    "entropy_grad_kernel<RegisterRow<__half, __half, true>>": Budget(535, None, 269, 64),
    "mixed_kernel<RegisterRow<float, float, true>>": Budget(48, None, 151, 128),
    "mixed_kernel<RegisterRow<__nv_bfloat16, float, true>>": Budget(58, None, 151, 64),
    "mixed_kernel<RegisterRow<__half, float, true>>": Budget(59, None, 151, 64),
    # Rows of two logits, which are read element by element: there is no pack to count for.
    "kl_grad_kernel<PairOfRows<float, 32>>": Budget(None, None, 114, 0),
    "kl_grad_kernel<PairOfRows<float, 256>>": Budget(None, None, 114, 0),
    "kl_grad_kernel<PairOfRows<__nv_bfloat16, 256>>": Budget(None, None, 114, 0),
    "kl_grad_kernel<PairOfRows<__half, 256>>": Budget(None, None, 114, 0),
    "trades_kernel<PairOfRows<float, 32>>": Budget(None, None, 91, 0),
    "trades_kernel<PairOfRows<float, 256>>": Budget(None, None, 91, 0),
    "trades_kernel<PairOfRows<__nv_bfloat16, 256>>": Budget(None, None, 91, 0),
    "trades_kernel<PairOfRows<__half, 256>>": Budget(None, None, 91, 0),
    # Rows that are read element by element as well.
    "margin_grad_kernel<MemoryRow<float, float, 32>>": Budget(None, None, 5, 0),
    "margin_grad_kernel<MemoryRow<float, float, 256>>": Budget(None, None, 5, 0),
    "margin_grad_kernel<MemoryRow<__nv_bfloat16, __nv_bfloat16, 256>>": Budget(None, None, 5, 0),
    "margin_grad_kernel<MemoryRow<__half, __half, 256>>": Budget(None, None, 5, 0),
    "margin_loss_kernel<MemoryRow<float, float, 32>>": Budget(None, None, 8, 0),
    "margin_loss_kernel<MemoryRow<float, float, 256>>": Budget(None, None, 8, 0),
    "margin_loss_kernel<MemoryRow<__nv_bfloat16, __nv_bfloat16, 256>>": Budget(None, None, 8, 0),
    "margin_loss_kernel<MemoryRow<__half, __half, 256>>": Budget(None, None, 8, 0),
    "log_odds_kernel<MemoryRow<float, float, 32>>": Budget(None, None, 32, 0),
    "log_odds_kernel<MemoryRow<float, float, 256>>": Budget(None, None, 48, 0),
    "log_odds_kernel<MemoryRow<__nv_bfloat16, __nv_bfloat16, 256>>": Budget(None, None, 48, 0),
    "log_odds_kernel<MemoryRow<__half, __half, 256>>": Budget(None, None, 48, 0),
}  # fmt: skip


def test_every_kernel_has_a_budget_or_needs_none() -> None:
    stems = {name.partition("<")[0] for name in BUDGETS}
    check_complete("BUDGETS of tests/cuda/test_budgets.py", {*stems, *WITHOUT_BUDGET}, cuda_kernels())


def figures(kernel: Kernel) -> Budget:
    """What a kernel costs, rounded up to whole instructions."""
    code = kernel.code
    if code.main_block is None:
        return Budget(None, None, code.fused, 0)
    return Budget(math.ceil(code.path_per_pack), math.ceil(code.loop_per_pack), code.fused, code.bytes_in_flight)


def excess(name: str, found: Budget, budget: Budget) -> list[str]:
    """What exceeds its budget: the kernel, the figure and the budget."""
    said = {
        "path": "instructions a pack on the main path",
        "loop": "instructions a pack in the main loop",
        "fused": "fused multiply-adds",
    }
    messages = []
    for what, words in said.items():
        figure, most = getattr(found, what), getattr(budget, what)
        if most is not None and (figure is None or figure > most):
            messages.append(f"{ARCH} {name}: {figure} {words}, the budget is {most}")
    if found.in_flight < budget.in_flight:
        messages.append(f"{ARCH} {name}: {found.in_flight} bytes in flight, the least is {budget.in_flight}")
    return messages


@pytest.fixture(scope="module")
def compiled() -> dict[str, Kernel]:
    return {kernel.name: kernel for kernel in kernels() if kernel.arch == ARCH}


@pytest.mark.parametrize("name", [pytest.param(name, marks=compiled_here) for name in BUDGETS])
def test_a_kernel_keeps_its_budget(compiled: dict[str, Kernel], name: str) -> None:
    assert name in compiled, f"{name} was not compiled for {ARCH}: rename its row, or take it out"
    exceeded = excess(name, figures(compiled[name]), BUDGETS[name])
    assert not exceeded, "\n".join(exceeded)


def test_what_exceeds_a_budget_is_named() -> None:
    budget = Budget(path=100, loop=None, fused=0, in_flight=32)
    assert excess("kernel", budget, budget) == []
    assert excess("kernel", Budget(101, 500, 2, 16), budget) == [
        "sm_90 kernel: 101 instructions a pack on the main path, the budget is 100",
        "sm_90 kernel: 2 fused multiply-adds, the budget is 0",
        "sm_90 kernel: 16 bytes in flight, the least is 32",
    ]
    assert excess("kernel", Budget(None, None, 0, 0), budget) == [
        "sm_90 kernel: None instructions a pack on the main path, the budget is 100",
        "sm_90 kernel: 0 bytes in flight, the least is 32",
    ]


def slack(figure: int | None, wanted: int | None) -> int | None:
    """A budget for a figure, where there was one before."""
    return None if wanted is None or figure is None else math.ceil(1.03 * figure)


if __name__ == "__main__":
    built = {kernel.name: kernel for kernel in kernels() if kernel.arch == ARCH}
    for row, budget in BUDGETS.items():
        found = figures(built[row])
        made = found._replace(path=slack(found.path, budget.path), loop=slack(found.loop, budget.loop))
        print(f'    "{row}": Budget({", ".join(map(str, made))}),')
