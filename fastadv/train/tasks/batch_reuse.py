"""Detect minibatches that are passed again after Algorithm 1 has overwritten them with adversarial images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_WRITES = "_fastadv_writes"
AGAIN = (
    "this minibatch was already perturbed in place by an earlier call, so perturbations would accumulate. Pass "
    "images.clone() if images are used more than once, or are a buffer that is refilled outside PyTorch, for instance "
    "by NumPy"
)


@contextmanager
def tracked_overwrite(images: Tensor) -> Iterator[bool]:
    """Context for overwriting images [m, C, H, W]; yields whether they were overwritten here before.

    Writes are recorded on the tensor that owns the memory, because slices of a data set share it. The record is dropped
    once the tensor's version shows another write: a refilled buffer is a new minibatch.
    """
    if images.is_inference():  # has no version counter
        yield False
        return
    owner = images if images._base is None else images._base
    version, offsets = getattr(owner, _WRITES, (None, frozenset()))
    if version != owner._version:
        offsets = frozenset()
    yield images.storage_offset() in offsets
    setattr(owner, _WRITES, (owner._version, offsets | {images.storage_offset()}))
