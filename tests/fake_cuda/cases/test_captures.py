"""An attack within a CUDA graph that its caller captures."""

from __future__ import annotations

import gc

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
