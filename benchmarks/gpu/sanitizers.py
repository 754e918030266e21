"""Some of the operators' tests under compute-sanitizer: memory errors, and races in shared memory."""

from __future__ import annotations

import re
import shutil
import sys

from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import PYTEST, Done, run

TOOLS = {"memcheck": ["--report-api-errors", "no"], "racecheck": []}


def _cases(test: str, *ids: str) -> list[str]:
    return [f"tests/gpu/test_operators.py::test_{test}[{one}]" for one in ids]


# What fits in the time limit: every operator, and for races the kernels with shared memory.
STEPS = ("sign", "l2", "linf", "noise_sign", "noise_normal", "noise_uniform")
DTYPES = ("torch.float32", "torch.float64", "torch.bfloat16", "torch.float16")
SANITIZED = {
    "memcheck": [
        *_cases("amounts_per_example", *(f"{step}-torch.float32-imagenet-unaligned-iterative" for step in STEPS)),
        *_cases("amounts_per_example", *(f"{step}-torch.bfloat16-imagenet-unaligned-iterative" for step in STEPS)),
        *_cases("amounts_per_example", "apgd_linf-torch.bfloat16-imagenet-unaligned-iterative"),
        *_cases("amounts_per_example", "apgd_l2-torch.float32-imagenet-aligned-iterative"),
        *_cases("keep_best", "torch.bfloat16-(2, 3, 64, 65)-unaligned"),
        *_cases("elements_before_and_behind_the_packs", "sign-torch.float16", "l2-torch.float64"),
        *_cases("from_pixels", "(33, 3, 7, 5)-torch.float32-contiguous", "(2, 3, 64, 65)-torch.bfloat16-channels_last"),
        *_cases("from_pixels", "(3, 5, 9, 11)-torch.float32-channels_last"),
        *_cases("drawn_eps", "torch.float32"),
        *_cases("target_grad", "label-torch.float32-(33, 129)", "random-torch.bfloat16-(3, 1025)"),
        *_cases("target_grad", "entropy-torch.float64-(64, 1000)"),
        *_cases("margin_grad", "targeted_dlr-torch.float32-(33, 129)"),
        *_cases("row_losses", "dlr-torch.bfloat16-(3, 1025)"),
        *_cases("mixed_cross_entropy", "torch.float32-(33, 129)", "torch.bfloat16-(3, 1025)"),
        *_cases("scaled_kl_grad", "torch.float32-(33, 129)-150.0"),
        *_cases("trades_loss", "torch.bfloat16-(3, 1025)"),
    ],
    "racecheck": [
        *_cases("amounts_per_example", *(f"l2-{dtype}-imagenet-aligned-iterative" for dtype in DTYPES)),
        *_cases("amounts_per_example", *(f"linf-{dtype}-imagenet-aligned-iterative" for dtype in DTYPES)),
        *_cases("amounts_per_example", "apgd_l2-torch.float32-imagenet-aligned-iterative"),
        *_cases("steps", *(f"{step}-(1, 3, 299, 299)-torch.float32-contiguous" for step in ("l2", "linf"))),
        *_cases("from_pixels", "(33, 3, 7, 5)-torch.float64-channels_last", "(2, 3, 64, 65)-torch.float16-contiguous"),
        *_cases("target_grad", *(f"{rule}-torch.float32-(3, 1025)" for rule in ("label", "least_likely", "random"))),
        *_cases("target_grad", *(f"entropy-{dtype}-(3, 1025)" for dtype in ("torch.float64", "torch.bfloat16"))),
        *_cases("margin_grad", "targeted_dlr-torch.float32-(3, 1025)"),
        *_cases("row_losses", "ce-torch.float32-(3, 1025)", "dlr-torch.float32-(3, 1025)"),
        *_cases("mixed_cross_entropy", *(f"{dtype}-(3, 1025)" for dtype in DTYPES)),
        *_cases("scaled_kl_grad", "torch.float32-(3, 1025)-150.0"),
        *_cases("trades_loss", "torch.float32-(3, 1025)"),
    ],
}
# One of torch's own kernels: if this fails, the package is not at fault.
PROBE = "import torch; print('the sum is', torch.ones(8, device='cuda').sum().item())"


def memcheck(setting: Setting) -> Findings:
    """Check for memory errors."""
    return _sanitized(setting, "memcheck")


def racecheck(setting: Setting) -> Findings:
    """Check for races in shared memory."""
    return _sanitized(setting, "racecheck")


def _sanitized(setting: Setting, tool: str) -> Findings:
    """Run the tests under a tool, or report why that is not possible."""
    findings, name = Findings(), f"compute-sanitizer {tool}"
    program = shutil.which("compute-sanitizer")
    reason = _reason_against(program, setting)
    limit = setting.limit()
    if program is None or reason is not None:
        findings.missing(name, f"not run: {reason}")
    elif limit <= 0:
        findings.missing(name)
    else:
        _add(findings, run(name, _command(program, tool), limit, PYTORCH_NO_CUDA_MEMORY_CACHING="1"))
    return findings


def _reason_against(program: str | None, setting: Setting) -> str | None:
    if setting.rehearsal:
        return "a rehearsal on the CPU runs no kernel"
    if program is None:
        return "compute-sanitizer is not on PATH (it is part of the CUDA toolkit)"
    limit = setting.limit()
    if limit <= 0:
        return None  # reported by the caller
    probe = run("probe", [program, *TOOLS["memcheck"], sys.executable, "-c", PROBE], limit)
    if probe.code == 0 and "the sum is 8.0" in probe.output and not accused(probe):
        return None
    said = [line.lstrip("= ") for line in probe.output.splitlines() if "SUMMARY" not in line and line.strip("= ")]
    ended = "stopped at its limit of time" if probe.code is None else f"exit code {probe.code}"
    return f"compute-sanitizer does not work here ({ended}: {said[-1] if said else 'it says nothing'})"


def _command(program: str, tool: str) -> list[str]:
    own = [program, "--tool", tool, "--error-exitcode", "9", *TOOLS[tool], "--kernel-regex", "kns=fastadv"]
    return [*own, *PYTEST, "-x", *SANITIZED[tool]]


def _add(findings: Findings, done: Done) -> None:
    """Add the outcome; a tool stopped at its limit has printed what it found so far."""
    found = accused(done)
    summary = (found or summaries(done) or ["no verdict"])[-1]
    line = f"{done.name}: {done.outcome}; {summary} ({done.seconds:.0f} s)"
    findings.add(done, may_be_stopped=True, line=line)
    if found:
        findings.wrong(done)
        findings.stopped = False  # stopped or not, there is a fault


def summaries(done: Done) -> list[str]:
    """The summary lines of a tool, one per process."""
    return re.findall(r"^========= ((?:ERROR|RACECHECK) SUMMARY: .*)$", done.output, re.MULTILINE)


def accused(done: Done) -> list[str]:
    """Faults found by a tool: single errors, which it may not have had time to summarise, and non-zero summaries."""
    single = r"^========= (Invalid __.*|.*Race reported.*|.*hazard detected.*)$"
    found = [line for line in summaries(done) if re.search(r"\b[1-9]\d* (?:error|hazard)", line)]
    return re.findall(single, done.output, re.MULTILINE) + found
