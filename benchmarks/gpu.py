"""All that a GPU can show, by one command, in one dated file: the tests, the sanitizers, the kernels' speed.

    python -m benchmarks.gpu [--build] [--out FILE]       (or: make gpu)

It needs torch >= 2.11, the packages of the tests and no network, and ends within eight minutes: each part has its share
of them, and what a part had not done by then is missing from the report, which says so. ``--rehearse`` runs the same
on the CPU, at small sizes, to see that the command works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
# Of what may race or leave its memory, each kernel once or more, in sizes that a sanitizer gets through.
SANITIZED = "(amounts or target_grad or mixed or packs or drawn) and not 21841 and not symmetric and not unit"
TOOLS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}


@dataclass
class Part:
    """What became of one part of the command."""

    name: str
    command: Sequence[str]
    seconds: float
    code: int | None  # None: stopped at its limit
    output: str

    @property
    def outcome(self) -> str:
        """The test runner's closing line, or what else is known."""
        closing = re.findall(r"^=* ?(\d+ (?:passed|failed|skipped|error).*?) in [\d.]+s.*$", self.output, re.MULTILINE)
        said = closing[-1] if closing else f"exit code {self.code}"
        return f"stopped at its limit of time: {said}" if self.code is None else said


def run(name: str, command: Sequence[str], limit: float, **environment: str) -> Part:
    """Run a command; at its limit it is interrupted, so that it can still write what it has."""
    print(f"{name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        code = _wait(process, limit)
        if code is None:
            process.send_signal(signal.SIGINT)
            if _wait(process, 20) is None:
                process.kill()
                process.wait()
        output.seek(0)
        part = Part(name, command, time.perf_counter() - start, code, output.read())
    print(f"  {part.outcome}, {part.seconds:.0f} s", flush=True)
    if part.code != 0:
        print(part.output[-8000:], flush=True)
    return part


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None


def build(limit: float) -> Part:
    """The extension, in place, for the architecture of this GPU alone."""
    settings = {}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        settings = {"FASTADV_CUDA": "ON", "FASTADV_CUDA_ARCHS": f"{major}{minor}"}
    return run("build", [sys.executable, "setup.py", "build_ext", "--inplace"], limit, **settings)


def sanitize(tool: str, limit: float) -> Part | str:
    """The operators' tests under a tool of compute-sanitizer, or why not."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return "not run: compute-sanitizer is not on PATH (it is part of the CUDA toolkit)"
    command = [program, "--tool", tool, "--error-exitcode", "9", *TOOLS[tool], "--kernel-regex", "kns=fastadv"]
    tests = [*PYTEST, "-x", "tests/gpu/test_operators.py", "-k", SANITIZED]
    return run(tool, [*command, *tests], limit, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def report(parts: Sequence[Part], sanitizers: dict[str, Part | str], tables: str) -> str:
    """The dated file: the outcome of each part, then the benchmark's own report."""
    lines = [f"- {part.name}: {part.outcome} ({part.seconds:.0f} s)" for part in parts]
    for tool, part in sanitizers.items():
        lines.append(f"- compute-sanitizer {tool}: {part if isinstance(part, str) else _verdict(part)}")
    head, separator, rest = tables.partition("\n## ")
    return f"{head.strip()}\n\n## Checks\n\n" + "\n".join(lines) + f"\n{separator}{rest}"


def _verdict(part: Part) -> str:
    summary = re.findall(r"^========= ((?:ERROR|RACECHECK) SUMMARY: .*)$", part.output, re.MULTILINE)
    return f"{part.outcome}; {summary[-1] if summary else 'no summary of the tool'} ({part.seconds:.0f} s)"


def _name() -> str:
    machine = importlib.import_module("benchmarks.machine")  # which needs the extension that was built
    return f"{machine.slug()}.md"


def measure(limit: float, **environment: str) -> tuple[Part, str]:
    """The kernels' benchmark, and its report."""
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "tables.md"
        command = [*PYTEST, "benchmarks/test_kernels.py", "--benchmark-quiet", "--report", str(tables)]
        part = run("benchmark", command, limit, **environment)
        return part, tables.read_text() if tables.exists() else "# Benchmarks\n\nThe benchmark wrote no tables."


def main(argv: Sequence[str] | None = None) -> int:
    """Run it all; 0 if all that ran was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", action="store_true", help="build the extension in place first, for this GPU alone")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, at small sizes")
    parser.add_argument("--out", type=Path, help="the report; benchmarks/results/YYYY-MM-GPU.md unless given")
    arguments = parser.parse_args(argv)
    rehearse = arguments.rehearse
    if not rehearse and not torch.cuda.is_available():
        print("there is no GPU that torch can use; --rehearse shows that the command works", file=sys.stderr)
        return 2
    built = [build(120)] if arguments.build else []
    if any(part.code != 0 for part in built):
        return 1
    limit, device = (900, "cpu") if rehearse else (120, "cuda")
    tests = run("tests", [*PYTEST, "-m", "gpu", "tests/gpu"], limit, FASTADV_TEST_DEVICE=device)
    sanitizers = {} if rehearse else {tool: sanitize(tool, 40) for tool in TOOLS}
    benchmark, tables = measure(limit, FASTADV_TEST_DEVICE=device)
    path = arguments.out or ROOT / "benchmarks" / "results" / _name()
    path.write_text(report([*built, tests, benchmark], sanitizers, tables))
    print(f"written to {path}")
    # What was stopped at its limit has said what it found by then; of tests that is not enough.
    others = [benchmark, *(part for part in sanitizers.values() if isinstance(part, Part))]
    return 0 if tests.code == 0 and all(part.code in (0, None) for part in others) else 1


if __name__ == "__main__":
    sys.exit(main())
