"""Cycles: finds the images of a deterministic attack whose iterate came before, by a hash of each iterate.

From an iterate that came before, a step that depends on the iterate alone goes through the same ones again (Cycle
detection for attacks: arXiv 2503.19347).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

_IN_CACHE = 1 << 17  # words of 8 bytes, in which a chunk of images is hashed on a CPU


class Cycles:
    """Keeps the hashes of all iterates of a call.

    A hash is the sum of the words of an iterate, each times a random number of 64 bits, modulo 2^64. Two iterates whose
    words differ by multiples of 2^v, and not all by multiples of 2^(v + 1), have the same hash with a probability of
    2^(v - 64), where v is below 32: for the 5,000 pairs of a run of 100 steps, at most one in a million if pixels only
    differ in their signs, and one in 10^12 and less if some differ by a step. An image would then stop a few steps
    early, at an iterate of its own.

    Args:
        n: number of images.
        steps: number of iterates of each.
        device: of the images.
    """

    def __init__(self, n: int, steps: int, device: torch.device) -> None:
        self._hashes = torch.zeros(steps, n, dtype=torch.int64, device=device)
        self._seen = 0

    def periods(self, place: Tensor, images: Tensor) -> Tensor:
        """Take the next iterate of some images, and return how many steps ago each came before: [n], 0 for never.

        Args:
            place: [n] int64, of the images in the call. An image that is left out of a call is left out of all later
                ones.
            images: [n, C, ...].
        """
        now = hashes(images)  # [n]
        before = self._hashes[: self._seen, place] == now  # [seen, n]
        self._hashes[self._seen, place] = now
        self._seen += 1
        ago = torch.arange(self._seen - 1, 0, -1, device=now.device)  # [seen]
        latest = torch.where(before, ago[:, None], self._seen)  # [seen, n]
        if not len(latest):
            return torch.zeros_like(now)
        found = latest.amin(dim=0)  # [n]
        return torch.where(found < self._seen, found, 0)


def hashes(images: Tensor) -> Tensor:
    """Return a hash of each of the images [N, C, ...], of their bytes: [N] int64."""
    flat = images.flatten(1)  # [N, P]
    words = flat.contiguous().view(torch.int16 if flat.element_size() == 2 else torch.int32)  # [N, W]
    factors = _factors(words.shape[1], words.device)  # [W]
    if words.is_cuda:
        return (words * factors).sum(dim=1)
    chunks = torch.split(words, max(1, _IN_CACHE // max(1, words.shape[1])))
    return torch.cat([(chunk * factors).sum(dim=1) for chunk in chunks])


@lru_cache(maxsize=4)
def _factors(words: int, device: torch.device) -> Tensor:
    generator = torch.Generator(device="cpu").manual_seed(20250319)
    with torch.inference_mode(False):
        bounds = torch.iinfo(torch.int64)
        numbers = torch.randint(bounds.min, bounds.max, (words,), generator=generator, dtype=torch.int64, device="cpu")
        return numbers.to(device)
