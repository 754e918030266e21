"""Runs five operators once each for ``ncu --profile-from-start off python -m benchmarks.gpu.profiled``.

They get ImageNet batches in float32, and logits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import torch

from fastadv import PixelSpace, ops

DONE = "profiled"


def work(device: str, n: int) -> list[Callable[[], object]]:
    """The operators, on images [n, 3, 224, 224] and logits [64 n, 1000]."""
    space = PixelSpace.unit()
    adv, clean, grad = (torch.rand(n, 3, 224, 224, device=device) for _ in range(3))
    grad -= 0.5
    pixels = torch.randint(0, 256, adv.shape, dtype=torch.uint8, device=device)
    logits = 4 * torch.randn(64 * n, 1000, device=device)
    return [
        lambda: ops.sign_step_(adv, clean, grad, 1.0, 8.0, space),
        lambda: ops.normalized_step_(adv, clean, grad, 1.0, 8.0, "linf", space),
        lambda: ops.noise_step_(adv, clean, 8.0, "truncated_normal", 3, 0, space),
        lambda: ops.from_pixels(pixels, None, torch.float32, space),
        lambda: ops.target_grad(logits, "least_likely"),
    ]


def main(argv: list[str]) -> int:
    """Run each operator once without the profiler, then once with it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.profiled", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=int, default=128, metavar="N")
    options = parser.parse_args(argv)
    calls = work(options.device, options.images)
    for call in calls:
        call()
    if options.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
    for call in calls:
        call()
    if options.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    print(DONE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
