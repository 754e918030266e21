"""Builds the extension fastadv._C with CMake and Ninja; everything else is in pyproject.toml.

Environment: FASTADV_CUDA=AUTO|ON|OFF, FASTADV_CUDA_ARCHS (e.g. "80;90"), CMAKE_ARGS, CMAKE_BUILD_PARALLEL_LEVEL.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

from build_backend import find_program, missing, refusal

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)


class CMakeBuild(build_ext):
    """Configures and builds the CMake project into the place where setuptools expects the extension."""

    def build_extension(self, ext: Extension) -> None:
        if missing():
            raise SystemExit(refusal())
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = Path(self.build_temp).resolve() / "cmake"
        build.mkdir(parents=True, exist_ok=True)
        torch_dir, torch_version = find_torch()
        definitions = {
            "CMAKE_MAKE_PROGRAM": find_program("ninja"),
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": target.parent,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11_dir(),
            "FASTADV_TORCH_DIR": torch_dir,
            "FASTADV_TORCH_VERSION": torch_version,
            "FASTADV_VERSION": self.distribution.get_version(),
            "FASTADV_CUDA": os.environ.get("FASTADV_CUDA", "AUTO"),
            "FASTADV_CUDA_ARCHS": os.environ.get("FASTADV_CUDA_ARCHS", ""),
        }
        cmake = find_program("cmake")
        arguments = [f"-D{name}={value}" for name, value in definitions.items()]
        user_arguments = shlex.split(os.environ.get("CMAKE_ARGS", ""))
        run(build, cmake, "-S", ROOT, "-B", build, "-G", "Ninja", *arguments, *user_arguments)
        run(build, cmake, "--build", build)


def run(build: Path, *command: object) -> None:
    """Run CMake for the folder ``build``."""
    try:
        subprocess.run([str(part) for part in command], check=True)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"fastadv: '{Path(str(command[0])).name}' failed with exit code {error.returncode}; its message is above."
            f"{way_out(build)}"
        ) from None


def way_out(build: Path) -> str:
    """What helps, by the compilers that CMake has noted in its cache."""
    cache = build / "CMakeCache.txt"
    noted = dict(re.findall(r"^CMAKE_(CXX|CUDA)_COMPILER:\w+=(.*)$", cache.read_text() if cache.exists() else "", re.M))
    if noted.get("CXX", "").endswith("NOTFOUND"):
        return " A C++17 compiler is needed (Debian: apt-get install g++)."
    if not noted.get("CUDA", "NOTFOUND").endswith("NOTFOUND"):
        return " If nvcc is what failed: to build without the CUDA kernels set FASTADV_CUDA=OFF."
    return ""


def find_torch() -> tuple[str, str]:
    """Folder and version of the installed torch, found without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    version = dict(
        line.split(" = ", 1)
        for line in (folder / "version.py").read_text().splitlines()
        if line.startswith("__version__")
    )["__version__"].strip("'\"")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        raise SystemExit(f"fastadv: torch >= {'.'.join(map(str, OLDEST_TORCH))} is needed, found {version} in {folder}")
    return str(folder), version


def pybind11_dir() -> str:
    """Where its CMake package lies."""
    import pybind11

    return str(pybind11.get_cmake_dir())


setup(ext_modules=[Extension("fastadv._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
