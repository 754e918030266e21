"""Every attack against the paper's equations in plain PyTorch, and against torchattacks and foolbox.

Two correct implementations differ in the few elements whose gradient is near zero, so that what is compared is how
many elements differ, and not their bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from fastadv import PixelSpace, attacks
from tests.attacks.models import CLASSES, SPACES, ConvNet, batch

Model = Callable[[Tensor], Tensor]


EPS = 8
HANDFUL = 3  # of 16 * 3 * 8 * 8 = 3,072 elements


def elements_that_differ(result: Tensor, expected: Tensor) -> int:
    """Count pixels that differ by more than a hundredth of a pixel value."""
    return int(((result.double() - expected.double()).abs() > 0.01).sum())


# --- the paper's equations, on pixels, where f maps pixel values to logits --------------------------------------------


def gradient(cost: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cost(x), x)
    return grad


def cross_entropy(f: Model, y: Tensor) -> Callable[[Tensor], Tensor]:
    """J(X, y), summed over the batch: an example's gradient is its own."""
    return lambda x: functional.cross_entropy(f(x), y, reduction="sum")


def entropy(f: Model) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.distributions.Categorical(logits=f(x)).entropy().sum()


def norm(grad: Tensor, order: float) -> Tensor:
    return grad.flatten(1).norm(order, dim=1).view(-1, 1, 1, 1)


def ascend(cost: Callable[[Tensor], Tensor], x: Tensor, eps: float) -> Tensor:
    return x + eps * gradient(cost, x).sign()


def iterate(cost: Callable[[Tensor], Tensor], x: Tensor, eps: float, alpha: float) -> Tensor:
    """X_{N+1} = Clip_{X, eps}(X_N + alpha sign(dJ / dX_N)), where the images are clipped to [0, 255] as well."""
    adv = x
    for _ in range(max(1, int(min(eps + 4, 1.25 * eps)))):
        adv = torch.clamp(torch.clamp(ascend(cost, adv, alpha), x - eps, x + eps), 0, 255)
    return adv


def fast_grad(f: Model, x: Tensor, y: Tensor, eps: float, order: float) -> Tensor:
    grad = gradient(cross_entropy(f, y), x)
    return x + eps * grad / norm(grad, order)


EQUATIONS: dict[str, Callable[[Model, Tensor, Tensor, float], Tensor]] = {
    "fgsm": lambda f, x, y, eps: ascend(cross_entropy(f, y), x, eps),
    "fgsm_pred": lambda f, x, y, eps: ascend(cross_entropy(f, f(x).argmax(1)), x, eps),
    "fast_entropy": lambda f, x, y, eps: ascend(entropy(f), x, eps),
    "fast_grad_l2": lambda f, x, y, eps: fast_grad(f, x, y, eps, 2),
    "fast_grad_linf": lambda f, x, y, eps: fast_grad(f, x, y, eps, float("inf")),
    "step_ll": lambda f, x, y, eps: ascend(cross_entropy(f, f(x).argmin(1)), x, -eps),
    "iter_basic": lambda f, x, y, eps: iterate(cross_entropy(f, y), x, eps, 1),
    "iter_ll": lambda f, x, y, eps: iterate(cross_entropy(f, f(x).argmin(1)), x, eps, -1),
}


def on_pixels(model: nn.Module, space: PixelSpace) -> Model:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (space.mean, space.std))
    return lambda pixels: model((pixels - mean) / std)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("eps", [1, 2.5, 8])
@pytest.mark.parametrize("name", EQUATIONS)
def test_the_papers_equation(name: str, eps: float, space: PixelSpace) -> None:
    images, labels = batch(16, space, torch.float64)
    model = ConvNet().double().eval()
    expected = EQUATIONS[name](on_pixels(model, space), space.to_pixels(images), labels, eps).clamp(0, 255)
    adv = attacks.create(name, model, eps=eps, space=space)(images, labels)
    assert elements_that_differ(space.to_pixels(adv), expected) <= HANDFUL


