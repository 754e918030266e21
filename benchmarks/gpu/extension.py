"""The extension on this GPU: built for it, or the reason why it does not run here."""

from __future__ import annotations

import importlib
import sys

import torch

from benchmarks.gpu.processes import Done, run


def build(limit: float) -> Done:
    """The extension, in place, for the architecture of this GPU alone."""
    settings = {}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        settings = {"FASTADV_CUDA": "ON", "FASTADV_CUDA_ARCHS": f"{major}{minor}"}
    return run("build", [sys.executable, "setup.py", "build_ext", "--inplace"], limit, **settings)


def without_kernels() -> str | None:
    """Why the extension that was built does not run on this GPU, and what to do; None where it does."""
    try:
        # Only now: the extension may just have been built.
        environment = importlib.import_module("fastadv.utils.environment")
    except ImportError as error:
        return str(error)
    major, minor = torch.cuda.get_device_capability()
    compiled = environment._C.build_info()["cuda_archs"]
    if environment.runs_on(10 * major + minor, compiled):
        return None
    return (
        f"the extension has kernels for {compiled or 'no GPU'}, none for {torch.cuda.get_device_name()} (compute "
        f"capability {major}.{minor}); build them: python -m benchmarks.gpu --build"
    )
