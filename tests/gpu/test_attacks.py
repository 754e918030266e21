"""Every attack on the GPU: against the CPU, captured against eager, without a wait, under autocast."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, TruncatedNormalEps, attacks
from fastadv.train import AdversarialTask
from tests.attacks.gradients import GRADIENTS, SEARCHES
from tests.attacks.models import ConvNet, batch
from tests.gpu.agreement import assert_agree
from tests.gpu.device import DEVICE, REHEARSAL, needs_streams, needs_two_gpus

pytestmark = pytest.mark.gpu

GRADIENT_ATTACKS = [name for name in GRADIENTS if issubclass(attacks.get(name), attacks.GradientAttack)]
EPS = {"number": 8, "per example": torch.arange(1.0, 17), "distribution": TruncatedNormalEps(sigma=4, upper=8)}
UNIT = PixelSpace.unit()


def run(name: str, device: torch.device | str, dtype: torch.dtype, eps: Any, **options: Any) -> Tensor:
    images, labels = batch(16, UNIT, dtype)
    model = ConvNet().to(device, dtype)
    attack = attacks.create(name, model, eps=eps, space=UNIT, seed=7, **options)
    return attack(images.to(device), labels.to(device)).cpu()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("eps", EPS.values(), ids=EPS)
@pytest.mark.parametrize("name", attacks.names())
def test_the_same_on_cpu_and_gpu(name: str, eps: Any, dtype: torch.dtype) -> None:
    """Iterative attacks take ten steps for an eps of 8, and up to twenty where it is per example."""
    assert_agree(run(name, DEVICE, dtype, eps), run(name, "cpu", dtype, eps))


@pytest.mark.parametrize("fast", [False, True], ids=["as it is", "fast"])
@pytest.mark.parametrize("name", attacks.names())
def test_half_precision(name: str, fast: bool) -> None:
    adv = run(name, DEVICE, torch.bfloat16, 8, fast=fast)
    clean, _ = batch(16, UNIT, torch.bfloat16)
    assert adv.dtype == torch.bfloat16 and adv.min() >= 0 and adv.max() <= 1
    if attacks.get(name).ball == "linf":
        assert (adv.float() - clean.float()).abs().max() <= 8 / 255 + 0.5 / 256  # half a step of bfloat16 below 1
    assert name in SEARCHES or not torch.equal(adv, clean)


def of_gradients_alone(name: str, option: str) -> dict[str, bool]:
    """An option as the attack takes it: noise has no iteration to capture, and takes fast for all that."""
    return {} if option == "eager" or (option == "capture" and name not in GRADIENT_ATTACKS) else {option: True}


# An attack that runs without its graph fails instead of warning.
captures = pytest.mark.filterwarnings("error:.*runs without capture=True")


@captures
@needs_streams
@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("eps", EPS.values(), ids=EPS)
@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_captured_is_eager(replays: list[int], name: str, eps: Any, bn: str) -> None:
    """New images, labels and random numbers in each call, and the model trained between them."""
    model = ConvNet().to(DEVICE)
    eps = eps.to(DEVICE) if isinstance(eps, Tensor) else eps
    captured, eager = (
        attacks.create(name, model, eps=eps, space=UNIT, seed=7, bn=bn, capture=capture) for capture in (True, False)
    )
    with torch.no_grad():
        for seed in range(4):
            images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT, seed=seed))
            assert torch.equal(captured(images, labels), eager(images, labels))
            assert bool(replays) == (seed > 0)
            for parameter in model.parameters():
                parameter.mul_(1.01)


@captures
@needs_streams
@pytest.mark.parametrize("option", ["eager", "capture", "fast"])
@pytest.mark.parametrize("name", GRADIENTS)
def test_a_call_waits_for_nothing(replays: list[int], name: str, option: str) -> None:
    """With PyTorch's own check of synchronisation set to raise, from the third call on."""
    options = of_gradients_alone(name, option)
    attack = attacks.create(name, ConvNet().to(DEVICE), eps=TruncatedNormalEps(), space=UNIT, seed=7, **options)
    images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT))
    for _ in range(2):
        attack(images, labels)
    torch.cuda.synchronize()
    replays.clear()
    torch.cuda.set_sync_debug_mode("error")
    try:
        attack(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(replays) == (option != "eager" and name in GRADIENT_ATTACKS)


@captures
@needs_streams
@pytest.mark.parametrize("fold_bn", [False, True], ids=["as it is", "folded"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["step_ll", "iter_ll", "pgd"])
def test_captured_under_autocast(replays: list[int], name: str, dtype: torch.dtype, fold_bn: bool) -> None:
    model = ConvNet().to(DEVICE)
    captured, eager = (
        attacks.create(name, model, eps=8, seed=7, fold_bn=fold_bn, capture=capture) for capture in (True, False)
    )
    for seed in range(4):
        images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT, seed=seed))
        with torch.autocast("cuda", dtype):
            assert torch.equal(captured(images, labels), eager(images, labels))
        with torch.no_grad():
            model.head.weight.mul_(1.1)
    assert replays


