"""Cost against work, and cost and robustness of each way of training."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.part import Findings, Setting, sections
from benchmarks.gpu.processes import run

TINY = ["--limit", "64", "--test-limit", "16", "--minibatch", "16", "--epochs", "4", "--rounds", "2", "--width", "0.1"]
FASHION_MNIST = ["--limit", "10000", "--epochs", "4"]


def curves(setting: Setting) -> Findings:
    """Run benchmarks.cost_curves."""
    with tempfile.TemporaryDirectory() as name:
        rounds = ["--rounds", "2"] if setting.rehearsal else []
        return _written(setting, "cost_curves", [*rounds, "--out", name], Path(name) / "cost.md")


def methods(setting: Setting) -> Findings:
    """Run benchmarks.training_methods on Fashion-MNIST if its folder is given, otherwise on digits."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "methods.md"
        data = ["--data-set", "fashion_mnist", "--data", str(setting.fashion_mnist), *FASHION_MNIST]
        words = TINY if setting.rehearsal else data if setting.fashion_mnist else []
        return _written(setting, "training_methods", [*words, "--device", setting.device, "--out", str(table)], table)


def _written(setting: Setting, module: str, words: list[str], report: Path) -> Findings:
    """Run a benchmark module and collect its report with its figure, as far as it got within its limit."""
    findings = Findings()
    command = [sys.executable, "-m", f"benchmarks.{module}", *words]
    done = run(module, command, setting.limit(480), FASTADV_TEST_DEVICE=setting.device)
    findings.add(done, may_be_stopped=True)
    if report.exists():
        shown = shlex.join(["python", *command[1:]]).replace(str(report.parent), "DIR")
        findings.tables += [f"```bash\n{shown}\n```", sections(report.read_text())]
    else:
        findings.lacks(module, "table")
    drawn = report.with_suffix(".svg")
    findings.figure = drawn.read_text() if drawn.exists() else None
    return findings
