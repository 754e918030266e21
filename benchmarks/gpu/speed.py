"""Speeds: operators beside a copy, whole iterations by option, and operators beside what torch.compile makes."""

from __future__ import annotations

from benchmarks.gpu.part import Findings, Setting, benchmark


def bandwidth(setting: Setting) -> Findings:
    """The operators in bytes a second, and those of other packages; nothing is compiled, which would take minutes."""
    return _measured(setting, "bandwidth", "test_kernels.py", FASTADV_BENCH_RIVALS="eager")


def iterations(setting: Setting) -> Findings:
    """Of training."""
    return _measured(setting, "iterations", "test_iterations.py")


def compiled(setting: Setting) -> Findings:
    """The operators beside torch.compile's, at the largest sizes alone."""
    return _measured(setting, "compiled", "test_kernels.py", FASTADV_BENCH_RIVALS="compiled")


def _measured(setting: Setting, name: str, file: str, **environment: str) -> Findings:
    findings = Findings()
    benchmark(findings, setting, name, f"benchmarks/{file}", **environment)
    return findings
