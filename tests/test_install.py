"""The build: installed from a folder with a space in its name, and its messages where something is missing."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import pytest
from setuptools import Distribution, Extension

from tests.ops.new_operator import CALL, add_operator

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
TOOLS = 'pip install "setuptools>=77" cmake ninja pybind11'  # make does it, with versions pinned
INSTALL = "pip install --no-build-isolation ."


@pytest.fixture(scope="module")
def distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made of a copy: setuptools writes into the folder that it works in.

    It has an operator more, so that one build shows that it installs, and that no file of the build lists operators.
    """
    folder = tmp_path_factory.mktemp("distribution")
    ignore = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(ROOT, folder / "clone", ignore=ignore)
    add_operator(folder / "clone")
    (folder / "clone/csrc/left over.so").touch()
    command = [sys.executable, "-c", "from build_backend import build_sdist; build_sdist('..')"]
    subprocess.run(command, cwd=folder / "clone", check=True, capture_output=True)
    (made,) = folder.glob("*.tar.gz")
    return made


@pytest.fixture(scope="module")
def sources(distribution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the source distribution holds, in a path with a space."""
    folder = tmp_path_factory.mktemp("with a space")
    with tarfile.open(distribution) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir()).rename(folder / "fastadv sources")


def test_the_source_distribution_is_complete(distribution: Path, sources: Path) -> None:
    """All that the build reads, the tests, and what the README links to; nothing that was made from it."""
    clone = distribution.parent / "clone"
    for folder in ("benchmarks", "csrc", "docs", "fastadv", "tests"):
        expected, found = (
            {path.relative_to(root) for path in (root / folder).rglob("*") if path.is_file()}
            for root in (clone, sources)
        )
        assert found == expected - {Path("csrc/left over.so")}
    linked = re.findall(r"\]\(([^)#:]+)[)#]", (ROOT / "README.md").read_text())
    needed = {"CMakeLists.txt", "LICENSE", "Makefile", "constraints.txt", "pyproject.toml", "setup.py", *linked}
    assert not [name for name in needed if not (sources / name).exists()]


@pytest.mark.timeout(900)
def test_pip_install_without_cuda(distribution: Path, tmp_path: Path) -> None:
    """From the source distribution by a wheel, built in a path with a space, to a call.

    With -O1, which compiles in half the time: make has built the same files with -O3.
    """
    target, building = tmp_path / "installed here", tmp_path / "built here"
    building.mkdir()
    install = subprocess.run(
        [sys.executable, "-m", *INSTALL.split()[:-1], str(distribution), "--no-deps", "--target", str(target)],
        cwd=tmp_path,
        env={
            **os.environ,
            **{"FASTADV_CUDA": "OFF", "CMAKE_ARGS": "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "TMPDIR": str(building)},
        },
        capture_output=True,
        text=True,
    )
    assert install.returncode == 0, install.stdout + install.stderr
    check = (
        "import fastadv, fastadv.ops, sys; assert fastadv.__file__.startswith(sys.argv[1]), fastadv.__file__; "
        "from torch import ones, zeros; adv = zeros(1, 1); "
        "fastadv.ops.sign_step_(adv, adv, ones(1, 1), alpha=2, eps=1); assert adv.item() == 1; "
        "from fastadv.cli import main; from fastadv.train.config_parsing import recipes; assert recipes(); "
        "main(['info'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", check, str(target)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "CUDA kernels:          not compiled: with the CUDA toolkit installed" in run.stdout
    run = subprocess.run(
        [sys.executable, "-c", CALL, str(target)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and "negated" in run.stdout, run.stderr


def configure(sources: Path, build: Path, path: list[str], **definitions: str) -> subprocess.CompletedProcess[str]:
    """Run CMake alone, with nothing but these folders on PATH."""
    setup = load_setup()
    torch_dir, torch_version = setup.find_torch()
    definitions = {
        "CMAKE_MAKE_PROGRAM": setup.find_program("ninja"),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": setup.pybind11_dir(),
        "FASTADV_TORCH_DIR": torch_dir,
        "FASTADV_TORCH_VERSION": torch_version,
        "FASTADV_VERSION": "0",
        **definitions,
    }
    environment = {"PATH": os.pathsep.join(path), "HOME": os.environ.get("HOME", "/")}
    command = [setup.find_program("cmake"), "-S", str(sources), "-B", str(build), "-G", "Ninja"]
    return subprocess.run(
        [*command, *(f"-D{name}={value}" for name, value in definitions.items())],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("definitions", "code", "message"),
    [
        ({"FASTADV_CUDA": "ON"}, 1, "no nvcc was found: install the CUDA toolkit"),
        ({"FASTADV_CUDA": "AUTO"}, 0, "CUDA kernels left out (no nvcc"),
        ({"FASTADV_CUDA": "OFF"}, 0, "CUDA kernels left out (FASTADV_CUDA=OFF)"),
        ({"FASTADV_CUDA": "maybe"}, 1, "FASTADV_CUDA must be AUTO, ON or OFF, got 'MAYBE'"),
    ],
)
def test_cuda_option(sources: Path, tmp_path: Path, definitions: dict[str, str], code: int, message: str) -> None:
    tools = tmp_path / "tools"  # a compiler, but no nvcc
    tools.mkdir()
    for tool in ("c++", "g++", "cc", "gcc", "as", "ld", "ar", "ranlib", "uname", "sh"):
        found = shutil.which(tool)
        if found:
            (tools / tool).symlink_to(found)
    result = configure(sources, tmp_path / "build", [str(tools)], **definitions)
    output = " ".join((result.stdout + result.stderr).split())
    assert (result.returncode, message in output) == (code, True), output


def load(name: str) -> ModuleType:
    """A file of the build as a module."""
    spec = importlib.util.spec_from_file_location(f"fastadv_{name}", ROOT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_setup() -> ModuleType:
    """setup.py as a module, without running a build."""
    import setuptools

    original, setuptools.setup = setuptools.setup, lambda **_: None
    sys.path.insert(0, str(ROOT))
    try:
        return load("setup")
    finally:
        sys.path.remove(str(ROOT))
        setuptools.setup = original


def test_make_installs_the_tools() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = (line for line in makefile.splitlines() if "--constraint constraints.txt setuptools" in line)
    assert {re.sub(r'"|>=\d+', "", tool) for tool in TOOLS.split()[2:]} <= set(line.split())


def test_all_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load("build_backend").missing() == []
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="lacks cmake, ninja: pip install cmake ninja, then pip install --no-build"):
        build = load_setup().CMakeBuild(Distribution())
        build.build_extension(Extension("fastadv._C", []))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for found in (importlib.metadata.PackageNotFoundError, "65.5.0"):
        monkeypatch.setattr(importlib.metadata, "version", Mock(side_effect=[found] * 9))
        with pytest.raises(SystemExit, match=r'pip install "setuptools>=77" torch pybind11 cmake ninja, then'):
            load("build_backend")


def test_sources_without_the_compiled_operators_say_so(sources: Path) -> None:
    """Python started in a clone finds the folder fastadv there before the installed package."""
    command = [sys.executable, "-c", "import fastadv.attacks"]
    run = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: the compiled operators of fastadv cannot be loaded")
    assert str(sources / "fastadv") in message and "pip install --no-build-isolation" in message


def test_old_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup = load_setup()
    (tmp_path / "version.py").write_text("__version__ = '2.3.1+cpu'\n")
    old = importlib.machinery.ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: old)
    with pytest.raises(SystemExit, match=r"torch >= 2.11 is needed, found 2.3.1\+cpu"):
        setup.find_torch()


COMPILER, NVCC = "CMAKE_CXX_COMPILER:FILEPATH=/usr/bin/c++\n", "CMAKE_CUDA_COMPILER:STRING=/usr/bin/nvcc\n"


@pytest.mark.parametrize(
    ("cache", "said"),
    [
        (None, ""),
        (COMPILER, ""),
        (COMPILER + "CMAKE_CUDA_COMPILER:FILEPATH=NOTFOUND\n", ""),
        (COMPILER + NVCC, " If nvcc is what failed: to build without the CUDA kernels set FASTADV_CUDA=OFF."),
    ],
)
def test_a_failed_build_names_what_may_be_missing_alone(cache: str | None, said: str, tmp_path: Path) -> None:
    if cache is not None:
        (tmp_path / "CMakeCache.txt").write_text(cache)
    with pytest.raises(SystemExit, match=rf"'false' failed with exit code 1; its message is above\.{said}$"):
        load_setup().run(tmp_path, "false")


def test_a_missing_compiler_is_named(sources: Path, tmp_path: Path) -> None:
    assert configure(sources, tmp_path, []).returncode == 1
    assert load_setup().way_out(tmp_path) == " A C++17 compiler is needed (Debian: apt-get install g++)."
