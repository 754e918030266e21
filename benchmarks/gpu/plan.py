"""The parts: what each runs, and its time limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.gpu.attacks import attacks
from benchmarks.gpu.costs import curves, methods
from benchmarks.gpu.imagenette import imagenette
from benchmarks.gpu.ncu import ncu
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.sanitizers import memcheck, racecheck
from benchmarks.gpu.speed import bandwidth, compiled, iterations
from benchmarks.gpu.tests import again, smoke, tests, trainer
from benchmarks.gpu.versions import versions


@dataclass(frozen=True)
class Part:
    """A part: the title of its report, its limit in seconds, and the function that it runs."""

    title: str
    seconds: float
    run: Callable[[Setting], Findings]


@dataclass(frozen=True)
class Group:
    """Several parts under one name, ordered by importance, and their total limit in seconds."""

    seconds: float
    parts: tuple[str, ...]


def failed(setting: Setting) -> Findings:
    """Run again what failed in an earlier run: single tests if they are known, otherwise whole parts."""
    findings = Findings()
    known = list(dict.fromkeys(name for entry in setting.failed for name in entry.failed_tests))
    whole = [entry.part for entry in setting.failed if not entry.failed_tests and entry.part in PARTS]
    found = [again(setting, known)] if known else []
    for one in (*found, *(PARTS[name].run(setting) for name in whole)):
        findings.include(one)
    if not setting.failed:
        findings.missing("failed", "not run: nothing failed before")
    return findings


PARTS = {
    "versions": Part("Versions", 15, versions),
    "smoke": Part("Quick check", 30, smoke),
    "trainer": Part("Training, quick check", 45, trainer),
    "tests": Part("All other GPU tests", 120, tests),
    "bandwidth": Part("The operators compared with a copy", 90, bandwidth),
    "iterations": Part("Training iterations by option", 120, iterations),
    "ncu": Part("Kernels under Nsight Compute", 40, ncu),
    "failed": Part("Earlier failures", 90, failed),
    "compiled": Part("The operators compared with torch.compile", 70, compiled),
    "memcheck": Part("Memory errors", 120, memcheck),
    "racecheck": Part("Races in shared memory", 120, racecheck),
    "attacks": Part("Attacks and training iterations on a GPU", 480, attacks),
    "imagenette": Part("Inception v3 on Imagenette, on a GPU", 480, imagenette),
    "curves": Part("Cost against work on a GPU", 480, curves),
    "methods": Part("Ways of training on a GPU", 480, methods),
}
GROUPS = {
    "first": Group(480, ("versions", "smoke", "trainer", "tests", "bandwidth", "iterations", "ncu")),
    "second": Group(240, ("versions", "failed", "compiled", "memcheck")),
}
