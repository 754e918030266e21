"""The option restarts: which images run again, from where, and which of their results is kept."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, TruncatedNormalEps, attacks, ops
from fastadv.evaluate import evaluate
from fastadv.evaluate.attack_specs import parse_attack
from fastadv.train import AdversarialTask
from fastadv.utils.rng import nth_seed
from tests.attacks.models import CLASSES, ConvNet, batch

UNIT = PixelSpace.unit()
RUNS = 4


class Waves(nn.Module):
    """Logits with many hills, so that where a run ends depends on where it starts."""

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.waves = nn.Parameter(torch.randn(classes, 192, generator=generator, dtype=torch.float64))
        self.register_buffer("bias", torch.linspace(1.5, 0, classes, dtype=torch.float64))
        self.rows: list[int] = []

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 8, 8] -> [N, classes]
        self.rows.append(len(images))
        x = images.flatten(1)  # [N, 192]
        return (3 * x @ self.waves.t().to(x.dtype)).sin() + self.bias.to(x.dtype)


def correct_images(model: nn.Module, n: int = 24) -> tuple[Tensor, Tensor]:
    """Images that some runs fool and others do not, with the predictions as labels."""
    images = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        return images, model(images).argmax(1)


pgd = functools.partial(attacks.PGD, eps=2, steps=2)


def runs_of(make: Callable[..., attacks.Attack], model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """What each restart is, by itself and on all images."""
    return [make(model, seed=nth_seed(5, run))(images, labels) for run in range(RUNS)]


def worst(attack: attacks.GradientAttack, runs: list[Tensor], labels: Tensor) -> tuple[Tensor, list[int]]:
    """What restarts shall return, image by image, in plain Python; and how many images each run has."""
    chosen, rows = [], [0] * len(runs)
    for place, label in enumerate(labels.tolist()):
        best, height = None, -torch.inf
        for run, made in enumerate(runs):
            rows[run] += 1
            image = made[place : place + 1]
            with torch.no_grad():
                logits = attack.model(image)
            if (int(logits.argmax()) == label) == attack.targeted:
                best = image
                break
            loss = attack.loss(logits, torch.tensor([label])).item() * (-1 if attack.targeted else 1)
            if loss > height:
                best, height = image, loss
        chosen.append(best)
    return torch.cat([one for one in chosen if one is not None]), rows


@pytest.mark.parametrize("options", [{}, {"loss": "dlr"}, {"loss": "margin"}, {"norm": "l2", "eps": 20}], ids=str)
def test_the_worst_of_its_runs_is_kept(options: dict[str, Any]) -> None:
    model = Waves()
    images, labels = correct_images(model)
    make = functools.partial(pgd, **options)
    attack = make(model, seed=5, restarts=RUNS)
    expected, rows = worst(attack, runs_of(make, model, images, labels), labels)
    rounding = 1e-12 if "norm" in options else 0  # the step is along a gradient that depends on the batch by rounding
    torch.testing.assert_close(attack(images, labels), expected, rtol=0, atol=rounding)
    assert rows[0] > rows[1] > 0 and rows[-1] > 0  # there is something to tell apart
    assert attack.image_gradients == 2 * sum(rows) and attack.image_queries == sum(rows)


def test_targets_are_reached_or_neared() -> None:
    model = Waves()
    images, labels = correct_images(model)
    targets = (labels + 1) % CLASSES
    make = functools.partial(pgd, targeted=True)
    attack = make(model, seed=5, restarts=RUNS)
    expected, rows = worst(attack, runs_of(make, model, images, targets), targets)
    assert torch.equal(attack(images, targets), expected)
    assert rows[0] > rows[-1] > 0


def test_n_fgsm() -> None:
    model = Waves()
    images, labels = correct_images(model)
    make = functools.partial(attacks.NFGSM, eps=1, noise=1, alpha=0.2)
    attack = make(model, seed=5, restarts=RUNS)
    expected, rows = worst(attack, runs_of(make, model, images, labels), labels)
    assert torch.equal(attack(images, labels), expected)
    assert rows[0] > rows[-1] > 0 and attack.image_gradients == sum(rows)


@pytest.mark.parametrize("targets", ["least_likely", "predicted", "random"])
def test_a_class_of_the_attacks_own_choice_is_judged_by_the_true_one(targets: str) -> None:
    model = Waves()
    images, labels = correct_images(model)
    attack = pgd(model, seed=5, restarts=RUNS, targets=targets)
    runs = [pgd(model, seed=nth_seed(5, run), targets=targets)(images) for run in range(RUNS)]
    expected, _ = worst(attack, runs, labels)  # the cross-entropy with the true class
    assert torch.equal(attack(images, labels), expected)
    assert attack.true_labels(labels) is labels
    with pytest.raises(ValueError, match="pgd uses the true label"):
        attack(images)


def test_a_random_target_alone() -> None:
    model = Waves()
    images, labels = correct_images(model)
    make = functools.partial(attacks.FGSM, eps=2, targets="random")
    attack = make(model, seed=5, restarts=RUNS)
    runs = [make(model, seed=nth_seed(5, run))(images) for run in range(RUNS)]
    expected, rows = worst(attack, runs, labels)
    assert torch.equal(attack(images, labels), expected) and rows[-1] > 0
    attack.stream.offset = 0
    for made, eps in zip(attack.at_each(images, labels, eps=[1, 3]), (1, 3), strict=True):
        assert torch.equal(made, make(model, seed=5, restarts=RUNS)(images, labels, eps=eps))


def test_an_image_does_not_depend_on_its_batch() -> None:
    model = Waves()
    images, labels = correct_images(model)
    whole = pgd(model, seed=5, restarts=RUNS)(images, labels)
    parts = pgd(model, seed=5, restarts=RUNS)
    made = [parts(images[rows], labels[rows]) for rows in (slice(0, 5), slice(5, 6), slice(6, 24))]
    assert torch.equal(torch.cat(made), whole)
    net = ConvNet().double()
    images, labels = batch(10, dtype=torch.float64)
    whole = pgd(net, seed=5, restarts=RUNS)(images, labels)
    parts = pgd(net, seed=5, restarts=RUNS)
    assert torch.equal(torch.cat([parts(images[rows], labels[rows]) for rows in (slice(0, 3), slice(3, 10))]), whole)


@pytest.mark.parametrize("eps", [torch.linspace(0, 4, 24), TruncatedNormalEps(sigma=2, upper=4)], ids=["each", "drawn"])
def test_a_size_per_example(eps: Any) -> None:
    model = Waves()
    images, labels = correct_images(model)
    attack = pgd(model, eps=eps, seed=5, restarts=RUNS)
    made = attack(images, labels)
    sizes = eps if isinstance(eps, Tensor) else eps.sample(24, seed=5, offset=0)
    runs = [pgd(model, eps=sizes, seed=nth_seed(5, run))(images, labels) for run in range(RUNS)]
    expected, rows = worst(attack, runs, labels)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-8)  # the sizes that are drawn are float32
    assert rows[0] > rows[-1] > 0


@pytest.mark.parametrize("option", [{"capture": True}, {"compile": True}, {"fold_bn": True}, {"bn": "batch"}], ids=str)
def test_with_other_options(used: Counter[str], option: dict[str, Any]) -> None:
    """Where the batch has to stay as it is, all images run each time; the results are the same."""
    model = ConvNet().double()
    images, labels = batch(8, dtype=torch.float64)
    labels = model.eval()(images).argmax(1)
    make = functools.partial(pgd, eps=40, **option)
    attack = make(model, seed=5, restarts=RUNS)
    judge = attacks.PGD(model, restarts=1)
    for _ in range(3):  # the first is not captured
        attack.stream.offset = 0
        made = attack(images, labels)
    runs = runs_of(functools.partial(pgd, eps=40, bn=option.get("bn", "eval")), model, images, labels)
    if "bn" not in option:
        expected, _ = worst(judge, runs, labels)
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-9)
        assert used[next(iter(option))] > 0
    else:
        every = torch.stack(runs)  # [RUNS, 8, 3, 8, 8]
        assert (made == every).flatten(2).all(2).any(0).all()  # each is one of its runs


def test_at_each_size() -> None:
    model = Waves()
    images, labels = correct_images(model)
    attack = pgd(model, seed=5, restarts=RUNS)
    for eps, made in zip((1, 3), attack.at_each(images, labels, eps=[1, 3]), strict=True):
        assert torch.equal(made, pgd(model, seed=5, restarts=RUNS)(images, labels, eps=eps))


def test_confident_images_are_told_apart() -> None:
    """The cross-entropies of both runs round to zero in float32."""
    attack = attacks.PGD(ConvNet(), restarts=2)
    heights = attack.height(torch.tensor([[300.0, 0.0, 0.0], [200.0, 0.0, 0.0]]), torch.tensor([0, 0]))
    assert heights[1] > heights[0]
    towards = attacks.PGD(ConvNet(), restarts=2, targeted=True)
    heights = towards.height(torch.tensor([[300.0, 0.0, 0.0], [200.0, 0.0, 0.0]]), torch.tensor([1, 1]))
    assert heights[1] > heights[0]


def test_an_own_loss_and_an_own_start() -> None:
    class Own(attacks.PGD):
        """Starts at the corners of the ball, and follows the margin."""

        name = "own"

        def start_(self, adv: Tensor, clean: Tensor, eps: Any, seed: Any, offset: int) -> None:
            ops.noise_step_(adv, clean, eps, "sign", seed, offset, self.space)

        def loss(self, logits: Tensor, target: Tensor) -> Tensor:  # [N, K], [N] -> [N]
            return attacks.PGD(self.model, loss="margin").loss(logits, target)

    model = Waves()
    images, labels = correct_images(model)
    make = functools.partial(Own, eps=2, steps=2)
    attack = make(model, seed=5, restarts=RUNS)
    expected, rows = worst(attack, runs_of(make, model, images, labels), labels)
    assert torch.equal(attack(images, labels), expected) and rows[0] > rows[-1] > 0


def test_an_error_leaves_the_images_as_they_were() -> None:
    model = Waves()
    images, labels = correct_images(model)
    attack, before = pgd(model, seed=5, restarts=RUNS), images.clone()
    calls: list[int] = []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("out of memory")

    model.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        attack.perturb_(images, labels)
    assert torch.equal(images, before)


def test_an_evaluation() -> None:
    model = Waves().float()
    images, labels = correct_images(model)
    images = images.float()
    labels = model(images).argmax(1)
    common: dict[str, Any] = {"eps": 2, "steps": 2, "space": UNIT, "seed": 5, "early_stop": False}
    once = evaluate(model, [(images, labels)], attack="pgd", **common)
    worst_case = evaluate(model, [(images, labels)], attack="pgd", restarts=RUNS, **common)
    assert worst_case.top1 < once.top1
    assert (once.correct | ~worst_case.correct).all()  # what one run fools, more do
    in_parts = evaluate(
        model, zip(images.split(7), labels.split(7), strict=True), attack="pgd", restarts=RUNS, **common
    )
    assert torch.equal(in_parts.correct, worst_case.correct)
    assert parse_attack("pgd:steps=20:restarts=5:loss=dlr")[1] == {"steps": 20, "restarts": 5, "loss": "dlr"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fgsm", {}, "^fgsm draws no random numbers here, so each of its restarts .* must be 1, got 5; pgd"),
        ("iter_ll", {}, "^iter_ll draws no random numbers"),
        ("pgd", {"random_start": False}, "^pgd draws no random numbers"),
    ],
)
def test_without_random_numbers(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attacks.create(name, ConvNet(), restarts=5, **options)
    with pytest.raises(ValueError, match="restarts must be 1"):
        parse_attack(f"{name}:restarts=5" + "".join(":random_start=false" for _ in options))


def test_other_refusals() -> None:
    class OwnRun(attacks.PGD):
        """Does not know restarts."""

        name = "own_run"

        def run_(self, adv: Tensor, labels: Tensor | None, size: Any, seed: Any, offset: int) -> None:
            pass

    with pytest.raises(ValueError, match=r"^restarts must be at least 1, got 0"):
        attacks.PGD(ConvNet(), restarts=0)
    with pytest.raises(TypeError, match=r"^restarts must be an integer, got 2.5"):
        attacks.PGD(ConvNet(), restarts=2.5)
    with pytest.raises(ValueError, match=r"^own_run overrides run_, which has no restarts"):
        OwnRun(ConvNet(), restarts=2)
    for name in ("pgd", "n_fgsm", "apgd_ce"):
        with pytest.raises(ValueError, match=r"^restarts are for evaluations"):
            AdversarialTask(ConvNet(), attack=name, space=UNIT, attack_options={"restarts": 2})


def test_labels_are_checked_also_where_they_only_judge() -> None:
    with pytest.raises(ValueError, match=r"pgd.*label.*\b9\b"):
        attacks.PGD(ConvNet(), restarts=2, targets="least_likely")(batch(2)[0], torch.tensor([0, 9]))


def test_options_that_other_attributes_follow_from_cannot_be_set_later() -> None:
    attack = attacks.PGD(ConvNet())
    for name, value in (("restarts", 2), ("targets", "random"), ("targeted", True)):
        with pytest.raises(AttributeError):
            setattr(attack, name, value)


def test_what_it_counts_and_says() -> None:
    attack = attacks.PGD(ConvNet(), steps=5, restarts=3)
    assert (attack.forwards(8), attacks.PGD(ConvNet()).forwards(8)) == (3, 0)
    assert attack.gradients(8) == attack.expected_gradients(10, 8.0) == 15
    assert "restarts=3" in repr(attack)
    model = Waves()
    images, labels = correct_images(model)
    counted = pgd(model, restarts=3, seed=0)
    counted.counting = True
    counted(images, labels)
    assert int(counted.without_gradient) == 0
