"""Sample: the images that are checked, and what several checks measure on them, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastadv import attacks, ops
from fastadv.attacks.base import ball_of
from fastadv.evaluate.accuracy import Counts
from fastadv.evaluate.attack_specs import parse_attack
from fastadv.evaluate.hits import hits
from fastadv.pixels import PixelSpace, check_space
from fastadv.utils.model_outputs import split_logits
from fastadv.utils.validation import check_model, check_real

BATCH = 50
STEPS = 10  # of the attacks that are measured here
FEWEST_STEPS = 5  # of an attack that counts as one of many steps


class Measured(NamedTuple):
    """An attack of an evaluation, in Linf.

    Args:
        name: with its options, as on the command line.
        kind: the attack's class.
        eps: in pixel values.
        fooled: [m] bool, images that are misclassified.
    """

    name: str
    kind: type[attacks.Attack]
    eps: float
    fooled: Tensor


class OneStep(NamedTuple):
    """Adversarial images of FGSM [m, C, H, W], and the number of images whose gradient is zero or not finite."""

    images: Tensor
    without_gradient: int


@dataclass(frozen=True, eq=False)
class Sample:
    """Images, the model, and what is known of them; arguments are those of ``run_checks``."""

    model: Callable[..., Any]
    images: Tensor  # [m, C, H, W]
    labels: Tensor  # [m] int64
    space: PixelSpace
    eps: float
    seed: int
    accuracies: Mapping[tuple[str, float], Tensor | Counts]
    sources: tuple[Callable[..., Any], ...]

    def __post_init__(self) -> None:
        check_model(self.model)
        check_space(self.space)
        check_real("eps", self.eps, above=0, most=255)
        self.space.check(self.images)
        if self.images.dim() != 4 or not len(self.images):
            raise ValueError(f"images must be [m, C, H, W] with at least one image, got {list(self.images.shape)}")
        if self.labels.is_floating_point() or self.labels.dtype == torch.bool:
            raise TypeError(f"labels must be a tensor of class indices, got {self.labels.dtype}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must have shape [{len(self)}], got {list(self.labels.shape)}")
        for source in self.sources:
            check_model(source)
        for (name, eps), correct in self.accuracies.items():
            if _tensor(correct).shape != self.labels.shape or _tensor(correct).dtype != torch.bool:
                got = f"{_tensor(correct).dtype} {list(_tensor(correct).shape)}"
                raise ValueError(f"accuracies of {name} at eps {eps:g} must be bool [{len(self)}], got {got}")

    def __len__(self) -> int:
        return len(self.images)

    # --- answers -----------------------------------------------------------------------------------------------------

    def logits_at(self, images: Tensor, model: Callable[..., Any] | None = None) -> Tensor:
        """Return the logits [n, K] of images [n, C, H, W], without a graph."""
        with torch.no_grad():
            asked = self.model if model is None else model
            return torch.cat([split_logits(asked(batch.clone()))[0] for batch in batches(images)])

    @cached_property
    def logits(self) -> Tensor:  # [m, K]
        """Those of the clean images."""
        return self.logits_at(self.images)

    @cached_property
    def logits_again(self) -> Tensor:  # [m, K]
        """The same, asked a second time."""
        return self.logits_at(self.images)

    def fooled_by(self, images: Tensor) -> Tensor:  # [m, C, H, W] -> [m] bool
        """Which images are not classified as their labels."""
        return torch.cat(
            [
                ~hits(self.model, one, label).top1.cpu()  # type: ignore[arg-type]
                for one, label in zip(batches(images), batches(self.labels), strict=True)
            ]
        )

    @cached_property
    def wrong(self) -> Tensor:  # [m] bool
        """Clean images that are misclassified: no attack has to do anything to them."""
        return self.fooled_by(self.images)

    def margins(self, logits: Tensor) -> Tensor:  # [m, K] -> [m]
        """Return the logit of the label minus the largest of the others, in float64."""
        wide = logits.double()
        own = wide.gather(1, self.labels[:, None])[:, 0]  # [m]
        return own - wide.scatter(1, self.labels[:, None], -torch.inf).amax(dim=1)

    @cached_property
    def has_gradient(self) -> bool:
        """Whether autograd reaches the images at all."""
        with torch.enable_grad():
            image = self.images[:1].detach().clone().requires_grad_()  # [1, C, H, W]
            logits, _ = split_logits(self.model(image))
            if not logits.requires_grad:
                return False
            [grad] = torch.autograd.grad(logits.sum(), image, allow_unused=True)
        return grad is not None

    # --- attacks -----------------------------------------------------------------------------------------------------

    def create(self, name: str, *, model: Callable[..., Any] | None = None, eps: float, **options: Any) -> Any:
        """Create an attack, which warns of nothing: that is what the checks do."""
        asked = self.model if model is None else model
        own = {"seed": self.seed, "validate": "never", **options}
        return attacks.create(name, asked, eps=eps, space=self.space, **own)

    def attacked(self, attack: attacks.Attack) -> Tensor:
        """Return the adversarial images [m, C, H, W]."""
        parts = zip(batches(self.images), batches(self.labels), strict=True)
        return torch.cat([attack(images, labels) for images, labels in parts])

    def moved(self, towards: Tensor, length: float) -> Tensor:  # [m, C, H, W] -> [m, C, H, W]
        """Return the images after one step, which may be shorter than any attack's, along the signs that led there."""
        moved = self.images.detach().clone()
        ops.sign_step_(moved, self.images, towards - self.images, length, length, self.space)
        return moved

    @cached_property
    def one_step(self) -> OneStep:
        """FGSM, at the eps at which attacks are compared."""
        attack = self.create("fgsm", eps=self.eps)
        attack.counting = True
        found, count = [], 0
        for images, labels in zip(batches(self.images), batches(self.labels), strict=True):
            found.append(attack(images, labels))
            count += int(attack.without_gradient)
        return OneStep(torch.cat(found), count)

    @cached_property
    def noise(self) -> Tensor:  # [m, C, H, W]
        """Random signs, of the same size."""
        return self.attacked(self.create("random_sign", eps=self.eps))

    def fooled_under(self, name: str, **options: Any) -> Tensor:
        """Return which images [m] bool are misclassified clean or under an attack."""
        return self.wrong | self.fooled_by(self.attacked(self.create(name, **options)))

    @cached_property
    def measured(self) -> list[Measured]:
        """The attacks in Linf that an evaluation has measured."""
        return list(self._read())

    def _read(self) -> Iterator[Measured]:
        for (name, eps), correct in self.accuracies.items():
            if name.partition(":")[0] not in attacks.names():  # clean, or an attack of one's own, which may do anything
                continue
            kind_name, options = parse_attack(name)
            kind = attacks.get(kind_name)
            few = options.get("steps", FEWEST_STEPS) < FEWEST_STEPS
            if ball_of(kind, options) == "linf" and not few:
                yield Measured(name, kind, float(eps), self.wrong | ~_tensor(correct).cpu())

    def measured_at_eps(self, *kinds: type[attacks.Attack]) -> list[Measured]:
        """Those of some kinds at the eps at which attacks are compared."""
        return [one for one in self.measured if one.eps == self.eps and issubclass(one.kind, kinds)]

    @cached_property
    def by_gradient(self) -> Tensor:  # [m] bool
        """Images that attacks fool that follow the gradient away from the label in many steps; at worst ten of PGD."""
        found = [one.fooled for one in self.measured if one.eps == self.eps and many_steps(one.kind)]
        return torch.stack(found).any(dim=0) if found else self.fooled_under("pgd", eps=self.eps, steps=STEPS)


def batches(tensor: Tensor) -> list[Tensor]:  # [m, ...]
    """Split images, or labels, into parts of at most 50."""
    return [tensor[first : first + BATCH] for first in range(0, len(tensor), BATCH)]


def many_steps(kind: type[attacks.Attack]) -> bool:
    """Whether an attack is the kind that should be hardest to resist: many steps away from the label."""
    follows = issubclass(kind, attacks.GradientAttack) and not issubclass(kind, attacks.OneStepAttack)
    return follows and kind.needs_labels and bool(getattr(kind, "ascend", False))


def _tensor(correct: Tensor | Counts) -> Tensor:  # [m] bool
    return correct.correct if isinstance(correct, Counts) else correct
