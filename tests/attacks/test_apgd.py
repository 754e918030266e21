"""APGD against a transcription of its paper, image by image, and what leaves its batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks.engine import undecided
from fastadv.attacks.engine.ascent import check_windows
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.utils.rng import nth_seed
from tests.attacks.models import ConvNet, batch

NAMES = ["apgd_ce", "apgd_dlr", "apgd_t"]
SPACE = PixelSpace(mean=(10.0, 120.0, 130.0), std=(60.0, 30.0, 120.0))
EPS = {"linf": 2.0, "l2": 18.0}  # about half of the images are fooled within STEPS
STEPS = 12


def network() -> ConvNet:
    """In float64, with logits around 0, so that every class is predicted for some images."""
    model = ConvNet().double().eval()
    with torch.no_grad():
        model.head.bias -= model(batch(30, SPACE, torch.float64)[0]).mean(dim=0)
    return model


def correct_batch(n: int = 12, model: nn.Module | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """A network, images [n, 3, 8, 8], and the labels that it predicts."""
    model = network() if model is None else model
    images, _ = batch(n, SPACE, torch.float64)
    return model, images, model(images).argmax(dim=1)


# --- the paper's algorithm ------------------------------------------------------------------------------------------


def test_checkpoints_of_the_paper() -> None:
    """w_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06) (section 3.2), of 100 iterations."""
    assert check_windows(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert check_windows(10) == {2: 2, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1}  # at least one step each
    assert check_windows(1) == {}


def cross_entropy(z: Tensor, label: int, target: int) -> Tensor:  # [K] -> scalar
    return -z.log_softmax(dim=0)[label]


def dlr(z: Tensor, label: int, target: int) -> Tensor:
    """Equation 6."""
    ordered = z.sort(descending=True).values
    other = ordered[1] if z.argmax() == label else ordered[0]
    return -(z[label] - other) / (ordered[0] - ordered[2])


def targeted_dlr(z: Tensor, label: int, target: int) -> Tensor:
    """Equation 7."""
    ordered = z.sort(descending=True).values
    return -(z[label] - z[target]) / (ordered[0] - (ordered[2] + ordered[3]) / 2)


LOSSES = {"apgd_ce": cross_entropy, "apgd_dlr": dlr, "apgd_t": targeted_dlr}


class Climb(NamedTuple):
    """What became of one image from one start: the first misclassified iterate, or that with the highest loss."""

    fooled_after: int | None
    result: Tensor  # [C, H, W]
    loss: float


def algorithm_1(
    model: nn.Module,
    clean: Tensor,  # [C, H, W], like start
    start: Tensor,
    label: int,
    target: int,
    loss_of: Callable[[Tensor, int, int], Tensor],
    norm: str,
    eps: float,
    steps: int,
    rho: float = 0.75,
) -> Climb:
    """Algorithm 1 of the paper, for one image, in pixel values."""
    std = torch.tensor(SPACE.std, dtype=clean.dtype)[:, None, None]
    mean = torch.tensor(SPACE.mean, dtype=clean.dtype)[:, None, None]
    centre = clean * std + mean

    def look(x: Tensor) -> tuple[float, Tensor, bool]:
        x = x.detach().requires_grad_()
        z = model(((x - mean) / std)[None])[0]
        loss = loss_of(z, label, target)
        (grad,) = torch.autograd.grad(loss, x)
        return float(loss.detach()), grad, int(z.argmax()) != label

    def project(x: Tensor) -> Tensor:
        delta = x - centre
        delta = delta.clamp(-eps, eps) if norm == "linf" else delta * min(1.0, eps / float(delta.norm()))
        return (centre + delta).clamp(0, 255)

    def along(grad: Tensor) -> Tensor:
        return grad.sign() if norm == "linf" else grad / grad.norm()

    x = previous = best = start * std + mean
    loss, grad, fooled = look(x)
    if fooled:
        return Climb(0, (x - mean) / std, loss)
    eta, best_loss, best_grad = 2 * eps, loss, grad
    losses, etas, bests = [loss], [eta], [best_loss]
    checkpoint, last_checkpoint, checkpoints = 0, 0, [0, *check_windows(steps)]
    for k in range(steps):
        z = project(x + eta * along(grad))
        moved = z if k == 0 else project(x + 0.75 * (z - x) + 0.25 * (x - previous))
        previous, x = x, moved
        loss, grad, fooled = look(x)
        if fooled:
            return Climb(k + 1, (x - mean) / std, loss)
        losses.append(loss)
        if loss > best_loss:
            best, best_loss, best_grad = x, loss, grad
        if k + 1 in checkpoints:
            last_checkpoint, checkpoint = checkpoint, k + 1
            rises = sum(losses[i + 1] > losses[i] for i in range(last_checkpoint, checkpoint))
            first = rises <= rho * (checkpoint - last_checkpoint)
            # As in the authors' code, the second condition does not hold at the first checkpoint.
            second = len(etas) > 1 and etas[-1] == etas[-2] and bests[-1] == best_loss
            etas.append(eta)
            bests.append(best_loss)
            if first or second:
                eta, x, grad = eta / 2, best, best_grad
                etas[-1] = eta
    return Climb(None, (best - mean) / std, best_loss)


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", NAMES)
def test_against_the_papers_algorithm(name: str, norm: str) -> None:
    model, images, labels = correct_batch()
    options = {"target_classes": 1} if name == "apgd_t" else {}
    attack = attacks.create(name, model, eps=EPS[norm], norm=norm, steps=STEPS, space=SPACE, seed=3, **options)
    starts = images.clone()
    attack.start_(starts, images, EPS[norm], 3, 0)
    targets = model(images).argsort(dim=1, descending=True)[:, 1]
    found = attack(images, labels)
    expected = [
        algorithm_1(model, *each, LOSSES[name], norm, EPS[norm], STEPS)
        for each in zip(images, starts, labels.tolist(), targets.tolist(), strict=True)
    ]
    fooled = [climb.fooled_after is not None for climb in expected]
    assert any(fooled) and not all(fooled)
    assert ((model(found).argmax(dim=1) != labels) == torch.tensor(fooled)).all()
    assert (found - torch.stack([climb.result for climb in expected])).abs().max() < 1e-9


@pytest.mark.parametrize("norm", EPS)
def test_starts_on_the_surface_of_the_ball(norm: str) -> None:
    """Where the range does not cut it: the largest change, or the length of all, is eps, in pixel values."""
    clean = torch.zeros(5, 3, 8, 8, dtype=torch.float64)  # pixels of 10, 120 and 130
    attack = attacks.APGDCE(ConvNet(), eps=8, norm=norm, space=SPACE)
    start = clean.clone()
    attack.start_(start, clean, 8.0, 7, 0)
    delta = start * torch.tensor(SPACE.std, dtype=torch.float64)[:, None, None]  # [5, 3, 8, 8]
    sizes = delta.flatten(1).norm(torch.inf if norm == "linf" else 2, dim=1)
    torch.testing.assert_close(sizes, torch.full_like(sizes, 8.0))
    spread = delta.std(dim=(0, 2, 3))  # the same in every channel, whatever its std
    assert spread.max() < 1.2 * spread.min()
    assert not torch.equal(delta[0], delta[1])


# --- decided images --------------------------------------------------------------------------------------------------


class OneByOne(nn.Module):
    """Runs each image alone, so that no rounding depends on its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.net(image[None]) for image in images])


