"""An attack within a CUDA graph that its caller captures."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastadv import PixelSpace, attacks
from fastadv.attacks import Attack
from fastadv.train import FreeTask

LABELS = torch.zeros(4, dtype=torch.int64)


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).to("cuda")


def images() -> tuple[Tensor, Tensor]:
    """Of the unit space, and beyond it."""
    inside = torch.full((4, 3, 2, 2), 0.5).to("cuda")
    return inside, inside + 1


def warmed_up() -> Attack:
    attack = attacks.create("fgsm", network(), eps=4)
    for _ in range(3):
        attack(images()[0], LABELS.to("cuda"))
    return attack


def test_the_batch_before_is_judged_after_the_capture() -> None:
    inside, beyond = images()
    labels, attack, graph = LABELS.to("cuda"), warmed_up(), torch.cuda.CUDAGraph()
    attack(beyond, labels)
    with torch.cuda.graph(graph):
        adv = attack(inside, labels)
    graph.replay()
    with pytest.raises(ValueError, match="of FGSM call 4 are outside"):
        attack(inside, labels)
    assert torch.equal(adv, attack(inside, labels))


def test_a_free_step_is_captured() -> None:
    inside, _ = images()
    labels, task, graph = LABELS.to("cuda"), FreeTask(network(), eps=4, space=PixelSpace.unit()), torch.cuda.CUDAGraph()
    for _ in range(3):
        task(inside, labels).backward()
    with torch.cuda.graph(graph):
        task(inside, labels)


@pytest.mark.filterwarnings("error")
def test_an_attack_is_given_up_within_a_capture() -> None:
    attack, graph = warmed_up(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        del attack
        gc.collect()


@pytest.mark.filterwarnings("error:.*runs without capture")
@pytest.mark.filterwarnings("ignore:.*averages the same gradient")
@pytest.mark.parametrize(
    "options",
    [
        {"norm": "l2", "eps": 100, "space": PixelSpace(100, (40, 50, 60))},
        {"loss": "dlr"},
        {"targets": "random"},
        {"targeted": True, "eot": 2},
        {"restarts": 3},
    ],
    ids=str,
)
def test_options_are_recorded(options: dict[str, Any]) -> None:
    given: dict[str, Any] = {"eps": 4, "steps": 2, "seed": 1, **options}
    inside, labels, model = images()[0], LABELS.to("cuda"), network()
    recorded, eager = (attacks.PGD(model, capture=capture, **given) for capture in (True, False))
    for _ in range(3):
        called = (inside, labels) if recorded.needs_labels else (inside,)
        assert torch.equal(recorded(*called), eager(*called))
