"""For a pytest of its own: it finds one GPU, which is not there. By hand:

    python -m pytest -p tests.fake_cuda.plugin tests/fake_cuda tests/gpu

Autograd starts its threads at a process's first backward pass, one for each device that it finds: too late for a test.
"""

from __future__ import annotations

import atexit
import re
from contextlib import ExitStack

import pytest

from tests.fake_cuda.pretend import pretended_gpu
from tests.fake_cuda.runtime import Runtime

_pretence = ExitStack()
atexit.register(_pretence.close)
_RUNTIME = _pretence.enter_context(pretended_gpu())  # from collection on, where tests are skipped for want of a GPU


# Patterns of tests' names, each with the reason why the test is not for a pretended GPU.
NOT_HERE = {
    r"test_(runs_on_the_current_stream|captured_calls_on_two_streams_do_not_meet).*": "streams are in order here",
    r"test_(a_recording_that_fails_leaves|an_error_of_earlier_work).*": "starts a process, which finds no GPU",
    r"test_out_of_memory": "memory is the host's",
    r"test_compiles.*": "torch.compile asks the driver",
    r"test_a_process_group_with_capture": "NCCL asks the driver",
    r"test_labels_out_of_range_give_nan_in_their_rows": "the CPU's operators read labels ahead, and refuse these",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for pattern, reason in NOT_HERE.items():
            if re.fullmatch(pattern, item.name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def gpu() -> Runtime:
    """What runs on the GPU from now on."""
    _RUNTIME.restart()
    return _RUNTIME
