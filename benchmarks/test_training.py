"""Iterations of Algorithm 1, compared with the fastest clean iteration of the same trainer and with the pass count.

With one unit each for the forward pass, the backward pass to the images and the one to the weights, a clean iteration
costs 3, and n gradients of k images add 2 n k / m: the pass count, or floor, is 1 + 2 n k / (3 m). The clean iteration
gets all options of the adversarial one. The cost outside of the network is that of the same trainer with a hollow
network. Rounds go on for 45 seconds, but at least 3 and at most 15. FASTADV_BENCH_NETWORKS=small_cnn,ResNet-50 selects
networks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo_config

from benchmarks.device import DEVICE, REHEARSAL, SECONDS, TIMES
from benchmarks.harness import TABLES, Interleaved, Table, device_seconds, whole_seconds
from benchmarks.pairs import process_seconds
from benchmarks.trainers import CLASSES, random_trainer, step
from fastadv import PixelSpace, attacks, models
from fastadv.train import AdversarialTask, AttackConfig, TrainConfig
from fastadv.train.compiled import CompiledOrEager

TRAINING = Table(
    "An iteration of training",
    [
        *("network", "m", "attack", "k", "options", "ms (quartiles)", "clean iterations (quartiles)", "floor"),
        *("outside of the network, ms (quartiles)", "share (quartiles)", "rounds"),
    ],
    notes=[
        "Clean iterations: the time divided by that of the fastest clean one in the same round. Floor: by pass count; "
        "folding BatchNorm makes the attack's passes cheaper, so that a time can be lower. Outside of the network: "
        "the same iteration with a model that has the same layers but calls none of them, and returns some pixels as "
        "logits and zeros as the weights' gradients; it includes the optimiser's step, the loss and the folding of "
        "BatchNorm. Share: of the iteration, in the same round."
    ],
)
OUTSIDE = Table(
    "What an attack's iteration costs outside of the network",
    [
        *("network", "N", "attack", "options", "ms of an iteration (quartiles)", "ms outside (quartiles)"),
        *("share (quartiles)", "rounds"),
    ],
    notes=[
        "Outside: the same attack on a model that has the same layers but calls none of them, and returns some pixels "
        "as logits. Selecting these and their gradient are included, so it is an upper bound. On a GPU only device "
        "time counts, because launches run ahead."
    ],
)
COMPILED = Table(
    "torch.compile of an iteration, whole and in parts",
    ["network", "m", "compiled", "ms (quartiles)", "eager iterations (quartiles)", "rounds"],
    notes=[
        "Step l.l. on half of the minibatch, on one CPU thread, in process time. The training pass is compiled by "
        "--compile, generation by attack.options.compile. The whole step is torch.compile of the task's call, "
        "generation and training pass together, after ten calls."
    ],
)
TABLES += [TRAINING, OUTSIDE, COMPILED]


@dataclass(frozen=True)
class Case:
    """A network, m, the height of its images, and the attacks also timed without fast options."""

    name: str
    m: int
    side: int
    without: Collection[str]


GRADIENTS = {"step_ll": 1, "iter_ll": 10}
CASES = {
    "small_cnn": Case("small_cnn", 64 * TIMES, 32, GRADIENTS),
    "ResNet-50": Case("torchvision/resnet50", 8 * TIMES, 224, ["step_ll"]),
    "Inception v3": Case("inception_v3", 4 * TIMES, 299, ["step_ll"]),
}
if REHEARSAL:
    CASES = {"small_cnn": Case("small_cnn", 4, 32, GRADIENTS)}
CHOSEN = [name for name in CASES if name in os.environ.get("FASTADV_BENCH_NETWORKS", ",".join(CASES)).split(",")]
TRAINING.wanted += [(network, attack) for network in CASES for attack in GRADIENTS]
OUTSIDE.wanted += [(network,) for network in CASES]


class Hollow(nn.Module):
    """All layers of a network; once emptied, it calls none and returns the first pixels as logits [N, CLASSES]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.emptied = False

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W]
        if not self.emptied:
            return self.network(images)
        pixels = images.flatten(1)[:, :CLASSES]
        return _WithZeros.apply(pixels, *self.parameters()) if self.training else pixels


