"""The operator tests with the CUDA kernels on the host, and all kernels under the sanitizers.

Each run is a separate pytest process. As many run at a time as there are processors, each on its own. A run takes
seconds to import torch and collect tests, so there are few runs with many tests each. plugin.py says how to run
others.
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


STEPS, LOGITS, RANDOM = (f"tests/ops/test_{name}.py" for name in ("steps", "logits", "random"))
ARGUMENTS, CONTRACT, PROPERTIES = (
    f"tests/ops/test_{name}.py" for name in ("arguments", "torch_contract", "properties")
)
PIXELS, ROWS, BOUNDARIES = (f"tests/ops/test_{name}.py" for name in ("from_pixels", "logit_rows", "boundaries"))
PAIRS, MARGINS, BEST = (f"tests/ops/test_{name}.py" for name in ("kl", "margins", "keep_best"))
MOMENTUM = "tests/ops/test_apgd_step.py"
# -k takes a file's name like a test's.
OF_PIXELS, OF_ROWS, OF_BOUNDARIES = "test_from_pixels", "test_logit_rows", "test_boundaries"

RUNS = {
    "CPU kernels out of bounds": Run(
        "cpu_address",
        f"{STEPS} {LOGITS} {ROWS} {PAIRS} {MARGINS} {BEST} {RANDOM} {ARGUMENTS} {BOUNDARIES} {PIXELS}",
        "not 299 and not threads_do_not_show and not (spaces and (unit or symmetric))",
        at_least=1200,
    ),
    "out of bounds": Run(
        "simt_address",
        f"{STEPS} {LOGITS} {RANDOM} {ROWS} {PAIRS} {MARGINS} {BEST} {PIXELS} {BOUNDARIES}",
        f"not {OF_ROWS} and (unaligned or (reference and random) or fills)"
        f" or {OF_ROWS} and (1000 or 1001 or 1024 or (not 1025 and (float16 or float64)))"
        " or test_kl and reference and (129 or 1025)"
        " or test_margins and (against and 1-shape or equal_logits) or test_keep_best and reference and not 299"
        f" or {OF_PIXELS} and (unaligned or around or number_of_channels or (shapes and 64)"
        " or (rows_in_tiles and (299 or 15 or 17)))"
        f" or {OF_BOUNDARIES} and (not chunk and (packs or draws or classes or examples)"
        " or (tiles and sign and not float64))",
        at_least=610,
    ),
    "races": Run(
        "simt_thread",
        f"{STEPS} {LOGITS} {ROWS} {PAIRS} {MARGINS} {BEST} {BOUNDARIES} {PIXELS}",
        "(unaligned and float32) or (reference and random and float32) or (mixed and 0.1) or (chunk and 32769)"
        " or (rule and bfloat16 and (33 or 1000 or 1001)) or (tiles and sign and bfloat16)"
        " or (test_kl and reference and float32 and (129 or 1025))"
        " or (test_margins and against and 0-float32 and (129 or 1025)) or (test_keep_best and bfloat16 and 65)",
        at_least=45,
    ),
    "images": Run("simt_plain", f"{STEPS} {MOMENTUM} {BEST} {PIXELS} {BOUNDARIES}", at_least=2520),
    "logits": Run("simt_plain", f"{LOGITS} {ROWS} {PAIRS} {MARGINS}", at_least=1600),
    "contract": Run(
        "simt_plain",
        f"{RANDOM} {ARGUMENTS} {CONTRACT} {PROPERTIES} tests/simt/on_a_device.py",
        "not compile",
        at_least=290,
    ),
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
