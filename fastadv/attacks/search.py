"""SearchAttack: the base class of attacks that look for an adversarial image, and stop for each that is found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv import ops
from fastadv.attacks.base import Attack
from fastadv.attacks.engine.bn_folding_cache import FoldingCache
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.first_look import first_look
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.logit_difference import LogitDifference
from fastadv.attacks.engine.pixel_box import PixelBox
from fastadv.attacks.engine.result_check import NORMS
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.attacks.options import AttackOptions
from fastadv.pixels import PixelSpace
from fastadv.utils.module_modes import mixes_examples, raw_module
from fastadv.utils.rng import nth_seed
from fastadv.utils.validation import check_count, check_one_of, check_switches

_WORTH_LEAVING = 0.95  # of the rows: hundreds or thousands of passes follow, which only the undecided ones need
_UNCLIPPED = PixelSpace(0.0, 1.0, lower=-8.0, upper=8.0)  # for noise of any kind


@dataclass(frozen=True, eq=False)
class SearchCall:
    """What the search of one call starts from.

    Args:
        gradient: of the difference of two logits, within its ``run``.
        undecided: the images; those that are misclassified without an attack are decided.
        clean_logits: [N, K], of the clean images.
        box: their range.
        eps: [N], in pixel values.
        noise: returns noise of a shape and kind for each image: [N, *shape] float32; for each number another one.
        logits: returns the logits [n, K] of images [n, C, ...], without a graph.
    """

    gradient: InputGradient
    undecided: Undecided
    clean_logits: Tensor
    box: PixelBox
    eps: Tensor
    noise: Callable[[Sequence[int], str, int], Tensor]
    logits: Callable[[Tensor], Tensor]

    @property
    def place(self) -> Tensor:
        """The places [n] of the images to run the model on: of all if the logits of one depend on the others."""
        every = torch.arange(len(self.eps), device=self.eps.device)  # [N]
        return every if self.gradient.cost.mixes_examples else self.undecided.left

    def rows_left(self, place: Tensor) -> Tensor | None:
        """The rows of ``place`` [n] to go on with: [r]; None to go on with all of them."""
        if not len(self.undecided.left):
            return place[:0]
        return None if self.gradient.cost.mixes_examples else self.undecided.rows_left(place, _WORTH_LEAVING)


class SearchAttack(Attack):
    """Searches for an adversarial image in the ball, for each image that is classified correctly without an attack.

    An image for which none is found is returned as it is.

    Args:
        norm: of the ball, ``"linf"`` or ``"l2"``.
        restarts: number of runs; only images that are still classified correctly take part in another.
        fold_bn: during generation, fold each BatchNorm layer that follows a convolution into it, see
            :class:`GradientAttack`. Needs ``bn="eval"``.
    """

    needs_labels = True
    stops_early = True

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        norm: str = "linf",
        restarts: int = 1,
        fold_bn: bool = False,
        **options: Unpack[AttackOptions],
    ) -> None:
        check_one_of("norm", norm, tuple(NORMS))
        self.ball = norm  # type: ignore[misc]  # of this attack: its base reads it to check eps
        super().__init__(model, **options)
        check_count("restarts", restarts, least=1)
        check_switches(fold_bn=fold_bn)
        if fold_bn and self.bn != "eval":
            raise ValueError("fold_bn=True needs bn='eval': a batch's statistics are not known beforehand")
        if self.label_smoothing:
            raise ValueError(
                f"label_smoothing must be 0 for {self.name}, which has no cross-entropy, got {self.label_smoothing}"
            )
        self.norm = norm
        self.restarts = restarts
        self.fold_bn = fold_bn
        self._first_batch = FirstBatch()
        self._folding = FoldingCache()

    @classmethod
    def refused_options(cls) -> set[str]:
        return {"label_smoothing"}

    @abstractmethod
    def attack(self, call: SearchCall) -> None:
        """Look for adversarial images, and tell ``call.undecided`` of those that are found."""

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
        box = PixelBox.of(self.space, given.clean)
        eps = torch.as_tensor(size.eps, dtype=box.std.dtype, device=given.clean.device).expand(len(given.clean))  # [N]
        counted = self.image_gradients, self.image_queries

        def run() -> Tensor:  # [N, C, ...]
            self.image_gradients, self.image_queries = counted  # it runs again if a folded model turns out to differ
            gradient.refresh()
            clean = gradient.in_layout(box.clip(given.clean))  # [N, C, ...]
            undecided = Undecided(clean, given.labels, given.left)
            whole = gradient.cost.mixes_examples
            self.image_queries += len(clean) if whole else len(undecided.left)
            logits = first_look(gradient, undecided, whole=whole)
            if len(undecided.left):
                self.attack(SearchCall(gradient, undecided, logits, box, eps, noise, logits_of))
            return undecided.adv

        def noise(shape: Sequence[int], kind: str, number: int) -> Tensor:  # [N, *shape]
            zeros = torch.zeros((len(given.clean), *shape), device=given.clean.device)
            return ops.noise_step_(zeros, zeros, 1.0, kind, nth_seed(seed, number), offset, _UNCLIPPED)

        def logits_of(images: Tensor) -> Tensor:  # [n, C, ...] -> [n, K]
            self.image_queries += len(images)
            return gradient.logits(gradient.in_layout(images))

        return gradient.run(given.clean, run)

    def _input_gradient(self) -> InputGradient:
        model = raw_module(self.model)
        folds = self.fold_bn or (self.fast and self.bn == "eval")
        if self.fast and self.bn != "eval":
            self._folding.log_skipped(self.name, f"bn={self.bn!r} uses the batch's statistics")
        return InputGradient(
            Forward(model, self.name),
            LogitDifference(mixes_examples=mixes_examples(model, self.bn)),
            self.bn,
            first_batch=None if self.validate == "never" else self._first_batch,
            folding=self._folding if folds else None,
        )

    @property
    def warned(self) -> bool:  # type: ignore[override]
        """See :class:`Attack`."""
        return self._first_batch.warned

    def options(self) -> dict[str, Any]:
        return {**super().options(), "norm": self.norm, "restarts": self.restarts, "fold_bn": self.fold_bn}
