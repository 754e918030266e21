"""Builds a wheel for each Python that is at hand, shows what it is linked against, and tries it. `make wheels` runs it.

On a build server cibuildwheel does the same for every Python of its images, as pyproject.toml configures it; this is
for a machine without containers. Wheels are named linux_x86_64 here: only an image of manylinux makes portable ones.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
TO_BUILD = ("setuptools>=77", "wheel", "cmake", "ninja", "pybind11>=2.13", "numpy", "torch>=2.11", "auditwheel")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--python", choices=VERSIONS, nargs="+", default=VERSIONS, help="for these versions (default: all at hand)")
    add("--cuda", choices=("ON", "OFF"), nargs="+", default=["ON", "OFF"], help="with or without CUDA kernels")
    add("--out", type=Path, default=ROOT / "wheelhouse", help="where wheels go (default: wheelhouse/)")
    options = parser.parse_args()
    pythons = {version: found for version in options.python if (found := find_python(version))}
    lacking = [version for version in options.python if version not in pythons]
    print(f"wheels for {', '.join(pythons)}; not to be had here: {', '.join(lacking) or 'none'}", flush=True)
    for version, python in pythons.items():
        with tempfile.TemporaryDirectory() as folder:
            environment = Path(folder) / "environment"
            run(python, "-m", "venv", environment)
            inner = environment / "bin" / "python"
            run(inner, "-m", "pip", "install", "--quiet", *TO_BUILD)
            for cuda in options.cuda:
                out = options.out / f"cuda-{cuda.lower()}"
                wheel = build(inner, out, cuda, version)
                run(inner, "-m", "auditwheel", "show", wheel)
                run(inner, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel)
                run(inner, ROOT / ".ci" / "smoke.py", cwd=folder)
    return 0


def find_python(version: str) -> str | None:
    """An interpreter of this version on PATH, if it runs: version managers put names there that do not."""
    found = shutil.which(f"python{version}")
    runs = found is not None and subprocess.run([found, "--version"], capture_output=True).returncode == 0
    return found if runs else None


def build(python: Path, out: Path, cuda: str, version: str) -> Path:
    """The wheel for one Python."""
    tag = "cp" + version.replace(".", "")
    for old in out.glob(f"fastadv-*-{tag}-*.whl"):
        old.unlink()
    command = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", out, ROOT)
    run(python, *command, FASTADV_CUDA=cuda)
    (made,) = out.glob(f"fastadv-*-{tag}-*.whl")
    return made


def run(*command: object, cwd: str | None = None, **variables: str) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd, env={**os.environ, **variables})


if __name__ == "__main__":
    sys.exit(main())
