"""All that a GPU can show, by one command, in one dated file: the tests, the sanitizers, the kernels' speed.

    python -m benchmarks.gpu [--build] [--out FILE]       (or: make gpu)

It needs torch >= 2.11, the packages of the tests and no network, and ends within eight minutes: each part has its share
of what is left of them, and what a part had not done by then is missing from the report, which says so. ``--rehearse``
runs the same on the CPU, at small sizes, to see that the command works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
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
LIMIT = 480  # seconds for everything
GRACE = 15  # of them, in which a part that is stopped writes what it has
# Where tests are marked as a GPU's: collecting all the others needs packages that a machine with a GPU may lack.
TESTS = [
    *("tests/gpu", "tests/data/test_image_loaders.py", "tests/data/test_torch_loader.py"),
    "tests/train/test_distributed.py",
]
TOOLS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}


def _cases(test: str, *ids: str) -> list[str]:
    return [f"tests/gpu/test_operators.py::test_{test}[{one}]" for one in ids]


# What the sanitizers get through in their time: every operator, and for races those kernels that have shared memory.
STEPS = ("sign", "l2", "linf", "noise_sign", "noise_normal", "noise_uniform")
DTYPES = ("torch.float32", "torch.float64", "torch.bfloat16", "torch.float16")
SANITIZED = {
    "memcheck": [
        *_cases("amounts_per_example", *(f"{step}-torch.float32-imagenet-unaligned-iterative" for step in STEPS)),
        *_cases("amounts_per_example", *(f"{step}-torch.bfloat16-imagenet-unaligned-iterative" for step in STEPS)),
        *_cases("elements_before_and_behind_the_packs", "sign-torch.float16", "l2-torch.float64"),
        *_cases("from_pixels", "(33, 3, 7, 5)-torch.float32-contiguous", "(2, 3, 64, 65)-torch.bfloat16-channels_last"),
        *_cases("from_pixels", "(3, 5, 9, 11)-torch.float32-channels_last"),
        *_cases("drawn_eps", "torch.float32"),
        *_cases("target_grad", "label-torch.float32-(33, 129)", "random-torch.bfloat16-(3, 1025)"),
        *_cases("target_grad", "entropy-torch.float64-(64, 1000)"),
        *_cases("mixed_cross_entropy", "torch.float32-(33, 129)", "torch.bfloat16-(3, 1025)"),
    ],
    "racecheck": [
        *_cases("amounts_per_example", *(f"l2-{dtype}-imagenet-aligned-iterative" for dtype in DTYPES)),
        *_cases("amounts_per_example", *(f"linf-{dtype}-imagenet-aligned-iterative" for dtype in DTYPES)),
        *_cases("steps", *(f"{step}-(1, 3, 299, 299)-torch.float32-contiguous" for step in ("l2", "linf"))),
        *_cases("from_pixels", "(33, 3, 7, 5)-torch.float64-channels_last", "(2, 3, 64, 65)-torch.float16-contiguous"),
        *_cases("target_grad", *(f"{rule}-torch.float32-(3, 1025)" for rule in ("label", "least_likely", "random"))),
        *_cases("target_grad", *(f"entropy-{dtype}-(3, 1025)" for dtype in ("torch.float64", "torch.bfloat16"))),
        *_cases("mixed_cross_entropy", *(f"{dtype}-(3, 1025)" for dtype in DTYPES)),
    ],
}
NO_TIME = "not run: no time was left"
# One of torch's own kernels: what fails here is no fault of this package's.
PROBE = "import torch; print('the sum is', torch.ones(8, device='cuda').sum().item())"


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

    @property
    def summaries(self) -> list[str]:
        """The closing lines of a tool of compute-sanitizer, one a process."""
        return re.findall(r"^========= ((?:ERROR|RACECHECK) SUMMARY: .*)$", self.output, re.MULTILINE)

    @property
    def accused(self) -> list[str]:
        """What the tool found: single errors, which it may have no time to sum up, and summaries that name any."""
        single = r"^========= (Invalid __.*|.*Race reported.*|.*hazard detected.*)$"
        found = [line for line in self.summaries if re.search(r"\b[1-9]\d* (?:error|hazard)", line)]
        return re.findall(single, self.output, re.MULTILINE) + found


@dataclass(frozen=True)
class Deadline:
    """When everything has to be over."""

    at: float  # of time.monotonic()

    def share(self, seconds: float) -> float:
        """The limit of a part: so many seconds, or what is left of the whole."""
        return min(seconds, self.at - GRACE - time.monotonic())


def run(name: str, command: Sequence[str], limit: float, **environment: str) -> Part:
    """Run a command; at its limit it and its children are interrupted, so that they can still write what they have."""
    print(f"{name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own, to signal
            preexec_fn=_heed_interrupts,
        )
        try:
            code = _wait(process, limit)
            if code is None:
                os.killpg(process.pid, signal.SIGINT)
                _wait(process, GRACE)
        finally:  # whoever is left, also of a command that ended or when this one is interrupted
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        part = Part(name, command, time.perf_counter() - start, code, output.read())
    print(f"  {part.outcome}, {part.seconds:.0f} s", flush=True)
    if part.code != 0:
        print(part.output[-8000:], flush=True)
    return part


def _heed_interrupts() -> None:
    """Shells start what runs in the background with interrupts ignored, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(max(limit, 0))
    except subprocess.TimeoutExpired:
        return None


