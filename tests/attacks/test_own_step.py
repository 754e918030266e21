"""An own ``step_`` or ``run_`` that leaves the eps ball or the pixel range is an error in the first batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, TruncatedNormalEps, attacks, ops
from fastadv.evaluate import evaluate
from fastadv.train import AdversarialTask
from tests.attacks.models import DTYPES, SPACES, ConvNet, batch

IMAGES, LABELS = batch()
Steps = Callable[..., None]


def attack_with(step: Steps, base: type[attacks.GradientAttack] = attacks.FGSM, **attributes: Any) -> Any:
    return type("Own", (base,), {"name": "own", "step_": step, "__module__": __name__, **attributes})


def in_input_units(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
    """Takes eps for a size on the scale of the images, and leaves both."""
    adv.add_(alpha * grad.sign())


def unclipped(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
    """A step of the right size that is not clipped to the pixel range."""
    adv.add_(alpha / 255 * grad.sign())


def twice_as_far(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
    ops.sign_step_(adv, clean, grad, 2 * alpha, 2 * eps, self.space)


def not_a_number(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
    adv.fill_(torch.nan)


def in_plain_pytorch(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
    """A correct step, which rounds more often than the package's own."""
    std, clean = torch.tensor(self.space.std, dtype=adv.dtype).view(-1, 1, 1), clean.clone()
    lower, upper = (torch.tensor(bound, dtype=adv.dtype).view(-1, 1, 1) for bound in self.space.bounds(adv.dtype))
    eps, alpha = (size.view(-1, 1, 1, 1) if isinstance(size, Tensor) else size for size in (eps, alpha))
    moved = (adv + (alpha / std).to(adv.dtype) * grad.sign() - clean).clamp(-eps / std, eps / std)
    adv.copy_(torch.minimum(torch.maximum(clean + moved, lower), upper))


WRONG = {
    "range": (in_input_units, r"leave the pixel range \[0, 255\] of PixelSpace.unit\(\) by \S+: as pixels"),
    "clamp": (
        unclipped,
        r"leave the pixel range \[0, 255\] of PixelSpace.unit\(\) by \S+: as pixels they span \[-",
    ),
    "ball": (
        twice_as_far,
        r"leave the eps ball: image \d of .* is \S+ pixel values from its clean image in the Linf norm, and eps is 8\.",
    ),
    "NaN": (not_a_number, r"are not all finite: as pixels they span \[nan, nan\]"),
}


@pytest.mark.parametrize(("step", "message"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("base", [attacks.FGSM, attacks.PGD, attacks.MIFGSM])
def test_it_is_refused_and_the_images_stay_as_they_were(
    step: Steps, message: str, base: type[attacks.GradientAttack]
) -> None:
    attack, images = attack_with(step, base)(ConvNet(), eps=8, **({} if base is attacks.FGSM else {"alpha": 8})), IMAGES
    for _ in range(2):  # a batch that is refused was not the first
        with pytest.raises(ValueError, match=f"^own: the images that Own.step_ made {message}"):
            attack(images, LABELS)
    images = images.clone()
    with pytest.raises(
        ValueError, match="call super().step_".replace("(", r"\(").replace(")", r"\)") + "|not all finite"
    ):
        attack.perturb_(images, LABELS)
    assert torch.equal(images, IMAGES)
    with pytest.raises(ValueError, match=message):
        list(attack.at_each(images, LABELS, eps=[0.0, 8.0]))


def test_it_is_refused_in_training_and_evaluation() -> None:
    own, space = attack_with(twice_as_far), PixelSpace.unit()
    with pytest.raises(ValueError, match=r"^own: .* leave the eps ball"):
        evaluate(ConvNet(), [batch()], attack=own, eps=8, space=space)
    with pytest.raises(ValueError, match=r"^own: .* leave the eps ball"):
        AdversarialTask(ConvNet(), attack=own, eps=8, k=3, space=space)(*batch())


def test_a_run_of_its_own_is_checked() -> None:
    class Brighter(attacks.Attack):
        name = "brighter"

        def run_(self, adv: Tensor, labels: Any, size: Any, seed: Any, offset: int) -> None:
            adv.mul_(0.5)

    with pytest.raises(ValueError, match=r"^brighter: the images that Brighter.run_ made leave the eps ball: image"):
        Brighter(ConvNet(), eps=8)(IMAGES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize(
    "eps", [8, torch.tensor([0.0, 1, 2, 4, 8, 16]), TruncatedNormalEps()], ids=["one", "N", "drawn"]
)
def test_rounding_is_allowed(space: PixelSpace, dtype: torch.dtype, eps: Any) -> None:
    images, labels = batch(dtype=torch.float64, space=space)
    attack = attack_with(in_plain_pytorch, attacks.IterBasic)(ConvNet().to(dtype), eps=eps, steps=3, space=space)
    attack(images.to(dtype), labels)


def test_the_ball_of_an_l2_step() -> None:
    def step_(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        ops.normalized_step_(adv, clean, grad, 2 * alpha, 2 * eps, "l2", self.space)

    gray = torch.full_like(IMAGES, 0.5)
    attack_with(step_, attacks.FGSM)(ConvNet(), eps=8)(gray, LABELS)  # no pixel changes by more than 8
    with pytest.raises(ValueError, match=r"is 16 pixel values from its clean image in the L2 norm, and eps is 8\."):
        attack_with(step_, attacks.FastGradL2)(ConvNet(), eps=8)(gray, LABELS)


def test_what_is_not_checked() -> None:
    """A method that leaves the ball on purpose, later batches, and batches that are not to be checked."""
    unbounded = attack_with(twice_as_far, ball=None)(ConvNet(), eps=8)
    assert (unbounded(IMAGES, LABELS) - IMAGES).abs().max() > 12 / 255
    with pytest.raises(ValueError, match="leave the pixel range"):
        attack_with(unclipped, ball=None)(ConvNet(), eps=8)(IMAGES, LABELS)
    attack_with(in_input_units)(ConvNet(), eps=8, validate="never")(IMAGES, LABELS)
    sizes = iter([1, 2])

    def step_(self: Any, adv: Tensor, clean: Tensor, grad: Tensor, alpha: Any, eps: Any) -> None:
        times = next(sizes)
        ops.sign_step_(adv, clean, grad, times * alpha, times * eps, self.space)

    attack = attack_with(step_)(ConvNet(), eps=8)
    attack(IMAGES[:0], LABELS[:0])
    attack(IMAGES, LABELS)
    attack(IMAGES, LABELS)


def test_the_packages_own_steps_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay inside by their operators, so that the first batch needs no copy."""

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("fastadv.attacks.base.check_result", refuse)
    net = nn.Sequential(ConvNet())
    for name in attacks.names():
        attacks.create(name, net, eps=8)(IMAGES, attacks.create(name, net).true_labels(LABELS))
    with pytest.raises(AssertionError):
        attack_with(twice_as_far)(net, eps=8)(IMAGES, LABELS)
