"""An operator ``negate_`` that is added to a copy of the sources: its files are in ``negate/``."""

from __future__ import annotations

import shutil
from pathlib import Path

NEGATE = Path(__file__).parent / "negate"

# What CONTRIBUTING.md asks of fastadv/ops.py and fastadv/reference.py.
WRAPPER = '''

def negate_(values: Tensor) -> Tensor:
    """``values`` [...] with the other sign, in place."""
    _refuse_grad("values", values)
    _run(_ops.negate_.default, values)
    return _finish(values, values)
'''
REFERENCE = '''

def negate_(values: Tensor) -> Tensor:
    """``values`` [...] with the other sign, in place."""
    return values.neg_()
'''
CALL = """
import sys, torch
from fastadv import ops, reference
assert ops.__file__.startswith(sys.argv[1]), ops.__file__
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    values = torch.tensor([[1.5, -0.0, 65504.0], [float("inf"), -2.0, 0.25]]).to(dtype)
    expected = reference.negate_(values.clone())
    assert torch.equal(ops.negate_(values), expected) and torch.equal(values, expected), values
try:
    ops.negate_(torch.ones(2, dtype=torch.int32))
except TypeError as error:
    assert "fastadv.negate_: values must be float32" in str(error), error
else:
    raise AssertionError("int32 was accepted")
torch.library.opcheck(torch.ops.fastadv.negate_.default, (torch.ones(5),))
print(ops.sample_eps(1, seed=1).item(), "negated")
"""


def add_operator(folder: Path) -> None:
    """Add ``negate_`` to a copy of the repository."""
    shutil.copytree(NEGATE, folder, dirs_exist_ok=True)
    for name, addition in (("ops", WRAPPER), ("reference", REFERENCE)):
        with open(folder / f"fastadv/{name}.py", "a") as file:
            file.write(addition)
