"""compile=True: both passes as one function of torch.compile give the same images up to rounding, or a warning."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.operators import Operators
from fastadv import PixelSpace, attacks
from tests.attacks.gradients import GRADIENTS
from tests.attacks.models import ConvNet, batch

UNIT = PixelSpace.unit()
NAMES = [name for name in GRADIENTS if issubclass(attacks.get(name), attacks.GradientAttack)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rule of each gradient that a compiled function computed."""
    from fastadv.attacks.engine.compiled import CompiledGradient

    made, original = [], CompiledGradient.__call__

    def counting(self: CompiledGradient, *arguments: Any) -> Any:
        result = original(self, *arguments)
        if result is not None:
            made.append(arguments[1].rule)
        return result

    monkeypatch.setattr(CompiledGradient, "__call__", counting)
    return made


def pair(name: str, model: Any, **options: Any) -> tuple[attacks.Attack, attacks.Attack]:
    """Return the attack compiled and eager."""
    return (
        attacks.create(name, model, eps=4, seed=3, compile=True, **options),
        attacks.create(name, model, eps=4, seed=3),
    )


@pytest.mark.parametrize("fold_bn", [False, True], ids=["as it is", "folded"])
@pytest.mark.parametrize("name", NAMES)
def test_every_attack(calls: list[str], name: str, fold_bn: bool) -> None:
    """Also while weights change, for another batch size, in float64 and in training mode."""
    model = ConvNet().double().train()
    check_the_same_images(calls, name, model, *pair(name, model, fold_bn=fold_bn))


@pytest.mark.parametrize("name", ["step_ll", "iter_ll"])
def test_with_the_statistics_of_the_batch(calls: list[str], name: str) -> None:
    """BatchNorm in training mode, which leaves its buffers as they were; a frozen layer has its running statistics."""
    model = ConvNet().double().train()
    model.features[4].eval()
    buffers = [buffer.clone() for buffer in model.buffers()]
    compiled, plain = (
        attacks.create(name, model, eps=4, seed=3, bn="batch", compile=compile) for compile in (True, False)
    )
    check_the_same_images(calls, name, model, compiled, plain)
    assert all(map(torch.equal, model.buffers(), buffers)) and not model.features[4].training


def check_the_same_images(
    calls: list[str], name: str, model: nn.Module, compiled: attacks.Attack, plain: attacks.Attack
) -> None:
    for seed, n in enumerate((6, 6, 6, 4)):
        images, labels = batch(n, UNIT, torch.float64, seed=seed)
        assert ((compiled(images, labels) - plain(images, labels)).abs() > 1e-9).sum() <= 2
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
    steps = GRADIENTS[name]
    assert len(calls) == 3 * steps + steps - 1  # all but the first forward of all, whose outputs are looked at
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_half_precision_by_autocast(calls: list[str], dtype: torch.dtype) -> None:
    compiled, plain = pair("step_ll", ConvNet())
    images, _ = batch(64)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        compiled(images)
        differing = (compiled(images) != plain(images)).float().mean()
    assert calls and differing < (1e-3 if dtype == torch.float32 else 0.1)


def test_several_sizes_from_one_gradient(calls: list[str]) -> None:
    compiled, plain = pair("step_ll", ConvNet().double())
    images, _ = batch(6, UNIT, torch.float64)
    compiled(images)
    for one, other in zip(compiled.at_each(images, eps=[2, 8]), plain.at_each(images, eps=[2, 8]), strict=True):
        assert ((one - other).abs() > 1e-9).sum() <= 2
    assert len(calls) == 1


@torch._dynamo.config.patch(recompile_limit=2, automatic_dynamic_shapes=False)
def test_attacks_do_not_use_up_each_others_recompilations(calls: list[str]) -> None:
    """torch.compile limits recompilations of a function, and all attacks share one function."""
    for n in (3, 4, 5, 6):
        attack = attacks.create("step_ll", ConvNet(), eps=4, compile=True)
        images, _ = batch(n)
        attack(images)
        attack(images)
    assert len(calls) == 4


class Reads(ConvNet):
    """Reads a value in its forward, which cannot be compiled."""

    def forward(self, images: Tensor) -> Tensor:
        scale = 2.0 if images.mean().item() > 0.25 else 1.0
        return scale * super().forward(images)


class Counts(ConvNet):
    """Writes to its own buffer, which torch.func.vjp does not support."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = torch.zeros(())

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(images)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Reads, r"scale = 2\.0 if images\.mean\(\)\.item\(\) > 0\.25 else 1\.0`: [^\n]+ data-dependent [^\n]+"),
        (Counts, r"self\.calls \+= 1`: [^\n]+ in-place operation [^\n]+"),
    ],
)
def test_a_model_that_cannot_be_compiled(calls: list[str], model: type[ConvNet], reason: str) -> None:
    compiled, plain = pair("iter_ll", model())
    images, _ = batch(6)
    said = rf"^iter_ll runs without compile=True: at {re.escape(__file__)}:\d+, `{reason}$"
    with pytest.warns(UserWarning, match=said):
        result = compiled(images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        assert torch.equal(compiled(images), result)
    assert torch.equal(result, plain(images)) and not calls


def test_a_mistake_of_the_model_is_not_the_compilers(calls: list[str]) -> None:
    """If eager fails too, only its error is raised, nothing changes, and the next batch is compiled."""

    class Fails(ConvNet):
        broken = False

        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images[:, :, :4] if self.broken else images)

    model = Fails()
    attack = attacks.create("step_ll", model, eps=4, compile=True)
    images, _ = batch(6)
    attack(images)
    model.broken, before = True, images.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="shapes"):
            attack.perturb_(images)
        assert torch.equal(images, before) and not calls
        model.broken = False
        attack(images)
    assert calls


@torch._dynamo.config.patch(recompile_limit=1, automatic_dynamic_shapes=False)
def test_more_shapes_than_torch_compiles() -> None:
    """The attack continues without compilation, and warns."""
    compiled, plain = pair("step_ll", ConvNet().double())
    with pytest.warns(UserWarning, match=r"^step_ll runs without compile=True: [^\n]+$"):
        for n in (6, 5, 4, 3):
            images, _ = batch(n, UNIT, torch.float64)
            assert ((compiled(images) - plain(images)).abs() > 1e-9).sum() <= 2


def test_under_a_mode_that_looks_at_every_operator_it_is_eager(calls: list[str]) -> None:
    compiled, plain = pair("step_ll", ConvNet())
    images, _ = batch(6)
    compiled(images)
    with Operators(images) as counted:
        seen = compiled(images)
    assert torch.equal(seen, plain(images)) and not calls
    assert counted.names["convolution"] == 2
    compiled(images)
    assert calls


def test_it_is_compiled_when_first_needed(calls: list[str]) -> None:
    """An attack can be pickled without its compiled code, and importing it does not load the compiler."""
    model = ConvNet()
    attack = attacks.create("step_ll", model, eps=4, compile=True)
    images, _ = batch(6)
    for _ in range(2):
        attack(images)
    copy = pickle.loads(pickle.dumps(attack))
    assert torch.equal(copy(images), attacks.create("step_ll", model, eps=4)(images))
    code = "import sys, fastadv.attacks, fastadv.train; sys.exit('torch._inductor.compile_fx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_not_with_capture() -> None:
    with pytest.raises(ValueError, match="compile=True and capture=True cannot be combined"):
        attacks.create("step_ll", ConvNet(), compile=True, capture=True)
