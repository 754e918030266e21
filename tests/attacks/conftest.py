from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from fastadv.attacks.engine import cuda_graph_recorder
from fastadv.attacks.engine.bn_folding import FoldedModel
from fastadv.attacks.engine.compiled import CompiledGradient
from tests.attacks.tape import Tape, TapeRecorder


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Images of 8 x 8 pixels are too small to split; threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each option was used: with a tape for CUDA graphs, and torch.compile without code generation."""
    seen = Counter[str]()
    in_place, compiled, replay = FoldedModel.in_place, CompiledGradient.__call__, Tape.replay

    def counted_in_place(self: FoldedModel) -> Any:
        seen["fold_bn"] += 1
        return in_place(self)

    def counted_compiled(self: CompiledGradient, *call: Any) -> Any:
        found = compiled(self, *call)
        seen["compile"] += found is not None
        return found

    def counted_replay(self: Tape) -> None:
        seen["capture"] += 1
        replay(self)

    monkeypatch.setattr(FoldedModel, "in_place", counted_in_place)
    monkeypatch.setattr(CompiledGradient, "__call__", counted_compiled)
    monkeypatch.setattr(Tape, "replay", counted_replay)
    monkeypatch.setattr(cuda_graph_recorder, "create_recorder", TapeRecorder)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    return seen
