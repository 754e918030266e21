"""The first part: describes the machine, imports the package, and builds its extension if that is missing.

``python -m benchmarks.gpu.versions`` prints it, or says why nothing can be run.
"""

from __future__ import annotations

import importlib
import re
import sys

import torch

from benchmarks.gpu import extension
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import Done, run

NO_EXTENSION, NO_GPU = 3, 4  # exit codes
BESIDES = ("triton", "timm", "pytest", "pytest-xdist", "pytest-benchmark")


def versions(setting: Setting) -> Findings:
    """Describe the machine as a table. A suitable existing extension is used as it is."""
    findings = Findings()
    done = _asked(setting)
    if done.code == NO_EXTENSION or setting.build:
        findings.checks.append(done.line)
        built = extension.build()
        findings.add(built)
        if built.code != 0:
            return findings
        done = _asked(setting)
    findings.add(done)
    findings.tables = ["\n".join(re.findall(r"^- .*$", done.output, re.MULTILINE))]
    return findings


def _asked(setting: Setting) -> Done:
    rehearse = ["--rehearse"] if setting.rehearsal else []
    return run("versions", [sys.executable, "-m", "benchmarks.gpu.versions", *rehearse], setting.limit())


def main(argv: list[str]) -> int:
    """Print a description of this machine and the installed versions."""
    if "--rehearse" not in argv and not torch.cuda.is_available():
        return _refused("there is no GPU that torch can use; --rehearse shows that the command works", NO_GPU)
    try:
        environment, machine = map(importlib.import_module, ("fastadv.utils.environment", "benchmarks.machine"))
    except ImportError as error:
        return _refused(str(error), NO_EXTENSION)
    if "--rehearse" not in argv:
        major, minor = torch.cuda.get_device_capability()
        compiled = environment._C.build_info()["cuda_archs"]
        if not environment.runs_on(10 * major + minor, compiled):
            name = f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"
            return _refused(f"the extension has kernels for {compiled or 'no GPU'}, none for {name}", NO_EXTENSION)
    print(machine.describe((*machine.COMPARED, *BESIDES)))
    return 0


def _refused(why: str, code: int) -> int:
    print(why, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
