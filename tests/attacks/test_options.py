"""Options that promise the same images, for every attack, on several kinds of network, while the weights change.

In float64: the same up to rounding, which decides the sign where a gradient is zero up to it. CUDA graphs are replayed
by a tape, as in test_capture.py. torch.compile traces and differentiates as ever and leaves the generation of code out
(its backend aot_eager): it would take minutes, and test_compiled.py has it for the network with BatchNorm.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn

from fastadv import PixelSpace, attacks
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, Residual, WithAux, batch, without_batch_norm
from tests.attacks.test_folding import set_up

UNIT = PixelSpace.unit()
NAMES = [name for name in GRADIENTS if issubclass(attacks.get(name), attacks.GradientAttack)]
# What is asked for, and what of it does its work on a CPU.
OPTIONS: dict[str, tuple[dict[str, bool], set[str]]] = {
    "fold_bn": ({"fold_bn": True}, {"fold_bn"}),
    "capture": ({"capture": True}, {"capture"}),
    "fold_bn, capture": ({"fold_bn": True, "capture": True}, {"fold_bn", "capture"}),
    "compile": ({"compile": True}, {"compile"}),
    "fast": ({"fast": True}, {"fold_bn"}),
}
MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, float]]] = {
    "BatchNorm": (ConvNet, {}),
    "no BatchNorm": (without_batch_norm, {}),
    "residual": (Residual, {}),
    "auxiliary head": (WithAux, {"aux_weight": 0.4}),
}


CASES = [
    (name, option, model)
    for name in NAMES
    for option in OPTIONS
    for model in MODELS
    if (option, model) != ("compile", "BatchNorm")  # which test_compiled.py has
]


@pytest.mark.parametrize(("name", "option", "network"), CASES, ids=map(", ".join, CASES))
def test_the_same_images(used: Counter[str], name: str, option: str, network: str) -> None:
    asked, works = OPTIONS[option]
    make, own = MODELS[network]
    model = set_up(make()).double().train()
    with_it, without = (attacks.create(name, model, eps=4, seed=3, **own, **options) for options in (asked, {}))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for seed in range(3):
            images, labels = batch(4, UNIT, torch.float64, seed=seed)
            assert ((with_it(images, labels) - without(images, labels)).abs() > 1e-9).sum() <= 2
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.1)
    useless = works & {"fold_bn"} if network == "no BatchNorm" else set()
    assert set(+used) == works - useless
    left_out = [text.partition(":")[0] for warning in said if " runs without " in (text := str(warning.message))]
    assert left_out == [f"{name} runs without {option}=True" for option in useless]
