"""A pytest plugin that replaces fastadv._C by a module built from tests/simt, before fastadv is imported.

In the modules named simt_*, the CUDA launchers take the place of the CPU operators, so the tests of tests/ops run the
CUDA kernels. Tests that do not apply are listed below, each with its reason. To run it by hand:

    FASTADV_SIMT_MODULE=$(ls build/simt/simt_plain/_C*.so) python -m pytest -p tests.simt.plugin tests/ops
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401  the module's libraries

MODULE = Path(os.environ["FASTADV_SIMT_MODULE"])

if "FASTADV_SIMT_PROCESSOR" in os.environ:
    os.sched_setaffinity(0, {int(os.environ["FASTADV_SIMT_PROCESSOR"])})

spec = importlib.util.spec_from_file_location("fastadv._C", MODULE)
assert spec is not None and spec.loader is not None
sys.modules["fastadv._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["fastadv._C"])

# Patterns of tests' names, each with the reason why the test is not for the module.
NOT_READ = "values on a device are not read ahead, so none is refused"
ON_A_DEVICE = {
    r"test_wrong_steps\[.*(of an example|tensor)\]": NOT_READ,
    r"test_(other_)?mistakes\[(label|target) (too large|negative).*\]": NOT_READ,
    r"test_no_full_size_temporary\[.*\]": "64 MB of images take half a minute",
}
ANYWHERE = {
    r"test_every_instruction_set_gives_the_same_bits": "starts processes, which load the ordinary module",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reasons = {**ANYWHERE, **(ON_A_DEVICE if MODULE.parent.name.startswith("simt_") else {})}
    for item in items:
        for pattern, reason in reasons.items():
            if re.fullmatch(pattern, item.name):
                item.add_marker(pytest.mark.skip(reason=reason))
