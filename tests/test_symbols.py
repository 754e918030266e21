"""What the compiled module takes from PyTorch: functions of its stable interface alone, and all of them are there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from fastadv import _C

LIBRARIES = Path(torch.__file__).parent / "lib"
STABLE = re.compile(r"(aoti_)?torch_\w+")
CPP = re.compile(r"_ZN?K?(2at|3c10|5torch)\d")
# A folder of another build, such as one against a newer PyTorch than the one that is installed here.
OTHER = sorted(Path(os.environ.get("FASTADV_OTHER_BUILD", os.devnull)).glob("_C*.so"))


def symbols(library: Path, which: str) -> set[str]:
    command = ["nm", "--dynamic", "--format=just-symbols", which, str(library)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {line.partition("@")[0] for line in listed.splitlines()}


@pytest.fixture(scope="module")
def there() -> set[str]:
    return symbols(LIBRARIES / "libtorch_cpu.so", "--defined-only")


@pytest.mark.parametrize("module", [Path(_C.__file__), *OTHER], ids=lambda module: module.parent.parent.name)
def test_all_of_pytorch_that_the_module_needs(module: Path, there: set[str]) -> None:
    needed = symbols(module, "--undefined-only")
    stable = {name for name in needed if STABLE.fullmatch(name)}
    assert len(stable) > 20 and not stable - there
    assert not [name for name in needed if CPP.match(name)]
