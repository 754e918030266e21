"""Networks so confident that the cost's derivative underflows in their dtype: they must not look robust."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.inception import InceptionOutputs

from fastadv import attacks, ops
from fastadv.attacks.engine import cuda_graph_recorder
from fastadv.attacks.engine.gradient_scale import to_common_scale
from fastadv.ops import ScaledTargetGrad
from fastadv.utils.module_modes import isolated
from tests.attacks.models import ConvNet, batch
from tests.attacks.tape import TapeRecorder

NAMES = [name for name in attacks.names() if issubclass(attacks.get(name), attacks.GradientAttack)]


class Confident(nn.Module):
    """ConvNet whose predictions lead by at least this margin."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.network = ConvNet()
        first, second = self.network.double().eval()(batch(6)[0].double()).topk(2).values.T  # [N] each
        self.scale = margin / (first - second).min().item()

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, K]
        return self.scale * self.network(images)


def share_in_common(name: str, model: nn.Module, autocast: bool, **options: Any) -> float:
    """Return the share of pixels that move as with the same network in float64, where nothing underflows."""
    images, _ = batch(6)
    labels = model.double()(images.double()).argmax(1)
    plain = attacks.create(name, model, eps=4, seed=3)
    expected = [plain(images.double(), labels) - images.double() for _ in range(3)][-1]
    model = model.float() if autocast else model.half()
    images = images if autocast else images.half()
    attack = attacks.create(name, model, eps=4, seed=3, **options)
    for _ in range(3):  # what is captured is replayed in the third
        with torch.autocast("cpu", torch.float16, enabled=autocast):
            moved = attack(images, labels) - images
    return ((moved.double() - expected).abs() < 0.2 / 255).double().mean().item()


