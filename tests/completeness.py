"""Checks that a table of the tests has a row for each attack, operator or kernel: a failure names what to add."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import torch

import fastadv.ops  # noqa: F401  registers the operators

CUDA = Path(__file__).parents[1] / "csrc" / "cuda"


def check_complete(table: str, has: Iterable[str], needs: Iterable[str]) -> None:
    """Fail unless a table has exactly the names that it needs; ``table`` says where it is."""
    has, needs = set(has), set(needs)
    assert not needs - has, f"add to {table}: {', '.join(sorted(needs - has))}"
    assert not has - needs, f"remove from {table}: {', '.join(sorted(has - needs))}"


def operators() -> set[str]:
    """Names of the operators in ``torch.ops.fastadv``."""
    names = (name.split("::") for name in torch._C._dispatch_get_all_op_names())
    return {name for library, name in names if library == "fastadv"}


def cuda_kernels() -> set[str]:
    """Names of the package's CUDA kernels."""
    sources = (file.read_text() for file in CUDA.iterdir() if file.suffix in (".cu", ".cuh"))
    return {name for source in sources for name in re.findall(r"__global__.*?(\w+_kernel)\(", source, re.DOTALL)}
