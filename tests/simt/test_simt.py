"""The operator tests with the CUDA kernels on the host, and all kernels and bindings under the sanitizers.

Each run is a pytest of its own. They start together, as many at a time as there are processors, each on one of them:
threads that only wait for each other gain nothing from a second. A step along a norm costs thousands of meetings of 256
threads, so of its largest cases only some are run; plugin.py says how to run others.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from tests.simt.build import build, operator_tests

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Run:
    module: str
    files: str
    select: str = ""  # as -k takes it
    environment: dict[str, str] = field(default_factory=dict)
    at_least: int = 1  # tests that pass


SOME_NORMS = "(l2 or linf) and not ((299 or 33) and not float32) and not (spaces and (unit or symmetric or raw))"
SMALL = "not 299 and not threads_do_not_show and not (spaces and (unit or symmetric))"
STEPS, LOGITS, RANDOM = (f"tests/ops/test_{name}.py" for name in ("steps", "logits", "random"))
ARGUMENTS, BOUNDARIES = "tests/ops/test_arguments.py", "tests/ops/test_boundaries.py"
PIXELS, ROWS = "tests/ops/test_from_pixels.py", "tests/ops/test_logit_rows.py"

RUNS = {
    "norms": Run("simt_plain", STEPS, SOME_NORMS, at_least=140),
    "steps": Run("simt_plain", STEPS, "not l2 and not linf", at_least=800),
    "logits": Run("simt_plain", LOGITS, at_least=190),
    "rows of logits": Run("simt_plain", ROWS, at_least=300),
    "pixels": Run("simt_plain", PIXELS, at_least=460),
    "contract": Run(
        "simt_plain", f"{RANDOM} {ARGUMENTS} tests/ops/test_torch_contract.py", "not compile", at_least=100
    ),
    "properties": Run("simt_plain", "tests/ops/test_properties.py", "sign or noise", at_least=30),
    "on a device": Run("simt_plain", "tests/simt/on_a_device.py", at_least=100),
    "boundaries": Run("simt_plain", BOUNDARIES, "not (tiles and linf) or float32", at_least=100),
    "one item a thread": Run(
        "simt_plain",
        f"{STEPS} {LOGITS}",
        "unaligned or (sign and shapes and 299 and float32) or (reference and label)",
        {"FASTADV_SIMT_BLOCKS": "1000000"},
        at_least=80,
    ),
    "more than 2^31 elements": Run(
        "simt_plain",
        "tests/simt/more_than_2_31.py",
        environment={"FASTADV_SIMT_BLOCKS": "2147483647", "FASTADV_SIMT_ENDS": "20"},
        at_least=15,
    ),
    "out of bounds": Run(
        "simt_address", f"{STEPS} {LOGITS} {RANDOM}", "unaligned or (reference and random) or fills", at_least=80
    ),
    "out of bounds, pixels": Run(
        "simt_address",
        PIXELS,
        "unaligned or around or number_of_channels or (shapes and 64) or (rows_in_tiles and (299 or 15 or 17))",
        at_least=165,
    ),
    "out of bounds, rows of logits": Run(
        "simt_address", ROWS, "1000 or 1001 or 1024 or (not 1025 and (float16 or float64))", at_least=100
    ),
    "out of bounds, boundaries": Run(
        "simt_address",
        BOUNDARIES,
        "not chunk and (packs or draws or classes or examples) or (tiles and sign and not float64)",
        at_least=50,
    ),
    "races": Run(
        "simt_thread",
        f"{STEPS} {LOGITS} {ROWS} {BOUNDARIES} {PIXELS}",
        "(unaligned and float32) or (reference and random and float32) or (mixed and 0.1) or (chunk and 32769)"
        " or (rule and bfloat16 and (33 or 1000 or 1001)) or (tiles and sign and bfloat16)",
        at_least=20,
    ),
    "CPU kernels out of bounds": Run(
        "cpu_address", f"{STEPS} {LOGITS} {ROWS} {RANDOM} {ARGUMENTS} {BOUNDARIES} {PIXELS}", SMALL, at_least=1200
    ),
}


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    for module in {run.module: None for run in RUNS.values()}:
        build(module)  # before the clock of any run starts
    processors: queue.Queue[int] = queue.Queue()
    for processor in sorted(os.sched_getaffinity(0)):
        processors.put(processor)

    def start(run: Run) -> subprocess.CompletedProcess[str]:
        processor = processors.get()
        try:
            selection = ["-k", run.select] if run.select else []
            return operator_tests(
                run.module, *run.files.split(), *selection, FASTADV_SIMT_PROCESSOR=str(processor), **run.environment
            )
        finally:
            processors.put(processor)

    with ThreadPoolExecutor(processors.qsize()) as pool:
        futures = {name: pool.submit(start, run) for name, run in RUNS.items()}
        yield futures
        for future in futures.values():
            future.cancel()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RUNS)
def test_operators(results: dict[str, Future[subprocess.CompletedProcess[str]]], name: str) -> None:
    done = results[name].result()
    output = done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", output)
    print(output[-600:])
    assert done.returncode == 0, output[-20_000:]
    assert passed is not None and int(passed[1]) >= RUNS[name].at_least, output[-2_000:]
