"""Builds the recorder, builds the package with it instead of the CUDA runtime, and runs pytest with both."""

from __future__ import annotations

import fcntl
import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from tests.simt.build import ROOT, run, tool

BUILD = Path(os.environ.get("FASTADV_CUDA_HOST_BUILD", ROOT / "build" / "cuda_host"))
PRELOADED = "librecorder.so", "libcuda.so.1"
CUDA = 13  # the major version whose functions the recorder has


def why_not() -> str | None:
    """Why the host code cannot be built and run here; None if it can."""
    nvcc = os.environ.get("CUDACXX") or shutil.which("nvcc")
    if nvcc is None:
        return "needs nvcc, on PATH or in CUDACXX"
    if not (torch.version.cuda or "").startswith(f"{CUDA}."):
        return f"needs a PyTorch that was built with CUDA {CUDA}, got {torch.version.cuda}"
    found = re.search(r"release (\d+)\.", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)
    if found is None or int(found[1]) != CUDA:
        return f"needs nvcc of CUDA {CUDA}: {nvcc} is of {found[1] if found else 'another compiler'}"
    return None


@functools.cache
def build() -> Path:
    """The module _C, linked to the recorder."""
    BUILD.mkdir(parents=True, exist_ok=True)
    recorder, module = BUILD / "recorder", BUILD / "module"
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be building, too
        ninja = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]
        run("cmake", "-S", Path(__file__).parent, "-B", recorder, *ninja)
        run("cmake", "--build", recorder)
        folders = ["--build-temp", BUILD / "objects", "--build-lib", module]
        command = [sys.executable, "setup.py", "-q", "build_ext", *folders]
        done = subprocess.run(command, cwd=ROOT, env=_environment(recorder), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    (built,) = module.glob("fastadv/_C*.so")
    return built


def _environment(recorder: Path) -> dict[str, str]:
    """Environment variables for the build; the package's sources and options are those for a GPU.

    For one virtual architecture and hardly optimised, because no kernel runs.
    """
    runtime = f'"-DCUDA_cudart_static_LIBRARY={recorder / PRELOADED[0]}" -DCMAKE_CUDA_RUNTIME_LIBRARY=None'
    quickly = '-DCMAKE_CXX_FLAGS_RELEASE=-O1 "-DCMAKE_CUDA_FLAGS_RELEASE=-O1 --Ofast-compile max"'
    arguments = f"{os.environ.get('CMAKE_ARGS', '')} {runtime} {quickly}"
    return {**os.environ, "FASTADV_CUDA": "ON", "FASTADV_CUDA_ARCHS": "80-virtual", "CMAKE_ARGS": arguments}


def recorded(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process whose CUDA runtime is the recorder; FASTADV_RECORDED names the module."""
    module = build()
    libraries = f"{BUILD / 'recorder'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    added = {"LD_PRELOAD": ":".join(PRELOADED), "LD_LIBRARY_PATH": libraries, "FASTADV_RECORDED": str(module)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **added}, capture_output=True, text=True
    )
