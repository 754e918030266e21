"""What networks return: logits, of two classes or more, and auxiliary ones as of Inception v3 and GoogLeNet."""

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
        ValueError: logits of one class.
    """
    if isinstance(output, Tensor):
        check_classes(output)
        return output, []
    first, *others = getattr(output, "_fields", None) or ("",)
    if first != "logits" or not all(name.startswith("aux") for name in others):
        raise TypeError(
            "the model must return logits [N, K], or a named tuple of logits and of aux..., such as torchvision's "
            f"InceptionOutputs; got {type(output).__name__}"
        )
    for head in output:
        check_classes(head)
    logits, *auxiliary = output
    return logits, [aux for aux in auxiliary if aux is not None]


def check_classes(logits: object, *, user: str = "") -> None:
    """Refuse logits [N, 1]: with one class every prediction is right, and there is no gradient to follow.

    Raises:
        ValueError: those.
    """
    if isinstance(logits, Tensor) and logits.dim() == 2 and logits.shape[1] == 1:
        raise ValueError(
            f"{user and f'{user}: '}the model returns logits {list(logits.shape)}, of one class, whose probability is "
            "always 1. For a binary classifier with one logit z return logits [N, 2]: "
            "torch.cat([torch.zeros_like(z), z], 1)"
        )
