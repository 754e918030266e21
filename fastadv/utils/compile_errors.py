"""Distinguishes torch.compile's own errors from those of a model, and summarises them."""

from __future__ import annotations

import re

import torch

_CONTEXT = re.compile(r"^\s*Developer debug context: (.+)$", re.MULTILINE)
_FRAME = re.compile(r'^[ \t]*File "(.+)", line (\d+), in .+(?:\n[ \t]+(?!File ")(\S.*))?$', re.MULTILINE)


def is_compile_error(error: BaseException) -> bool:
    """True if torch.compile itself raised the error. Loads the compiler's classes, which takes seconds."""
    raised = torch._dynamo.exc
    return isinstance(error, (raised.TorchDynamoException, raised.FailOnRecompileLimitHit))


def compile_error_reason(error: BaseException) -> str:
    """Summarise in one line why compilation failed, with the line of code if the compiler names it."""
    text = str(error).strip()
    frames, context = _FRAME.findall(text), _CONTEXT.search(text)
    finding = f"{text.partition(chr(10))[0]}, {context[1]}" if context else " ".join(text.partition("\n\n")[0].split())
    if not frames:
        return finding
    file, line, code = frames[-1]  # innermost frame
    return f"at {file}:{line}{code and f', `{code}`'}: {finding}"
