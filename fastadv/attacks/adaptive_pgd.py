"""AdaptivePGD: projected gradient descent that finds its own step sizes, on images that are still undecided."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.engine.ascent import Ascent, check_windows
from fastadv.attacks.engine.cost import label_and_target
from fastadv.attacks.engine.first_look import first_look
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.result_check import NORMS
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.attacks.engine.zero_gradients import count_zero_gradients
from fastadv.attacks.gradient import GradientAttack, refuse_costs_options
from fastadv.attacks.options import GradientAttackOptions
from fastadv.pixels import PixelSpace
from fastadv.utils.rng import nth_seed
from fastadv.utils.validation import check_count, check_one_of, check_real

_NOISE = PixelSpace(0.0, 1.0, lower=-8.0, upper=8.0)  # of standard noise, none of which it clips
_KINDS = {"linf": "uniform", "l2": "normal"}  # of the noise that a start is drawn from
_WITHOUT_EFFECT = ("direction", "step_", "step_counts")


class AdaptivePGD(GradientAttack):
    """Auto-PGD (Croce and Hein, 2020): steps with momentum, halved for each image when they no longer help.

    The first step is 2 eps long. At fixed checkpoints, the step of an image is halved, and the image goes back to its
    best iterate, if too few of its steps made the loss rise, or if nothing better was found since the last checkpoint.

    An image that is misclassified, even without an attack, is decided: it is not attacked any further. Of an image that
    stays correct, the result is the iterate with the highest loss.

    Base class of the attacks of this kind, which set ``rule``, the loss, and :meth:`goals`. Of the methods that a
    gradient attack may override, it has :meth:`loss` and :meth:`start_`.

    Args:
        norm: of the ball, ``"linf"`` or ``"l2"``.
        steps: number of iterations, each with a gradient but the last, which needs a forward pass only; one more
            gradient is that at the start.
        restarts: number of random starts. Only images that are still correct get another.
        rho: share of the steps between two checkpoints that have to raise the loss.
        eot: number of passes whose gradients are averaged, for a model that draws random numbers ("expectation over
            transformation", Athalye et al., 2018). Its logits are averaged as well: an image is misclassified if their
            mean is.
    """

    ascend = True
    needs_labels = True
    draws = True
    fixed_goal = True
    stops_early = True  # type: ignore[assignment]  # with and without early_stop
    fewest_classes: ClassVar[int] = 2

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for method in _WITHOUT_EFFECT:
            if method in vars(cls):
                raise TypeError(
                    f"{cls.__name__} overrides {method}, which adaptive PGD does not call: derive it from PGD, or "
                    f"override loss or start_"
                )

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        norm: str = "linf",
        steps: int = 100,
        rho: float = 0.75,
        **options: Unpack[GradientAttackOptions],
    ) -> None:
        check_one_of("norm", norm, tuple(NORMS))
        self.ball = norm  # before the base checks eps
        super().__init__(model, **options)
        check_count("steps", steps, least=1)
        check_real("rho", rho, least=0, most=1)
        refuse_costs_options(self)
        self.norm = norm
        self.steps = steps
        self.rho = float(rho)

    @abstractmethod
    def goals(self, labels: Tensor, logits: Tensor) -> Iterator[Tensor]:
        """Yield what each run's loss is about: the true classes [N], or pairs of these and the targets [N, 2].

        Args:
            labels: [N] int64.
            logits: [N, K], of the clean images.
        """

    @classmethod
    def refused_options(cls) -> set[str]:
        return super().refused_options() - {"restarts"} | {"label_smoothing", "aux_weight"}

    def _check_restarts(self) -> None:
        check_count("restarts", self.restarts, least=1)

    def _check_early_stop(self) -> None:
        """It stops in any case."""

    def step_sizes(self, size: Size) -> Sequence[float | Tensor]:
        """Return the length that each step has at most, which is that of the first."""
        return [2 * size.eps] * self.steps

    def forwards(self, eps: float) -> int:
        return self.eot * (1 + self.runs)  # at the clean image, and after the last step of each run

    def start_(self, adv: Tensor, clean: Tensor, eps: float | Tensor, seed: int | Tensor, offset: int) -> None:
        """Move adv to a random point: uniform noise whose largest value is eps, or normal noise of the length eps."""
        noise = torch.zeros_like(clean)
        ops.noise_step_(noise, torch.zeros_like(clean), 1.0, _KINDS[self.norm], seed, offset, _NOISE)
        if len(self.space.std) > 1:  # the step takes it for a gradient, and turns it into one by pixels
            noise *= torch.tensor(self.space.std, dtype=noise.dtype, device=noise.device).view(
                -1, *[1] * (noise.dim() - 2)
            )
        ops.normalized_step_(adv, clean, noise, eps, eps, self.norm, self.space)

    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        assert labels is not None
        adv.copy_(self.search(Undecided(adv, labels), size, seed, offset))

    def search(self, given: Undecided, size: Size, seed: int | Tensor, offset: int) -> Tensor:
        """Attack the images of a batch that are left; return adversarial images [N, C, ...], and clean ones for others.

        An image's result depends neither on the others nor on which of them are left.

        Args:
            given: the images.
            size: of the perturbations of all N images.
            seed, offset: of the random numbers of all N images.
        """
        gradient = self._input_gradient()
        if self._captures(given.clean):
            self._log_no_capture("it reads the losses of its steps on the host, and images leave the batch")
        counted = self.image_gradients, self.image_queries

        def run() -> Tensor:
            self.image_gradients, self.image_queries = counted  # it runs again if a folded model turns out to differ
            self.without_gradient = None
            gradient.refresh()
            undecided = Undecided(gradient.in_layout(given.clean), given.labels, given.left)
            whole = gradient.cost.mixes_examples
            self.image_queries += self.eot * len(undecided.clean if whole else undecided.left)
            logits = first_look(gradient, undecided, whole=whole)
            self.check_classes(logits.shape[1])
            for number, goal in enumerate(self.goals(undecided.labels, logits)):
                if len(undecided.left):
                    start = undecided.clean.clone()  # [N, C, ...]
                    self.start_(start, undecided.clean, size.eps, nth_seed(seed, number), offset)
                    self._climb(gradient, undecided, goal, start, size.eps)
            return undecided.adv

        return gradient.run(given.clean, run)

    def check_classes(self, classes: int) -> None:
        """Refuse a model that has too few classes for the loss.

        Raises:
            ValueError: if so.
        """
        if classes < self.fewest_classes:
            raise ValueError(
                f"{self.name} needs a model with at least {self.fewest_classes} classes, got {classes}: "
                "use apgd_ce, fab and square, which need two"
            )

    def _climb(
        self, gradient: InputGradient, undecided: Undecided, goal: Tensor, start: Tensor, eps: float | Tensor
    ) -> None:
        """Attack the images that are left once, with goals [N, ...] from starts [N, C, ...]."""
        stays = gradient.cost.mixes_examples or self.compile  # then the batch remains as it is
        place = torch.arange(len(start), device=start.device) if stays else undecided.left
        ascent = self._begin(gradient, undecided, place, goal[place], start[place], eps)
        windows = check_windows(self.steps)
        for step in range(1, self.steps + 1):
            rows = None if stays else undecided.rows_left(ascent.place)
            if rows is not None:
                ascent = ascent.rows(rows)
            if not len(undecided.left):
                return
            ascent.step_(self.norm, self.space, first=step == 1)
            logits, grad = self._at(gradient, ascent, needs_gradient=step < self.steps)
            undecided.look(ascent.place, ascent.adv, logits)
            ascent.observe(self.height(logits, ascent.goal), grad)
            if step in windows:
                ascent.check(windows[step], self.rho)
        undecided.keep_best(ascent.place, ascent.best, ascent.best_loss)

    def _begin(
        self,
        gradient: InputGradient,
        undecided: Undecided,
        place: Tensor,
        goal: Tensor,
        start: Tensor,
        eps: float | Tensor,
    ) -> Ascent:
        """Compute the gradients at the starts of the images at ``place``."""
        found = gradient.first(start, goal, 0, 0)
        self.image_gradients += self.eot * len(place)
        if self.counting and self.without_gradient is None:
            self.without_gradient = count_zero_gradients(found.grad)
        undecided.look(place, start, found.logits)
        eps = eps[place] if isinstance(eps, Tensor) else eps
        loss = self.height(found.logits, goal)
        return Ascent.begin(place, goal, undecided.clean[place], start, found.grad, loss, eps)

    def _at(self, gradient: InputGradient, ascent: Ascent, *, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Return the logits [n, K] at the iterates and, unless it is not needed, the gradient [n, C, ...]."""
        if not needs_gradient:
            self.image_queries += self.eot * len(ascent.adv)
            return gradient.logits(ascent.adv), None
        found = gradient.further(ascent.adv, ascent.goal)
        self.image_gradients += self.eot * len(ascent.adv)
        return found.logits, found.grad

    def height(self, logits: Tensor, goal: Tensor) -> Tensor:
        """Return by what the iterates of an image are compared: the loss, or what rises and falls with it: [n].

        In place of the cross-entropy these are the log-odds of the true class being wrong, which do not saturate.

        Args:
            logits: [n, K].
            goal: [n], or [n, 2], see :meth:`goals`.
        """
        if self._has_own_loss:
            return self.loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), goal)
        rule = "log_odds" if self.rule == "label" else self.rule
        labels, targets = label_and_target(goal)
        return ops.row_losses(logits, labels, rule, targets)

    def options(self) -> dict[str, Any]:
        own = {"norm": self.norm, "steps": self.steps, "rho": self.rho}
        return {**super().options(), **own}
