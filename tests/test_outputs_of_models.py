"""Models whose output contains logits: every error says how to select them, and that works."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.evaluate import evaluate
from fastadv.train import AdversarialTask, FreeTask
from fastadv.utils.model_outputs import logits_hint

UNIT = PixelSpace.unit()
LABELS = torch.tensor([0, 1, 2])


def images() -> Tensor:
    return torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Output(OrderedDict[str, Any]):
    """A dictionary with attributes, as transformers returns it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class WithFeatures(NamedTuple):
    features: Tensor
    logits: Tensor


CLOSE, TWO_HEADS = torch.zeros(3, 4, 2), torch.zeros(3)
OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "object": (lambda z: SimpleNamespace(loss=None, logits=z), ".logits"),
    "object without logits": (lambda z: SimpleNamespace(loss=None, scores=z), ".scores"),
    "transformers": (lambda z: Output(logits=z, attentions=None), ".logits"),
    "dictionary": (lambda z: {"features": z + 1, "logits": z}, '["logits"]'),
    "dictionary of another key": (lambda z: {"aux": CLOSE, "out": z}, '["out"]'),
    "dictionary by number": (lambda z: {0: z}, "[0]"),
    "tuple": (lambda z: (z, CLOSE), "[0]"),
    "list": (lambda z: [TWO_HEADS, z], "[1]"),
    "named tuple": (lambda z: WithFeatures(z + 1, z), ".logits"),
}


class Wrapped(nn.Module):
    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.linear(x.flatten(1)))


USERS: dict[str, Callable[[Any], Any]] = {
    "an attack": lambda model: attacks.create("fgsm", model, eps=4)(images(), LABELS),
    "evaluation": lambda model: evaluate(model, [(images(), LABELS)], space=UNIT),
    "evaluation under attack": lambda model: evaluate(model, [(images(), LABELS)], attack="fgsm", eps=4, space=UNIT),
    "a task": lambda model: AdversarialTask(model, k=0, space=UNIT)(images(), LABELS),
    "a task that attacks": lambda model: AdversarialTask(model, k=2, space=UNIT)(images(), LABELS),
    "a free task": lambda model: FreeTask(model, eps=4, space=UNIT)(images(), LABELS),
}


@pytest.mark.parametrize(("wrap", "place"), OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("use", USERS.values(), ids=USERS)
def test_the_message_says_what_to_write(use: Callable[[Any], Any], wrap: Callable[[Tensor], Any], place: str) -> None:
    model = Wrapped(wrap)
    with pytest.raises((TypeError, ValueError), match=re.escape(f"; pass lambda x: model(x){place} in")):
        use(model)
    use(eval(f"lambda x: model(x){place}", {"model": model}))


OTHERS = {
    "nothing": None,
    "logits": torch.zeros(3, 3),
    "an empty tuple": (),
    "an empty dictionary": {},
    "images": (None, CLOSE),
    "a number": {"a": 1},
    "an object": object(),
    "a text": "logits",
}


@pytest.mark.parametrize("output", OTHERS.values(), ids=OTHERS)
def test_no_advice_where_there_are_no_logits(output: object) -> None:
    assert logits_hint(output) == ""
