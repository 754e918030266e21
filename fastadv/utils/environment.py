"""Reports versions, compiled kernels, GPUs and missing extras, with the commands that install them."""

from __future__ import annotations

import importlib.metadata
import platform
import re

import torch

from fastadv import _C, __version__

OPERATORS = (
    *("sign_step_", "normalized_step_", "apgd_step_", "keep_best_", "noise_step_", "from_pixels_"),
    *("truncated_normal_", "sample_eps", "target_grad", "scaled_target_grad", "row_losses", "mixed_cross_entropy"),
    *("scaled_kl_grad", "trades_loss"),
)
EXTRAS = ("train", "evaluate", "dali", "bench")
REBUILD = "pip install --no-build-isolation ."


def report() -> str:
    """Return the report as text, one line per item."""
    return "\n".join(f"{name + ':':22} {value}" for name, value in [*_versions(), *_kernels(), *_gpus(), *_extras()])


def _versions() -> list[tuple[str, str]]:
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return [
        ("fastadv", __version__),
        ("python", f"{platform.python_version()} on {platform.platform()}"),
        ("torch", f"{torch.__version__} ({cuda}), {torch.get_num_threads()} CPU threads"),
        ("numpy", importlib.metadata.version("numpy")),
    ]


def _kernels() -> list[tuple[str, str]]:
    build = _C.build_info()
    try:
        isa = f"{_C.cpu_isa()} in use (FASTADV_ISA chooses another)"
    except RuntimeError as error:
        isa = str(error)
    if build["cuda"]:
        cuda = f"CUDA {build['cuda']} for {build['cuda_archs']}"
    else:
        cuda = f"not compiled: with the CUDA toolkit installed (nvcc on PATH), FASTADV_CUDA=ON {REBUILD}"
    lines = [
        ("built with", f"{build['compiler']}, headers of torch {build['torch_headers']}"),
        ("CPU kernels", f"{build['cpu_isas']}; {isa}"),
        ("CUDA kernels", cuda),
    ]
    return [*lines, *((f"  {name}", _back_ends(name)) for name in OPERATORS)]


def _back_ends(operator: str) -> str:
    if operator == "sample_eps":
        return "wherever truncated_normal_ is"
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    return ", ".join(key for key in ("CPU", "CUDA") if has(f"fastadv::{operator}", key))


def _gpus() -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        return [("GPU", "none that torch can use")]
    return [(f"GPU {index}", _gpu(index)) for index in range(torch.cuda.device_count())]


def _gpu(index: int) -> str:
    properties = torch.cuda.get_device_properties(index)
    arch = properties.major * 10 + properties.minor
    name = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
    if runs_on(arch, _C.build_info()["cuda_archs"]):
        return name
    return f"{name}: no kernel compiled for it; FASTADV_CUDA_ARCHS={arch} {REBUILD}"


def runs_on(arch: int, compiled: str) -> bool:
    """True if kernels compiled for these CMake architectures ("80-real 90-real 100") run on an sm_``arch`` GPU.

    Machine code runs on GPUs with the same major and at least the same minor version. An entry without ``-real`` also
    contains PTX, which runs on every later GPU.
    """
    for entry in compiled.split():
        number, _, kind = entry.partition("-")
        version = int(number.rstrip("af"))
        same_family = version // 10 == arch // 10 and version <= arch
        if (kind != "virtual" and same_family) or (kind != "real" and version <= arch):
            return True
    return False


def _extras() -> list[tuple[str, str]]:
    return [(f"[{extra}]", _extra(extra)) for extra in EXTRAS]


def _extra(extra: str) -> str:
    found, missing = [], []
    for package in _packages(extra):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(package)
    add = f"missing {', '.join(missing)}: pip install 'fastadv[{extra}]'" if missing else ""
    return "; ".join(part for part in (", ".join(found), add) if part)


def _packages(extra: str) -> list[str]:
    """List the packages that an extra requires, from the installed metadata, without nested extras."""
    lines = importlib.metadata.requires("fastadv") or []
    names = (re.match(r"[\w.-]+", line) for line in lines if re.search(rf"extra == .{extra}\b", line))
    return [name[0] for name in names if name and name[0] != "fastadv"]
