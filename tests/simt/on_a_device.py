"""What a GPU does where the CPU refuses or has nothing to say: values that are not read ahead, launches that fail.

Run by test_simt.py.
"""

from __future__ import annotations

import pytest
import torch

from fastadv import ops

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
    assert ops.mixed_cross_entropy(torch.randn(2, classes), labels, 1).isnan()


CALLS = {
    "sign_step_": lambda adv, grad: ops.sign_step_(adv, adv, grad, 3.0, 8.0),
    "normalized_step_": lambda adv, grad: ops.normalized_step_(adv, adv, grad, 3.0, 8.0, "l2"),
    "noise_step_": lambda adv, grad: ops.noise_step_(adv, adv, 8.0, "sign", 1),
    "truncated_normal_": lambda adv, grad: ops.truncated_normal_(adv[0], seed=1),
    "from_pixels_": lambda adv, grad: ops.from_pixels_(adv, grad.to(torch.uint8)),
    "target_grad": lambda adv, grad: ops.target_grad(grad, "predicted"),
    "mixed_cross_entropy": lambda adv, grad: ops.mixed_cross_entropy(grad, torch.ones(2, dtype=torch.int64), 1),
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


@pytest.mark.parametrize("kernel", ["prepare_kernel", "kernel(term", "finish_kernel"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_step_along_a_norm_that_was_not_computed(monkeypatch: pytest.MonkeyPatch, norm: str, kernel: str) -> None:
    adv, clean = torch.full((2, 5), 104.0), torch.full((2, 5), 100.0)
    monkeypatch.setenv("FASTADV_SIMT_ERROR", "2")
    monkeypatch.setenv("FASTADV_SIMT_FAILS", kernel)
    with pytest.raises(torch.OutOfMemoryError):
        ops.normalized_step_(adv, clean, torch.ones(2, 5), 3.0, 8.0, norm)
    assert (adv == 104.0).all()
