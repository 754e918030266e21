from typing import Any

import numpy as np
from numpy.typing import NDArray

def build_info() -> dict[str, str]: ...
def sample_eps(
    n: int, sigma: float = 8.0, upper: float = 16.0, *, seed: int, offset: int = 0
) -> NDArray[np.float32]: ...
def __getattr__(name: str) -> Any: ...