def test_step_rnd_is_the_papers_for_a_class_that_is_not_predicted() -> None:
    images, _ = batch(16, PixelSpace.raw(), torch.float64)
    model = ConvNet().double().eval()
    adv = attacks.create("step_rnd", model, eps=8, space=PixelSpace.raw(), seed=0)(images)
    predicted, reached = model(images).argmax(1), torch.zeros(16, CLASSES, dtype=torch.bool)
    for target in range(CLASSES):
        expected = ascend(cross_entropy(model, torch.full((16,), target)), images, -8).clamp(0, 255)
        reached[:, target] = (adv == expected).flatten(1).double().mean(1) > 0.99
    assert (reached.sum(1) == 1).all()
    assert not reached[torch.arange(16), predicted].any()


@pytest.mark.filterwarnings("ignore:alpha = 1e-09")
@pytest.mark.parametrize(
    ("name", "options", "distribution"),
    [
        ("random_normal", {}, stats.truncnorm(-2, 2, scale=4)),  # standard deviation 0.5 eps, on [-eps, eps]
        ("pgd", {"alpha": 1e-9, "steps": 1}, stats.uniform(-8, 16)),  # its start
    ],
)
def test_noise_has_its_distribution_and_uncorrelated_pixels(name: str, options: dict[str, Any], distribution) -> None:
    images = torch.full((4, 3, 100, 100), 100.0, dtype=torch.float64)
    attack = attacks.create(name, channel_means, eps=8, space=PixelSpace.raw(), seed=1, **options)
    noise = (attack(images, torch.zeros(4, dtype=torch.int64)) - images).flatten().numpy()
    assert stats.kstest(noise, distribution.cdf).pvalue > 1e-3
    assert max(abs(np.corrcoef(noise[lag:], noise[:-lag])[0, 1]) for lag in (1, 100, 10_000)) < 5 / noise.size**0.5


def test_random_sign_is_a_fair_coin() -> None:
    images = torch.full((4, 3, 100, 100), 100.0)
    noise = attacks.create("random_sign", channel_means, eps=8, space=PixelSpace.raw(), seed=1)(images) - images
    assert noise.unique().tolist() == [-8, 8]
    assert abs(noise.mean().item()) < 8 * 4 / noise.numel() ** 0.5  # four standard errors


def channel_means(images: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, 3]
    return images.mean(dim=(2, 3))


@pytest.mark.filterwarnings("ignore:alpha = 1e-09")
def test_pgd_from_its_start() -> None:
    images, labels = batch(16, PixelSpace.raw(), torch.float64)
    model = ConvNet().double().eval()
    make = functools.partial(attacks.create, "pgd", model, eps=8, space=PixelSpace.raw(), seed=3)
    expected = make(alpha=1e-9, steps=1)(images, labels)
    for _ in range(5):
        expected = ascend(cross_entropy(model, labels), expected, 2).clamp(images - 8, images + 8).clamp(0, 255)
    assert elements_that_differ(make(alpha=2, steps=5)(images, labels), expected) <= HANDFUL


