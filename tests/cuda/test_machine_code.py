"""The compiled kernels, read: nothing spills, streams move 16 bytes an access, the hot kernel fills the machine."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from benchmarks.machine_code import Kernel, find_cuobjdump, kernels
from fastadv import _C

pytestmark = [
    pytest.mark.skipif(not _C.build_info()["cuda"], reason="built without CUDA kernels"),
    pytest.mark.skipif(find_cuobjdump() is None, reason="needs cuobjdump, of the CUDA toolkit or of triton"),
]

STREAMING = ("step_kernel", "tile_step_kernel", "noise_kernel", "partial_kernel", "keep_best_kernel")
# Reads and writes of a pack: adv, clean and grad; a first step reads no clean, and a norm only grad. With momentum,
# previous is read and written as well. Of the best iterate, four packs are under way.
LOADS = {
    "SignRule<true>": (2, 1),
    "SignRule<false>": (3, 1),
    "ApgdSignRule": (4, 2),
    "ApgdUnitRule": (4, 2),
    "MomentumDistanceSquares": (4, 0),
    "keep_best_kernel": (4, 4),
    "NormalizedRule<true>": (2, 1),
    "NormalizedRule<false>": (3, 1),
    "GradientMax": (1, 0),
    "GradientSquares": (1, 0),
    "DistanceSquares": (3, 0),
    "noise_kernel": (1, 1),
}
# Pixels that 16 bytes of images need, as one load.
PIXELS = {"float": "LDG.32", "double": "LDG.16", "__half": "LDG.64", "__nv_bfloat16": "LDG.64"}
WIDTHS = {"float": 4, "double": 8, "__half": 2, "__nv_bfloat16": 2}  # bytes


@pytest.fixture(scope="module")
def compiled() -> list[Kernel]:
    return kernels()


def template(kernel: Kernel) -> list[str]:
    return [part.strip() for part in kernel.name.partition("<")[2].removesuffix(">").split(",")]


def is_wide(kernel: Kernel) -> bool:
    """A streaming kernel for packs of 16 bytes, not for single elements at odd addresses."""
    in_tiles = kernel.name.startswith("tile_step_kernel")
    return in_tiles or (kernel.name.startswith(STREAMING) and template(kernel)[1] != "1")


def test_every_architecture_has_every_kernel(compiled: list[Kernel]) -> None:
    names: dict[str, set[str]] = {}
    for kernel in compiled:
        names.setdefault(kernel.arch, set()).add(kernel.name)
    assert len(set(map(frozenset, names.values()))) == 1
    archs = {re.match(r"\d+", arch)[0] for arch in _C.build_info()["cuda_archs"].split() if "virtual" not in arch}
    assert {arch.removeprefix("sm_") for arch in names} == archs
    wide = [kernel for kernel in compiled if is_wide(kernel)]
    # Four dtypes in two layouts: six steps, four reductions, noise; three dtypes' steps in tiles. Three sizes of elements
    # to copy.
    counted = Counter(kernel.name.partition("<")[0] for kernel in wide)
    assert len(wide) == len(names) * (2 * (4 * (6 + 4 + 1) + 3 * 6) + 3), (
        f"count a new kernel of STREAMING here: {counted}"
    )


def test_nothing_spills(compiled: list[Kernel]) -> None:
    spilling = [f"{kernel.arch} {kernel.name}" for kernel in compiled if kernel.stack or local(kernel)]
    assert not spilling


def local(kernel: Kernel) -> int:
    return sum(count for access, count in kernel.accesses.items() if access.startswith(("LDL", "STL")))


def test_streams_move_sixteen_bytes_an_access(compiled: list[Kernel]) -> None:
    for kernel in filter(is_wide, compiled):
        expected = next((loads for part, loads in LOADS.items() if part in kernel.name), None)
        assert expected is not None, f"add the reads and writes of a pack by {kernel.name} to LOADS"
        found = kernel.accesses["LDG.128"], kernel.accesses["STG.128"]
        # More where the compiler wrote a branch out twice.
        enough = all(has >= needs for has, needs in zip(found, expected, strict=True))
        assert enough, f"{kernel.arch} {kernel.name}: {found} 16-byte loads and stores, not {expected}"


def test_pixels_are_read_at_once_and_written_sixteen_bytes_at_a_time(compiled: list[Kernel]) -> None:
    """In the kernel that looks up, which fills the machine; four dtypes in two layouts."""
    lookups = [kernel for kernel in compiled if kernel.name.startswith("lookup_kernel")]
    assert len(lookups) == len({kernel.arch for kernel in compiled}) * 4 * 2
    for kernel in lookups:
        load = PIXELS[template(kernel)[0]]
        assert kernel.accesses[load] >= 1 and kernel.accesses["STG.128"] >= 1, f"{kernel.name}: {kernel.accesses}"
        assert kernel.occupancy == 1.0, f"{kernel.arch} {kernel.name}: {kernel.registers} registers"


def test_pixels_of_a_tile_are_read_before_the_first_is_looked_up(compiled: list[Kernel]) -> None:
    """32 by each thread, in packs, of three dtypes with one channel or three in turn; the machine is filled."""
    lookups = [kernel for kernel in compiled if kernel.name.startswith("tile_lookup_kernel")]
    assert len(lookups) == len({kernel.arch for kernel in compiled}) * 3 * 2
    for kernel in lookups:
        dtype = template(kernel)[0]
        packs, load = 32 * WIDTHS[dtype] // 16, PIXELS[dtype].replace("LDG", "LDG.E").removesuffix(".32")
        opcodes = " ".join(instruction.opcode for instruction in kernel.code.instructions)
        # Reads of packs between look-ups in shared memory, or stores.
        reads = [part.split().count(load) for part in re.split(r"\b(?:LDS|STG)\S*", opcodes)]
        assert max(reads) == packs, f"{kernel.arch} {kernel.name}: {max(reads)} packs are read at once, not {packs}"
        assert kernel.accesses["STG.128"] >= packs, f"{kernel.arch} {kernel.name}: {kernel.accesses}"
        assert kernel.occupancy == 1.0, f"{kernel.arch} {kernel.name}: {kernel.registers} registers"


def test_rows_are_read_and_written_sixteen_bytes_at_a_time(compiled: list[Kernel]) -> None:
    """Where every row begins at 16 bytes: each pack that a thread of the warp has of a row of 1,024 classes."""
    rows = [kernel for kernel in compiled if "RegisterRow" in kernel.name and kernel.name.endswith("true>>")]
    assert len(rows) == len({kernel.arch for kernel in compiled}) * 4 * 3  # dtypes, kernels
    for kernel in rows:
        dtype, derivative = (
            WIDTHS[part] for part in re.findall(r"\b(float|double|__half|__nv_bfloat16)\b", kernel.name)
        )
        loads, stores = (1024 // 32 * width // 16 for width in (dtype, derivative))
        # From sm_100 on, two packs of float that lie beside each other are one access.
        found = [kernel.accesses[f"{name}.128"] + 2 * kernel.accesses[f"{name}.256"] for name in ("LDG", "STG")]
        assert found[0] >= loads and found[1] >= stores, f"{kernel.arch} {kernel.name}: {found}, not {loads, stores}"


def test_rows_leave_room_for_others(compiled: list[Kernel]) -> None:
    """A row in registers takes half of the threads' places, one that stays in memory a quarter.

    That of a margin takes up to half for its ranking and the sparse derivative, in double.
    """
    for kernel in compiled:
        if kernel.name.startswith("margin_"):
            least = 0.5
        else:
            least = 0.75 if "MemoryRow" in kernel.name else 0.5 if "RegisterRow" in kernel.name else 0.0
        if "double" not in kernel.name and not kernel.name.endswith("false>>"):
            assert kernel.occupancy >= least, f"{kernel.arch} {kernel.name}: {kernel.registers} registers"


def test_enough_threads_fit(compiled: list[Kernel]) -> None:
    """The sign step, where it is streamed most, fills the machine; nothing falls below a quarter of it."""
    for kernel in compiled:
        least = 0.25
        if kernel.name.startswith("tile_step_kernel") and ", SignRule" in kernel.name:
            least = 1.0 if template(kernel)[1] == "1" else 0.625
        assert kernel.occupancy >= least, f"{kernel.arch} {kernel.name}: {kernel.registers} registers"
