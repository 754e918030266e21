"""PyTorch settings that apply only during a run."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from fastadv.utils.gpu_settings import current_gpu_settings, gpu_settings

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def now() -> tuple[Any, ...]:
    backends = torch.backends
    return backends.cudnn.benchmark, backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


@pytest.mark.parametrize(
    ("device", "options", "held", "recorded"),
    [
        (GPU, {}, (False, True, "highest"), {}),
        (GPU, {"cudnn_benchmark": True}, (True, True, "highest"), {"cudnn_benchmark": "on"}),
        (GPU, {"tf32": True}, (False, True, "high"), {"tf32": "on"}),
        (GPU, {"cudnn_benchmark": True, "tf32": True}, (True, True, "high"), {"cudnn_benchmark": "on", "tf32": "on"}),
        (CPU, {"cudnn_benchmark": True, "tf32": True}, (False, True, "highest"), {}),
    ],
)
def test_settings_hold_within_the_block(
    device: torch.device, options: dict[str, bool], held: tuple[Any, ...], recorded: dict[str, str]
) -> None:
    before = now()
    assert before == (False, True, "highest")  # PyTorch's own
    with (
        pytest.raises(ZeroDivisionError),
        gpu_settings(device, **{"cudnn_benchmark": False, "tf32": False, **options}),
    ):
        assert now() == held
        assert current_gpu_settings(device) == recorded
        _ = 1 / 0
    assert now() == before
    assert current_gpu_settings(device) == {}


def test_what_the_caller_has_set_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    torch.set_float32_matmul_precision("medium")
    try:
        before = now()
        with gpu_settings(GPU, cudnn_benchmark=True, tf32=True):
            assert now() == (True, True, "medium")
        assert now() == before == (True, False, "medium")
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("device", "options", "said"),
    [
        (GPU, (True, False), ["cudnn_benchmark: on for this run on cuda:0"]),
        (GPU, (True, True), ["cudnn_benchmark and tf32: on for this run on cuda:0"]),
        (CPU, (False, True), ["tf32: for GPUs, without effect on cpu"]),
        (GPU, (False, False), []),
    ],
)
def test_it_is_said(
    device: torch.device, options: tuple[bool, bool], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fastadv")
    with gpu_settings(device, cudnn_benchmark=options[0], tf32=options[1]):
        pass
    assert caplog.messages == said


def test_one_process_says_it_for_all(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "fastadv")
    monkeypatch.setenv("RANK", "1")
    with gpu_settings(GPU, cudnn_benchmark=True, tf32=True):
        assert now() == (True, True, "high")
    assert caplog.messages == []
