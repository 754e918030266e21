"""A CUDA graph whose recording fails leaves the device as it was: its streams, its memory and its random numbers."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fastadv import attacks
from tests.attacks.models import ConvNet, batch
from tests.gpu.device import DEVICE, needs_streams

pytestmark = [pytest.mark.gpu, needs_streams]


class WaitsInCapture(nn.Module):
    """Waits for the device where PyTorch's operators do not show it, and only while it is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, K]
        if torch.cuda.is_current_stream_capturing():
            torch.cuda.current_stream().synchronize()
        return self.net(images)


def test_dropout_draws_after_a_recording_that_failed() -> None:
    """In training mode: the device's generator is not left in the recording."""
    model = WaitsInCapture().to(DEVICE)
    attack = attacks.create("iter_ll", model, eps=8, capture=True)
    images = batch(16)[0].to(DEVICE)
    attack(images)
    with pytest.warns(UserWarning, match="iter_ll runs without capture=True"):
        attack(images)
    net = model.net.train()
    torch.manual_seed(3)
    drawn = [net(images) for _ in range(2)]
    torch.manual_seed(3)
    assert torch.equal(drawn[0], net(images)) and not torch.equal(*drawn)
    dropped = nn.functional.dropout(torch.ones(10_000, device=DEVICE))
    assert 4_500 < (dropped == 0).sum() < 5_500


AFTER_IT = """
import torch, warnings
from fastadv import attacks
from tests.attacks.models import batch
from tests.gpu.test_failed_recordings import WaitsInCapture

images = batch(16)[0].cuda()
model = WaitsInCapture().cuda()
captured, eager = (attacks.create("iter_ll", model, eps=8, capture=capture) for capture in (True, False))
stream = torch.cuda.current_stream()
captured(images)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    result = captured(images)
assert any("runs without capture=True" in str(one.message) for one in caught), caught
assert torch.cuda.current_stream() == stream
assert torch.equal(result, eager(images)) and torch.equal(captured(images), eager(images))
torch.cuda.empty_cache()
warnings.simplefilter("error")
replays, replay = [], torch.cuda.CUDAGraph.replay
torch.cuda.CUDAGraph.replay = lambda graph: (replays.append(1), replay(graph))
other, plain = (attacks.create("iter_ll", model.net, eps=8, capture=capture) for capture in (True, False))
assert all(torch.equal(other(images), plain(images)) for _ in range(3)) and replays
print("fine")
"""


def test_a_recording_that_fails_leaves_everything_as_it_was() -> None:
    """In a process of its own: if it did not, the tests after it would be the ones to fail."""
    done = subprocess.run([sys.executable, "-c", AFTER_IT], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("fine\n"), done.stdout + done.stderr
