"""The option early_stop: decided images leave the batch, and each result is the first misclassified iterate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastadv import attacks
from fastadv.attacks.adaptive_pgd import AdaptivePGD
from fastadv.attacks.engine.undecided import is_correct
from fastadv.attacks.gradient import GradientAttack
from fastadv.attacks.kl import KLAttack
from fastadv.attacks.one_step import OneStepAttack
from fastadv.utils.rng import nth_seed

N, CLASSES, STEPS, RUNS = 24, 5, 12, 3
SPLITS = {"ones": [1] * N, "odd": [7, 1, 11, 5], "whole": [N]}
EPS = torch.linspace(1.6, 11.2, N)


class WithAux(NamedTuple):
    logits: Tensor  # [N, CLASSES]
    aux_logits: Tensor  # [N, CLASSES]


class Hills(nn.Module):
    """Logits with many hills. Each row is computed in the same order of operations, whatever the batch.

    Attributes:
        passes: images and logits of each forward pass.
        gradients: number of images of all backward passes.
    """

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.waves = nn.Parameter(torch.randn(CLASSES, 48, generator=generator, dtype=torch.float64))
        self.passes: list[tuple[Tensor, Tensor]] = []
        self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, 4, 4] -> [N, CLASSES]
        x = images.flatten(1)[:, None]  # [N, 1, 48]
        heights = (x * self.waves).sum(dim=-1)  # [N, CLASSES]
        logits = (0.75 * heights).sin() + torch.linspace(1.0, 0.0, CLASSES, dtype=x.dtype)
        self.passes.append((images.detach().clone(), logits.detach()))
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, grad: Tensor) -> None:  # [N, CLASSES]
        self.gradients += len(grad)

    def forward_with_aux(self, images: Tensor) -> WithAux:
        logits = self(images)
        return WithAux(logits, logits.roll(1, dims=1))

    @property
    def rows(self) -> list[int]:
        """How many images each pass had."""
        return [len(images) for images, _ in self.passes]


class OwnLoss(attacks.PGD):
    name = "own_loss"

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.mean(dim=1) - logits.gather(1, target[:, None])[:, 0]


class OwnStep(attacks.IterBasic):
    name = "own_step"

    def step_(self, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        super().step_(adv, clean, grad.sin(), alpha, eps)


class OwnSchedule(attacks.PGD):
    name = "own_schedule"

    def step_sizes(self, size: Any) -> Any:
        return [size.eps / (1 + step) for step in range(STEPS)]


Make = Callable[..., attacks.GradientAttack]


def of(kind: type[attacks.GradientAttack], **options: Any) -> Make:
    """An attack of that kind, with these options unless others are given."""
    return lambda model, **others: kind(model, **{"seed": 5, "eps": 8.0, **options, **others})


ITERATIVE = [
    kind
    for kind in map(attacks.get, attacks.names())
    if issubclass(kind, GradientAttack) and not issubclass(kind, (OneStepAttack, AdaptivePGD))
]
CASES: dict[str, Make] = {
    **{kind.name: of(kind, alpha=3.2, steps=STEPS) for kind in ITERATIVE},
    **{f"{kind.name} with an eps each": of(kind, eps=EPS, alpha=3.2, steps=STEPS) for kind in ITERATIVE},
    "papers schedule with an eps each": of(attacks.IterBasic, eps=EPS),
    "kl": of(KLAttack, steps=STEPS),
    "pgd in l2": of(attacks.PGD, norm="l2", eps=32, alpha=12, steps=STEPS),
    "pgd without its start": of(attacks.PGD, random_start=False, alpha=3.2, steps=STEPS),
    "pgd of one step": of(attacks.PGD, random_start=False, steps=1),
    "targeted": of(attacks.PGD, targeted=True, alpha=3.2, steps=STEPS),
    "random targets": of(attacks.PGD, targets="random", alpha=3.2, steps=STEPS),
    "least likely": of(attacks.PGD, targets="least_likely", alpha=3.2, steps=STEPS),
    "predicted": of(attacks.IterBasic, targets="predicted", alpha=3.2, steps=STEPS),
    "dlr": of(attacks.PGD, loss="dlr", alpha=3.2, steps=STEPS),
    "smoothed": of(attacks.IterBasic, label_smoothing=0.1, alpha=3.2, steps=STEPS),
    "auxiliary logits": of(attacks.IterBasic, aux_weight=0.4, alpha=3.2, steps=STEPS),
    "own loss": of(OwnLoss, alpha=3.2, steps=STEPS),
    "own step": of(OwnStep, alpha=3.2, steps=STEPS),
    "own schedule": of(OwnSchedule),
    "eot": of(attacks.PGD, eot=3, alpha=3.2, steps=STEPS),
}


def examples(n: int = N) -> tuple[Tensor, Tensor]:
    """Images and labels, of which the model gets all but three right."""
    images = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        labels = Hills()(images).argmax(1)
    labels[:3] = (labels[:3] + 1) % CLASSES
    return images, labels


def full_run(attack: attacks.GradientAttack, model: Any, images: Tensor, labels: Tensor) -> Tensor:
    """What early_stop shall return: the first misclassified iterate of all steps, or else the last: [N, C, H, W]."""
    model.passes.clear()
    attack.step_counts = lambda size: None  # type: ignore[method-assign]  # all images take part in all passes
    last = attack(images, labels if attack.needs_labels else None)
    passes = model.passes[isinstance(attack, KLAttack) :]  # the first one of kl is at the clean images
    iterates = passes[:: attack.eot]
    logits = [
        torch.stack([logits for _, logits in passes[at : at + attack.eot]]).sum(0)
        for at in range(0, len(passes), attack.eot)
    ]
    results = last.clone()
    for (iterate, _), of_it in reversed(list(zip(iterates, logits, strict=True))):
        decided = is_correct(of_it, labels) == attack.targeted  # [N]
        results[decided] = iterate[decided]
    return results


def by_parts(attack: attacks.GradientAttack, images: Tensor, labels: Tensor, split: Sequence[int]) -> Iterator[Tensor]:
    """The results of the parts of a batch, in calls one after another."""
    each = attack.eps.split(list(split)) if isinstance(attack.eps, Tensor) else [None] * len(split)
    for x, y, eps in zip(images.split(list(split)), labels.split(list(split)), each, strict=True):
        yield attack(x, y, eps=eps)


@pytest.mark.filterwarnings("ignore:.*averages the same gradient")
@pytest.mark.filterwarnings("ignore:.*ignores the labels")
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_the_full_run(case: str, split: str) -> None:
    model, (images, labels) = Hills(), examples()
    expected = full_run(CASES[case](model), model, images, labels)
    model.gradients = 0
    model.passes.clear()
    attack = CASES[case](model, early_stop=True)
    adv = torch.cat(list(by_parts(attack, images, labels, SPLITS[split])))
    assert torch.equal(adv, expected)
    assert attack.image_gradients == model.gradients
    assert attack.image_gradients + attack.image_queries == sum(model.rows)


def test_a_pass_without_its_gradient_is_counted() -> None:
    """One that decides most of its images: no gradient is worth it, and the others need another pass."""
    model, (images, labels) = Hills(), examples()
    attack = attacks.IterBasic(model, eps=60, alpha=30, steps=2, early_stop=True)
    attack(images, labels)
    assert model.rows[:2] == [N, N] and attack.image_queries == N and attack.image_gradients == model.gradients < 2 * N


@pytest.mark.filterwarnings("ignore:.*averages the same gradient")
@pytest.mark.parametrize("case", [case for case in CASES if case not in ("pgd of one step", "targeted")])
def test_fewer_rows(case: str) -> None:
    """Else the test above would show little."""
    model, (images, labels) = Hills(), examples()
    attack = CASES[case](model, early_stop=True)
    attack(images, labels)
    whole = attack.gradients(float(EPS.max() if isinstance(attack.eps, Tensor) else attack.eps)) * N
    assert N < attack.image_gradients < 0.9 * whole


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("case", ["pgd", "targeted", "least likely", "dlr", "pgd in l2"])
def test_restarts(case: str, split: str) -> None:
    """Each run stops early; of an image that none decides, the result is the highest of their last iterates."""
    model, (images, labels) = Hills(), examples()
    attack = CASES[case](model, restarts=RUNS, early_stop=True)
    adv = torch.cat(list(by_parts(attack, images, labels, SPLITS[split])))
    counted = attack.image_gradients
    expected, left = images.clone(), torch.ones(N, dtype=torch.bool)
    highest = torch.full((N,), -torch.inf, dtype=torch.float64)
    for number in range(RUNS):
        attack = CASES[case](model, seed=nth_seed(5, number))
        made = full_run(attack, model, images, labels)
        logits = model(made).detach()
        decided = left & (is_correct(logits, labels) == attack.targeted)
        height = attack.height(logits, labels)
        better = decided | (left & (height > highest))
        expected[better], highest[better] = made[better], height[better]
        left &= ~decided
    assert torch.equal(adv, expected)
    assert counted < 0.8 * RUNS * STEPS * N


class Mixing(Hills):
    """The logits of an image depend on the others."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3).double()

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits + self.norm(images).mean(dim=(1, 2, 3))[:, None] * torch.arange(CLASSES)


