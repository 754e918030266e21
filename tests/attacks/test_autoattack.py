"""AutoAttack: which attacks run on which images, and what it returns."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks.engine.result_check import check_result
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.evaluate import evaluate
from fastadv.utils.rng import nth_seed
from tests.attacks.test_apgd import EPS, SPACE, OneByOne, Rows, correct_batch

FEW: dict[str, Any] = {"steps": 4, "queries": 30, "space": SPACE, "seed": 3}


def parts_of(version: str) -> list[tuple[str, dict[str, Any]]]:
    """The attacks of a version, with the options in which they differ from the authors' defaults."""
    attack = attacks.AutoAttack(nn.Flatten(), version=version, steps=100, queries=5000)
    defaults = {"norm": "linf", "steps": 100, "queries": 5000, "restarts": 1, "eot": 1, "target_classes": 9}
    options = {part.name: part.options() for part in attack.parts}
    return [
        (name, {option: given[option] for option, usual in defaults.items() if given.get(option, usual) != usual})
        for name, given in options.items()
    ]


def test_the_authors_versions() -> None:
    """Table 5 of their repository's README, and set_version of their code."""
    assert parts_of("standard") == [("apgd_ce", {}), ("apgd_t", {}), ("fab_t", {}), ("square", {})]
    five = {"restarts": 5}
    assert parts_of("plus") == [
        *(("apgd_ce", five), ("apgd_dlr", five), ("fab", five), ("square", {}), ("apgd_t", {}), ("fab_t", {})),
    ]
    assert parts_of("rand") == [("apgd_ce", {"eot": 20}), ("apgd_dlr", {"eot": 20})]
    defaults = inspect.signature(attacks.AutoAttack).parameters
    assert (defaults["steps"].default, defaults["queries"].default) == (100, 5000)
    assert defaults["version"].default == "standard"


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("version", ["standard", "plus"])
def test_the_first_attack_that_fools_the_model_gives_the_result(version: str, norm: str) -> None:
    """Each attack run by itself on all images; an image that is misclassified anyway stays as it is."""
    model, images, labels = correct_batch(model=OneByOne())
    labels[2] = (labels[2] + 1) % 5
    options = {"eps": EPS[norm], "norm": norm, **FEW}
    attack = attacks.AutoAttack(model, version=version, **options)
    adv = attack(images, labels)
    expected, fooled = images.clone(), model(images).argmax(dim=1) != labels
    for number, part in enumerate(attack.parts):
        found = part.search(Undecided(images, labels), Size(EPS[norm]), nth_seed(3, number * 2**32), 0)
        new = (model(found).argmax(dim=1) != labels) & ~fooled
        expected[new] = found[new]
        fooled |= new
    assert 2 < fooled.sum() < len(images)
    assert torch.equal(adv[fooled], expected[fooled])
    assert torch.equal(model(adv).argmax(dim=1) != labels, fooled)
    check_result(attack, adv, images, EPS[norm])


def margins(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    logits = model(images)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


def test_of_an_image_that_no_attack_fools_the_nearest_to_it() -> None:
    model, images, labels = correct_batch(model=OneByOne())
    attack = attacks.AutoAttack(model, eps=1, **FEW)
    adv = attack(images, labels)
    left = model(adv).argmax(dim=1) == labels
    assert left.sum() > 3
    each = [
        part.search(Undecided(images, labels, left.nonzero()[:, 0]), Size(1.0), nth_seed(3, number * 2**32), 0)
        for number, part in enumerate(attack.parts)
    ]
    best = torch.stack([margins(model, found, labels) for found in (images, *each)]).amax(dim=0)
    assert torch.equal(margins(model, adv, labels)[left], best[left])
    assert (best > margins(model, images, labels))[left].all()


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_an_images_result_does_not_depend_on_the_others(version: str) -> None:
    model, images, labels = correct_batch(model=OneByOne())
    options = {"eps": EPS["linf"], "version": version, **FEW}
    whole = attacks.AutoAttack(model, **options)(images, labels)
    parts = attacks.AutoAttack(model, **options)
    several = [parts(*part) for part in zip(images.split(5), labels.split(5), strict=True)]
    assert torch.equal(torch.cat(several), whole)


def test_misclassified_images_cost_one_forward_pass() -> None:
    model, images, labels = correct_batch()
    counted = Rows(model)
    attack = attacks.AutoAttack(counted, eps=EPS["linf"], **FEW)
    assert torch.equal(attack(images, (labels + 1) % 5), images)
    assert counted.plain == [len(images)] and not counted.differentiable
    assert attack.image_gradients == 0 and attack.image_queries == len(images)


def test_what_it_computes_is_that_of_its_parts() -> None:
    model, images, labels = correct_batch()
    counted = Rows(model)
    attack = attacks.AutoAttack(counted, eps=EPS["linf"], **FEW)
    attack(images, labels)
    first = attack.image_gradients
    assert first == sum(part.image_gradients for part in attack.parts) > 0
    assert attack.image_queries > sum(part.image_queries for part in attack.parts) > 0  # and looks between them
    assert attack.image_queries == sum(counted.plain)
    attack(images, labels)
    assert attack.image_gradients > first
    assert first < attack.gradients(EPS["linf"]) * len(images)


class Noisy(nn.Module):
    """Adds noise to its input, which hides the gradient unless it is averaged away."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.net = correct_batch()[0]
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images + self.size * torch.randn_like(images))


def test_a_model_that_draws() -> None:
    """Version rand takes means of 20 gradients, and does not warn of the draws that it is for; standard does."""
    _, images, labels = correct_batch()
    model = Noisy(0.02)
    attack = attacks.AutoAttack(model, eps=4, version="rand", **FEW)
    torch.manual_seed(0)
    attack(images, labels)
    assert attack.image_gradients % 20 == 0
    with pytest.warns(UserWarning, match="draws random numbers"):
        attacks.AutoAttack(model, eps=4, **FEW)(images, labels)


def test_by_name_and_in_an_evaluation() -> None:
    model, images, labels = correct_batch()
    options: dict[str, Any] = {"steps": 2, "queries": 5}
    attack = attacks.create("autoattack", model, eps=2, space=SPACE, seed=0, **options)
    expected = model(attack(images, labels)).argmax(dim=1) == labels
    counts = evaluate(model, [(images, labels)], attack="autoattack", eps=2, space=SPACE, **options)
    assert torch.equal(counts.correct, expected)
    assert "version='standard'" in repr(attack)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "fast"}, "version must be one of standard, plus, rand, got 'fast'"),
        ({"norm": "L2"}, "norm must be one of linf, l2, got 'L2'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"queries": 0}, "queries must be at least 1, got 0"),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0 for autoattack, got 0.1"),
        ({"fold_bn": True, "bn": "batch"}, "fold_bn=True needs bn='eval'"),
        ({"restarts": 3}, "autoattack has no option restarts"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create("autoattack", nn.Flatten(), eps=8, **options)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((4, 3, 8, 8), 3, "apgd_t needs a model with at least 4 classes, got 3"),
        ((4, 12), 5, r"autoattack needs images \[N, C, H, W\], because of square, got \[4, 12\]"),
    ],
)
def test_what_one_part_cannot_do_is_refused_before_any_runs(shape: tuple[int, ...], classes: int, message: str) -> None:
    images = torch.rand(shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(images[0].numel(), classes))
    attack = attacks.AutoAttack(model, eps=4, space=PixelSpace.unit())
    with pytest.raises(ValueError, match=message):
        attack(images, torch.zeros(4, dtype=torch.int64))
    assert attack.image_gradients == 0
