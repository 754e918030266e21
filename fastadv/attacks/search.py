"""SearchAttack: the base class of attacks that look for an adversarial image, and stop for each that is found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Unpack  # which torch requires

from fastadv.attacks.base import Attack
from fastadv.attacks.engine.bn_folding_cache import FoldingCache
from fastadv.attacks.engine.first_batch import FirstBatch
from fastadv.attacks.engine.first_look import first_look
from fastadv.attacks.engine.forward import Forward
from fastadv.attacks.engine.input_gradient import InputGradient
from fastadv.attacks.engine.logit_difference import LogitDifference
from fastadv.attacks.engine.pixel_box import PixelBox
from fastadv.attacks.engine.result_check import NORMS
from fastadv.attacks.engine.rows_of_noise import rows_of_noise
from fastadv.attacks.engine.step_sizes import Size
from fastadv.attacks.engine.undecided import Undecided
from fastadv.attacks.options import AttackOptions
from fastadv.utils.module_modes import mixes_examples, raw_module
from fastadv.utils.rng import nth_seed
from fastadv.utils.validation import check_count, check_one_of, check_switches


@dataclass(frozen=True, eq=False)
class Task:
    """What a search starts from.

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
        return None if self.gradient.cost.mixes_examples else self.undecided.rows_left(place)


class SearchAttack(Attack):
    """Searches for an adversarial image in the ball, for each image that is classified correctly without an attack.

    An image for which none is found is returned as it is.

    Args:
        norm: of the ball, ``"linf"`` or ``"l2"``.
        restarts: number of runs; only images that are still classified correctly take part in another.
        fold_bn: during generation, fold each BatchNorm layer that follows a convolution into it, see
            :class:`GradientAttack`. Needs ``bn="eval"``.

    Attributes:
        image_queries: logits of single images that calls have asked for so far, without a gradient.
    """

    needs_labels = True
    image_queries: int = 0

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

    @abstractmethod
    def search(self, task: Task) -> None:
        """Look for adversarial images, and decide those that are found with ``task.undecided``."""

    def run_(self, adv: Tensor, labels: Tensor | None, size: Size, seed: int | Tensor, offset: int) -> None:
        self.run_some_(adv, labels, size, seed, offset, None)

    def run_some_(
        self,
        adv: Tensor,
        labels: Tensor | None,
        size: Size,
        seed: int | Tensor,
        offset: int,
        index: Tensor | None,
    ) -> None:
        """Run on some images of a batch, as :meth:`run_` would with all of them.

        Args:
            adv: [n, C, ...].
            labels: [n].
            size: of their perturbations.
            seed, offset: of the batch.
            index: [n] int64, the images' places in the batch; None for the whole one.
        """
        assert labels is not None
        true = labels
        gradient = self._input_gradient()
        box = PixelBox.of(self.space, adv)
        eps = torch.as_tensor(size.eps, dtype=box.std.dtype, device=adv.device).expand(len(adv))  # [n]
        counted = self.image_gradients, self.image_queries

        def noise(shape: Sequence[int], kind: str, number: int) -> Tensor:  # [n, *shape]
            like = torch.empty((len(adv), *shape), device=adv.device)
            return rows_of_noise(like, kind, nth_seed(seed, number), offset, index)

        def logits_of(images: Tensor) -> Tensor:  # [n, C, ...] -> [n, K]
            self.image_queries += len(images)
            return gradient.logits(gradient.in_layout(images))

        def run() -> Tensor:  # [n, C, ...]
            self.image_gradients, self.image_queries = counted  # also if a folded model turned out to differ
            self.without_gradient = None
            gradient.refresh()
            clean = gradient.in_layout(box.clip(adv))  # [n, C, ...]
            undecided, logits = first_look(gradient, clean, true)
            self.image_queries += len(clean)
            if len(undecided.left):
                self.search(Task(gradient, undecided, logits, box, eps, noise, logits_of))
            return undecided.adv

        adv.copy_(gradient.run(adv, run))

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
