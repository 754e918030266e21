"""Builds the programs and modules of tests/simt/CMakeLists.txt and runs them, under their sanitizers, in processes."""

from __future__ import annotations

import fcntl
import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pybind11

ROOT = Path(__file__).parents[2]
BUILD = Path(os.environ.get("FASTADV_SIMT_BUILD", ROOT / "build" / "simt"))
COMPILER = os.environ.get("CXX", "g++")

# Leaks: Python's own are many. Memory that runs out: a test asks for it.
# Modules that are not instrumented, such as torch, are not ours to judge.
OPTIONS = {
    "address": {"ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
    "thread": {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1"},
}
LIBRARIES = {"address": "libasan.so", "thread": "libtsan.so"}


@functools.cache
def build(target: str) -> Path:
    """The target's file: a program, or a module _C."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with open(BUILD / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test run may be building, too
        run("cmake", "-S", Path(__file__).parent, "-B", BUILD, "-G", "Ninja", *_definitions())
        run("cmake", "--build", BUILD, "--target", target)
    program = BUILD / target
    return next(program.glob("_C*.so")) if program.is_dir() else program


def _definitions() -> list[str]:
    torch = importlib.util.find_spec("torch")
    assert torch is not None and torch.origin is not None
    values = {
        "CMAKE_CXX_COMPILER": COMPILER,
        "CMAKE_MAKE_PROGRAM": tool("ninja"),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "FASTADV_TORCH_DIR": Path(torch.origin).parent,
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def _library(name: str) -> str:
    found = subprocess.run([COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def run(name: str, *arguments: object) -> None:
    done = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def program(name: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Build and run a program of this folder."""
    environment = {**os.environ, **OPTIONS["address"], **OPTIONS["thread"]}
    return subprocess.run([build(name), *arguments], input=text, env=environment, capture_output=True, text=True)


def operator_tests(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process in which fastadv's operators are those of this module, under its sanitizer."""
    variant = module.split("_")[-1]
    added = {"FASTADV_SIMT_MODULE": str(build(module)), **OPTIONS.get(variant, {}), **environment}
    if variant in LIBRARIES:
        # libstdc++ with it: the sanitizer looks for what it wraps, exceptions among it, before torch brings it along.
        added["LD_PRELOAD"] = ":".join(map(_library, (LIBRARIES[variant], "libstdc++.so.6")))
    # A sanitizer writes to the file descriptor, which pytest would otherwise hold back and lose as the process ends.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.simt.plugin",
        "--capture=sys",
        "-q",
        "--maxfail=3",
        *arguments,
    ]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **added}, capture_output=True, text=True)
