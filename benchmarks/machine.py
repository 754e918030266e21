"""Describes the machine and the versions that something was measured with."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from fastadv import ops

# Packages whose attacks, networks and decoders are compared.
COMPARED = (
    *("torchattacks", "foolbox", "adversarial-robustness-toolbox", "cleverhans"),
    *("torchvision", "pillow", "nvidia-dali-cuda130"),
)


def cpu_name() -> str:
    """The name of the processor, from the kernel."""
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def hardware() -> str:
    """The GPU if there is one, otherwise the CPU with its number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"


def slug() -> str:
    """A file name for results from this machine and month."""
    words = re.sub(r"[^a-z0-9]+", "-", hardware().lower()).strip("-")
    return f"{datetime.date.today():%Y-%m}-{words}"


def describe(packages: Iterable[str] = ()) -> str:
    """Date, hardware and versions, as a Markdown list.

    Args:
        packages: other packages that were compared or used; listed if installed.
    """
    build = ops._C.build_info()
    lines = {
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "hardware": hardware(),
        "instruction set": f"{ops._C.cpu_isa()} (fastadv), {torch.backends.cpu.get_cpu_capability()} (torch)",
        "software": f"fastadv {build['version']}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release().split('-')[0]}, {build['compiler']}",
    }
    found = [f"{package} {version(package)}" for package in packages if installed(package)]
    if found:
        lines["compared with"] = ", ".join(found)
    if torch.cuda.is_available():
        lines["CUDA"] = f"{torch.version.cuda} (torch), {build['cuda']} (nvcc), driver {driver()}"
    return "\n".join(f"- {name}: {value}" for name, value in lines.items())


def installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def driver() -> str:
    """The version of the NVIDIA driver."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        found = []
    return found[0] if found else "unknown"
