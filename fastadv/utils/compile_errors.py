"""What torch.compile raises where it cannot compile, told apart from a model's own errors."""

from __future__ import annotations

import re

import torch

_CONTEXT = re.compile(r"^\s*Developer debug context: (.+)$", re.MULTILINE)
_FRAME = re.compile(r'^[ \t]*File "(.+)", line (\d+), in .+(?:\n[ \t]+(?!File ")(\S.*))?$', re.MULTILINE)


def is_compile_error(error: BaseException) -> bool:
    """Whether torch.compile raised it. The compiler's classes are loaded only now: it takes seconds."""
    raised = torch._dynamo.exc
    return isinstance(error, (raised.TorchDynamoException, raised.FailOnRecompileLimitHit))


def compile_error_reason(error: BaseException) -> str:
    """The line of code that could not be compiled, if the compiler names it, and what it found there; on one line."""
    text = str(error).strip()
    frames, context = _FRAME.findall(text), _CONTEXT.search(text)
    finding = f"{text.partition(chr(10))[0]}, {context[1]}" if context else " ".join(text.partition("\n\n")[0].split())
    if not frames:
        return finding
    file, line, code = frames[-1]  # the innermost
    return f"at {file}:{line}{code and f', `{code}`'}: {finding}"
