"""A pytest plugin for a process that was started with the recorder: replaces fastadv._C by the test build.

By hand, once the tests have built it:

    LD_LIBRARY_PATH=build/cuda_host/recorder LD_PRELOAD=librecorder.so:libcuda.so.1 \
    FASTADV_RECORDED=$(ls build/cuda_host/module/fastadv/_C*.so) \
    python -m pytest -p tests.cuda_host.plugin -n0 tests/cuda_host/cases
"""

from __future__ import annotations

import importlib.util
import os
import sys

import torch  # noqa: F401  the module's libraries

spec = importlib.util.spec_from_file_location("fastadv._C", os.environ["FASTADV_RECORDED"])
assert spec is not None and spec.loader is not None
sys.modules["fastadv._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["fastadv._C"])