@pytest.mark.parametrize(
    ("name", "autocast", "options"),
    [
        *((name, True, {}) for name in NAMES),
        *((name, False, {}) for name in ("fgsm", "fast_entropy", "fast_grad_l2", "iter_ll")),
        *((name, True, {"fold_bn": True}) for name in ("fgsm", "iter_basic")),
        *((name, True, {"capture": True}) for name in ("fgsm", "iter_basic")),
        ("iter_basic", False, {"compile": True}),
    ],
    ids=str,
)
def test_float16_follows_what_float64_does(
    monkeypatch: pytest.MonkeyPatch, name: str, autocast: bool, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(cuda_graph_recorder, "create_recorder", TapeRecorder)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    assert share_in_common(name, Confident(20.0).eval(), autocast, **options) > 0.95


@pytest.mark.parametrize(("dtype", "margin"), [(torch.float32, 150.0), (torch.float64, 1000.0)], ids=str)
@pytest.mark.parametrize("name", ["fgsm", "fast_entropy", "fast_grad_linf", "iter_ll"])
def test_where_the_exponentials_of_all_other_classes_vanish(name: str, dtype: torch.dtype, margin: float) -> None:
    """The steps equal those with a less confident network, whose direction is also that of the second class."""
    images, _ = batch(6, dtype=dtype)
    moved = []
    for model in (Confident(margin).to(dtype).eval(), Confident(30.0).to(dtype).eval()):
        labels = model(images).argmax(1)
        moved.append(attacks.create(name, model, eps=4, seed=3)(images, labels) - images)
    assert (moved[0].sign() == moved[1].sign()).double().mean() > 0.95


# --- costs that are added up -----------------------------------------------------------------------------------------


def test_a_common_scale_by_hand() -> None:
    """Two outputs, four examples: the second is larger, the first is larger, only the second exists, both are tiny."""
    rows = torch.tensor([[-0.5, 0.5], [-0.5, 0.5], [0.0, 0.0], [-0.75, 0.75]], dtype=torch.float16)
    exponents = torch.tensor([[-4, 0, -(2**30), -100], [0, -3, -40, -(2**20)]], dtype=torch.int32)
    target = torch.zeros(4, dtype=torch.int64)
    outputs = [ScaledTargetGrad(target, rows, exponents[0]), ScaledTargetGrad(target, rows.flip(0), exponents[1])]
    (main, aux), common = to_common_scale(outputs, [1.0, 3.0])  # 1 = 0.5 * 2^1, 3 = 0.75 * 2^2
    assert main[:, 1].tolist() == [0.5 * 0.5 * 2**-5, 0.5 * 0.5, 0.0, 0.5 * 0.75]
    assert aux[:, 1].tolist() == [0.75 * 0.75, 0.0, 0.75 * 0.5, 0.0]
    assert common.tolist() == [2, 1, -38, -99]
    (whole,), common = to_common_scale(outputs[:1], [1.0], whole_batch=True)
    assert common.tolist() == [1] * 4
    assert whole[:, 1].tolist() == [0.5 * 0.5 * 2**-4, 0.5 * 0.5, 0.0, 0.0]


class TwoHeads(nn.Module):
    """Linear heads; the auxiliary one is less or more confident by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.main = nn.Parameter(torch.randn(12, 3, dtype=torch.float64, generator=generator))
        self.aux = nn.Parameter(factor * torch.randn(12, 3, dtype=torch.float64, generator=generator))

    def forward_with_aux(self, images: Tensor) -> InceptionOutputs:  # [N, 3, 2, 2] -> two of [N, 3]
        return InceptionOutputs(3 * images.flatten(1) @ self.main, 3 * images.flatten(1) @ self.aux)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_with_aux(images).logits


def up_to_a_factor(grad: Tensor, expected: Tensor) -> Tensor:  # [N, ...] each -> [N, ...]
    """Return grad / expected, divided by that of each example's first pixel; the factor is positive."""
    ratio = grad / expected
    assert (ratio > 0).all()
    return ratio / ratio.flatten(1)[:, :1, None, None]


@pytest.mark.parametrize("factor", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("name", ["fgsm", "fast_entropy", "step_ll"])
def test_auxiliary_logits_keep_their_share(name: str, factor: float) -> None:
    model = TwoHeads(factor)
    images = torch.rand(20, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    output = model.forward_with_aux(images)
    labels = output.logits.argmax(1)
    attack = attacks.create(name, model, aux_weight=0.4)
    grad = attack._input_gradient().first(images, labels, 0, 0).grad
    target, main = ops.target_grad(output.logits, attack.rule, labels)
    aux = ops.target_grad(output.aux_logits, "entropy" if attack.rule == "entropy" else "label", target).dlogits
    (expected,) = torch.autograd.grad(list(output), images, [main, 0.4 * aux])
    torch.testing.assert_close(up_to_a_factor(grad, expected), torch.ones_like(grad))


class Centred(nn.Module):
    """Logits that depend on the whole batch through BatchNorm, with or without running statistics."""

    def __init__(self, track: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, affine=False, track_running_stats=track)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, 3]
        return self.norm(images).square().mean((2, 3)).log() * 10


@pytest.mark.parametrize("bn", ["eval", "batch"])
@pytest.mark.parametrize("track", [False, True])
def test_costs_of_examples_that_depend_on_each_other_are_added_up_as_they_are(track: bool, bn: str) -> None:
    model = Centred(track).double()
    images, labels = batch(6, dtype=torch.float64)
    labels = labels % 3
    attack = attacks.create("fgsm", model, bn=bn)
    with isolated(model, bn):
        grad = attack._input_gradient().first(images, labels, 0, 0).grad
        x = images.clone().requires_grad_()
        (expected,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels, reduction="sum"), x)
    ratio = (grad / expected)[expected.abs() > 1e-9]
    one_power = ratio.max() / ratio.min() - 1 < 1e-6
    assert one_power == (bn == "batch" or not track)


# --- a network that looks robust -------------------------------------------------------------------------------------


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return (model(images).argmax(1) == labels).double().mean().item()


class Linear(nn.Module):
    """Logits that are linear in the pixels, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        weight = torch.randn(192, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        self.weight = nn.Parameter(factor * weight)

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 5]
        return (images - 0.5).flatten(1) @ self.weight


def test_logits_times_ten_thousand_do_not_make_a_network_robust() -> None:
    """FGSM reaches the accuracy that the exact gradient gives in float64; PyTorch's own in float32 moves no image."""
    torchattacks = pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")
    images = batch(200)[0]
    model = Linear(1e4)
    x = images.double().requires_grad_()
    logits = model(x)  # [N, K]
    labels = logits.argmax(1)
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    (grad,) = torch.autograd.grad((others - true).sum(), x)  # of log-odds, which rise with the cost and do not saturate
    exact = accuracy(model, (x + 2 / 255 * grad.sign()).clamp(0, 1), labels)
    assert 0.3 < exact < 0.8

    model = model.float()
    assert abs(accuracy(model, attacks.FGSM(model, eps=2)(images, labels), labels) - exact) <= 0.005
    assert accuracy(model, torchattacks.FGSM(model, eps=2 / 255)(images, labels), labels) > exact + 0.1
