"""Reads networks' outputs: logits, or something that holds them, as transformers' networks return."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor


def logits_of(output: Any) -> Any:
    """Return the logits in a network's output; an output without any is returned as it is, for the caller to refuse.

    Args:
        output: logits; or a named tuple, an object such as those of transformers, or a dictionary, whose field
            ``logits`` is a tensor.
    """
    if isinstance(output, Tensor):
        return output
    found = _field(output, "logits")
    return found if isinstance(found, Tensor) else output


def split_logits(output: Any) -> tuple[Tensor, list[Tensor]]:
    """Split a network's output into logits [N, K] and auxiliary logits, each [N, K], which most networks lack.

    Args:
        output: as for :func:`logits_of`. Auxiliary logits are the fields that are called ``aux...``, as in
            torchvision's ``InceptionOutputs`` and ``GoogLeNetOutputs``, and hold a tensor of two dimensions; other
            fields are left aside.

    Raises:
        TypeError: if the output is anything else.
        ValueError: if the logits have one class.
    """
    logits = logits_of(output)
    if not isinstance(logits, Tensor):
        raise TypeError(
            "the model must return logits [N, K], or a named tuple, a dictionary or an object whose field logits is a "
            f"tensor; got {type(output).__name__}{logits_hint(output)}"
        )
    auxiliary = [] if logits is output else _auxiliary(output)
    for head in (logits, *auxiliary):
        check_classes(head)
    return logits, auxiliary


def _field(output: Any, name: str) -> Any:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)


def _auxiliary(output: Any) -> list[Tensor]:
    if isinstance(output, Mapping):
        names: list[Any] = list(output)
    else:
        names = list(getattr(output, "_fields", ()) or getattr(output, "__dict__", ()))
    heads = [_field(output, name) for name in names if isinstance(name, str) and name.startswith("aux")]
    return [head for head in heads if isinstance(head, Tensor) and head.dim() == 2]


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
