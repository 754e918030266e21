"""Undecided: the images of a call that no attack has fooled the model with yet, and each image's result so far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORTH_LEAVING = 0.75  # of the rows of a batch: if fewer are undecided, the decided ones leave it


class Undecided:
    """Keeps a result for each image: the first one that is misclassified, or else the best one that was found.

    An image that is misclassified, or that has its target, is decided. Its result stays, and no further work is spent
    on it. An attack that works through the undecided images of a call can so go on where another has stopped::

        undecided = Undecided(clean, labels)
        undecided.look(undecided.left, clean, logits)  # misclassified without an attack
        place = undecided.left
        for images, logits in steps(clean[place], labels[place]):
            undecided.look(place, images, logits)
            rows = undecided.rows_left(place)
            if rows is not None:
                place = place[rows]  # and all that the attack keeps for each image

    Args:
        clean: [N, C, ...].
        labels: [N] int64.
        left: [L] int64, the places of those that are undecided, in order; None for all.
        targeted: the labels are targets: an image that is classified as its label is decided, and no other.

    Attributes:
        adv: [N, C, ...], the result of each image; at first the clean one.
        left: [L] int64, the places of the undecided images, in order.
    """

    def __init__(self, clean: Tensor, labels: Tensor, left: Tensor | None = None, *, targeted: bool = False) -> None:
        self.clean = clean
        self.labels = labels
        self.targeted = targeted
        self.adv = clean.clone()
        self.left = torch.arange(len(clean), device=clean.device) if left is None else left
        self._is_left = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)  # [N]
        self._is_left[self.left] = True
        wide = torch.promote_types(clean.dtype, torch.float32)
        self._height = torch.full((len(clean),), -math.inf, dtype=wide, device=clean.device)  # [N]

    def look(self, place: Tensor, images: Tensor, logits: Tensor) -> Tensor:
        """Decide the images that are misclassified, or have their targets, and return which do: [n] bool.

        Waits for the device. A result must lie in the eps ball and the pixel range.

        Args:
            place: [n] int64, the places of the images; those decided before keep their results.
            images: [n, C, ...].
            logits: [n, K], at the images.
        """
        done = is_correct(logits, self.labels[place]) == self.targeted  # [n]
        self.finish(place, images, done)
        return done

    def finish(self, place: Tensor, images: Tensor, done: Tensor) -> None:
        """Take images for the results of those that are done, and count these as decided.

        Waits for the device.

        Args:
            place: [n] int64, the places of the images; those decided before keep their results.
            images: [n, C, ...].
            done: [n] bool.
        """
        rows = (done & self._is_left[place]).nonzero()[:, 0]
        if len(rows):
            decided = place[rows]
            self.adv[decided] = images[rows]
            self._is_left[decided] = False
            self.left = self._is_left.nonzero()[:, 0]

    def keep_best(self, place: Tensor, images: Tensor, height: Tensor) -> None:
        """Keep, for each undecided image, the highest of the candidates that are offered for it.

        Waits for the device.

        Args:
            place: [n] int64, the places of the images.
            images: [n, C, ...].
            height: [n], how near each is to being misclassified, on a scale that all candidates share; NaN is below
                all.
        """
        height = height.to(self._height.dtype)
        rows = (self._is_left[place] & (height > self._height[place])).nonzero()[:, 0]
        self.adv[place[rows]] = images[rows]
        self._height[place[rows]] = height[rows]

    def rows_left(self, place: Tensor, worth: float | None = None) -> Tensor | None:
        """Return the rows of ``place`` [n] that are undecided, if so many are decided that it is worth leaving them.

        Waits for the device.

        Args:
            place: [n] int64.
            worth: the share of undecided rows below which the others leave; None is three quarters.

        Returns:
            [r] int64; None while all rows may stay.
        """
        rows = self._is_left[place].nonzero()[:, 0]
        return rows if len(rows) < (_WORTH_LEAVING if worth is None else worth) * len(place) else None


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for which rows of logits [N, K] the label [N] is the likeliest class: [N] bool.

    Ties go to the lower index, and a row with a NaN counts as wrong, as in an evaluation.
    """
    true = logits.gather(1, labels[:, None])  # [N, 1]
    later = torch.arange(logits.shape[1], device=logits.device) >= labels[:, None]  # [N, K]
    return ((logits < true) | ((logits == true) & later)).all(dim=1)
