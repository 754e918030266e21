"""Networks with auxiliary logits, as Inception v3 and GoogLeNet have them: what they return, told apart."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def split_heads(output: Any) -> tuple[Tensor, list[Tensor]]:
    """The logits [N, K] of a network's output, and the auxiliary logits, each [N, K]; none for most networks.

    Args:
        output: logits, or a named tuple whose field ``logits`` comes first and whose other fields are called
            ``aux...``, such as torchvision's ``InceptionOutputs`` and ``GoogLeNetOutputs``; None where a head is off.

    Raises:
        TypeError: anything else.
    """
    if isinstance(output, Tensor):
        return output, []
    first, *others = getattr(output, "_fields", None) or ("",)
    if first != "logits" or not all(name.startswith("aux") for name in others):
        raise TypeError(
            "the model must return logits [N, K], or a named tuple of logits and of aux..., such as torchvision's "
            f"InceptionOutputs; got {type(output).__name__}"
        )
    logits, *auxiliary = output
    return logits, [aux for aux in auxiliary if aux is not None]
