"""The host code of the CUDA build: each run is a pytest in a process whose CUDA runtime logs its calls."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.cuda_host.build import build, recorded, why_not

REASON = why_not()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(REASON is not None, reason=REASON or "")]


@pytest.mark.timeout(1800)
def test_every_function_that_the_module_calls_is_recorded() -> None:
    """Calls of a function that the recorder lacks would go to PyTorch's own runtime, unnoticed."""
    module = build()
    recorder = module.parents[2] / "recorder" / "librecorder.so"
    called = _symbols(str(module), "--undefined-only")
    assert len(called) > 10 and called <= _symbols(str(recorder), "--defined-only")


@pytest.mark.timeout(1800)
def test_host_code() -> None:
    done = recorded("-m", "pytest", "-p", "tests.cuda_host.plugin", "-q", "-n0", "--maxfail=5", "tests/cuda_host/cases")
    output = done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", output)
    assert done.returncode == 0, output[-20_000:]
    assert passed is not None and int(passed[1]) >= 480, output[-2_000:]


def _symbols(library: str, which: str) -> set[str]:
    """The names of CUDA's functions that a library defines or leaves undefined."""
    listed = subprocess.run(["nm", "--dynamic", which, library], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r" [TU] ((?:__)?cuda\w+)", listed))
