"""Mistakes and failures on a GPU: a clear exception, and nothing half-written."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fastadv import PixelSpace, attacks, ops
from tests.attacks.models import ConvNet, batch
from tests.gpu.device import DEVICE, needs_streams, needs_two_gpus

pytestmark = pytest.mark.gpu


@needs_streams
def test_tensors_on_two_devices() -> None:
    adv, other = torch.full((2, 5), 100.0, device=DEVICE), torch.ones(2, 5)
    calls = [
        lambda: ops.sign_step_(adv, other, adv.clone(), 1.0, 8.0),
        lambda: ops.sign_step_(adv, adv, other, 1.0, 8.0),
        lambda: ops.sign_step_(adv, adv, adv.clone(), 1.0, torch.ones(2)),
        lambda: ops.apgd_step_(adv, other, adv.clone(), adv.clone(), 1.0, 8.0),
        lambda: ops.keep_best_(adv, None, adv.clone(), None, torch.tensor([True, False])),
        lambda: ops.noise_step_(adv, other, 8.0, "sign", 1),
        lambda: ops.noise_step_(adv, adv, 8.0, "sign", torch.tensor([1, 2])),
        lambda: ops.target_grad(adv, "label", torch.tensor([1, 2])),
        lambda: ops.target_grad(
            adv, "targeted_dlr", torch.zeros(2, dtype=torch.int64, device=DEVICE), targets=torch.tensor([1, 2])
        ),
        lambda: ops.row_losses(adv, torch.tensor([1, 2]), "ce"),
        lambda: ops.mixed_cross_entropy(adv, torch.tensor([1, 2]), 1),
        lambda: ops.scaled_kl_grad(adv, other),
        lambda: ops.trades_loss(adv, other, torch.tensor([1, 2], device=DEVICE)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"must be on cuda:\d, got cpu"):
            call()
    assert (adv == 100).all()


@needs_streams
def test_labels_on_another_device_than_the_images() -> None:
    images, labels = batch(4)
    attack = attacks.create("fgsm", ConvNet().to(DEVICE), eps=8, space=PixelSpace.unit())
    with pytest.raises(ValueError, match=r"fgsm: labels must be on cuda:\d, as the images are, got cpu"):
        attack(images.to(DEVICE), labels)


@needs_two_gpus
def test_tensors_on_two_gpus() -> None:
    adv, grad = torch.full((2, 5), 100.0, device="cuda:0"), torch.ones(2, 5, device="cuda:1")
    with pytest.raises(ValueError, match="grad must be on cuda:0, got cuda:1"):
        ops.sign_step_(adv, adv, grad, 1.0, 8.0)


@pytest.mark.parametrize("name", ["fgsm", "iter_basic"])
def test_labels_out_of_range_in_the_first_batch_of_an_attack(name: str) -> None:
    images, labels = (tensor.to(DEVICE) for tensor in batch(4))
    attack = attacks.create(name, ConvNet().to(DEVICE), eps=8, space=PixelSpace.unit())
    for wrong in (labels + 5, labels - 5):
        with pytest.raises(ValueError, match=rf"^{name}: labels must be in \[0, 5\), the model's 5 classes, got -?\d$"):
            attack(images, wrong)
    attack(images, labels)


@needs_streams
def test_labels_out_of_range_give_nan_in_their_rows() -> None:
    labels = torch.tensor([7, 1], device=DEVICE)
    logits = torch.randn(2, 5, device=DEVICE)
    grad = ops.target_grad(logits, "label", labels).dlogits
    assert grad[0].isnan().all() and grad[1].isfinite().all()
    assert ops.mixed_cross_entropy(logits, labels, 1).isnan()
    assert ops.trades_loss(logits, logits + 1, labels).isnan()
    for rule in ("ce", "log_odds", "margin", "dlr"):
        losses = ops.row_losses(logits, labels, rule)
        assert losses[0].isnan() and losses[1].isfinite()


@needs_streams
def test_out_of_memory() -> None:
    """For a result that does not fit beside its operand; the operand is as it was, and the next call works."""
    logits = torch.full((1, 2**27), 1.0, device=DEVICE)  # 512 MiB
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="no memory for a result or a workspace"):
            ops.target_grad(logits, "predicted")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (logits == 1.0).all()
    assert ops.target_grad(logits[:, :10].contiguous(), "predicted").dlogits.isfinite().all()


EARLIER = """
import torch
from fastadv import ops
adv = torch.full((2, 5), 100.0, device="cuda")
torch.zeros(1, device="cuda")[torch.tensor([5], device="cuda")]  # an assertion on the device, met by nobody yet
try:
    torch.cuda.synchronize()
except RuntimeError:
    pass
try:
    ops.truncated_normal_(adv[0], seed=1)
except RuntimeError as error:
    print(error)
"""


@needs_streams
def test_an_error_of_earlier_work() -> None:
    """In a process of its own, which CUDA does not let recover."""
    done = subprocess.run([sys.executable, "-c", EARLIER], capture_output=True, text=True, timeout=120)
    expected = "fastadv.truncated_normal_: not run, because work that was launched earlier on this GPU failed"
    assert expected in done.stdout, done.stderr
