"""Keep DALI pipelines alive in forked processes, such as the workers of a DataLoader.

Destroying a pipeline waits for its threads, which a forked process does not have: if a pipeline were garbage-collected
there, the process would hang, and so would its parent.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet

_pipelines: WeakSet[Any] = WeakSet()
_kept: list[list[Any]] = []  # one list per fork in progress, and per fork that led to this process


def keep_when_forked(pipeline: Any) -> Any:
    """Return the pipeline after registering it: forked processes will not destroy it."""
    _pipelines.add(pipeline)
    return pipeline


# In the child process, the list stays.
os.register_at_fork(before=lambda: _kept.append(list(_pipelines)), after_in_parent=_kept.pop)