def test_images_that_depend_on_each_other_stay() -> None:
    model, (images, labels) = Mixing(), examples()
    make = of(attacks.PGD, alpha=3.2, steps=STEPS, bn="batch")
    model.passes.clear()
    attack = make(model)
    last = attack(images, labels)
    # Hills' own logits lack what the batch adds, so each iterate is judged by the model again.
    expected, moved = last.clone(), [images for images, _ in model.passes]
    with torch.no_grad():
        model.norm.train()
        for iterate in reversed(moved):
            decided = ~is_correct(model(iterate), labels)
            expected[decided] = iterate[decided]
    model.passes.clear()
    attack = make(model.eval(), early_stop=True)
    assert torch.equal(attack(images, labels), expected)
    assert set(model.rows) == {N}


def test_a_batch_ends_when_all_are_decided() -> None:
    """Also one that no image can leave."""
    model, (images, _) = Mixing().train(), examples()
    with torch.no_grad():
        wrong = (model(images).argmax(1) + 1) % CLASSES
    model.passes.clear()
    attack = attacks.IterBasic(model, eps=8, steps=STEPS, bn="batch", early_stop=True)
    assert torch.equal(attack(images, wrong), images)
    assert model.rows == [N]


def test_the_first_batch_may_stay_where_it_is() -> None:
    """No warning that a step of one's own moves nothing."""
    model, (images, labels) = Hills(), examples()
    attack = CASES["own step"](model, early_stop=True)
    assert torch.equal(attack(images[:1], labels[:1]), images[:1])


