"""Speed of the operators compared with a copy and with torch.compile, and of whole iterations by option."""

from __future__ import annotations

from benchmarks.gpu.part import Findings, Setting, benchmark


def bandwidth(setting: Setting) -> Findings:
    """Bandwidth of the operators and of other packages; without torch.compile, which would take minutes."""
    return _measured(setting, "bandwidth", "test_kernels.py", FASTADV_BENCH_RIVALS="eager")


def iterations(setting: Setting) -> Findings:
    """Whole training iterations."""
    return _measured(setting, "iterations", "test_iterations.py")


def compiled(setting: Setting) -> Findings:
    """The operators compared with torch.compile, at the largest sizes only."""
    return _measured(setting, "compiled", "test_kernels.py", FASTADV_BENCH_RIVALS="compiled")


def _measured(setting: Setting, name: str, file: str, **environment: str) -> Findings:
    findings = Findings()
    benchmark(findings, setting, name, f"benchmarks/{file}", **environment)
    return findings