class Waves(nn.Module):
    """Logits that oscillate with the pixels, so that a step's gradient says little about the next one's."""

    def __init__(self, space: PixelSpace) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.space = space
        self.inward = nn.Buffer(0.02 * torch.randn(192, 32, generator=generator, dtype=torch.float64))
        self.outward = nn.Buffer(torch.randn(32, CLASSES, generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, CLASSES]
        return (self.space.to_pixels(images).flatten(1) @ self.inward).sin() @ self.outward


@pytest.mark.parametrize("std", [(1, 100, 1), (10, 60, 255)], ids=str)
@pytest.mark.parametrize("name", attacks.names())
def test_an_attack_on_inputs_is_the_attack_on_pixels(name: str, std: Any) -> None:
    """Norms, means and sizes are in pixel values."""
    space = PixelSpace(mean=(20, 100, 200), std=std)
    images, labels = batch(16, space, torch.float64)
    adv = attacks.create(name, Waves(space), eps=EPS, space=space, seed=0)(images, labels)
    on_raw = attacks.create(name, Waves(PixelSpace.raw()), eps=EPS, space=PixelSpace.raw(), seed=0)
    assert elements_that_differ(space.to_pixels(adv), on_raw(space.to_pixels(images), labels)) <= HANDFUL


@pytest.mark.parametrize("name", attacks.names())
def test_the_space_does_not_show(name: str) -> None:
    """One network on pixels, and on inputs whose channels differ in scale: the same result for the same draws."""
    space = PixelSpace(mean=(20, 100, 200), std=(10, 60, 255))
    images, labels = batch(16, space, torch.float64)
    model = ConvNet().double().eval()
    adv = attacks.create(name, model, eps=EPS, space=space, seed=0)(images, labels)
    on_raw = attacks.create(name, on_pixels(model, space), eps=EPS, space=PixelSpace.raw(), seed=0)
    assert elements_that_differ(space.to_pixels(adv), on_raw(space.to_pixels(images), labels)) <= HANDFUL


# --- other packages --------------------------------------------------------------------------------------------------

OURS = {  # options with which they do the same
    "fgsm": {},
    "step_ll": {},
    "fast_grad_l2": {},
    "iter_basic": {},
    "iter_ll": {},
    "pgd": {"random_start": False, "alpha": 2, "steps": 10},
    "mi_fgsm": {"alpha": 2, "steps": 10},
}


@pytest.mark.parametrize("space", [SPACES["unit"], SPACES["imagenet"]], ids=["unit", "imagenet"])
@pytest.mark.parametrize(
    ("name", "theirs", "options", "least_likely"),
    [
        ("fgsm", "FGSM", {}, False),
        ("step_ll", "FGSM", {}, True),
        ("fast_grad_l2", "PGDL2", {"alpha": EPS / 255, "steps": 1, "random_start": False}, False),
        ("iter_basic", "BIM", {"alpha": 1 / 255, "steps": 10}, False),
        ("iter_ll", "BIM", {"alpha": 1 / 255, "steps": 10}, True),
        ("pgd", "PGD", {"alpha": 2 / 255, "steps": 10, "random_start": False}, False),
        ("mi_fgsm", "MIFGSM", {"alpha": 2 / 255, "steps": 10}, False),
    ],
)
def test_torchattacks(name: str, theirs: str, options: dict[str, Any], least_likely: bool, space: PixelSpace) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")
    images, labels = batch(16, space)
    model = ConvNet().eval()
    attack = getattr(torchattacks, theirs)(model, eps=EPS / 255, **options)
    if least_likely:
        attack.set_mode_targeted_least_likely(quiet=True)
        labels = model(images).argmax(1)  # torchattacks takes the least likely class other than the label passed
    if space.channels == 3:
        attack.set_normalization_used([mean / 255 for mean in space.mean], [std / 255 for std in space.std])
    adv = attacks.create(name, model, eps=EPS, space=space, **OURS[name])(images, labels)
    assert elements_that_differ(space.to_pixels(adv), space.to_pixels(attack(images, labels))) <= HANDFUL


@pytest.mark.parametrize(
    ("name", "theirs", "options", "least_likely"),
    [
        ("fgsm", "FGSM", {}, False),
        ("step_ll", "LinfBasicIterativeAttack", {"rel_stepsize": 1.0, "steps": 1}, True),
        ("fast_grad_l2", "FGM", {}, False),
        ("iter_basic", "LinfBasicIterativeAttack", {"abs_stepsize": 1 / 255, "steps": 10}, False),
        ("iter_ll", "LinfBasicIterativeAttack", {"abs_stepsize": 1 / 255, "steps": 10}, True),
        ("pgd", "LinfPGD", {"abs_stepsize": 2 / 255, "steps": 10, "random_start": False}, False),
    ],
)
def test_foolbox(name: str, theirs: str, options: dict[str, Any], least_likely: bool) -> None:
    foolbox = pytest.importorskip("foolbox", reason="compares with foolbox where it is installed")
    images, labels = batch(16)
    model = ConvNet().eval()
    criterion = foolbox.criteria.Misclassification(labels)
    if least_likely:
        criterion = foolbox.criteria.TargetedMisclassification(model(images).argmin(1))
    attack = getattr(foolbox.attacks, theirs)(**options)
    _, expected, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, criterion, epsilons=EPS / 255)
    adv = attacks.create(name, model, eps=EPS, **OURS[name])(images, labels)
    assert elements_that_differ(255 * adv, 255 * expected) <= HANDFUL
