"""Machine code of the CUDA kernels: registers, stack, and the width of every memory access.

Read from the built module with cuobjdump, which is part of the CUDA toolkit and of triton, and therefore of torch.
``python -m benchmarks.machine_code`` prints the table, and a test checks the kernels. No GPU is needed.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.sass import Code
from fastadv import _C

REGISTERS, THREADS, BLOCK = 65_536, 2_048, 256  # per multiprocessor; per block of our kernels
NAME = re.compile(r"(\bFunction\s*:?\s*)(_Z\w+)")
ACCESS = re.compile(r"\b(LDG|STG|LDL|STL)((?:\.[A-Z0-9]+)*)")


@dataclass
class Kernel:
    """One kernel compiled for one architecture.

    Args:
        arch: e.g. ``sm_90``.
        name: name with template arguments, without namespaces.
        registers: registers per thread.
        stack: bytes per thread in local memory, for spilled registers or arrays.
        accesses: counts of accesses to global and local memory, as in ``"LDG.128": 3``.
        lines: machine code as printed by cuobjdump.
    """

    arch: str
    name: str
    registers: int
    stack: int
    accesses: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list, repr=False)

    @property
    def code(self) -> Code:
        """The instructions; parsed on each access, because few kernels need it."""
        return Code(self.lines)

    @property
    def occupancy(self) -> float:
        """Share of a multiprocessor's threads that its registers allow; warps get registers in units of 256."""
        warp = -(-self.registers * 32 // 256) * 256
        blocks = REGISTERS // (warp * BLOCK // 32)
        return min(1.0, blocks * BLOCK / THREADS)


def find_cuobjdump() -> str | None:
    """Path of cuobjdump, from PATH or from triton; None if there is none."""
    found = shutil.which("cuobjdump")
    triton = importlib.util.find_spec("triton")
    if found or triton is None or triton.origin is None:
        return found
    return shutil.which("cuobjdump", path=str(Path(triton.origin).parent / "backends" / "nvidia" / "bin"))


@cache
def kernels(arch: str | None = None) -> list[Kernel]:
    """All kernels in the built module, for one architecture, such as ``sm_90``, or for each.

    Printing the machine code takes most of the time, so one architecture of three takes a third of it.

    Raises:
        RuntimeError: if there is no cuobjdump, or the module has no CUDA kernels.
    """
    cuobjdump = find_cuobjdump()
    if cuobjdump is None:
        raise RuntimeError("cuobjdump is needed: it is in the CUDA toolkit, and in triton (pip install triton)")
    if not _C.build_info()["cuda"]:
        raise RuntimeError("fastadv was built without CUDA kernels")
    chosen = [] if arch is None else ["-arch", arch]
    usage, code = (_demangled(_output(cuobjdump, option, *chosen)) for option in ("--dump-resource-usage", "-sass"))
    made = {(kernel.arch, kernel.name): kernel for kernel in _resources(usage)}
    for made_for, name, line in _lines_by_kernel(code):
        if ";" not in line:
            continue  # second half of an instruction's encoding
        kernel = made[made_for, name]
        kernel.lines.append(line)
        kernel.accesses.update(_accesses(line))
    return sorted(made.values(), key=lambda kernel: (kernel.name, int(kernel.arch.removeprefix("sm_"))))


def _output(cuobjdump: str, *options: str) -> str:
    module = _C.__file__
    assert module is not None
    return subprocess.run([cuobjdump, *options, module], capture_output=True, text=True, check=True).stdout


def _demangled(text: str) -> list[str]:
    """The lines with demangled names of kernels; c++filt gets only these, out of a million lines."""
    lines = text.splitlines()
    found = {i: match for i, line in enumerate(lines) if "Function" in line and (match := NAME.search(line))}
    names = "\n".join(match[2] for match in found.values())
    plain = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True).stdout
    for (i, match), name in zip(found.items(), plain.splitlines(), strict=True):
        lines[i] = match[1] + _short(name)
    return lines


def _short(name: str) -> str:
    """``void fastadv::cuda::(anonymous namespace)::sign<float, 4>(float*, ...)`` to ``sign<float, 4>``."""
    name = name.replace("(anonymous namespace)::", "")
    name = re.sub(r"\b(fastadv|cuda)::|^void ", "", name)
    return name.split("(")[0].replace(" >", ">").strip()


def _lines_by_kernel(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """(architecture, kernel, line) for each line that belongs to a kernel."""
    arch = name = ""
    for line in lines:
        if line.startswith("arch = "):
            arch, name = line.removeprefix("arch = ").strip(), ""
        elif "Function" in line:
            name = line.split("Function", 1)[1].lstrip(" :").strip()
        elif name:
            yield arch, name, line


def _resources(lines: list[str]) -> Iterator[Kernel]:
    for arch, name, line in _lines_by_kernel(lines):
        numbers = dict(re.findall(r"(REG|STACK):(\d+)", line))
        if numbers:
            yield Kernel(arch, name, int(numbers["REG"]), int(numbers["STACK"]))


def _accesses(line: str) -> Iterator[str]:
    match = ACCESS.search(line) if "LD" in line or "ST" in line else None  # few lines of half a million
    if match:
        width = re.search(r"\.(256|128|64|U16|U8|S16|S8)\b", match[2])
        yield f"{match[1]}.{width[1].lstrip('US') if width else 32}"


def table(found: list[Kernel]) -> str:
    """Markdown table with one row per kernel and architecture."""
    lines = [
        "| kernel | architecture | registers | occupancy | stack | 16-byte loads, stores | other loads, stores |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kernel in found:
        wide = [kernel.accesses[f"{kind}.128"] for kind in ("LDG", "STG")]
        every = [sum(n for name, n in kernel.accesses.items() if name.startswith(kind)) for kind in ("LDG", "STG")]
        rest = [whole - part for whole, part in zip(every, wide, strict=True)]
        lines.append(
            f"| `{kernel.name}` | {kernel.arch} | {kernel.registers} | {kernel.occupancy:.0%} | {kernel.stack} | "
            f"{wide[0]}, {wide[1]} | {rest[0]}, {rest[1]} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    build = _C.build_info()
    print(
        f"# Machine code of the CUDA kernels\n\n- fastadv {build['version']}, nvcc {build['cuda']}\n\n"
        "Occupancy: share of a multiprocessor's 2,048 threads that the registers allow, with blocks of 256. Other\n"
        "loads and stores are those of single elements before, after and between packs, of values per example, and\n"
        "of pixels (2 to 8 for 16 bytes of images).\n\n" + table(kernels())
    )