class _WithZeros(torch.autograd.Function):
    """Passes logits through, with zeros as the gradient of every weight."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return (grad, *(torch.zeros_like(weight) for weight in ctx.saved_tensors))


def trainer(case: Case, attack: str, k: int, fast: bool, *, hollow: bool = False) -> Callable[[], object]:
    """An iteration with the network or a hollow one."""
    torch.manual_seed(0)
    options = {"steps": 10} if attack == "iter_ll" else {}
    config = TrainConfig(m=case.m, attack=AttackConfig(name=attack, k=k, options=options), fast=fast)
    network = models.create(case.name, num_classes=CLASSES)
    model = Hollow(network) if hollow else network
    made, _ = random_trainer(model, config, size=case.side, device=DEVICE)
    if isinstance(model, Hollow):
        step(made)  # in which layers to fold are looked for, by what the network does
        model.emptied = True
    return partial(step, made)


@pytest.mark.parametrize("attack", GRADIENTS)
@pytest.mark.parametrize("network", CHOSEN)
def test_training(benchmark: Any, network: str, attack: str) -> None:
    case = CASES[network]
    rows = [(k, fast) for k in (0, case.m // 2, case.m) for fast in (False, True) if fast or attack in case.without]
    whole = {row: f"{row}" for row in rows}
    hollow = {row: f"{row}, hollow" for row in rows}
    variants = {whole[row]: trainer(case, attack, *row) for row in rows}
    variants |= {hollow[row]: trainer(case, attack, *row, hollow=True) for row in rows}
    interleaved = Interleaved(variants, clock=whole_seconds, run_up=1)
    benchmark.group = f"{network}, iterations"
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    timings = interleaved.timings()
    clean = min((whole[0, fast] for k, fast in rows if k == 0), key=lambda name: timings[name].median)
    for k, fast in rows:
        name, outside = whole[k, fast], hollow[k, fast]
        floor = f"{1 + 2 * GRADIENTS[attack] * k / (3 * case.m):.2f}"
        cost = [timings[name].text, interleaved.ratio(name, clean).text, floor]
        apart = [timings[outside].text, interleaved.ratio(outside, name).percent, str(interleaved.rounds)]
        made = [attack if k else "none", str(k), "fast" if fast else ""]
        TRAINING.rows.append([network, str(case.m), *made, *cost, *apart])


@pytest.mark.parametrize("network", CHOSEN)
def test_outside_of_the_network(benchmark: Any, network: str) -> None:
    case, n = CASES[network], 32
    model = models.create(case.name, num_classes=CLASSES).to(DEVICE).eval()
    images = torch.rand(n, 3, case.side, case.side, device=DEVICE)
    options: dict[str, Any] = {"eps": 8, "space": PixelSpace.unit(), "validate": "never"}
    variants = {
        f"{part}{fast}": partial(attacks.create("step_ll", made, fast=fast, **options), images)
        for part, made in (("whole", model), ("outside", Hollow(model)))
        for fast in (False, True)
    }
    clock = device_seconds if DEVICE.type == "cuda" else None
    interleaved = Interleaved(variants, clock=clock, run_up=1)
    benchmark.group = f"{network}, outside"
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    timings = interleaved.timings()
    for fast in (False, True):
        whole, outside = f"whole{fast}", f"outside{fast}"
        times = [timings[whole].text, timings[outside].text, interleaved.ratio(outside, whole).percent]
        made = ["step_ll", "fast" if fast else "", *times, str(interleaved.rounds)]
        OUTSIDE.rows.append([network, str(n), *made])


# --- compiled --------------------------------------------------------------------------------------------------------


def compiled_step(case: Case, *, training: bool, generation: bool, whole: bool) -> Callable[[], object]:
    """An iteration whose parts are compiled, or all of it up to the loss."""
    torch.manual_seed(0)
    model = models.create(case.name, num_classes=CLASSES).train()
    options = {"validate": "never", "compile": generation}
    task = AdversarialTask(
        CompiledOrEager(model) if training else model,
        attack="step_ll",
        k=case.m // 2,
        eps=8,
        space=PixelSpace.unit(),
        seed=0,
        attack_options=options,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    images, labels = torch.rand(case.m, 3, case.side, case.side), torch.randint(CLASSES, (case.m,))
    task(images.clone(), labels)  # the checks of the first minibatch
    call = torch.compile(task.__call__) if whole else task

    def run() -> None:
        optimizer.zero_grad()
        call(images.clone(), labels).backward()
        optimizer.step()

    return run


COMPILED_PARTS = {
    "nothing": {},
    "training pass": {"training": True},
    "generation": {"generation": True},
    "both parts": {"training": True, "generation": True},
    "whole step": {"whole": True},
}


@pytest.mark.skipif(REHEARSAL or DEVICE.type != "cpu", reason="test_options.py has it for GPUs, and it takes minutes")
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_compiled_step(benchmark: Any) -> None:
    torch.set_num_threads(1)
    case, variants = CASES["small_cnn"], {}
    for name, parts in COMPILED_PARTS.items():
        variants[name] = compiled_step(case, **{"training": False, "generation": False, "whole": False, **parts})
        for _ in range(2 + dynamo_config.recompile_limit):
            variants[name]()
    interleaved = Interleaved(variants, clock=process_seconds)
    benchmark.pedantic(interleaved.run, args=(SECONDS,), rounds=1)
    for name, timing in interleaved.timings().items():
        cost = [timing.text, interleaved.ratio(name, "nothing").text, str(interleaved.rounds)]
        COMPILED.rows.append(["small_cnn", str(case.m), name, *cost])
