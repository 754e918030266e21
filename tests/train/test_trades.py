"""TradesTask: by hand, against the method written out, what it runs, and what it refuses."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastadv import PixelSpace, TruncatedNormalEps, ops
from fastadv.attacks.engine import cuda_graph_recorder
from fastadv.attacks.kl import KLAttack
from fastadv.train import TradesTask
from tests.attacks.models import ConvNet, WithAux, batch
from tests.attacks.tape import TapeRecorder
from tests.attacks.test_confident import Confident
from tests.train.test_task import RAW, Pixels

UNIT = PixelSpace.unit()
NOISE = 0.001 * 255  # the authors' start, in pixel values


# --- what it computes ------------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    """The logits are two pixels. Noise lifts one over the other, and a step of 2 moves each on by 2, to a difference of
    4 + d, where d was the clean one: KL(p || q) is p_0 (-4) + log((1 + e^(d + 4)) / (1 + e^d)), or with signs reversed.
    """
    images = torch.full((1, 2, 1, 1), 100.0, dtype=torch.float64)
    images[0, 0] += math.log(3)  # p = (3/4, 1/4)
    task = TradesTask(Pixels(), beta=2, eps=2, alpha=2, steps=1, space=RAW, seed=0)
    task.attack.noise = 1e-9
    loss = task(images, torch.tensor([0]))
    away = 3 * math.exp(4), 3 * math.exp(-4)  # q_0 / q_1
    kl = [-math.log(4) + 0.75 * math.log(3) + math.log(1 + odds) - 0.75 * math.log(odds) for odds in away]
    assert min(abs(loss.item() - math.log(4 / 3) - 2 * each) for each in kl) < 1e-6
    assert task.accuracy().clean == 1.0


def project(moved: Tensor, clean: Tensor, eps: float) -> Tensor:
    return torch.minimum(torch.maximum(moved, clean - eps), clean + eps).clamp(0, 1)


def written_out(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    *,
    eps: float,
    alpha: float,
    steps: int,
    beta: float,
) -> Tensor:
    """The loss of Zhang et al. (2019) on images [m, ...] in [0, 1], by the inner loop of their algorithm 1."""
    model.eval()
    x = start  # [m, C, H, W]
    for _ in range(steps):
        x = x.detach().requires_grad_()
        p = model(images).softmax(dim=1).detach()  # [m, K]
        divergence = (p * (p.log() - model(x).log_softmax(dim=1))).sum()
        (grad,) = torch.autograd.grad(divergence, x)
        x = project(x + alpha / 255 * grad.sign(), images, eps / 255)
    model.train()
    logits, adv_logits = model(images), model(x.detach())
    p = logits.softmax(dim=1)
    divergence = (p * (p.log() - adv_logits.log_softmax(dim=1))).sum() / len(images)
    return cross_entropy(logits, labels) + beta * divergence


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("options", [{}, {"fold_bn": True}], ids=["as it is", "folded"])
def test_twenty_steps_agree_with_the_method_written_out(options: dict[str, Any]) -> None:
    """Weights, running statistics, losses: every minibatch of 6 is new, the last of 4."""
    ours, theirs = (without_dropout(ConvNet()).double().train() for _ in range(2))
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9) for model in (ours, theirs)]
    settings: dict[str, Any] = {"eps": 8.0, "alpha": 2.0, "steps": 3, "beta": 6.0}
    task = TradesTask(ours, **settings, space=UNIT, seed=3, attack_options=options)
    offset = 0
    for step in range(20):
        images, labels = batch(4 if step == 19 else 6, UNIT, torch.float64, seed=step)
        kept, start = images.clone(), images.clone()
        ops.noise_step_(start, images, NOISE, "normal", 3, offset, UNIT)  # tests/ops checks the draws
        offset += len(images)
        losses = task(images, labels), written_out(theirs, images, labels, start, **settings)
        assert torch.equal(images, kept) and not torch.equal(start, kept)
        torch.testing.assert_close(*losses, rtol=1e-9, atol=0)
        for optimizer, loss in zip(optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, other.grad, rtol=1e-6, atol=1e-9)
        for optimizer in optimizers:
            optimizer.step()
    for mine, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


def test_the_start_is_normal_noise_of_the_authors_size() -> None:
    clean = torch.full((16, 3, 64, 64), 0.5, dtype=torch.float64)
    adv = clean.clone()
    KLAttack(ConvNet(), eps=8).start_(adv, clean, 8.0, 1, 0)
    assert (adv - clean).std().item() == pytest.approx(0.001, rel=0.01)


def test_auxiliary_logits_get_the_same_loss() -> None:
    """Each head's clean and adversarial predictions are compared with each other."""

    class Both(WithAux):
        def forward(self, images: Tensor) -> Any:
            return self.forward_with_aux(images) if self.training else super().forward(images)

    model, (images, labels) = without_dropout(Both()).double().train(), batch(6, UNIT, torch.float64)
    task = TradesTask(model, eps=8, steps=2, space=UNIT, aux_weight=0.3, label_smoothing=0.1, seed=1)
    twin = copy.deepcopy(model)
    adv = KLAttack(twin, eps=8, steps=2, seed=1)(images)
    heads = list(zip(twin(images), twin(adv), strict=True))
    expected = sum(w * ops.trades_loss(*pair, labels, 6.0, 0.1) for w, pair in zip((1.0, 0.3), heads, strict=True))
    torch.testing.assert_close(task(images, labels), expected)


