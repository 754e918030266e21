"""Whole attacks compared with other packages, training iterations with the pass count, and the effect of options."""

from __future__ import annotations

import os

from benchmarks.gpu.part import Findings, Setting, benchmark
from benchmarks.peers import reason_against

PACKAGES = ("torchattacks", "foolbox", "art", "cleverhans")
SECONDS = {"training": 130, "generation": 160, "options": 480}  # the last one gets the remaining time


def attacks(setting: Setting) -> Findings:
    """Run three benchmarks, each with its own limit, so that a slow one does not take the others' time."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # foolbox imports a package that looks for git
    findings = Findings()
    reasons = [reason for package in PACKAGES if (reason := reason_against(package)) is not None]
    if reasons:
        findings.missing("packages that are not compared with", "; ".join(reasons))
    for name, seconds in SECONDS.items():
        benchmark(findings, setting, name, f"benchmarks/test_{name}.py", seconds, may_be_stopped=True)
    return findings
