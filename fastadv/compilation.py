"""What torch.compile raises where it cannot compile, told apart from a model's own errors."""

from __future__ import annotations

import torch


def is_refusal(error: BaseException) -> bool:
    """Whether torch.compile raised it. The compiler's classes are loaded only now: it takes seconds."""
    raised = torch._dynamo.exc
    return isinstance(error, (raised.TorchDynamoException, raised.FailOnRecompileLimitHit))


def reason_of(error: BaseException) -> str:
    """The error's first paragraph, on one line."""
    return " ".join(str(error).strip().partition("\n\n")[0].split())