def test_the_divergence_rises_with_the_steps() -> None:
    model, (images, labels) = ConvNet().double().eval(), batch(6, UNIT, torch.float64)
    losses = [TradesTask(model, eps=8, alpha=1, steps=n, space=UNIT, seed=1)(images, labels).item() for n in (1, 3, 8)]
    assert losses[0] < losses[1] < losses[2]


# --- the attack ------------------------------------------------------------------------------------------------------


def test_the_attack_follows_a_loss_written_out() -> None:
    """A loss of the clean and the adversarial logits, differentiated by autograd, is the closed form's direction."""

    class ByAutograd(KLAttack):
        name = "kl_by_autograd"

        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K] each -> [N]
            return super().loss(logits, target)

    model, (images, _) = ConvNet().double().eval(), batch(6, UNIT, torch.float64)
    made = [kind(model, eps=8, steps=3, seed=2)(images) for kind in (KLAttack, ByAutograd)]
    torch.testing.assert_close(*made, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{"capture": True}, {"compile": True}, {"fast": True}, {"bn": "batch"}], ids=str)
def test_options_for_speed_change_nothing_else(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graph_recorder, "create_recorder", TapeRecorder)
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **more: compiler(function, backend="aot_eager", **more))
    model, (images, _) = ConvNet().double(), batch(6, UNIT, torch.float64)
    plain = KLAttack(model, eps=8, steps=3, seed=2, bn=options.get("bn", "eval"))
    other = KLAttack(model, eps=8, steps=3, seed=2, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):  # what is captured is replayed in the third
            torch.testing.assert_close(other(images), plain(images), rtol=0, atol=1e-9)


@pytest.mark.parametrize("autocast", [False, True], ids=["float16", "autocast"])
def test_a_confident_network_in_half_precision(autocast: bool) -> None:
    """Every image moves away from its start, though both predictions are the same in float16."""
    model, (images, _) = Confident(20.0).eval(), batch(6)
    model, images = (model.float(), images) if autocast else (model.half(), images.half())
    attack = KLAttack(model, eps=4, alpha=1, steps=2, seed=3, noise=2.0)
    start = images.clone()
    attack.start_(start, images, 4.0, 3, 0)
    with torch.autocast("cpu", torch.float16, enabled=autocast):
        adv = attack(images)
        p, q = (model(each).half().softmax(1) for each in (images, start))  # [N, K]
    assert torch.equal(p, q)
    assert ((adv - start).abs() > 0.5 / 255).flatten(1).double().mean(1).min() > 0.6


# --- what it runs ----------------------------------------------------------------------------------------------------


@contextmanager
def passes(model: nn.Module) -> Iterator[dict[str, list[int]]]:
    """Rows of the forward passes, in evaluation and in training mode, and of the backward passes to the logits."""
    seen: dict[str, list[int]] = {"eval": [], "train": [], "backward": []}

    def forward(module: nn.Module, _: Any, logits: Tensor) -> None:
        seen["train" if module.training else "eval"].append(len(logits))
        if logits.requires_grad:
            logits.register_hook(lambda grad: seen["backward"].append(len(grad)))

    handle = model.register_forward_hook(forward)
    yield seen
    handle.remove()


