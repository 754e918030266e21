"""Builds the extension in place, for this machine's GPU only: ``python -m benchmarks.gpu.extension``."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from benchmarks.gpu.processes import ROOT, Done, run

SECONDS = 180  # limit for the build, which runs before the parts and does not count against their time


def build() -> Done:
    """Build in a separate process, which asks the GPU for its architecture."""
    return run("build", [sys.executable, "-m", "benchmarks.gpu.extension"], SECONDS)


def main() -> int:
    """Build it."""
    settings = {}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        settings = {"FASTADV_CUDA": "ON", "FASTADV_CUDA_ARCHS": f"{major}{minor}"}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}).returncode


if __name__ == "__main__":
    sys.exit(main())
