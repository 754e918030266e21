"""Checks of a study's networks before work is done or skipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastadv.study.evaluations import Robustness
from fastadv.study.networks import Network
from fastadv.study.runner import Machine, Runner, StudyFolder, WorkItem
from fastadv.train import checkpoint, checkpoint_content
from tests.evaluate.test_evaluate_cli import save_run
from tests.study.conftest import tiny


@pytest.fixture
def weights_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The path of each file of weights that is read."""
    found: list[Path] = []
    read = checkpoint_content.read_regular

    def noting(path: Path, *limits: int) -> bytes:
        if path.name == checkpoint.WEIGHTS:
            found.append(path)
        return read(path, *limits)

    monkeypatch.setattr(checkpoint_content, "read_regular", noting)
    return found


def test_each_check_reads_a_checkpoint_once(tmp_path: Path, weights_read: list[Path]) -> None:
    network, place = Network("one", tiny().base), StudyFolder(tmp_path)
    assert not place.is_trained(network)
    save_run(place.run(network))
    assert place.is_trained(network) and len(weights_read) == 1
    part = Robustness((network,), ("fgsm",), (8,), None)
    runner = Runner(place, Machine(None, torch.device("cpu"), None), tiny())
    assert not runner._is_done(WorkItem("evaluate", 1.0, part=part)) and len(weights_read) == 2
