from __future__ import annotations

import pytest
import torch

from tests.cuda_host import calls


@pytest.fixture(autouse=True)
def anew() -> None:
    """Cancel a test's failures before the next, and go back to the first device."""
    calls.heal()
    calls.clear()
    torch.cuda.set_device(0)