@captures
@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("name", attacks.names())
def test_fast(replays: list[int], name: str, bn: str) -> None:
    """Captured, and with bn="eval" folded too: the same images up to rounding, and the model trained between them."""
    model = ConvNet().to(DEVICE, torch.float64)
    fast, plain = (attacks.create(name, model, eps=4, seed=3, bn=bn, fast=fast) for fast in (True, False))
    for seed in range(4):
        images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT, torch.float64, seed=seed))
        assert_agree(fast(images, labels), plain(images, labels))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
    assert bool(replays) == (name in GRADIENT_ATTACKS and not REHEARSAL)


@captures
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["step_ll", "iter_ll", "pgd"])
def test_fast_under_autocast(replays: list[int], name: str, dtype: torch.dtype) -> None:
    """The range and the ball hold, and graphs are replayed; what is folded is rounded in another place."""
    attack = attacks.create(name, ConvNet().to(DEVICE), eps=8, seed=7, fast=True)
    for seed in range(4):
        images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT, seed=seed))
        with torch.autocast(DEVICE.type, dtype):
            adv = attack(images, labels)
        assert adv.min() >= 0 and adv.max() <= 1
        assert (adv - images).abs().max() <= 8 / 255 + 1e-6 and not torch.equal(adv, images)
    assert bool(replays) is not REHEARSAL


class Slow(nn.Module):
    """Tens of milliseconds a forward: long enough for the next call to be issued meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, K]
        torch.cuda._sleep(20_000_000)  # clock cycles
        return self.net(images)


@captures
@needs_streams
def test_captured_calls_on_two_streams_do_not_meet(replays: list[int]) -> None:
    """They share their buffers: the second may load its images only when the first is done with them."""
    model = Slow().to(DEVICE)
    captured, eager = (attacks.create("iter_ll", model, eps=8, capture=capture) for capture in (True, False))
    first, second = (batch(16, UNIT, seed=seed)[0].to(DEVICE) for seed in range(2))
    expected = eager(first), eager(second)
    captured(first), captured(first)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        on_side = captured(first)
    on_main = captured(second)  # issued while the side stream is in its first forward
    torch.cuda.synchronize()
    assert replays and torch.equal(on_side, expected[0]) and torch.equal(on_main, expected[1])


class Waits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = ConvNet()

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, K]
        return self.net(images) * (1.0 if images.detach().sum().item() > -1 else 2.0)


@needs_streams
def test_a_model_that_waits_runs_without() -> None:
    model = Waits().to(DEVICE)
    captured, eager = (attacks.create("iter_ll", model, eps=8, capture=capture) for capture in (True, False))
    images = batch(16, UNIT)[0].to(DEVICE)
    captured(images)
    with pytest.warns(UserWarning, match="iter_ll runs without capture=True: the model waits for the device"):
        result = captured(images)
    assert torch.equal(result, eager(images)) and torch.equal(captured(images), eager(images))


@needs_two_gpus
@pytest.mark.parametrize("option", ["eager", "capture", "fast"])
@pytest.mark.parametrize("name", attacks.names())
def test_runs_on_the_device_of_its_images(name: str, option: str) -> None:
    """On cuda:1 while cuda:0 is current, as where cuda:1 is; the last calls are replays."""
    model = ConvNet().to("cuda:1")
    plain = {"fast": True} if option == "fast" else {}  # what is folded is rounded in another place
    attack, expected = (
        attacks.create(name, model, eps=TruncatedNormalEps(), space=UNIT, seed=7, **each)
        for each in (of_gradients_alone(name, option), plain)
    )
    for seed in range(4):
        images, labels = (tensor.to("cuda:1") for tensor in batch(16, UNIT, seed=seed))
        adv = attack(images, labels)
        with torch.cuda.device(1):
            assert torch.equal(adv, expected(images, labels))
        assert adv.device == images.device and torch.cuda.current_device() == 0


@pytest.mark.parametrize("option", ["capture", "fast"])
def test_training_decreases_the_loss(option: str) -> None:
    torch.manual_seed(0)
    model = ConvNet().to(DEVICE)
    images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT))
    options = {} if REHEARSAL and option == "capture" else {option: True}
    task = AdversarialTask(
        model, attack="step_ll", k=8, eps=TruncatedNormalEps(), space=UNIT, seed=1, attack_options=options
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = task(images.clone(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("eps", EPS.values(), ids=EPS)
def test_an_own_step_is_checked_in_the_first_batch(eps: Any, factor: int) -> None:
    class Own(attacks.FGSM):
        name = "own"

        def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
            super().step_(adv, clean, grad, factor * alpha, factor * eps)

    images, labels = (tensor.to(DEVICE) for tensor in batch(16, UNIT))
    attack = Own(ConvNet().to(DEVICE), eps=eps, space=UNIT, seed=7)
    if factor == 1:
        attack(images, labels)
    else:
        with pytest.raises(ValueError, match=r"^own: the images that Own.step_ made leave the eps ball: image \d+ of"):
            attack(images, labels)