@pytest.mark.parametrize("name", [name for name in attacks.names() if "random" not in name])
def test_who_stops_early(name: str) -> None:
    kind, model = attacks.get(name), Hills()
    one_step = issubclass(kind, OneStepAttack)
    always = not issubclass(kind, GradientAttack) or issubclass(kind, AdaptivePGD)
    assert attacks.create(name, model).stops_early == always
    if issubclass(kind, GradientAttack):
        attack = attacks.create(name, model, early_stop=True)
        assert attack.stops_early == (not one_step)
        assert attack.needs_labels == (kind.needs_labels or not one_step)


def test_one_step_attacks_have_nothing_to_leave_out() -> None:
    model, (images, labels) = Hills(), examples()
    expected = attacks.FGSM(model, eps=8)(images, labels)
    assert torch.equal(attacks.FGSM(model, eps=8, early_stop=True)(images, labels), expected)
    assert attacks.StepLL(model, eps=8, early_stop=True)(images).shape == images.shape  # without labels


def test_a_run_of_ones_own_has_no_early_stop() -> None:
    class OwnRun(attacks.PGD):
        name = "own_run"

        def run_(self, adv: Tensor, labels: Any, size: Any, seed: Any, offset: int) -> None:
            super().run_(adv, labels, size, seed, offset)

    with pytest.raises(ValueError, match="own_run overrides run_, which takes all of its steps: early_stop must be Fa"):
        OwnRun(Hills(), early_stop=True)


def test_labels_are_needed_and_checked() -> None:
    model, (images, labels) = Hills(), examples()
    attack = attacks.IterLL(model, eps=8, early_stop=True)
    with pytest.raises(ValueError, match="iter_ll uses the true label: call it with labels"):
        attack(images)
    given = images.clone()
    with pytest.raises(ValueError, match=r"iter_ll: labels must be in \[0, 5\), the model's 5 classes, got 7"):
        attack.perturb_(given, labels.fill_(7))
    assert torch.equal(given, images)


def test_images_are_restored_when_the_model_raises() -> None:
    class Failing(Hills):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) < N:
                raise RuntimeError("too few")
            return super().forward(images)

    images, labels = examples()
    given = images.clone()
    with pytest.raises(RuntimeError, match="too few"):
        attacks.PGD(Failing(), eps=8, steps=STEPS, early_stop=True).perturb_(given, labels)
    assert torch.equal(given, images)


def test_capture_is_skipped_and_said_so() -> None:
    model, (images, labels) = Hills(), examples()
    attack = CASES["iter_basic"](model, early_stop=True, capture=True)
    with pytest.warns(UserWarning, match="iter_basic runs without capture=True: early_stop=True reads verdicts"):
        adv = attack(images, labels)
    assert torch.equal(adv, CASES["iter_basic"](model, early_stop=True)(images, labels))


def test_nobody_leaves_a_compiled_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)  # which takes a minute
    model, (images, labels) = Hills(), examples()
    expected = CASES["iter_basic"](model, early_stop=True)(images, labels)
    model.passes.clear()
    assert torch.equal(CASES["iter_basic"](model, early_stop=True, compile=True)(images, labels), expected)
    assert set(model.rows) == {N}
