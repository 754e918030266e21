"""fast_task: Algorithm 1 with one step from a random start, compared with the method written out."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fastadv import PixelSpace, TruncatedNormalEps, attacks, ops
from fastadv.train import fast_task
from fastadv.train.tasks.adversarial import ALL
from tests.attacks.models import ConvNet, batch
from tests.train.test_task import RAW, Pixels


@pytest.mark.parametrize(("alpha", "step"), [(None, 10.0), (3.0, 3.0)])
def test_agrees_with_the_method_written_out(alpha: float | None, step: float) -> None:
    space, eps, model = PixelSpace.imagenet(), 8, ConvNet().double().eval()
    task = fast_task(model, eps=eps, space=space, alpha=alpha, seed=3)
    std = torch.tensor(space.std, dtype=torch.float64).view(3, 1, 1)
    low, high = (torch.tensor(bound, dtype=torch.float64).view(3, 1, 1) for bound in space.bounds(torch.float64))
    for offset, n in ((0, 6), (6, 4)):  # every example of an uneven last minibatch, too
        images, labels = batch(n, space, torch.float64)
        start = images.clone()
        ops.noise_step_(start, images, eps, "uniform", 3, offset, space)  # tests/ops checks the draws
        assert ((start - images).abs() <= eps / std * (1 + 1e-12)).all() and not torch.equal(start, images)
        x = start.requires_grad_()  # [n, 3, 8, 8]
        (grad,) = torch.autograd.grad(cross_entropy(model(x), labels), x)
        moved = x.detach() + step / std * grad.sign()
        expected = torch.minimum(torch.maximum(moved, images - eps / std), images + eps / std).clamp(low, high)

        loss = task(images, labels)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-14)
        torch.testing.assert_close(loss, cross_entropy(model(expected), labels), rtol=1e-12, atol=0)


def test_from_noise_it_is_n_fgsm() -> None:
    model, (images, labels) = ConvNet().double().eval(), batch(6, RAW, torch.float64)
    expected = attacks.NFGSM(model, eps=8, space=RAW, seed=3)(images, labels)
    fast_task(model, eps=8, space=RAW, start="noise", seed=3)(images, labels)
    assert torch.equal(images, expected)
    task = fast_task(model, eps=8, space=RAW, start="noise", alpha=6, attack_options={"noise": 1.5})
    assert (task.attack.alpha, task.attack.noise, task.k) == (6, 1.5, ALL)  # type: ignore[attr-defined]


class Sum(nn.Module):
    """The second class's logit is the sum of the pixels: every pixel rises for class 0 and falls for class 1."""

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, 2]
        total = images.flatten(1).sum(dim=1)
        return torch.stack([torch.zeros_like(total), 1e-3 * total], dim=1)


def test_by_hand() -> None:
    """From a start in [92, 108] a step of 10 leads to 102 at least, and never beyond 108."""
    images = torch.full((64, 1, 4, 4), 100.0)
    fast_task(Sum(), eps=8, space=RAW, seed=0)(images, torch.zeros(64, dtype=torch.int64))
    assert images.min() >= 102 and images.max() == 108
    # 10 of the ball's 16 units reach its end; the mean of the others is half way.
    assert (images == 108).float().mean() == pytest.approx(10 / 16, abs=0.05)
    assert images[images < 108].mean() == pytest.approx(105, abs=0.3)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"eps": 0}, ValueError, "eps must be positive"),
        ({"start": "nose"}, ValueError, "start must be one of ball, noise, got 'nose' .did you mean noise"),
        ({"start": "noise", "eps": 0}, ValueError, "eps must be positive"),
        ({"eps": TruncatedNormalEps()}, TypeError, "one number for all examples"),
        ({"alpha": -1}, ValueError, "alpha must be zero or more"),
        ({"alpha": 0}, ValueError, "alpha must be positive: without a step no example"),
        ({"attack_options": {"steps": 2}}, ValueError, "attack_options must not set steps"),
        ({"attack_options": {"random_start": False}}, ValueError, "attack_options must not set random_start"),
        ({"attack_options": {"norm": "l2"}}, ValueError, "attack_options must not set norm"),
        ({"attack_options": {"targets": "random"}}, ValueError, "attack_options must not set targets"),
        ({"attack_options": {"restarts": 2}}, ValueError, "restarts are for evaluations"),
        ({"attack_options": {"bm": "eval"}}, ValueError, "bm"),
        ({"attack_options": {"eps": 4}}, ValueError, "attack_options must not set eps: it is an argument of the task"),
        ({"attack_options": ["bn"]}, TypeError, "attack_options must map names to values, got list"),
        ({"eps": torch.ones(4)}, TypeError, "one number for all examples.*got Tensor"),
        ({"eps": "8"}, TypeError, "eps must be a number.*got str"),
        ({"label_smoothing": 1}, ValueError, "label_smoothing"),
        ({"k": 4}, TypeError, "k"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        fast_task(Pixels(), **{"eps": 8, "space": RAW, **options})


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"eps": 8}, []),
        ({"eps": 8 / 255}, ["eps"]),
        ({"eps": 8, "alpha": 10 / 255}, ["alpha"]),
        ({"eps": 8 / 255, "alpha": 10 / 255}, ["eps", "alpha"]),
    ],
)
def test_each_size_on_another_scale_is_warned_of_once(options: dict[str, Any], warned: list[str]) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast_task(Pixels(), space=RAW, **options)
    assert [str(one.message).split(" ", 1)[0] for one in caught] == warned
    assert all(one.filename == __file__ for one in caught)


def test_repr() -> None:
    shown = repr(fast_task(Pixels(), eps=8, space=RAW))
    assert shown.startswith("AdversarialTask(attack=PGD(Pixels, eps=8.0, ") and "alpha=10.0, steps=1" in shown
    assert ", k=all, lambda_=1.0," in shown