def test_counts() -> None:
    """For n steps n + 1 forward passes and n backward passes to the images; two of each for the loss."""
    model, (images, labels) = ConvNet().train(), batch(6)
    task = TradesTask(model, eps=8, steps=4, space=UNIT)
    task(images, labels)  # checks run in the first call
    with passes(model) as seen:
        loss = task(images, labels)
        assert seen == {"eval": [6] * 5, "train": [6] * 2, "backward": [6] * 4}
        assert model.training and all(parameter.grad is None for parameter in model.parameters())
        loss.backward()
    assert seen["backward"] == [6] * 6
    assert [int(module.num_batches_tracked) for module in model.modules() if isinstance(module, nn.BatchNorm2d)] == [
        4,
        4,
    ]
    counts = task.hits()
    assert counts.examples == (6, 6) and counts.correct.shape == (2,)


def test_clean_images_alone_at_first() -> None:
    model, (images, labels) = ConvNet().eval(), batch(6)
    task = TradesTask(model, eps=8, space=UNIT, start_after=1)
    torch.testing.assert_close(task(images, labels), cross_entropy(model(images), labels))
    assert task.hits().examples == (6, 0)
    task(images, labels)
    assert task.hits().examples == (6, 6) and task.iteration == 2


def test_a_restored_task_draws_on() -> None:
    model, (images, labels) = ConvNet().double().eval(), batch(6, UNIT, torch.float64)
    task, other = (TradesTask(model, eps=8, steps=1, space=UNIT, seed=seed) for seed in (5, 6))
    task(images, labels)
    other.load_state_dict(task.state_dict())
    assert other.iteration == 1 and torch.equal(task(images, labels), other(images, labels))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_gradient_scaler_under_autocast(dtype: torch.dtype) -> None:
    model, (images, labels) = without_dropout(ConvNet()).train(), batch(6)
    grads = []
    for half in (True, False):
        model.zero_grad()
        options = {"noise": 2.0}  # 0.255 pixel values round away
        task = TradesTask(model, eps=8, steps=2, space=UNIT, seed=1, attack_options=options)
        with torch.autocast("cpu", dtype, enabled=half):
            loss = task(images, labels)
        assert loss.dtype == torch.float32
        (2.0**14 * loss if half else loss).backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]) / (2.0**14 if half else 1))
    assert grads[0].isfinite().all() and torch.cosine_similarity(*grads, dim=0) > 0.9


# --- what it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"beta": -1}, ValueError, "beta must be a number at least 0, got -1"),
        ({"beta": "6"}, ValueError, "beta must be a number"),
        ({"eps": 0}, ValueError, "eps must be positive"),
        ({"eps": TruncatedNormalEps()}, TypeError, "eps must be one number for all examples"),
        ({"alpha": 0}, ValueError, "alpha must be positive"),
        ({"alpha": -1.0}, ValueError, "alpha must be zero or more and finite"),
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"attack_options": {"steps": 3}}, ValueError, "attack_options must not set steps: it is an argument"),
        ({"attack_options": {"noise": 0}}, ValueError, "noise must be a number above 0, got 0"),
        ({"attack_options": {"label_smoothing": 0.1}}, ValueError, "label_smoothing must be 0 for kl"),
        (
            {"attack_options": {"random_start": False}},
            ValueError,
            r"attack_options must not set random_start \(did you mean restarts\?\): the attack of T",
        ),
        ({"attack_options": {"stps": 3}}, ValueError, r"must not set stps \(did you mean steps, an argument of the"),
        ({"start_after": -1}, ValueError, "start_after must be"),
        ({"label_smoothing": 1.0}, ValueError, "label_smoothing must be"),
        ({"aux_weight": -0.1}, ValueError, "aux_weight must be"),
    ],
    ids=str,
)
def test_wrong_options(options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        TradesTask(ConvNet(), **{"eps": 8, "space": UNIT, **options})
    assert "\n" not in str(caught.value)


def test_wrong_minibatches_run_nothing() -> None:
    model, (images, labels) = ConvNet(), batch(6)
    task = TradesTask(model, eps=8, space=UNIT)
    soft = torch.full((6, 5), 0.2)
    for given, error, said in (
        ((images, soft), ValueError, r"needs one class per image, \[6\] int64, got soft labels \[6, 5\]: for these"),
        ((images, labels.int()), TypeError, "labels must be an int64 tensor"),
        ((images, labels[:5]), ValueError, r"one class per image, \[6\], got \[5\]"),
        ((255 * images, labels), ValueError, "range"),
        ((images.clone().requires_grad_(), labels), ValueError, "must not require a gradient"),
    ):
        with passes(model) as seen, pytest.raises(error, match=said) as caught:
            task(*given)
        assert "\n" not in str(caught.value) and seen == {"eval": [], "train": [], "backward": []}
    assert task.iteration == 0
    with pytest.raises(ValueError, match=r"labels must be in \[0, 5\)"):
        task(images, labels + 5)
