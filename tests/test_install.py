"""The build: installed from a folder with a space in its name, and its messages where something is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
TOOLS = 'pip install "setuptools>=77" cmake ninja pybind11'  # make does it, with versions pinned
INSTALL = "pip install --no-build-isolation ."


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a source distribution holds, in a path with a space."""
    folder = tmp_path_factory.mktemp("with a space") / "fastadv sources"
    ignore = shutil.ignore_patterns("*.so", "__pycache__")
    for name in ("csrc", "fastadv"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("setup.py", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.timeout(900)
def test_pip_install_without_cuda(sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed here"
    install = subprocess.run(
        [sys.executable, "-m", *INSTALL.split(), "--no-deps", "--target", str(target)],
        cwd=sources,
        env={**os.environ, "FASTADV_CUDA": "OFF"},
        capture_output=True,
        text=True,
    )
    assert install.returncode == 0, install.stdout + install.stderr
    check = (
        "import fastadv, fastadv.ops, sys; assert fastadv.__file__.startswith(sys.argv[1]), fastadv.__file__; "
        "from fastadv.cli import main; from fastadv.train.parsing import recipes; assert recipes(); main(['info'])"
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


def configure(sources: Path, build: Path, path: list[str], **definitions: str) -> subprocess.CompletedProcess[str]:
    """Run CMake alone, with nothing but these folders on PATH."""
    setup = load_setup()
    torch_dir, torch_version = setup.find_torch()
    definitions = {
        "CMAKE_MAKE_PROGRAM": setup.find_program("ninja"),
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": setup.find_pybind11(),
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


def load_setup() -> ModuleType:
    """setup.py as a module, without running a build."""
    import setuptools

    original, setuptools.setup = setuptools.setup, lambda **_: None
    try:
        spec = importlib.util.spec_from_file_location("fastadv_setup", ROOT / "setup.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        setuptools.setup = original
    return module


def test_make_installs_the_tools() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (line,) = (line for line in makefile.splitlines() if "--constraint constraints.txt setuptools" in line)
    assert {re.sub(r'"|>=\d+', "", tool) for tool in TOOLS.split()[2:]} <= set(line.split())


def test_missing_program_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(SystemExit, match="ninja is needed to build: pip install ninja"):
        load_setup().find_program("ninja")


def test_sources_without_the_compiled_operators_say_so(sources: Path) -> None:
    """Python started in a clone finds the folder fastadv there before the installed package."""
    command = [sys.executable, "-c", "import fastadv.attacks"]
    run = subprocess.run(command, cwd=sources, capture_output=True, text=True)
    message = run.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: the compiled operators of fastadv do not load")
    assert str(sources / "fastadv") in message and "pip install --no-build-isolation" in message


def test_missing_and_old_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup = load_setup()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="torch must be installed before"):
        setup.find_torch()
    (tmp_path / "version.py").write_text("__version__ = '2.3.1+cpu'\n")
    old = importlib.machinery.ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: old)
    with pytest.raises(SystemExit, match=r"torch >= 2.11 is needed, found 2.3.1\+cpu"):
        setup.find_torch()


def test_failed_build_says_what_to_install() -> None:
    with pytest.raises(SystemExit, match=r"C\+\+17 compiler is needed"):
        load_setup().run("false")
