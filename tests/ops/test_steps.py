"""sign_step_, normalized_step_, apgd_step_ and noise_step_: values by hand, then against the reference over a table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastadv import PixelSpace, ops, reference
from tests.ops.cases import DTYPES, SHAPES, SPACES, Operands, at_odd_offset, operands

NAN, INF = float("nan"), float("inf")


# --- by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("adv", "clean", "grad", "alpha", "eps", "expected"),
    [
        (100.0, 100.0, 0.3, 2.0, 8.0, 102.0),  # up
        (100.0, 100.0, -7.0, 2.0, 8.0, 98.0),  # down
        (100.0, 100.0, 0.3, -2.0, 8.0, 98.0),  # a negative alpha descends
        (100.0, 100.0, 0.0, 2.0, 8.0, 100.0),  # sign(0) = 0
        (100.0, 100.0, -0.0, 2.0, 8.0, 100.0),
        (100.0, 100.0, NAN, 2.0, 8.0, 100.0),  # sign(NaN) = 0
        (100.0, 100.0, INF, 2.0, 8.0, 102.0),
        (107.0, 100.0, 1.0, 2.0, 8.0, 108.0),  # the ball
        (120.0, 100.0, NAN, 2.0, 8.0, 108.0),  # outside the ball: projected even without a gradient
        (254.5, 254.0, 1.0, 2.0, 8.0, 255.0),  # the range
        (1.0, 2.0, -1.0, 4.0, 8.0, 0.0),
        (100.0, 100.0, 1.0, 0.0, 8.0, 100.0),  # alpha = 0 stands still
        (100.0, 100.0, 1.0, 5.0, 0.0, 100.0),  # eps = 0 is the identity
        (100.0, 100.0, 1.0, 5.0, INF, 105.0),  # no ball
    ],
)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_sign_step_by_hand(adv, clean, grad, alpha, eps, expected, space) -> None:
    def full(pixel: float) -> Tensor:
        return space.from_pixels(torch.full((1, 3, 2, 2), pixel), torch.float64)

    result = full(adv)
    ops.sign_step_(result, full(clean), torch.full((1, 3, 2, 2), grad, dtype=torch.float64), alpha, eps, space)
    torch.testing.assert_close(space.to_pixels(result), torch.full((1, 3, 2, 2), expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("l2", [103.0, 96.0, 100.0, 100.0]), ("linf", [103.75, 95.0, 100.0, 100.0])],
)
def test_normalized_step_by_hand(norm: str, expected: list[float]) -> None:
    adv = torch.full((1, 4), 100.0)
    ops.normalized_step_(adv, adv, torch.tensor([[3e-20, -4e-20, 0.0, NAN]]), 5.0, 8.0, norm)
    torch.testing.assert_close(adv, torch.tensor([expected]))


@pytest.mark.parametrize("magnitude", [1e-300, 1e-30, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_any_magnitude_is_normalised_exactly(magnitude: float, norm: str) -> None:
    adv = torch.full((1, 2), 100.0, dtype=torch.float64)
    ops.normalized_step_(adv, adv, magnitude * torch.tensor([[0.0, -1.0]], dtype=torch.float64), 5.0, 8.0, norm)
    torch.testing.assert_close(adv, torch.tensor([[100.0, 95.0]], dtype=torch.float64))


def test_l2_step_is_projected_onto_the_ball() -> None:
    clean = torch.full((1, 2), 100.0)
    adv = torch.tensor([[103.0, 104.0]])  # at distance 5; a step of 5 along (3, 4) reaches 10
    ops.normalized_step_(adv, clean, torch.tensor([[6.0, 8.0]]), 5.0, 8.0, "l2")
    torch.testing.assert_close(adv, torch.tensor([[104.8, 106.4]]))  # back on the sphere of 8


def test_noise_by_hand() -> None:
    clean = torch.full((1, 1000), 100.0)
    signs = ops.noise_step_(clean.clone(), clean, 8.0, "sign", seed=1)
    assert set(signs.unique().tolist()) == {92.0, 108.0}
    uniform = ops.noise_step_(clean.clone(), clean, 8.0, "uniform", seed=1)
    assert uniform.min() >= 92.0 and uniform.max() <= 108.0 and uniform.std() > 4.0


def test_a_pixel_that_is_no_number_does_not_free_the_others() -> None:
    clean = torch.tensor([[100.0, 100.0, NAN]])
    adv = torch.tensor([[103.0, 104.0, 0.0]])
    ops.normalized_step_(adv, clean, torch.tensor([[6.0, 8.0, 0.0]]), 5.0, 8.0, "l2")
    torch.testing.assert_close(adv[:, :2], torch.tensor([[104.8, 106.4]]))


@pytest.mark.parametrize("channels", [33, 64])
def test_noise_on_many_channels(channels: int) -> None:
    """More than have constants of their own: one constant for all needs no table."""
    clean = torch.full((2, channels, 3, 5), 100.0)
    plain = ops.noise_step_(clean.clone(), clean, 8.0, "uniform", seed=1)
    last = clean.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ops.noise_step_(last.clone(), last, 8.0, "uniform", seed=1), plain)
    assert len(plain.unique()) > 0.99 * plain.numel()


# --- against the reference -------------------------------------------------------------------------------------------


def apgd(
    module: object, o: Operands, clean: Tensor, alpha: object, eps: object, space: PixelSpace, norm: str
) -> Tensor:
    """A step with momentum, whose previous iterate lies between adv and clean; its own address is like adv's."""
    before = o.adv.clone()
    previous, clean = beside(o.adv, (o.adv + clean) / 2), beside(o.adv, clean) if clean is o.adv else clean
    module.apgd_step_(o.adv, previous, clean, o.grad, alpha, eps, space, norm=norm, momentum=0.7)
    assert torch.equal(previous, before)
    return o.adv


