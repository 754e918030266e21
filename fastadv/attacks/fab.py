"""FAB, the Fast Adaptive Boundary attack, in the two forms that AutoAttack uses.

Croce and Hein: "Minimally distorted adversarial examples with a fast adaptive boundary attack", 2020.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain, product
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv.attacks.engine.boundary_search import BoundarySearch, boundary_step, nearest_boundary
from fastadv.attacks.engine.input_gradient import Gradient
from fastadv.attacks.engine.logit_difference import likeliest_others
from fastadv.attacks.engine.step_sizes import Eps
from fastadv.attacks.engine.undecided import is_correct
from fastadv.attacks.engine.zero_gradients import count_zero_gradients
from fastadv.attacks.options import FABOptions, SearchAttackOptions
from fastadv.attacks.search import SearchAttack, SearchCall
from fastadv.utils.validation import check_count, check_real, check_switches

_KINDS = {"linf": "uniform", "l2": "normal"}  # of the noise that a start is drawn from


class _FAB(SearchAttack):
    """The iterations of both forms, which differ in the classes whose boundaries they look at.

    Args:
        restarts: number of runs on images that are not fooled yet. The first starts from the clean image, the others
            from random points at a distance of eps / 2.
        steps: number of iterations of a run.
        alpha_max: largest weight of the part of a step that starts from the clean image.
        eta: length of a step, as a multiple of the way to the boundary.
        beta: share of its perturbation that an adversarial image keeps for the next step.
        minimize: go on with images that are fooled within eps, and return the nearest adversarial ones. With a large
            eps, their distances say at which smaller eps each image is fooled.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        steps: int = 100,
        alpha_max: float = 0.1,
        eta: float = 1.05,
        beta: float = 0.9,
        minimize: bool = False,
        **options: Unpack[SearchAttackOptions],
    ) -> None:
        super().__init__(model, **options)
        check_count("steps", steps, least=1)
        check_real("alpha_max", alpha_max, least=0, most=1)
        check_real("eta", eta, least=1)
        check_real("beta", beta, least=0, below=1)
        check_switches(minimize=minimize)
        self.steps = steps
        self.alpha_max = float(alpha_max)
        self.eta = float(eta)
        self.beta = float(beta)
        self.minimize = minimize
        self.draws = self.restarts > 1

    @abstractmethod
    def targets(self, logits: Tensor, labels: Tensor) -> list[Tensor]:
        """Return the other classes whose boundaries each run looks at: [N, T] int64 for each run.

        Args:
            logits: [N, K], of the clean images.
            labels: [N].
        """

    def attack(self, call: SearchCall) -> None:
        undecided = call.undecided
        runs = self.targets(call.clean_logits, undecided.labels)  # [N, T] each
        for number, (targets, restart) in enumerate(product(runs, range(self.restarts))):
            if len(undecided.left):
                start = self._start(call, number) if restart else undecided.clean  # [N, C, ...]
                whole = (start, undecided.clean, undecided.labels, targets, call.eps)  # [N, ...] each
                place = call.place
                self._follow(call, BoundarySearch(place, *(tensor[place] for tensor in whole)))

    def _start(self, call: SearchCall, number: int) -> Tensor:  # [N, C, ...]
        """Return random points halfway from the clean images to the ball's surface, clipped to the range."""
        clean = call.undecided.clean
        noise = call.noise(clean.shape[1:], _KINDS[self.norm], number) / call.box.std  # [N, C, ...]
        scale = call.eps / 2 / call.box.length(noise, self.norm)  # [N]
        return call.box.clip(clean + noise * scale.view(-1, *[1] * (clean.dim() - 1)))

    def _follow(self, call: SearchCall, search: BoundarySearch) -> None:
        """Take the steps of one run, and decide the images for which it finds an adversarial one in the ball."""
        for _ in range(self.steps):
            boundary = nearest_boundary(self._gradients(call, search), call.box, self.norm)
            search = search.at(boundary_step(search, boundary, call.box, self.norm, self.eta, self.alpha_max))
            wrong = self._look(call, search)  # [n] bool
            back = torch.lerp(search.clean, search.images, self.beta)  # [n, C, ...]
            search = search.at(torch.where(wrong.view(-1, *[1] * (back.dim() - 1)), back, search.images))
            rows = call.rows_left(search.place)
            if rows is not None:
                search = search.rows(rows)
            if not len(search.place):
                return

    def _gradients(self, call: SearchCall, search: BoundarySearch) -> Iterator[Gradient]:
        """Yield the gradients of the differences between the other classes' logits and the true one's."""
        pairs = search.pairs()  # [n, 2] each
        alone = 1 if len(pairs) == 1 or call.gradient.checks_outputs else 0
        found = (call.gradient.first(search.images, pair, 0, 0) for pair in pairs[:alone])
        self.image_gradients += len(pairs) * len(search.place)
        for gradient in chain(found, call.gradient.each(search.images, pairs[alone:])):
            if self.counting and self.without_gradient is None:
                self.without_gradient = count_zero_gradients(gradient.grad)
            yield gradient

    def _look(self, call: SearchCall, search: BoundarySearch) -> Tensor:
        """Keep the adversarial images in the ball; return which are adversarial, also outside it: [n] bool."""
        logits = call.logits(search.images)  # [n, K]
        wrong = ~is_correct(logits, search.labels)
        distance = call.box.distance(search.images, search.clean, self.norm)  # [n]
        rows = (wrong & (distance <= search.eps)).nonzero()[:, 0]
        found = search.place[rows], search.images[rows]
        if self.minimize:
            call.undecided.keep_best(*found, -distance[rows])
        else:
            call.undecided.look(*found, logits[rows])
        return wrong

    def gradients(self, eps: float) -> int:
        """Return how many gradients per image a call computes for an image that is not fooled; for others fewer.

        Without a model's number of classes this counts one other class.
        """
        return self.restarts * self.steps

    def forwards(self, eps: float) -> int:
        return 1 + self.gradients(eps)

    def expected_gradients(self, n: int, eps: Eps) -> float:
        """Return the most that there may be: those of images that are not fooled."""
        return float(self.gradients(0.0))

    def options(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("steps", "alpha_max", "eta", "beta", "minimize")}
        return {**super().options(), **own}


