"""Reads networks' outputs: logits, with auxiliary logits as in Inception v3 and GoogLeNet, or something else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def split_logits(output: Any) -> tuple[Tensor, list[Tensor]]:
    """Split a network's output into logits [N, K] and auxiliary logits, each [N, K], which most networks lack.

    Args:
        output: logits, or a named tuple whose field ``logits`` comes first and whose other fields are called
            ``aux...``, such as torchvision's ``InceptionOutputs`` and ``GoogLeNetOutputs``; None for a head that is
            off.

    Raises:
        TypeError: if the output is anything else.
        ValueError: if the logits have one class.
    """
    if isinstance(output, Tensor):
        check_classes(output)
        return output, []
    first, *others = getattr(output, "_fields", None) or ("",)
    if first != "logits" or not all(name.startswith("aux") for name in others):
        raise TypeError(
            "the model must return logits [N, K], or a named tuple of logits and of aux..., such as torchvision's "
            f"InceptionOutputs; got {type(output).__name__}{logits_hint(output)}"
        )
    for head in output:
        check_classes(head)
    logits, *auxiliary = output
    return logits, [aux for aux in auxiliary if aux is not None]


def logits_hint(output: object) -> str:
    """Return a hint on what to pass instead of a model whose output contains logits [N, K]; "" if it has none.

    The logits are an attribute or key with "logits" in its name, or else the first two-dimensional tensor.
    """
    found = [place for place, value in _parts(output) if isinstance(value, Tensor) and value.dim() == 2]
    if not found:
        return ""
    named = [place for place in found if "logits" in place]
    return f"; pass lambda x: model(x){(named or found)[0]} in the model's place"


def _parts(output: object) -> Iterator[tuple[str, object]]:
    """Yield the parts of an output, each with the expression that selects it."""
    if isinstance(output, Tensor):
        return
    if hasattr(output, "logits"):
        yield ".logits", output.logits
    if isinstance(output, Mapping):
        yield from ((f"[{json.dumps(key) if isinstance(key, str) else repr(key)}]", output[key]) for key in output)
    elif isinstance(output, (tuple, list)):
        yield from ((f"[{place}]", value) for place, value in enumerate(output))
    else:
        yield from ((f".{name}", value) for name, value in getattr(output, "__dict__", {}).items())


def check_classes(logits: object, *, user: str = "") -> None:
    """Refuse logits [N, 1]: with one class every prediction is right, and the gradient is zero.

    Raises:
        ValueError: if there is only one class.
    """
    if isinstance(logits, Tensor) and logits.dim() == 2 and logits.shape[1] == 1:
        raise ValueError(
            f"{user and f'{user}: '}the model returns logits {list(logits.shape)}, of one class, whose probability is "
            "always 1. For a binary classifier with one logit z return logits [N, 2]: "
            "torch.cat([torch.zeros_like(z), z], 1)"
        )
