"""Distributions of the perturbation size: the paper draws a new eps for each training example (section 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastadv.utils.validation import is_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class TruncatedNormalEps:
    """``eps = |N(0, sigma)|`` truncated to [0, upper], in pixel values, drawn independently for each example.

    Section 3 uses sigma = 8 on [0, 16]: a network trained with one fixed eps is robust to that eps only.

    Args:
        sigma: standard deviation of the underlying normal distribution, in pixel values.
        upper: the largest eps, in pixel values.

    Raises:
        ValueError: if sigma or upper is not positive and finite.
    """

    sigma: float = 8.0
    upper: float = 16.0

    def __post_init__(self) -> None:
        for name in ("sigma", "upper"):
            value = getattr(self, name)
            if not is_number(value) or not value > 0:
                got = f"a tensor {list(value.shape)}" if hasattr(value, "shape") else repr(value)
                raise ValueError(f"{name} must be positive and finite, got {got}")

    def scaled(self, factor: float) -> TruncatedNormalEps:
        """Return the distribution of ``factor`` times such an eps."""
        return TruncatedNormalEps(sigma=factor * self.sigma, upper=factor * self.upper)

    def quantiles(self, n: int) -> Tensor:
        """Return the quantiles of (i + 1/2) / n for i from 0: [n] float64, as if n draws were spread evenly."""
        import torch

        share = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # [n]
        width = math.sqrt(2) * self.sigma
        return width * torch.erfinv(share * math.erf(self.upper / width))

    def sample(self, n: int, *, seed: int | Tensor, offset: int = 0, device: torch.device | str = "cpu") -> Tensor:
        """Draw eps for ``n`` examples: [N] float32. Row i depends on (seed, offset + i) alone.

        If ``seed`` is a tensor, it is read on the device: see :func:`fastadv.ops.noise_step_`.
        """
        from fastadv import ops  # imports PyTorch, which the configuration's default values do not need

        return ops.sample_eps(n, self.sigma, self.upper, seed, offset, device)
