"""Where an operator's code is, and that a new one needs no more than CONTRIBUTING.md says.

The new one is ``negate_`` (new_operator.py). Its CUDA kernel runs here; tests/test_install.py builds it as well.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastadv.utils import environment
from tests.completeness import check_complete, operators
from tests.ops.new_operator import NEGATE

ROOT = Path(__file__).parents[2]


def test_every_operator_is_in_the_guide_and_in_fastadv_info() -> None:
    first_cells = re.findall(r"^\| (`.*?) \| ", (ROOT / "docs/operators.md").read_text(), re.MULTILINE)
    described = {name for cell in first_cells for name in re.findall(r"`(\w+)", cell)}
    check_complete("the table of docs/operators.md", described, {*operators(), "from_pixels"})
    check_complete("OPERATORS of fastadv/utils/environment.py", environment.OPERATORS, operators())


@pytest.mark.parametrize("operator", sorted(operators()))
def test_an_operator_is_found_by_its_name(operator: str) -> None:
    """Its schema is in a file of its name, and so are its kernels."""
    (registers,) = (file for file in (ROOT / "csrc/ops").glob("*.cpp") if f'"{operator}(' in file.read_text())
    assert registers.stem in operator
    if f"FASTADV_REGISTER({operator})" not in registers.read_text():
        assert f'm.impl("{operator}"' in registers.read_text()  # made of other operators
        return
    assert (ROOT / f"csrc/cpu/{registers.stem}.cpp").exists()
    assert (ROOT / f"csrc/cuda/{registers.stem}.cu").exists()


def test_contributing_names_the_files_of_a_new_operator() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Add an operator")[2].partition("\n## ")[0]
    named = re.findall(r"`(csrc/[^`]*<op>[^`]*)`", section)
    assert {name.replace("<op>", "negate") for name in named} == {
        str(file.relative_to(NEGATE)) for file in NEGATE.rglob("*") if file.is_file()
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The C++ sources with the operator added."""
    for name in ("csrc", "tests/simt"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(NEGATE, tmp_path, dirs_exist_ok=True)
    return tmp_path


def run(folder: Path, *command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_cuda_kernel_of_a_new_operator(copy: Path) -> None:
    """Its CUDA side alone, on the host as tests/simt runs it, beside the package that is installed."""
    torch_dir, library = Path(importlib.util.find_spec("torch").origin).parent, copy / "negate.so"
    definitions = (
        "FASTADV_SIMT",
        "FASTADV_WITH_CUDA",
        'FASTADV_CUDA_ARCHS="none"',
        "TORCH_TARGET_VERSION=0x020b000000000000",
    )
    run(
        *(
            copy,
            os.environ.get("CXX", "g++"),
            "-std=c++17",
            "-O1",
            "-shared",
            "-fPIC",
            "-pthread",
            "-fvisibility=hidden",
        ),
        *(f"-D{definition}" for definition in definitions),
        *("-I", "tests/simt/include", "-isystem", torch_dir / "include"),
        *("-isystem", torch_dir / "include/torch/csrc/api/include"),
        *("-x", "c++", "csrc/ops/negate.cpp", "csrc/cuda/negate.cu", "-x", "none"),
        *("-o", library, "-L", torch_dir / "lib", "-ltorch", "-ltorch_cpu", "-lc10"),
    )
    call = (
        "import torch, sys; torch.ops.load_library(sys.argv[1]); values = torch.arange(1.0, 2000.0); "
        "torch.ops.fastadv.negate_(values); assert torch.equal(values, -torch.arange(1.0, 2000.0)), values"
    )
    run(copy, sys.executable, "-c", call, library)
