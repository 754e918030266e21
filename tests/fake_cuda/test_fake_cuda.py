"""What only a GPU's own process shows of Python: each run is a pytest that finds the pretended one."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is None, reason="needs a PyTorch that was built with CUDA"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, for which make gpu is"),
]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    files: str
    at_least: int  # tests that pass


RUNS = {
    "cases": Run("tests/fake_cuda/cases", at_least=190),
    "the tests of a GPU": Run(
        "tests/gpu --ignore=tests/gpu/test_operators.py",  # which compares kernels
        at_least=320,
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_on_a_pretended_gpu(run: Run) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "tests.fake_cuda.plugin", "-q", "--maxfail=5", "--numprocesses=0"]
    done = subprocess.run([*command, *run.files.split()], cwd=ROOT, capture_output=True, text=True)
    output = done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", output)
    assert done.returncode == 0, output[-20_000:]
    assert passed is not None and int(passed[1]) >= run.at_least, output[-2_000:]
