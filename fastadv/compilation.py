"""What torch.compile raises where it cannot compile, in a line."""

from __future__ import annotations

import torch

ERRORS = (torch._dynamo.exc.TorchDynamoException,)


def reason_of(error: BaseException) -> str:
    """The error's first paragraph, on one line."""
    return " ".join(str(error).strip().partition("\n\n")[0].split())
