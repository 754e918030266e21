"""GPU tests: a quick check, the trainer's, all others, and a second run of those that failed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import PYTEST, run

# Every operator in four dtypes, on its stream and in a graph; then what may leave a process unusable. By file, so that
# each of them has a process of its own.
SMOKE = [
    "tests/gpu/test_streams.py::test_runs_as_on_the_cpu",
    "tests/gpu/test_streams.py::test_runs_on_the_current_stream",
    "tests/gpu/test_streams.py::test_a_captured_operator_reads_what_is_there_then",
    "tests/gpu/test_errors.py::test_an_error_of_earlier_work",
    "tests/gpu/test_failed_recordings.py",
]
TRAINER = ["tests/gpu/test_trainer.py"]
# Where tests are marked as a GPU's: collecting all the others takes longer than most of these.
TESTS = [
    *("tests/gpu", "tests/data/test_image_loaders.py", "tests/data/test_torch_loader.py"),
    "tests/train/test_distributed.py",
]
HANGS = 60  # seconds after which a test is given up, with its process


def smoke(setting: Setting) -> Findings:
    """Run the quick check."""
    return _tested(setting, "smoke", SMOKE, 3, "loadfile")


def trainer(setting: Setting) -> Findings:
    """Run the tests of ``create_trainer`` and of training in a process group of one."""
    return _tested(setting, "trainer", TRAINER, 4)


def tests(setting: Setting) -> Findings:
    """Run all tests except those of the two parts before."""
    left_out = [word for name in (*SMOKE, *TRAINER) for word in ("--deselect", name)]
    return _tested(setting, "tests", [*TESTS, *left_out], 6)


def again(setting: Setting, names: Sequence[str]) -> Findings:
    """Run tests by name."""
    return _tested(setting, "tests that failed", names, 6)


def _tested(setting: Setting, name: str, chosen: Sequence[str], most: int, distribution: str = "worksteal") -> Findings:
    """Run tests in at most a number of processes, and no more than there are cores."""
    findings, cores = Findings(), len(os.sched_getaffinity(0))
    workers = min(most, cores)
    options = ["--numprocesses", str(workers), "--dist", distribution, "-m", "gpu"]
    if not setting.rehearsal:  # a machine that rehearses is as slow as it likes
        options += ["--timeout", str(HANGS), "--timeout-method", "thread"]
    limits = {"FASTADV_TEST_DEVICE": setting.device, "OMP_NUM_THREADS": str(cores // workers)}
    findings.add(run(name, [*PYTEST, *options, *chosen], setting.limit(), **limits))
    return findings
