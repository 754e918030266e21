"""Models whose output contains logits: a field ``logits`` is found, otherwise the error says how to select them."""

from __future__ import annotations

import re
import warnings
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
from fastadv.utils.model_outputs import logits_hint, logits_of

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
WITH_LOGITS: dict[str, Callable[[Tensor], Any]] = {
    "object": lambda z: SimpleNamespace(loss=None, logits=z),
    "transformers": lambda z: Output(logits=z, attentions=None),
    "dictionary": lambda z: {"features": z + 1, "logits": z},
    "named tuple": lambda z: WithFeatures(z + 1, z),
}
OTHERS_WITH_LOGITS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "object": (lambda z: SimpleNamespace(loss=None, scores=z), ".scores"),
    "dictionary": (lambda z: {"aux": CLOSE, "out": z}, '["out"]'),
    "dictionary by number": (lambda z: {0: z}, "[0]"),
    "tuple": (lambda z: (z, CLOSE), "[0]"),
    "list": (lambda z: [TWO_HEADS, z], "[1]"),
    "logits inside": (lambda z: {"logits": [z], "scores": z}, '["scores"]'),
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


@pytest.mark.parametrize("wrap", WITH_LOGITS.values(), ids=WITH_LOGITS)
@pytest.mark.parametrize("use", USERS.values(), ids=USERS)
def test_logits_are_found(use: Callable[[Any], Any], wrap: Callable[[Tensor], Any]) -> None:
    wrapped, plain = Wrapped(wrap), Wrapped(lambda z: z)
    wrapped.load_state_dict(plain.state_dict())
    found = []
    for model in (wrapped, plain):
        torch.manual_seed(0)  # a task draws its eps
        found.append(use(model))
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.parametrize("wrap", WITH_LOGITS.values(), ids=WITH_LOGITS)
def test_they_are_found_by_the_auxiliary_cost_and_when_folded(wrap: Callable[[Tensor], Any]) -> None:
    class Convolutional(Wrapped):
        def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
            super().__init__(wrap)
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))

        def forward(self, x: Tensor) -> Any:
            return super().forward(self.features(x))

        def forward_with_aux(self, x: Tensor) -> Any:
            output = self(x)
            logits = logits_of(output)
            return {"logits": logits, "aux": 2 * logits}

    wrapped, plain = Convolutional(wrap), Convolutional(lambda z: z)
    wrapped.load_state_dict(plain.state_dict())
    for options in ({"aux_weight": 0.4}, {"fold_bn": True}):
        made, expected = (attacks.create("fgsm", one, eps=4, **options)(images(), LABELS) for one in (wrapped, plain))
        assert torch.equal(made, expected)


@pytest.mark.parametrize("wrap", [WITH_LOGITS["dictionary"], WITH_LOGITS["named tuple"]], ids=["dictionary", "tuple"])
def test_they_are_found_by_compiled_code(wrap: Callable[[Tensor], Any]) -> None:
    model = Wrapped(wrap)
    compiled = attacks.create("fgsm", model, eps=4, compile=True)
    expected = attacks.create("fgsm", model, eps=4)(images(), LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns if it runs without compilation
        assert all(torch.equal(compiled(images(), LABELS), expected) for _ in range(2))


@pytest.mark.parametrize(("wrap", "place"), OTHERS_WITH_LOGITS.values(), ids=OTHERS_WITH_LOGITS)
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
