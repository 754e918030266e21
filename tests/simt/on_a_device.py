"""Behaviour that differs from the CPU's: invalid values that cannot be checked before a launch, launches, failures.

Run by test_simt.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import PixelSpace, TruncatedNormalEps, attacks, ops
from fastadv.train import AdversarialTask, TradesTask
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, batch
from tests.completeness import check_complete, operators

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("bad", [-1.0, NAN])
def test_an_eps_that_is_no_size_counts_as_zero(bad: float) -> None:
    adv, grad = torch.full((2, 5), 100.0), torch.ones(2, 5)
    ops.sign_step_(adv, adv, grad, 3.0, torch.tensor([bad, 8.0]))
    assert adv.tolist() == [[100.0] * 5, [103.0] * 5]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_an_alpha_that_is_not_finite_counts_as_zero(bad: float) -> None:
    adv, grad = torch.full((2, 5), 100.0), torch.ones(2, 5)
    ops.sign_step_(adv, adv, grad, torch.tensor([bad, 3.0]), 8.0)
    assert adv.tolist() == [[100.0] * 5, [103.0] * 5]


@pytest.mark.parametrize("classes", [5, 1025])
@pytest.mark.parametrize("label", [-1, 2**40, "classes"])
def test_a_label_out_of_range_gives_nan_in_its_row_alone(classes: int, label: int | str) -> None:
    labels = torch.tensor([classes if label == "classes" else label, 1])
    grad = ops.target_grad(torch.randn(2, classes), "label", labels).dlogits  # [2, K]
    assert grad[0].isnan().all() and grad[1].isfinite().all()
    _, scaled, exponent = ops.scaled_target_grad(torch.randn(2, classes), "label", labels)
    assert scaled[0].isnan().all() and scaled[1].isfinite().all() and exponent[0] == 0
    assert ops.mixed_cross_entropy(torch.randn(2, classes), labels, 1).isnan()
    assert ops.trades_loss(torch.randn(2, classes), torch.randn(2, classes), labels).isnan()
    for good_and_bad in (
        {"labels": labels, "targets": torch.tensor([0, 0])},
        {"labels": labels[[1, 1]], "targets": labels},
    ):
        grad = ops.target_grad(torch.randn(2, classes), "targeted_dlr", **good_and_bad).dlogits
        assert grad[0].isnan().all() and grad[1].isfinite().all()
        losses = ops.row_losses(torch.randn(2, classes), rule="targeted_dlr", **good_and_bad)
        assert losses[0].isnan() and losses[1].isfinite()
    for rule in ("ce", "log_odds", "margin", "dlr"):
        losses = ops.row_losses(torch.randn(2, classes), labels, rule)
        assert losses[0].isnan() and losses[1].isfinite()


CALLS = {
    "sign_step_": lambda adv, grad: ops.sign_step_(adv, adv, grad, 3.0, 8.0),
    "normalized_step_": lambda adv, grad: ops.normalized_step_(adv, adv, grad, 3.0, 8.0, "l2"),
    "apgd_step_": lambda adv, grad: ops.apgd_step_(adv, adv.clone(), adv.clone(), grad, 3.0, 8.0, norm="l2"),
    "keep_best_": lambda adv, grad: ops.keep_best_(adv, None, grad, None, torch.tensor([True, True])),
    "noise_step_": lambda adv, grad: ops.noise_step_(adv, adv, 8.0, "sign", 1),
    "truncated_normal_": lambda adv, grad: ops.truncated_normal_(adv[0], seed=1),
    "from_pixels_": lambda adv, grad: ops.from_pixels_(adv, grad.to(torch.uint8)),
    "target_grad": lambda adv, grad: ops.target_grad(grad, "predicted"),
    "scaled_target_grad": lambda adv, grad: ops.scaled_target_grad(grad, "predicted"),
    "row_losses": lambda adv, grad: ops.row_losses(grad, torch.ones(2, dtype=torch.int64), "ce"),
    "mixed_cross_entropy": lambda adv, grad: ops.mixed_cross_entropy(grad, torch.ones(2, dtype=torch.int64), 1),
    "scaled_kl_grad": lambda adv, grad: ops.scaled_kl_grad(grad, adv),
    "trades_loss": lambda adv, grad: ops.trades_loss(grad, adv, torch.ones(2, dtype=torch.int64)),
}


@pytest.mark.parametrize(
    ("error", "exception", "message"),
    [
        (
            *(209, RuntimeError),
            r"no kernel was compiled for this GPU \(SIMT host, compute capability 1.0\).*FASTADV_CUDA_ARCHS=10 ",
        ),
        (700, RuntimeError, "not run, because work that was launched earlier.*cudaErrorIllegalAddress"),
        (710, RuntimeError, "not run, because work that was launched earlier.*cudaErrorAssert"),
        (2, torch.OutOfMemoryError, "no memory left to launch the kernel.*nothing was written"),
        (1, RuntimeError, "cudaErrorInvalidValue"),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_a_launch_that_fails_is_an_error_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, error: int, exception: type[Exception], message: str
) -> None:
    adv, grad = torch.full((2, 5), 100.0), torch.ones(2, 5)
    monkeypatch.setenv("FASTADV_SIMT_ERROR", str(error))
    with pytest.raises(exception, match=f"^fastadv.{name}: .*{message}"):
        CALLS[name](adv, grad)
    assert (adv == 100.0).all()
    monkeypatch.delenv("FASTADV_SIMT_ERROR")
    ops.sign_step_(adv, adv, grad, 3.0, 8.0)  # the error does not outlive its launch
    assert (adv == 103.0).all()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (700, "not run, because work that was launched earlier.*cudaErrorIllegalAddress"),
        (35, r"fastadv was built with CUDA 13\.0, and the NVIDIA driver here supports no more than 12\.8\. Update"),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_a_device_that_cannot_be_used_is_met_before_anything_is_launched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, error: int, message: str
) -> None:
    adv, grad, log = torch.full((2, 5), 100.0), torch.ones(2, 5), tmp_path / "launches"
    monkeypatch.setenv("FASTADV_SIMT_DEVICE_ERROR", str(error))
    monkeypatch.setenv("FASTADV_SIMT_LOG", str(log))
    with pytest.raises(RuntimeError, match=f"^fastadv.{name}: .*{message}"):
        CALLS[name](adv, grad)
    assert (adv == 100.0).all() and not log.exists()


@pytest.mark.parametrize("kernel", ["prepare_kernel", "kernel(term", "finish_kernel"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_step_along_a_norm_that_was_not_computed(monkeypatch: pytest.MonkeyPatch, norm: str, kernel: str) -> None:
    adv, clean = torch.full((2, 5), 104.0), torch.full((2, 5), 100.0)
    monkeypatch.setenv("FASTADV_SIMT_ERROR", "2")
    monkeypatch.setenv("FASTADV_SIMT_FAILS", kernel)
    with pytest.raises(torch.OutOfMemoryError):
        ops.normalized_step_(adv, clean, torch.ones(2, 5), 3.0, 8.0, norm)
    assert (adv == 104.0).all()


@pytest.mark.parametrize("kernel", ["prepare_kernel", "kernel(term", "finish_kernel"])
def test_no_step_with_momentum_along_a_norm_that_was_not_computed(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    adv, previous, clean = (torch.full((2, 5), value) for value in (104.0, 103.0, 100.0))
    monkeypatch.setenv("FASTADV_SIMT_ERROR", "2")
    monkeypatch.setenv("FASTADV_SIMT_FAILS", kernel)
    with pytest.raises(torch.OutOfMemoryError):
        ops.apgd_step_(adv, previous, clean, torch.ones(2, 5), 3.0, 8.0, norm="l2")
    assert (adv == 104.0).all() and (previous == 103.0).all()


# --- how many launches -----------------------------------------------------------------------------------------------

STEP, NOISE, DRAW = (
    "step_kernel.cuh: kernel",
    "noise_step.cu: kernel",
    "truncated_normal.cu: truncated_normal_kernel<T>",
)
ROWS, ENTROPY = "target_grad.cu: target_grad_kernel<Row>", "target_grad.cu: entropy_grad_kernel<Row>"
LOSS, TOTAL = "mixed_cross_entropy.cu: mixed_kernel<Row>", "mixed_cross_entropy.cu: total_kernel<F>"
MARGIN = "margin_grad.cu: margin_grad_kernel<Row>"
KL = "kl_grad.cu: kl_grad_kernel<Row>"
TRADES = ["trades_loss.cu: trades_kernel<Row>", "trades_loss.cu: total_kernel<F>"]
PREPARE = "normalized_step.cu: prepare_kernel<F>"
REDUCE = ["example_norms.cuh: kernel(term, join)", "example_norms.cuh: (finish_kernel<compute_t<T>, Join>)"]
ADV, CLEAN, GRAD, WIDE = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.float64
UNIT = PixelSpace.unit()

# One launch per operator, with two exceptions. The loss has a second one, which adds up the rows. Before a step along a
# norm come one that prepares, two for the norm (for float64 two more, for its range), and two for each distance in the
# L2 ball, of which a step with momentum has two.
OPERATORS: dict[str, tuple[Callable[[], object], list[str]]] = {
    "sign_step_, one step": (lambda: ops.sign_step_(ADV, ADV, GRAD, 1.0, 8.0, UNIT), [STEP]),
    "sign_step_, eps for each": (lambda: ops.sign_step_(ADV, CLEAN, GRAD, 1.0, torch.ones(2), UNIT), [STEP]),
    "normalized_step_, l2, one step": (
        lambda: ops.normalized_step_(ADV, ADV, GRAD, 1.0, 8.0, "l2", UNIT), [PREPARE, *REDUCE, STEP]
    ),
    "normalized_step_, l2": (
        lambda: ops.normalized_step_(ADV, CLEAN, GRAD, 1.0, 8.0, "l2", UNIT), [PREPARE, *REDUCE, *REDUCE, STEP]
    ),
    "normalized_step_, l2, float64": (
        lambda: ops.normalized_step_(ADV.to(WIDE), CLEAN.to(WIDE), GRAD.to(WIDE), 1.0, 8.0, "l2", UNIT),
        [PREPARE, *REDUCE, *REDUCE, *REDUCE, STEP],
    ),
    "normalized_step_, linf": (
        lambda: ops.normalized_step_(ADV, CLEAN, GRAD, 1.0, 8.0, "linf", UNIT), [PREPARE, *REDUCE, STEP]
    ),
    "apgd_step_, linf": (lambda: ops.apgd_step_(ADV, ADV.clone(), CLEAN, GRAD, 1.0, 8.0, UNIT), [STEP]),
    "apgd_step_, l2": (
        lambda: ops.apgd_step_(ADV, ADV.clone(), CLEAN, GRAD, 1.0, torch.ones(2), UNIT, norm="l2"),
        [PREPARE, *REDUCE, *REDUCE, *REDUCE, STEP],
    ),
    "keep_best_": (
        lambda: ops.keep_best_(ADV, CLEAN, GRAD, GRAD.clone(), torch.tensor([True, False])), ["keep_best.cu: kernel"]
    ),
    "noise_step_": (lambda: ops.noise_step_(ADV, CLEAN, 8.0, "truncated_normal", 1, 0, UNIT), [NOISE]),
    "from_pixels": (lambda: ops.from_pixels(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)), ["from_pixels.cu: kernel"]),
    "truncated_normal_": (lambda: ops.truncated_normal_(torch.empty(2), seed=1), [DRAW]),
    "sample_eps": (lambda: ops.sample_eps(2, seed=1), [DRAW]),
    "target_grad": (lambda: ops.target_grad(torch.randn(2, 5), "least_likely"), [ROWS]),
    "scaled_target_grad": (lambda: ops.scaled_target_grad(torch.randn(2, 5), "entropy"), [ENTROPY]),
    "target_grad, many classes": (lambda: ops.target_grad(torch.randn(2, 1025), "random", seed=1), [ROWS]),
    "target_grad, dlr": (lambda: ops.target_grad(torch.randn(2, 5), "dlr", torch.ones(2, dtype=torch.int64)), [MARGIN]),
    "scaled_target_grad, margin": (
        lambda: ops.scaled_target_grad(torch.randn(2, 1025), "margin", torch.ones(2, dtype=torch.int64)), [MARGIN]
    ),
    "row_losses, ce": (
        lambda: ops.row_losses(torch.randn(2, 5), torch.ones(2, dtype=torch.int64), "ce"),
        ["row_losses.cu: log_odds_kernel<Row>"],
    ),
    "row_losses, dlr": (
        lambda: ops.row_losses(torch.randn(2, 1025), torch.ones(2, dtype=torch.int64), "dlr"),
        ["row_losses.cu: margin_loss_kernel<Row>"],
    ),
    "mixed_cross_entropy": (
        lambda: ops.mixed_cross_entropy(torch.randn(2, 5), torch.ones(2, dtype=torch.int64), 1), [LOSS, TOTAL]
    ),
    "scaled_kl_grad": (lambda: ops.scaled_kl_grad(torch.randn(2, 5), torch.randn(2, 5)), [KL]),
    "scaled_kl_grad, many classes": (lambda: ops.scaled_kl_grad(torch.randn(2, 1025), torch.randn(2, 1025)), [KL]),
    "trades_loss": (
        lambda: ops.trades_loss(torch.randn(2, 5), torch.randn(2, 5), torch.ones(2, dtype=torch.int64)), TRADES
    ),
}  # fmt: skip


def test_the_tables_have_every_operator() -> None:
    """sample_eps and from_pixels allocate their result, and launch as the operators that fill it."""
    check_complete("CALLS of tests/simt/on_a_device.py", CALLS, operators() - {"sample_eps"})
    stems = {name.partition(",")[0] for name in OPERATORS}
    check_complete("OPERATORS of tests/simt/on_a_device.py", stems, operators() - {"from_pixels_"} | {"from_pixels"})


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], list[str]]:
    """Kernels that a call launches, in order."""
    log = tmp_path / "launches"

    def launches(call: Callable[[], object]) -> list[str]:
        log.write_text("")
        with monkeypatch.context() as logging:
            logging.setenv("FASTADV_SIMT_LOG", str(log))
            call()
        return log.read_text().splitlines()

    return launches


@pytest.mark.parametrize(("call", "expected"), OPERATORS.values(), ids=OPERATORS)
def test_launches_of_an_operator(
    launched: Callable[[Callable[[], object]], list[str]], call: Callable[[], object], expected: list[str]
) -> None:
    assert launched(call) == expected


# For one call at eps = 4: a choice of target and a step for each gradient. test_counts.py counts everything else.
ATTACKS: dict[str, dict[str, int]] = {
    name: launches
    for names, launches in (
        ("fgsm fgsm_pred step_ll step_rnd", {ROWS: 1, STEP: 1}),
        ("fast_entropy", {ENTROPY: 1, STEP: 1}),
        ("fast_grad_l2 fast_grad_linf", {ROWS: 1, PREPARE: 1, **dict.fromkeys(REDUCE, 1), STEP: 1}),
        ("iter_basic iter_ll", {ROWS: 5, STEP: 5}),
        ("n_fgsm", {NOISE: 1, ROWS: 1, STEP: 1}),
        ("mi_fgsm", {ROWS: 10, STEP: 10}),
        ("pgd", {NOISE: 1, ROWS: 10, STEP: 10}),
        ("random_sign random_normal", {NOISE: 1}),
    )
    for name in names.split()
}


def test_the_table_has_every_attack() -> None:
    check_complete("ATTACKS of tests/simt/on_a_device.py", ATTACKS, GRADIENTS)


# What options add. Folding launches only PyTorch's kernels. The larger of the two drawn sizes is 4.6: five iterations,
# as for 4; their number takes a second draw on the host, which is the device here.
FIVE = TruncatedNormalEps(sigma=8, upper=6)
WAYS: dict[str, tuple[dict[str, Any], Callable[[str], int]]] = {
    "as it is": ({}, lambda name: 0),
    "fast": ({"fast": True}, lambda name: 0),
    "drawn eps": ({"eps": FIVE}, lambda name: 2 if name in ("iter_basic", "iter_ll") else 1),
}


@pytest.mark.parametrize(("options", "draws"), WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("name", ATTACKS)
def test_launches_of_an_attack(
    launched: Callable[[Callable[[], object]], list[str]],
    name: str,
    options: dict[str, Any],
    draws: Callable[[str], int],
) -> None:
    attack = attacks.create(name, ConvNet().eval(), **{"eps": 4, **options}, space=UNIT, seed=1)
    images, labels = batch(2)
    assert +Counter(launched(lambda: attack(images, labels))) == +Counter({**ATTACKS[name], DRAW: draws(name)})


def test_launches_of_a_training_step(launched: Callable[[Callable[[], object]], list[str]]) -> None:
    """The drawn eps, the choice of target, the step, and the loss, which computes its derivative as well."""
    task = AdversarialTask(ConvNet(), attack="step_ll", k=2, eps=TruncatedNormalEps(), space=UNIT, seed=1)
    images, labels = batch(4)
    assert launched(lambda: task(images, labels).backward()) == [DRAW, ROWS, STEP, LOSS, TOTAL]


def test_launches_of_a_training_step_of_trades(launched: Callable[[Callable[[], object]], list[str]]) -> None:
    """The noise, a derivative and a step for each of three gradients; the loss and its derivatives."""
    task = TradesTask(ConvNet(), eps=4, steps=3, space=UNIT, seed=1)
    images, labels = batch(4)
    assert launched(lambda: task(images, labels).backward()) == [NOISE, *[KL, STEP] * 3, *TRADES]
