"""FAB: nearest adversarial images of linear models in closed form, its iterations in plain PyTorch, and who leaves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from tests.attacks.models import assert_in_range

UNIT = PixelSpace.unit()
SHAPE = (3, 2, 3)
ORDERS = {"linf": math.inf, "l2": 2.0}
DUAL_ORDERS = {"linf": 1.0, "l2": 2.0}
EPS = {"linf": 3.0, "l2": 10.0}  # at which about half of the images of Waves are fooled
NORMS = pytest.mark.parametrize("norm", ORDERS)
FORMS = pytest.mark.parametrize("name", ["fab", "fab_t"])


class Linear(nn.Module):
    """Four classes, linear in the pixels."""

    def __init__(self, space: PixelSpace) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.space = space
        self.weight = nn.Buffer(torch.randn(4, math.prod(SHAPE), generator=generator, dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 2, 3] -> [N, 4]
        return (self.space.to_pixels(images).double().flatten(1) - 127) @ self.weight.t()

    def distance(self, images: Tensor, labels: Tensor, norm: str) -> Tensor:
        """The distance [N] to the nearest boundary, in pixel values, if the range does not matter."""
        logits = self(images)  # [N, 4]
        length = (self.weight - self.weight[labels][:, None]).norm(DUAL_ORDERS[norm], dim=2)  # [N, 4]
        distance = (logits.gather(1, labels[:, None]) - logits) / length
        return distance.scatter(1, labels[:, None], torch.inf).amin(1)


class Waves(nn.Module):
    """Five classes, with boundaries that are far from flat."""

    def __init__(self, gain: float = 2.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.inward = nn.Buffer(gain * torch.randn(math.prod(SHAPE), 16, generator=generator, dtype=torch.float64))
        self.outward = nn.Buffer(torch.randn(16, 5, generator=generator, dtype=torch.float64))
        self.rows = 0

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 2, 3] -> [N, 5]
        self.rows += len(images)
        inward, outward = self.inward.to(images.dtype), self.outward.to(images.dtype)
        # Not by matrices, whose products round differently in a batch of another size.
        hidden = ((images.flatten(1) - 0.5)[:, :, None] * inward).sum(1).sin()  # [N, 16]
        return (hidden[:, :, None] * outward).sum(1)


def images_of(space: PixelSpace, n: int = 24, low: int = 0, high: int = 255) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return space.from_pixels(torch.randint(low, high + 1, (n, *SHAPE), generator=generator), torch.float64)


def labelled(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).argmax(1)


def distances(adv: Tensor, images: Tensor, norm: str, space: PixelSpace = UNIT) -> Tensor:
    """[N], in pixel values."""
    return (space.to_pixels(adv.double()) - space.to_pixels(images.double())).flatten(1).norm(ORDERS[norm], dim=1)


@FORMS
@NORMS
@pytest.mark.parametrize("space", [UNIT, PixelSpace((0, 9, 99), (1, 30, 900))], ids=["unit", "uneven"])
def test_the_nearest_boundary_of_a_linear_model(space: PixelSpace, norm: str, name: str) -> None:
    """Found but for the overshoot, eta - 1, of which a small part remains in the end."""
    model, images = Linear(space), images_of(space, low=90, high=160)
    labels = labelled(model, images)
    expected = model.distance(images, labels, norm)
    assert (expected < 90).all()  # so that the range is out of the way
    options = {"norm": norm, "space": space, "eta": 1.0005, "steps": 100}
    adv = attacks.create(name, model, eps=255, minimize=True, **options)(images, labels)
    found = distances(adv, images, norm, space)
    assert (labelled(model, adv) != labels).all()
    assert (found >= expected * (1 - 1e-9)).all() and (found <= expected * 1.001).all()
    near, far = (attacks.create(name, model, **options)(images, labels, eps=expected * k) for k in (1.001, 0.999))
    assert (labelled(model, near) != labels).all()
    assert (distances(near, images, norm, space) <= expected * 1.001 * (1 + 1e-12)).all()
    assert torch.equal(far, images)


def shortest(w: Tensor, gap: float, x: Tensor, norm: str) -> Tensor:
    """The shortest move of x [D] within [0, 1] that raises w . x by gap, by bisection."""
    towards = w.sign() * math.copysign(1.0, gap)
    room = torch.where(towards > 0, 1 - x, x) * (w != 0)
    speed = w.abs() if norm == "l2" else torch.ones_like(w)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        reached = float((w.abs() * torch.minimum(room, middle * speed)).sum())
        low, high = (middle, high) if reached < abs(gap) else (low, middle)
    return towards * torch.minimum(room, high * speed)


def by_the_paper(model: nn.Module, clean: Tensor, label: int, targets: list[int], norm: str, steps: int) -> Tensor:
    """The nearest adversarial image of one, as Algorithm 1 finds it with its default parameters: [D]."""
    start, x, best, least = clean.flatten(), clean.flatten(), clean.flatten(), math.inf
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        logits = model(leaf.view_as(clean[None]))[0]
        options = []
        for target in targets:
            difference = logits[target] - logits[label]
            (w,) = torch.autograd.grad(difference, leaf, retain_graph=True)
            gap = difference.item()
            options.append((abs(gap) / float(w.norm(DUAL_ORDERS[norm])), gap, w))
        _, difference, w = min(options, key=lambda one: one[0])
        here = shortest(w, -difference, x, norm)
        there = shortest(w, -difference - float(w @ (start - x)), start, norm)
        near, far = float(here.norm(ORDERS[norm])), float(there.norm(ORDERS[norm]))
        share = min(near / (near + far), 0.1)
        x = ((1 - share) * (x + 1.05 * here) + share * (start + 1.05 * there)).clamp(0, 1)
        if int(model(x.view_as(clean[None])).argmax()) != label:
            if float((x - start).norm(ORDERS[norm])) < least:
                best, least = x, float((x - start).norm(ORDERS[norm]))
            x = start + 0.9 * (x - start)
    return best


@FORMS
@NORMS
def test_the_iterations_of_the_paper(norm: str, name: str) -> None:
    model, images = Waves(), images_of(UNIT, 8)
    labels = labelled(model, images)
    targets = model(images).scatter(1, labels[:, None], -torch.inf).argmax(1)
    only = {"target_classes": 1} if name == "fab_t" else {}
    adv = attacks.create(name, model, eps=255, norm=norm, steps=12, minimize=True, **only)(images, labels)
    assert (labelled(model, adv) != labels).sum() >= 6
    for row, label in enumerate(labels.tolist()):
        others = [int(targets[row])] if only else [k for k in range(5) if k != label]
        expected = by_the_paper(model, images[row], label, others, norm, 12)
        torch.testing.assert_close(adv[row].flatten(), expected, rtol=0, atol=1e-9)


@FORMS
@NORMS
@pytest.mark.parametrize("space", [PixelSpace.raw(), PixelSpace.imagenet()], ids=["raw", "imagenet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_who_is_fooled_is_in_the_ball_and_the_others_are_as_they_were(
    dtype: torch.dtype, space: PixelSpace, norm: str, name: str
) -> None:
    waves = Waves()

    def model(x: Tensor) -> Tensor:
        return waves(space.to_pixels(x).to(dtype) / 255)

    images = space.from_pixels(space.to_pixels(images_of(space)).round(), dtype)
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % 5  # misclassified without an attack
    eps = torch.linspace(0, 2 * EPS[norm], len(images))
    adv = attacks.create(name, model, eps=eps, norm=norm, space=space, steps=10)(images, labels)
    fooled = model(adv).argmax(1) != labels
    assert 3 < fooled.sum() < len(images)
    distance = distances(adv, images, norm, space)
    assert (distance <= eps * (1 + 1e-6)).all() and (distance[1:][fooled[1:]] > 0).all()
    assert torch.equal(adv[~fooled], images[~fooled]) and torch.equal(adv[0], images[0])
    assert_in_range(adv, space)


def test_fooled_images_leave_and_minimising_ones_stay() -> None:
    images = images_of(UNIT)
    rows, found = {}, {}
    for minimize in (False, True):
        model = Waves()
        labels = labelled(model, images)
        labels[::2] = (labels[::2] + 1) % 5  # 12 images are misclassified without an attack
        attack = attacks.create("fab_t", model, eps=90, minimize=minimize, target_classes=1, steps=20)
        model.rows = 0
        adv = attack(images, labels)
        assert torch.equal(adv[::2], images[::2])
        rows[minimize] = attack.image_gradients
        found[minimize] = distances(adv, images, "linf")
        assert model.rows == attack.image_gradients + attack.image_queries
    assert rows[True] == 12 * 20 and rows[False] < 12 * 6
    fooled = found[False] > 0
    assert fooled.sum() >= 9 and torch.equal(fooled, found[True] > 0)
    assert (found[True] <= found[False]).all() and (found[True] < found[False]).any()


@FORMS
@NORMS
def test_the_split_into_batches_does_not_show(norm: str, name: str) -> None:
    model, images = Waves(), images_of(UNIT)
    labels = labelled(model, images)
    labels[1::3] = (labels[1::3] + 1) % 5
    options = {"eps": EPS[norm], "norm": norm, "steps": 6, "restarts": 2, "seed": 3}
    whole = attacks.create(name, model, **options)(images, labels)
    assert 0 < (labelled(model, whole) != labels).sum() < len(images)
    attack = attacks.create(name, model, **options)
    parts = [attack(images[at], labels[at]) for at in (slice(0, 1), slice(1, 12), slice(12, None))]
    assert torch.equal(torch.cat(parts), whole)


@NORMS
def test_a_restart_is_half_an_eps_away(norm: str) -> None:
    """The first start is the clean image, and the second is drawn from the seed."""
    seen: list[Tensor] = []
    model, images = Linear(UNIT), images_of(UNIT, low=90, high=160)
    images = images[model.distance(images, labelled(model, images), norm) > 5]
    labels = labelled(model, images)

    def watched(x: Tensor) -> Tensor:
        if x.requires_grad:
            seen.append(x.detach().clone())
        return model(x)

    options = {"eps": 4, "norm": norm, "steps": 1, "restarts": 2, "target_classes": 1, "validate": "never"}
    for seed in (0, 0, 1):
        attacks.create("fab_t", watched, seed=seed, **options)(images, labels)
    first, second, again_first, again, _, other = seen
    assert torch.equal(first, images) and torch.equal(again_first, images)
    torch.testing.assert_close(distances(second, images, norm), torch.full((len(images),), 2.0, dtype=torch.float64))
    assert torch.equal(second, again) and not torch.equal(second, other)


@pytest.mark.parametrize("kind", [attacks.APGDT, attacks.FABT])
def test_the_true_class_is_no_target_of_a_model_that_masks_classes(kind: type[Any]) -> None:
    inf = math.inf
    logits = torch.tensor([[3.0, -inf, 2.0, -inf, -inf], [-inf, 1.0, -inf, -inf, -inf], [0.0, 0.0, 0.0, 1.0, -inf]])
    labels = torch.tensor([0, 2, 1])
    attack = kind(nn.Identity(), target_classes=9)
    if kind is attacks.APGDT:
        targets = torch.stack([goal[:, 1] for goal in attack.goals(labels, logits)], dim=1)  # [N, T]
    else:
        targets = torch.cat(attack.targets(logits, labels), dim=1)  # [N, T]
    assert targets.tolist() == [[2, 1, 3, 4], [1, 0, 3, 4], [3, 0, 2, 4]]


def test_targets_are_the_likeliest_other_classes() -> None:
    model, images = Waves(), images_of(UNIT)
    logits = model(images)
    labels = labelled(model, images)
    order = logits.argsort(1, descending=True)
    for count in (1, 3, 4, 9):
        attack = attacks.FABT(model, target_classes=count)
        runs = attack.targets(logits, labels)
        assert torch.equal(torch.cat(runs, 1), order[:, 1 : count + 1])
    (others,) = attacks.FAB(model).targets(logits, labels)
    assert torch.equal(others.sort(1).values, order[:, 1:].sort(1).values)


@FORMS
def test_two_classes(name: str) -> None:
    images = images_of(UNIT)
    waves = Waves()

    def model(x: Tensor) -> Tensor:
        return waves(x)[:, :2]

    labels = model(images).argmax(1)
    adv = attacks.create(name, model, eps=255, steps=10)(images, labels)
    assert (model(adv).argmax(1) != labels).all()


def test_one_forward_pass_for_the_gradients_of_all_classes() -> None:
    calls: list[bool] = []
    model, images = Waves(), images_of(UNIT)
    labels = labelled(model, images)

    def watched(x: Tensor) -> Tensor:
        calls.append(x.requires_grad)
        return model(x)

    attack = attacks.FAB(watched, eps=0, steps=3, validate="never")
    attack(images, labels)
    assert calls == [False] + [True, False] * 3 and attack.image_gradients == 3 * 4 * 24


def test_images_stay_together_if_they_depend_on_each_other() -> None:
    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.waves = Waves()
            self.double()

        def forward(self, images: Tensor) -> Tensor:
            assert len(images) == 24
            return self.waves(self.norm(images) / 4)

    model, images = Together(), images_of(UNIT)
    labels = labelled(model, images)
    adv = attacks.FABT(model, eps=20, bn="batch", steps=5)(images, labels)
    assert (distances(adv, images, "linf") <= 20).all() and not torch.equal(adv, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l1"}, "norm must be one of linf, l2, got 'l1'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"restarts": 0}, "restarts must be at least 1, got 0"),
        ({"target_classes": 0}, "target_classes must be at least 1, got 0"),
        ({"alpha_max": 1.5}, "alpha_max must be a number at least 0 and at most 1, got 1.5"),
        ({"eta": 0.9}, "eta must be a number at least 1, got 0.9"),
        ({"beta": 1.0}, "beta must be a number at least 0 and below 1, got 1.0"),
        ({"minimize": 1}, "minimize must be true or false, got 1"),
        ({"fold_bn": True, "bn": "batch"}, "fold_bn=True needs bn='eval'"),
        ({"label_smoothing": 0.1}, "label_smoothing must be 0 for fab_t"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create("fab_t", Waves(), **options)


def test_a_label_that_is_no_class() -> None:
    with pytest.raises(ValueError, match=r"fab_t: labels must be in \[0, 5\), the model's 5 classes, got 5"):
        attacks.FABT(Waves())(images_of(UNIT, 2), torch.tensor([0, 5]))


@NORMS
@pytest.mark.parametrize("targeted", [False, True], ids=["fab", "fab_t"])
def test_torchattacks_gives_the_same_verdicts(norm: str, targeted: bool) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason="compares with torchattacks where it is installed")
    model, images = Waves().float(), images_of(UNIT, 60).float()
    model.weight = nn.Parameter(torch.zeros(1))  # torchattacks takes the device of the first one
    labels = labelled(model, images)
    options = {"steps": 15, "multi_targeted": targeted, "n_classes": 5}
    theirs = torchattacks.FAB(model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=EPS[norm] / 255, **options)
    ours = attacks.create("fab_t" if targeted else "fab", model, eps=EPS[norm], norm=norm, steps=15)
    fooled = [labelled(model, attack(images, labels)) != labels for attack in (theirs, ours)]
    assert 6 < fooled[0].sum() < 54
    assert (fooled[0] != fooled[1]).sum() <= 1  # of rounding