def beside(adv: Tensor, values: Tensor) -> Tensor:
    """A copy of values with adv's strides, as far behind an aligned address."""
    return at_odd_offset(torch.empty_like(adv).copy_(values), adv.storage_offset())


Step = Callable[..., Tensor]
STEPS: dict[str, Callable[[object, Operands, Tensor, object, object, PixelSpace], Tensor]] = {
    "sign": lambda m, o, clean, alpha, eps, space: m.sign_step_(o.adv, clean, o.grad, alpha, eps, space),
    "l2": lambda m, o, clean, alpha, eps, space: m.normalized_step_(o.adv, clean, o.grad, alpha, eps, "l2", space),
    "linf": lambda m, o, clean, alpha, eps, space: m.normalized_step_(o.adv, clean, o.grad, alpha, eps, "linf", space),
    "apgd_linf": lambda *arguments: apgd(*arguments, "linf"),
    "apgd_l2": lambda *arguments: apgd(*arguments, "l2"),
    "noise_sign": lambda m, o, clean, _, eps, space: m.noise_step_(o.adv, clean, eps, "sign", 5, 7, space),
    "noise_normal": lambda m, o, clean, _, eps, space: m.noise_step_(
        o.adv, clean, eps, "truncated_normal", 5, 7, space
    ),
    "noise_gaussian": lambda m, o, clean, _, eps, space: m.noise_step_(o.adv, clean, eps, "normal", 5, 7, space),
    "noise_uniform": lambda m, o, clean, _, eps, space: m.noise_step_(o.adv, clean, eps, "uniform", 5, 7, space),
}


def both(step: str, make: Callable[[], Operands], alpha, eps, space: PixelSpace, first: bool) -> tuple[Tensor, Tensor]:
    """(result of the operator, result of the reference) of one step on the same operands."""
    results = []
    for module in (ops, reference):
        o = make()
        clean = (o.adv if module is ops else o.adv.clone()) if first else o.clean
        results.append(STEPS[step](module, o, clean, alpha, eps, space))
    return results[0], results[1]


