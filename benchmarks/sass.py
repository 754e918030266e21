"""Cost of a kernel's machine code: instructions per pack of 16 bytes, fused operations, bytes in flight.

Counted from the SASS that cuobjdump prints, without a GPU. Instructions are counted along a path through the control
flow, not in order of address, so that code which the compiler moved out of the way does not count:

- a branch goes to its target or, unless it is unconditional, on to the next instruction; BSYNC and calls go on to the
  next, EXIT and RET end. A predicated instruction counts, whether or not its predicate holds.
- The main path is the shortest one, in instructions, from the kernel's entry through the end of the main block. Loops
  that lie on it are gone through once, or left out where that is possible; so is what only some launches need and a
  branch goes around.
- The main block is the basic block with the most 16-byte stores on the path to its end or, in a kernel without any, the
  most 16-byte loads; of several, the one nearest to the kernel's entry. So many stores are the packs that figures are
  divided by.
- The main loop is the shortest path from the main block's first instruction back to it.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

LINE = re.compile(
    r"\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<predicate>@!?U?P\w+\s+)?(?P<opcode>[A-Z][\w.]*)\s*(?P<operands>[^;]*);"
)
TARGET = re.compile(r"0x([0-9a-f]+)$")
FUSED = ("FFMA", "DFMA", "HFMA2")
ENDS = ("EXIT", "RET")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its address in bytes, whether it has a predicate, its opcode with modifiers, its operands."""

    address: int
    predicated: bool
    opcode: str
    operands: str

    @property
    def name(self) -> str:
        """The opcode without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def target(self) -> int | None:
        """Target address of a branch or call."""
        found = TARGET.search(self.operands) if self.name in ("BRA", "CALL") and ".DIV" not in self.opcode else None
        return int(found[1], 16) if found else None

    @property
    def goes_on(self) -> bool:
        """Whether the next instruction may follow."""
        # A branch may also have a predicate, or a uniform register, among its operands.
        conditional = self.predicated or "," in self.operands
        return conditional or self.name not in ("BRA", *ENDS)

    @property
    def is_fused(self) -> bool:
        """A multiplication fused with an addition. HFMA2 of the zero register is how constants are loaded."""
        return self.name in FUSED and ", -RZ, RZ," not in self.operands

    def is_wide(self, name: str) -> bool:
        """A 16-byte access to global memory: ``LDG`` or ``STG``."""
        return self.name == name and ".128" in self.opcode

    def mentions(self, registers: set[int]) -> bool:
        """Whether an operand names one of these registers, to read or to write it."""
        return any(int(number) in registers for number in re.findall(r"\bR(\d+)\b", self.operands))


def parsed(lines: Sequence[str]) -> list[Instruction]:
    """The instructions among lines of cuobjdump -sass that belong to one kernel."""
    return [
        Instruction(
            int(match["address"], 16), match["predicate"] is not None, match["opcode"], match["operands"].strip()
        )
        for match in map(LINE.match, lines)
        if match
    ]


class Code:
    """The instructions of one kernel and their cost.

    Args:
        lines: of cuobjdump -sass, of this kernel.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.instructions = parsed(lines)
        starts = self._starts()
        self.blocks = [
            self.instructions[start:stop]
            for start, stop in zip(starts, [*starts[1:], len(self.instructions)], strict=True)
        ]
        self._index = {block[0].address: i for i, block in enumerate(self.blocks)}

    def _starts(self) -> list[int]:
        """Starts of basic blocks: targets of branches and calls, and instructions after branches, calls and exits."""
        targets = {instruction.target for instruction in self.instructions}
        starts = {0}
        for i, instruction in enumerate(self.instructions):
            if instruction.address in targets:
                starts.add(i)
            if instruction.name in ("BRA", "CALL", *ENDS):
                starts.add(i + 1)
        return sorted(starts - {len(self.instructions)})

    def _after(self, block: int) -> list[int]:
        """The blocks that may follow, with the next one last."""
        last = self.blocks[block][-1]
        after = [self._index[last.target]] if last.name == "BRA" and last.target in self._index else []
        return [*after, block + 1] if last.goes_on and block + 1 < len(self.blocks) else after

    def _paths(self, start: int) -> dict[int, tuple[int, ...]]:
        """The shortest path to each reachable block, as the (one or more) blocks before it."""
        paths: dict[int, tuple[int, ...]] = {}
        heap = [(len(self.blocks[start]), after, (start,)) for after in self._after(start)]
        heapq.heapify(heap)
        while heap:
            length, block, path = heapq.heappop(heap)
            if block in paths:
                continue
            paths[block] = path
            for after in self._after(block):
                heapq.heappush(heap, (length + len(self.blocks[block]), after, (*path, block)))
        return paths

    @cached_property
    def _from_entry(self) -> dict[int, tuple[int, ...]]:
        return {0: (), **self._paths(0)}

    def _length(self, path: Sequence[int]) -> int:
        return sum(len(self.blocks[block]) for block in path)

    def _through(self, block: int) -> tuple[int, ...]:
        """The shortest path from the entry to the end of the block."""
        return (*self._from_entry[block], block)

    def _wide(self, path: Sequence[int], name: str) -> int:
        return sum(instruction.is_wide(name) for block in path for instruction in self.blocks[block])

    @cached_property
    def main_block(self) -> int | None:
        """Index of the main block, or None for a kernel without 16-byte accesses."""
        for name in ("STG", "LDG"):
            found = {block: self._through(block) for block in self._from_entry if self._wide([block], name)}
            if found:
                return max(found, key=lambda block: (self._wide(found[block], name), -self._length(found[block])))
        return None

    @property
    def packs(self) -> int:
        """16-byte stores on the main path, or loads if the kernel has no such stores."""
        if self.main_block is None:
            return 0
        path = self._through(self.main_block)
        return self._wide(path, "STG") or self._wide(path, "LDG")

    @property
    def path_per_pack(self) -> float:
        """Instructions on the main path per pack."""
        assert self.main_block is not None
        return self._length(self._through(self.main_block)) / self.packs

    @property
    def loop_per_pack(self) -> float:
        """Instructions of one pass through the main loop per pack; 0 without a loop."""
        assert self.main_block is not None
        return self._length(self._paths(self.main_block).get(self.main_block, ())) / self.packs

    @property
    def fused(self) -> int:
        """Fused multiply-adds outside of called subroutines, such as those for divisions."""
        return sum(instruction.is_fused for block in self._from_entry for instruction in self.blocks[block])

    @property
    def bytes_in_flight(self) -> int:
        """Bytes requested by 16-byte loads on the main path before the first use of a loaded value.

        After the main block, the path continues to the next instruction where possible.
        """
        assert self.main_block is not None
        loading: set[int] = set()
        count = 0
        for instruction in self._from(self.main_block):
            if instruction.mentions(loading):
                break
            if instruction.is_wide("LDG"):
                first = int(instruction.operands.partition(",")[0].removeprefix("R"))
                loading.update(range(first, first + 4))
                count += 16
        return count

    def _from(self, main: int) -> list[Instruction]:
        """The instructions of the main path and of the blocks after it, each once."""
        path = [*self._through(main)]
        while (after := self._after(path[-1])) and after[-1] not in path:
            path.append(after[-1])
        return [instruction for block in path for instruction in self.blocks[block]]
