"""Algorithm 1 writes into the caller's minibatch: a minibatch that comes back is adversarial before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_WRITES = "_fastadv_writes"
AGAIN = (
    "this minibatch was made adversarial by an earlier call, and no operator of PyTorch has filled it anew: the "
    "perturbations add up. Pass a copy, images.clone(), of images that are used more than once, and of a buffer that "
    "is filled past PyTorch, such as by NumPy"
)


@contextmanager
def overwriting(images: Tensor) -> Iterator[bool]:
    """Around a write into images [m, C, H, W]: whether they were written here before and by nobody else since.

    What was written is remembered on the tensor that owns the memory, for slices of a data set have it in common, and
    forgotten once its version shows a write by somebody else: a buffer that is filled anew is a new minibatch.
    """
    if images.is_inference():  # counts no versions
        yield False
        return
    owner = images if images._base is None else images._base
    version, offsets = getattr(owner, _WRITES, (None, frozenset()))
    if version != owner._version:
        offsets = frozenset()
    yield images.storage_offset() in offsets
    setattr(owner, _WRITES, (owner._version, offsets | {images.storage_offset()}))