@pytest.mark.parametrize("norm", EPS)
@pytest.mark.parametrize("name", NAMES)
def test_an_images_result_does_not_depend_on_the_others(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: in one batch, in several, and if decided images leave at once or not at all."""
    model, images, labels = correct_batch(model=OneByOne())
    labels[2] = (labels[2] + 1) % 5  # misclassified, so it leaves at once
    options: dict[str, Any] = {"eps": EPS[norm], "norm": norm, "steps": STEPS, "restarts": 2, "space": SPACE, "seed": 3}
    if name == "apgd_t":
        options["target_classes"] = 2
    whole = attacks.create(name, model, **options)(images, labels)
    fooled = model(whole).argmax(dim=1) != labels
    assert 2 < fooled.sum() < len(images)
    parts = attacks.create(name, model, **options)
    several = [parts(*part) for part in zip(images.split(5), labels.split(5), strict=True)]
    assert torch.equal(torch.cat(several), whole)
    for share in (0.0, 1.0):
        monkeypatch.setattr(undecided, "_WORTH_LEAVING", share)
        assert torch.equal(attacks.create(name, model, **options)(images, labels), whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_a_batch_is_attacked_as_in_the_whole(name: str) -> None:
    model, images, labels = correct_batch(model=OneByOne())
    attack = attacks.create(name, model, eps=EPS["linf"], steps=STEPS, space=SPACE)
    whole = attack.search(Undecided(images, labels), Size(EPS["linf"]), 5, 2)
    left = torch.tensor([1, 4, 10])
    part = attack.search(Undecided(images, labels, left), Size(EPS["linf"]), 5, 2)
    assert torch.equal(part[left], whole[left]) and not torch.equal(part[left], images[left])
    others = [place for place in range(len(images)) if place not in left]
    assert torch.equal(part[others], images[others])


class Rows(nn.Module):
    """Counts the rows of forward passes, with a graph and without."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.differentiable: list[int] = []
        self.plain: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        (self.differentiable if torch.is_grad_enabled() else self.plain).append(len(images))
        return self.model(images)


def test_rows_of_images_that_leave_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many gradients as iterates before the first misclassified one, and a forward pass in place of the last."""
    monkeypatch.setattr(undecided, "_WORTH_LEAVING", 1.0)
    model, images, labels = correct_batch()
    labels[[0, 5]] = (labels[[0, 5]] + 1) % 5
    counted = Rows(model)
    attack = attacks.APGDCE(counted, eps=EPS["linf"], steps=STEPS, space=SPACE, seed=3, validate="never")
    starts = images.clone()
    attack.start_(starts, images, EPS["linf"], 3, 0)
    attack(images, labels)
    right = [place for place in range(len(images)) if place not in (0, 5)]
    climbs = [
        algorithm_1(model, images[i], starts[i], int(labels[i]), 0, cross_entropy, "linf", EPS["linf"], STEPS)
        for i in right
    ]
    after = [climb.fooled_after for climb in climbs]
    gradients = sum(STEPS if one is None else min(one + 1, STEPS) for one in after)
    assert attack.image_gradients == sum(counted.differentiable) == gradients < len(right) * STEPS
    last = sum(one is None or one == STEPS for one in after)
    assert counted.plain == [len(images), last] and attack.image_queries == len(images) + last


def test_an_image_is_not_attacked_in_vain() -> None:
    model, images, labels = correct_batch()
    attack = attacks.APGDT(model, eps=2, steps=2, space=SPACE)
    wrong = (labels + 1) % 5
    assert torch.equal(attack(images, wrong), images)
    assert attack.image_gradients == 0


class LuckyStart(nn.Module):
    """Misclassifies an image whose first pixel has risen by four of eight values; no gradient leads there."""

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, 3]
        pixel = SPACE.to_pixels(images)[:, 0, 0, 0]  # 10 in the clean images
        raised = torch.relu(pixel - 14)
        return torch.stack([0 * pixel, (raised > 0) + raised, -1 + 0 * pixel], dim=1)


def test_restarts_are_for_images_that_are_left() -> None:
    images, labels = torch.zeros(20, 3, 8, 8, dtype=torch.float64), torch.zeros(20, dtype=torch.int64)
    options: dict[str, Any] = {"eps": 8, "steps": 1, "space": SPACE, "validate": "never"}
    attack, one = attacks.APGDCE(LuckyStart(), restarts=6, seed=1, **options), attacks.APGDCE(LuckyStart(), **options)
    adv = attack(images, labels)
    whole = Undecided(images, labels)
    runs = torch.stack([one.search(whole, Size(8.0), nth_seed(1, run), 0) for run in range(6)])
    fooled = torch.stack([LuckyStart()(run).argmax(dim=1) == 1 for run in runs])  # [6, 20]
    assert 0 < fooled[0].sum() < fooled.any(dim=0).sum() < 20
    first = [place.nonzero()[0].item() if place.any() else 5 for place in fooled.T]
    decided = fooled.any(dim=0)
    assert torch.equal(adv[decided], runs[first, torch.arange(20)][decided])
    assert attack.image_gradients == sum(run + 1 for run in first)


def test_the_best_of_all_runs_is_kept() -> None:
    model, images, labels = correct_batch()
    options: dict[str, Any] = {"eps": 1, "steps": 3, "space": SPACE}

    def losses(adv: Tensor) -> Tensor:
        return nn.functional.cross_entropy(model(adv), labels, reduction="none")

    attack = attacks.APGDCE(model, restarts=3, seed=1, **options)
    together = losses(attack(images, labels))
    alone = attacks.APGDCE(model, **options)
    whole = Undecided(images, labels)
    each = torch.stack([losses(alone.search(whole, Size(1.0), nth_seed(1, run), 0)) for run in range(3)])
    assert (model(images).argmax(dim=1) == labels).all() and torch.equal(each.amax(dim=0), together)
    assert len(each.argmax(dim=0).unique()) > 1


def test_batch_statistics_keep_all_images_together() -> None:
    """An image that left would change the others."""
    model, images, labels = correct_batch()
    counted = Rows(model.train())
    attacks.APGDCE(counted, eps=4, steps=3, space=SPACE, bn="batch", seed=0)(images, labels)
    assert set(counted.differentiable) == {len(images)}


@pytest.mark.filterwarnings("error:.*runs without compile=True")
def test_compiled_batches_keep_their_shape(used: Counter[str]) -> None:
    model, images, labels = correct_batch()
    options: dict[str, Any] = {"eps": EPS["linf"], "steps": 3, "space": SPACE, "seed": 3, "restarts": 2}
    compiled, plain = attacks.APGDCE(model, compile=True, **options), attacks.APGDCE(model, **options)
    assert (compiled(images, labels) - plain(images, labels)).abs().max() < 1e-9
    assert used["compile"] == 2 * 3 - 1  # the first gradient is computed eagerly
    assert compiled.image_gradients == 2 * 3 * len(images) > plain.image_gradients


def test_capture_is_skipped() -> None:
    model, images, labels = correct_batch()
    attack = attacks.APGDCE(model, eps=4, steps=2, space=SPACE, capture=True)
    with pytest.warns(UserWarning, match="apgd_ce runs without capture=True: it reads the losses of its steps"):
        attack(images, labels)


def test_folded_layers() -> None:
    model, images, labels = correct_batch()
    options: dict[str, Any] = {"eps": EPS["linf"], "steps": STEPS, "space": SPACE, "seed": 3}
    folded, plain = attacks.APGDDLR(model, fast=True, **options), attacks.APGDDLR(model, **options)
    assert (folded(images, labels) - plain(images, labels)).abs().max() < 1e-9
    assert folded.image_gradients == plain.image_gradients


# --- losses ----------------------------------------------------------------------------------------------------------


def test_a_confident_network_is_fooled_as_before() -> None:
    """Logits times 1e4 leave no digit of the cross-entropy in float32; the iterates are compared all the same."""
    model, images, labels = correct_batch(30)
    images = images.float()

    class Confident(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 1e4 * plain(x)

    plain = model.float()
    options: dict[str, Any] = {"eps": EPS["linf"], "steps": 10, "space": SPACE, "seed": 1}
    for name in ("apgd_dlr", "apgd_ce"):
        found = [attacks.create(name, net, **options)(images, labels) for net in (plain, Confident())]
        usual, confident = (int((plain(adv).argmax(dim=1) != labels).sum()) for adv in found)
        assert confident >= usual - 1 > 0


class OtherLoss(attacks.APGDCE):
    """The margin, in place of the cross-entropy."""

    name = "other_loss"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        others = logits.scatter(1, target[:, None], -torch.inf)
        return others.amax(dim=1) - logits.gather(1, target[:, None])[:, 0]


def test_a_loss_of_ones_own() -> None:
    model, images, labels = correct_batch()
    attack = OtherLoss(model, eps=EPS["linf"], steps=STEPS, space=SPACE, seed=3)

    def margin(z: Tensor, label: int, target: int) -> Tensor:
        return z[torch.arange(5) != label].amax() - z[label]

    starts = images.clone()
    attack.start_(starts, images, EPS["linf"], 3, 0)
    for adv, *each in zip(attack(images, labels), images, starts, labels.tolist(), strict=True):
        climb = algorithm_1(model, *each, 0, margin, "linf", EPS["linf"], STEPS)
        assert (adv - climb.result).abs().max() < 1e-9


def test_a_loss_of_ones_own_computes_in_float32() -> None:
    seen = set()

    class Watched(OtherLoss):
        name = "watched"

        def loss(self, logits: Tensor, target: Tensor) -> Tensor:
            seen.add(logits.dtype)
            return super().loss(logits, target)

    model, images, labels = correct_batch(4)
    Watched(model.bfloat16(), eps=1, steps=2, space=SPACE)(images.bfloat16(), labels)
    assert seen == {torch.float32}


@pytest.mark.parametrize("kind", [attacks.APGDCE, attacks.APGDDLR, attacks.APGDT])
def test_the_default_loss_by_autograd(kind: type[attacks.AdaptivePGD]) -> None:
    """An override that returns the default changes nothing."""

    class Same(kind):  # type: ignore[misc,valid-type]
        def loss(self, logits: Tensor, target: Tensor) -> Tensor:
            return super().loss(logits, target)

    model, images, labels = correct_batch()
    options: dict[str, Any] = {"eps": EPS["l2"], "norm": "l2", "steps": STEPS, "space": SPACE, "seed": 3}
    if kind is attacks.APGDT:
        options["target_classes"] = 2
    assert (Same(model, **options)(images, labels) - kind(model, **options)(images, labels)).abs().max() < 1e-9


class Alternating(nn.Module):
    """One network in every other pass, and one that is far more confident in the others."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()
        self.passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return self.net(images) * (1.0 if self.passes % 2 else 20.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_mean_of_several_gradients(dtype: torch.dtype) -> None:
    """Each with its true length, and of the logits: what APGD takes for one of a model that draws."""
    images, labels = correct_batch()[1].to(dtype), correct_batch()[2]
    model = Alternating().to(dtype)
    attack = attacks.APGDCE(model, eps=4, space=SPACE, eot=4, validate="never")
    gradient = attack._input_gradient()
    with torch.no_grad():
        found = gradient.first(images, labels, 0, 0)
    assert model.passes == 4
    x = images.clone().requires_grad_()
    logits = model.net(x)
    costs = [nn.functional.cross_entropy(scale * logits, labels, reduction="sum") for scale in (1.0, 20.0)]
    one, other = (torch.autograd.grad(cost, x, retain_graph=True)[0] for cost in costs)
    mean = found.grad * torch.exp2(found.exponent.to(dtype)).view(-1, 1, 1, 1)
    torch.testing.assert_close(mean, (one + other) / 2)
    torch.testing.assert_close(found.logits, 10.5 * logits.detach())
    attack(images, labels)
    assert attack.image_gradients % 4 == 0


def few_classes(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, classes)).double()


@pytest.mark.parametrize(("name", "needed"), [("apgd_dlr", 3), ("apgd_t", 4)])
def test_models_with_too_few_classes(name: str, needed: int) -> None:
    images, labels = batch(dtype=torch.float64)[0], torch.zeros(6, dtype=torch.int64)
    attack = attacks.create(name, few_classes(needed - 1), eps=4, steps=2)
    with pytest.raises(ValueError, match=f"{name} needs a model with at least {needed} classes, got {needed - 1}"):
        attack(images, labels)
    attacks.create(name, few_classes(needed), eps=4, steps=2)(images, labels)


REFUSED = [
    ({"norm": "l1"}, "norm must be one of linf, l2, got 'l1'"),
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"restarts": 0}, "restarts must be at least 1, got 0"),
    ({"rho": 1.5}, "rho must be a number at least 0 and at most 1, got 1.5"),
    ({"label_smoothing": 0.1}, "label_smoothing must be 0 for apgd_t, whose cost has none, got 0.1"),
    ({"target_classes": 0}, "target_classes must be at least 1, got 0"),
    ({"norm": "linf", "eps": 256}, "eps must be at most 255"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create("apgd_t", ConvNet(), **options)


def test_methods_that_have_no_effect_are_refused() -> None:
    with pytest.raises(TypeError, match="Momentum overrides direction, which adaptive PGD does not call"):

        class Momentum(attacks.APGDCE):
            def direction(self, grad: Tensor, previous: Tensor | None) -> Tensor:
                return grad