def build(limit: float) -> Part:
    """The extension, in place, for the architecture of this GPU alone."""
    settings = {}
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        settings = {"FASTADV_CUDA": "ON", "FASTADV_CUDA_ARCHS": f"{major}{minor}"}
    return run("build", [sys.executable, "setup.py", "build_ext", "--inplace"], limit, **settings)


def without_kernels() -> str | None:
    """Why the extension that was built does not run on this GPU, and what to do; None where it does."""
    try:
        info = importlib.import_module("fastadv.info")  # only now: the extension may just have been built
    except ImportError as error:
        return str(error)
    major, minor = torch.cuda.get_device_capability()
    compiled = info.ops._C.build_info()["cuda_archs"]
    if info.runs_on(10 * major + minor, compiled):
        return None
    return (
        f"the extension has kernels for {compiled or 'no GPU'}, none for {torch.cuda.get_device_name()} (compute "
        f"capability {major}.{minor}); build them: python -m benchmarks.gpu --build"
    )


def sanitize(deadline: Deadline) -> dict[str, Part | str]:
    """Some of the operators' tests under each tool of compute-sanitizer, or why not."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return dict.fromkeys(TOOLS, "not run: compute-sanitizer is not on PATH (it is part of the CUDA toolkit)")
    if deadline.share(40) <= 0:
        return dict.fromkeys(TOOLS, NO_TIME)
    probe = run("probe", [program, *TOOLS["memcheck"], sys.executable, "-c", PROBE], deadline.share(40))
    if probe.code != 0 or "the sum is 8.0" not in probe.output or probe.accused:
        said = [line.lstrip("= ") for line in probe.output.splitlines() if "SUMMARY" not in line and line.strip("= ")]
        reason = said[-1] if said else "it says nothing"
        return dict.fromkeys(TOOLS, f"not run: compute-sanitizer does not work here ({probe.outcome}: {reason})")
    return {tool: _sanitized(program, tool, deadline.share(40)) for tool in TOOLS}


def _sanitized(program: str, tool: str, limit: float) -> Part | str:
    if limit <= 0:
        return NO_TIME
    command = [program, "--tool", tool, "--error-exitcode", "9", *TOOLS[tool], "--kernel-regex", "kns=fastadv"]
    return run(tool, [*command, *PYTEST, "-x", *SANITIZED[tool]], limit, PYTORCH_NO_CUDA_MEMORY_CACHING="1")


def report(parts: Sequence[Part], sanitizers: dict[str, Part | str], tables: str) -> str:
    """The dated file: the outcome of each part, then the benchmark's own report."""
    lines = [f"- {part.name}: {part.outcome} ({part.seconds:.0f} s)" for part in parts]
    for tool, part in sanitizers.items():
        lines.append(f"- compute-sanitizer {tool}: {part if isinstance(part, str) else _verdict(part)}")
    head, separator, rest = tables.partition("\n## ")
    return f"{head.strip()}\n\n## Checks\n\n" + "\n".join(lines) + f"\n{separator}{rest}"


def _verdict(part: Part) -> str:
    summary = (part.accused or part.summaries or ["no verdict"])[-1]
    return f"{part.outcome}; {summary} ({part.seconds:.0f} s)"


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
    rehearse, out = arguments.rehearse, arguments.out
    if out is not None and not out.absolute().parent.is_dir():
        return _refused(f"--out {out}: there is no folder {out.parent}")
    if not rehearse and not torch.cuda.is_available():
        return _refused("there is no GPU that torch can use; --rehearse shows that the command works")
    deadline = Deadline(time.monotonic() + (1800 if rehearse else LIMIT))
    built = [build(deadline.share(120))] if arguments.build else []
    if any(part.code != 0 for part in built):
        return 1
    missing = None if rehearse else without_kernels()
    if missing:
        return _refused(missing)
    device = "cpu" if rehearse else "cuda"
    # What cannot be collected for want of a package is an error, which does not keep the others from running.
    command = [*PYTEST, "-m", "gpu", "--continue-on-collection-errors", *TESTS]
    tests = run("tests", command, deadline.share(900 if rehearse else 120), FASTADV_TEST_DEVICE=device)
    benchmark, tables = measure(deadline.share(900 if rehearse else 180), FASTADV_TEST_DEVICE=device)
    sanitizers = {} if rehearse else sanitize(deadline)
    path = out or ROOT / "benchmarks" / "results" / _name()
    path.write_text(report([*built, tests, benchmark], sanitizers, tables))
    print(f"written to {path}")
    # What was stopped at its limit has said what it found by then; of tests that is not enough.
    others = [benchmark, *(part for part in sanitizers.values() if isinstance(part, Part))]
    return 0 if tests.code == 0 and all(part.code in (0, None) and not part.accused for part in others) else 1


def _refused(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
