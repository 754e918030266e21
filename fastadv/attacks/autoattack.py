"""AutoAttack: several attacks that need no tuning, each on the images that the ones before it have left."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.adaptive_pgd import AdaptivePGD
from fastadv.attacks.apgd import APGDCE, APGDDLR, APGDT
from fastadv.attacks.base import Attack
from fastadv.attacks.engine.cost import Cost
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.first_look import first_look
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.result_check import NORMS
from fastadv.attacks.engine.step_sizes import Eps, Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.attacks.fab import FAB, FABT
from fastadv.attacks.options import AttackOptions
from fastadv.attacks.search import SearchAttack
from fastadv.attacks.square import Square
from fastadv.utils.module_modes import mixes_examples, raw_module
from fastadv.utils.rng import nth_seed
from fastadv.utils.validation import check_count, check_one_of

Part: TypeAlias = AdaptivePGD | SearchAttack

# In the authors' order, and with their numbers of restarts.
VERSIONS: dict[str, list[tuple[type[Part], dict[str, Any]]]] = {
    "standard": [(APGDCE, {}), (APGDT, {}), (FABT, {}), (Square, {})],
    "plus": [
        *((APGDCE, {"restarts": 5}), (APGDDLR, {"restarts": 5}), (FAB, {"restarts": 5}), (Square, {})),
        *((APGDT, {}), (FABT, {})),
    ],
    "rand": [(APGDCE, {"eot": 20}), (APGDDLR, {"eot": 20})],
}
_SEEDS_OF_A_PART = 2**32


class AutoAttack(Attack):
    """AutoAttack (Croce and Hein, 2020): the worst case of several attacks that need no tuning.

    Each attack gets the images that are still classified correctly after the ones before it. The versions are the
    authors':

    - ``"standard"``: ``apgd_ce``, ``apgd_t`` and ``fab_t`` with nine targets each, and ``square``;
    - ``"plus"``: ``apgd_ce``, ``apgd_dlr`` and ``fab`` with five restarts each, ``square``, ``apgd_t``, ``fab_t``;
    - ``"rand"``, for a model that draws random numbers: ``apgd_ce`` and ``apgd_dlr``, whose gradients are means of 20.

    The result of an image is that of the first attack that fools the model, as a last forward pass finds, or the image
    itself if it is misclassified without an attack. If no attack fools the model, it is the one of the candidates, and
    the clean image, with the least margin between the true logit and the largest other one. ``parts`` are the attacks,
    in order.

    Args:
        norm: of the ball, ``"linf"`` or ``"l2"``.
        version: ``"standard"``, ``"plus"`` or ``"rand"``.
        steps: number of iterations of each run of APGD and FAB.
        queries: number of queries of Square.
        fold_bn: during generation, fold each BatchNorm layer that follows a convolution into it, see
            :class:`GradientAttack`. Needs ``bn="eval"``.
    """

    name = "autoattack"
    needs_labels = True
    stops_early = True
    draws = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        norm: str = "linf",
        version: str = "standard",
        steps: int = 100,
        queries: int = 5000,
        fold_bn: bool = False,
        **options: Unpack[AttackOptions],
    ) -> None:
        check_one_of("norm", norm, tuple(NORMS))
        check_one_of("version", version, tuple(VERSIONS))
        self.ball = norm  # type: ignore[misc]  # of this attack: its base reads it to check eps
        super().__init__(model, **options)
        if self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 for {self.name}, got {self.label_smoothing}")
        check_count("steps", steps, least=1)
        check_count("queries", queries, least=1)
        self.norm = norm
        self.version = version
        self.steps = steps
        self.queries = queries
        self.fold_bn = fold_bn  # which the attacks check
        self.parts = [self._part(kind, own) for kind, own in VERSIONS[version]]
        self._first_batch = FirstBatch()
        self._samples: int = max(own.get("eot", 1) for _, own in VERSIONS[version])

    @classmethod
    def refused_options(cls) -> set[str]:
        return {"label_smoothing"}

    def _part(self, kind: type[Part], own: dict[str, Any]) -> Part:
        length: dict[str, Any] = {"queries": self.queries} if kind is Square else {"steps": self.steps}
        return kind(
            self.model,
            eps=self.space.upper - self.space.lower,  # not read: the size of a call is this attack's own
            space=self.space,
            validate=self.validate,
            bn=self.bn,
            fast=self.fast,
            norm=self.norm,
            fold_bn=self.fold_bn,
            **length,
            **own,
        )

    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        assert labels is not None
        gradient = self._for_logits()
        undecided = Undecided(adv, labels)
        gradient.run(adv, lambda: self._first_look(gradient, undecided))
        counted = self._counted()
        for number, part in enumerate(self.parts):
            if len(undecided.left):
                part.counting, part.without_gradient = self.counting and number == 0, None
                found = part.search(undecided, size, nth_seed(seed, number * _SEEDS_OF_A_PART), offset)  # [N, C, ...]
                gradient.run(adv, partial(self._judge, gradient, undecided, found))
                self.without_gradient = self.parts[0].without_gradient
        gradients, queries = self._counted()
        self.image_gradients += gradients - counted[0]
        self.image_queries += queries - counted[1]
        adv.copy_(undecided.adv)

    def _for_logits(self) -> InputGradient:
        model = raw_module(self.model)
        return InputGradient(
            Forward(model, self.name),
            Cost("label", mixes_examples=mixes_examples(model, self.bn)),
            self.bn,
            first_batch=None if self.validate == "never" else self._first_batch,
            samples=self._samples,
        )

    def _first_look(self, gradient: InputGradient, undecided: Undecided) -> None:
        """Decide the images that are misclassified without an attack; refuse what one of the attacks would refuse."""
        shape, place = list(undecided.clean.shape), undecided.left
        self.image_queries += self._samples * len(place)
        if len(shape) != 4 and any(isinstance(part, Square) for part in self.parts):
            raise ValueError(f"{self.name} needs images [N, C, H, W], because of square, got {shape}")
        logits = first_look(gradient, undecided, whole=gradient.cost.mixes_examples)  # [N, K]
        self._first_batch.passed = True
        for part in self.parts:
            if isinstance(part, AdaptivePGD):
                part.check_classes(logits.shape[1])
        undecided.keep_best(place, undecided.clean, ops.row_losses(logits, undecided.labels, "margin"))

    def _judge(self, gradient: InputGradient, undecided: Undecided, found: Tensor) -> None:
        """Let a forward pass decide which candidates [N, C, ...] fool the model: in another batch they may not."""
        place = undecided.left
        whole = gradient.cost.mixes_examples
        self.image_queries += self._samples * (len(found) if whole else len(place))
        logits = gradient.logits(found)[place] if whole else gradient.logits(found[place])  # [n, K]
        undecided.look(place, found[place], logits)
        undecided.keep_best(place, found[place], ops.row_losses(logits, undecided.labels[place], "margin"))

    def _counted(self) -> tuple[int, int]:
        """The gradients and the queries of all attacks so far."""
        return sum(part.image_gradients for part in self.parts), sum(part.image_queries for part in self.parts)

    def gradients(self, eps: float) -> int:
        """Return how many gradients per image a call computes for an image that no attack fools; for others fewer."""
        return sum(part.gradients(eps) for part in self.parts)

    def forwards(self, eps: float) -> int:
        looks = self._samples * (1 + len(self.parts))  # at the clean image, and at each attack's candidate
        return looks + sum(part.forwards(eps) for part in self.parts)

    def expected_gradients(self, n: int, eps: Eps) -> float:
        """Return the most that there may be: those of images that no attack fools."""
        return float(self.gradients(0.0))

    @property
    def warned(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`."""
        return self._first_batch.warned or any(part.warned for part in self.parts)

    def options(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("norm", "version", "steps", "queries", "fold_bn")}
        return {**super().options(), **own}
