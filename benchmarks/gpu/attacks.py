"""Whole attacks beside other packages', iterations of training beside the floor, and what each option is worth."""

from __future__ import annotations

import os

from benchmarks.gpu.part import Findings, Setting, benchmark
from benchmarks.peers import reason_against

PACKAGES = ("torchattacks", "foolbox", "art", "cleverhans")
SECONDS = {"training": 130, "generation": 160, "options": 480}  # the last one has what is left


def attacks(setting: Setting) -> Findings:
    """Run the three benchmarks, each with a limit of its own: one that is slow leaves the others their time."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # foolbox imports what asks for git, and does not use it
    findings = Findings()
    reasons = [reason for package in PACKAGES if (reason := reason_against(package)) is not None]
    if reasons:
        findings.missing("packages that are not compared with", "; ".join(reasons))
    for name, seconds in SECONDS.items():
        benchmark(findings, setting, name, f"benchmarks/test_{name}.py", seconds, may_be_stopped=True)
    return findings
