"""Five operators' kernels under Nsight Compute: time, bytes moved, and how busy memory and multiprocessors are."""

from __future__ import annotations

import csv
import re
import shutil
import sys

from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import run
from benchmarks.gpu.profiled import DONE
from benchmarks.harness import Table

# By column of the table.
METRICS = {
    "time": "gpu__time_duration.sum",
    "read": "dram__bytes_read.sum",
    "written": "dram__bytes_write.sum",
    "memory, % of its peak": "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "multiprocessors, % of their peak": "sm__throughput.avg.pct_of_peak_sustained_elapsed",
    "active warps, % of the most": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "registers of a thread": "launch__registers_per_thread",
}
PROGRAM = [sys.executable, "-m", "benchmarks.gpu.profiled"]
OPTIONS = [
    *("--profile-from-start", "off"),
    *("--clock-control", "none"),  # as for all other measurements
    *("--csv", "--print-kernel-base", "function"),
    *("--metrics", ",".join(METRICS.values())),
]


def ncu(setting: Setting) -> Findings:
    """The table, or the reason that there is none; a rehearsal only runs the program."""
    findings = Findings()
    if setting.rehearsal:
        findings.add(run("profiled", [*PROGRAM, "--device", "cpu", "--images", "1"], setting.limit()))
        return findings
    program = shutil.which("ncu")
    if program is None:
        findings.missing("ncu", "not run: ncu is not on PATH (it is part of the CUDA toolkit)")
        return findings
    done = run("ncu", [program, *OPTIONS, *PROGRAM], setting.limit())
    kernels = kernels_in(done.output)
    if not kernels and DONE in done.output:  # the profiled program is not at fault
        said = re.findall(r"^==ERROR== .*$", done.output, re.MULTILINE)
        findings.missing("ncu", f"not run: it does not work here ({said[0] if said else 'it says nothing'})")
        return findings
    findings.add(done)
    findings.tables = [table(kernels).markdown()] if kernels else []
    return findings


def kernels_in(output: str) -> dict[str, dict[str, str]]:
    """Values with units by kernel and metric; kernels are keyed by number and name, in the order they ran."""
    lines = output.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID"')), len(lines))
    found: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        values = found.setdefault(f"{row['ID']} {row['Kernel Name']}", {})
        values[row["Metric Name"]] = f"{row['Metric Value']} {row['Metric Unit']}".removesuffix(" %").strip()
    return found


def table(kernels: dict[str, dict[str, str]]) -> Table:
    """A table with one row per kernel."""
    rows = [[name, *(values.get(metric, "") for metric in METRICS.values())] for name, values in kernels.items()]
    return Table("Kernels under Nsight Compute", ["kernel", *METRICS], rows)
