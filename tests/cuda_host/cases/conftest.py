from __future__ import annotations

import pytest
import torch

from tests.cuda_host import calls


@pytest.fixture(autouse=True)
def anew() -> None:
    """What a test made fail works again in the next, on the first device."""
    calls.heal()
    calls.clear()
    torch.cuda.set_device(0)
