"""The tests of a GPU, the kernels' speed beside a copy's, and the sanitizers."""

from __future__ import annotations

from benchmarks.gpu.part import Findings, Setting, benchmark
from benchmarks.gpu.processes import PYTEST, run
from benchmarks.gpu.sanitizers import sanitize

# Where tests are marked as a GPU's: collecting all the others needs packages that a machine with a GPU may lack.
TESTS = [
    *("tests/gpu", "tests/data/test_image_loaders.py", "tests/data/test_torch_loader.py"),
    "tests/train/test_distributed.py",
]


def kernels(setting: Setting) -> Findings:
    """Run them all."""
    findings = Findings()
    # What cannot be collected for want of a package is an error, which does not keep the others from running.
    command = [*PYTEST, "-m", "gpu", "--continue-on-collection-errors", *TESTS]
    tests = run("tests", command, setting.limit(120), FASTADV_TEST_DEVICE=setting.device)
    findings.add(tests, must_end=True)
    benchmark(findings, setting, "benchmark", "benchmarks/test_kernels.py", 180)
    if not setting.rehearsal:
        sanitize(findings, setting)
    return findings