def assert_same(step: str, result: Tensor, expected: Tensor) -> None:
    if step in ("sign", "apgd_linf"):  # the same few operations in the same order: exactly equal
        assert torch.equal(result, expected)
        return
    # Norms are summed in another order, and noise is float32 by design: a rounding of the stored dtype at most.
    rounding = max(torch.finfo(result.dtype).eps, torch.finfo(torch.float32).eps)
    torch.testing.assert_close(result, expected, rtol=4 * rounding, atol=4e-5 if result.dtype.itemsize > 2 else 0.02)


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_shapes_dtypes_layouts(step: str, shape: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> None:
    if shape[-1] == 299 and step.startswith("noise") and dtype in (torch.float64, torch.bfloat16):
        shape = (shape[0], 3, 99, 101)  # the reference's Philox is slow; float32 and float16 cover the full size
    space = SPACES["imagenet"]
    result, expected = both(
        step, lambda: operands(shape, dtype, space, channels_last), 1.5, 8.0, space, first=step != "sign"
    )
    assert_same(step, result, expected)
    assert result.stride() == expected.stride()


@pytest.mark.parametrize("first", [False, True], ids=["iterative", "first"])
@pytest.mark.parametrize("per_example", [False, True], ids=["number", "per example"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("step", STEPS)
def test_spaces_amounts_clean(step, dtype, channels_last, space, per_example, first) -> None:
    shape = (5, 3, 9, 11)
    alpha = torch.tensor([0.0, 1.0, -2.0, 5.0, 16.0]) if per_example else -1.25
    eps = torch.tensor([16.0, 0.0, 0.5, 3.0, 40.0]) if per_example else 6.0
    result, expected = both(step, lambda: operands(shape, dtype, space, channels_last), alpha, eps, space, first=first)
    assert_same(step, result, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("step", STEPS)
def test_unaligned_storage(step: str, channels_last: bool, dtype: torch.dtype) -> None:
    make = lambda: operands((3, 3, 13, 11), dtype, channels_last=channels_last, unaligned=True)  # noqa: E731
    result, expected = both(step, make, 1.0, 8.0, PixelSpace.raw(), first=False)
    assert_same(step, result, expected)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "rearrange",
    [
        lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
        lambda t: torch.stack((t, t), dim=-1)[..., 0],
        lambda t: torch.cat((t, t), dim=2)[:, :, : t.shape[2]],
    ],
    ids=["transposed", "strided", "slice"],
)
def test_other_layouts_are_copied_once_and_written_back(step: str, rearrange) -> None:
    def make() -> Operands:
        o = operands((2, 3, 8, 6))
        return Operands(rearrange(o.adv), o.clean, rearrange(o.grad))

    result, expected = both(step, make, 1.0, 8.0, PixelSpace.raw(), first=False)
    assert_same(step, result, expected)
    assert not result.is_contiguous()


def test_operands_in_different_layouts() -> None:
    o = operands((2, 3, 8, 6))
    expected = ops.sign_step_(o.adv.clone(), o.clean, o.grad, 1.0, 8.0)
    last = o.adv.contiguous(memory_format=torch.channels_last)
    assert torch.equal(ops.sign_step_(last, o.clean, o.grad, 1.0, 8.0), expected)


@pytest.mark.parametrize("shape", [(4,), (4, 7), (2, 3, 5), (2, 3, 4, 4, 4)], ids=str)
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    adv, grad = 255 * torch.rand(shape, generator=generator), torch.randn(shape, generator=generator)
    expected = (adv + 2 * grad.sign()).clamp(0, 255)
    torch.testing.assert_close(ops.sign_step_(adv, adv, grad, 2.0, 8.0), expected)


@pytest.mark.parametrize("step", STEPS)
def test_layout_and_threads_do_not_show(step: str) -> None:
    """The same bits from one thread and two, from NCHW and NHWC memory, and from any split of the batch."""
    space = SPACES["imagenet"]

    def run(rows: slice, threads: int, channels_last: bool) -> Tensor:
        torch.set_num_threads(threads)
        o = operands((6, 3, 150, 131), torch.float32, space, channels_last)
        part = Operands(o.adv[rows], o.clean[rows], o.grad[rows])
        eps = torch.arange(6.0)[rows] + 2
        if step.startswith("noise"):
            kinds = {"noise_normal": "truncated_normal", "noise_gaussian": "normal"}
            kind = kinds.get(step, step.removeprefix("noise_"))
            return ops.noise_step_(part.adv, part.clean, eps, kind, 5, 7 + (rows.start or 0), space)
        return STEPS[step](ops, part, part.clean, 1.0, eps, space)

    threads = torch.get_num_threads()
    try:
        whole = run(slice(0, 6), 1, False)
        assert torch.equal(whole, run(slice(0, 6), 2, False))
        split = torch.cat([run(slice(0, 1), 2, False), run(slice(1, 4), 2, False), run(slice(4, 6), 1, False)])
        assert torch.equal(whole, split)
        if step in ("l2", "apgd_l2"):  # an L2 norm is summed in memory order
            torch.testing.assert_close(whole, run(slice(0, 6), 2, True))
        else:
            assert torch.equal(whole, run(slice(0, 6), 2, True))
    finally:
        torch.set_num_threads(threads)