class FAB(_FAB):
    """Looks for the nearest adversarial image, and returns it if it lies in the ball.

    A step leads to where two logits would be equal if they were linear around the current image: to the nearest such
    point of the pixel range, for whichever other class seems the nearest, and a little further. It is drawn towards the
    clean image, and an image that is past the boundary goes part of the way back: so the iterates follow the boundary
    to where it is nearest. On their way they leave the ball. A step computes one gradient for each other class.

    AutoAttack's version "plus" uses it with five restarts.
    """

    name = "fab"

    def targets(self, logits: Tensor, labels: Tensor) -> list[Tensor]:
        classes = logits.shape[1]
        beyond = torch.arange(1, classes, device=labels.device)  # [K - 1]
        return [(labels[:, None] + beyond) % classes]


class FABT(_FAB):
    """FAB, but in each run only the boundary to one target class, the likeliest first.

    So a step computes one gradient, however many classes there are. AutoAttack's version "standard" uses it.

    Args:
        target_classes: number of target classes; at most all but the true one are taken.
    """

    name = "fab_t"

    def __init__(self, model: Callable[..., Any], *, target_classes: int = 9, **options: Unpack[FABOptions]) -> None:
        super().__init__(model, **options)
        check_count("target_classes", target_classes, least=1)
        self.target_classes = target_classes

    def targets(self, logits: Tensor, labels: Tensor) -> list[Tensor]:
        return [target[:, None] for target in likeliest_others(logits, labels, self.target_classes).unbind(1)]

    def gradients(self, eps: float) -> int:
        """Return how many gradients per image a call computes for an image that is not fooled; for others fewer."""
        return self.target_classes * self.restarts * self.steps

    def options(self) -> dict[str, Any]:
        return {**super().options(), "target_classes": self.target_classes}
