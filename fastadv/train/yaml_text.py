"""Read untrusted YAML: nothing is executed, and aliases cannot blow up a short text."""

from __future__ import annotations

from typing import Any

from fastadv.utils.optional_deps import require

MOST_CHARACTERS = 2**16
_MOST_NODES = 10_000  # with all aliases expanded: nine lines of aliases can stand for 10^9 values


def read_yaml(text: str) -> Any:
    """Parse YAML into plain values.

    Raises:
        ValueError: if it is not YAML, has tags that create objects or a node that contains itself, or is larger than
            any configuration. The message is one line.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"it has more than {MOST_CHARACTERS:,} characters")
    loader = require("yaml", extra="train").SafeLoader
    try:
        composed = loader(text)
        node = composed.get_single_node()
        if node is None:
            return None
        if _expanded(node, {}) > _MOST_NODES:
            raise ValueError(f"with its aliases expanded it has more than {_MOST_NODES:,} values")
        return composed.construct_document(node)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except Exception as error:  # of any kind: PyYAML's constructors check little
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def _expanded(node: Any, sizes: dict[int, int | None]) -> int:
    """Number of nodes with all aliases expanded; ``sizes`` caches the numbers, None while they are counted."""
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise ValueError("a node contains itself")
        return size
    sizes[id(node)] = None
    inner = node.value if isinstance(node.value, list) else []  # nodes, or pairs of them
    parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
    sizes[id(node)] = size = 1 + sum(_expanded(part, sizes) for part in parts)
    return size
