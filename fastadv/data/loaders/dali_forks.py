"""DALI's pipelines in processes that are forked from the one that made them, such as the workers of a DataLoader.

The end of a pipeline waits for its threads, which a forked process does not have: were a pipeline collected there as
garbage, that process would hang, and whoever waits for it.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakSet

_pipelines: WeakSet[Any] = WeakSet()
_kept: list[list[Any]] = []  # one list for each fork that is under way, and for each that this process came from


def kept_when_forked(pipeline: Any) -> Any:
    """The same pipeline, which forked processes are not to end."""
    _pipelines.add(pipeline)
    return pipeline


# In the new process the list stays.
os.register_at_fork(before=lambda: _kept.append(list(_pipelines)), after_in_parent=_kept.pop)
