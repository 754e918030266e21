"""When adversarial images of two devices agree, although an attack takes the sign of sums."""

from __future__ import annotations

import torch
from torch import Tensor

# An element whose gradient is near zero takes the sign of a rounding, and moves the other way in a step. Weights that
# are off by a relative 1e-6, more than sums of float32 in another order, change one element of 3,072 over ten steps;
# off by 1e-13 in float64 they change none.
SHARE = 0.005
WITHIN = {torch.float64: 1e-12, torch.float32: 1e-5}  # the gradient's own rounding, where a step is in proportion to it


def assert_agree(result: Tensor, expected: Tensor) -> None:
    """In float64 every element; in float32 all but ``SHARE`` of them."""
    dtype = expected.dtype
    assert result.dtype == dtype and result.shape == expected.shape
    far = (result.cpu() - expected.cpu()).abs() > WITHIN[dtype]
    allowed = 0 if dtype == torch.float64 else int(SHARE * far.numel())
    assert int(far.sum()) <= allowed, f"{int(far.sum())} of {far.numel()} elements differ; at most {allowed} may"
