"""A scale at which studies take seconds: 160 digits, narrow networks, 20 test images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from fastadv import data
from fastadv.study import cost, scales
from fastadv.study.networks import vary
from fastadv.study.scales import Scale


def tiny() -> Scale:
    """Like the scale for digits, with small eps for which iterative methods take few steps."""
    scale = scales.digits()
    base = vary(
        scale.base,
        {
            "epochs": 1,
            "model.options.width": 0.25,
            "attack.eps_sigma": 4.0,
            "attack.eps_upper": 8.0,
            "attack.start_after": 1,
            "device": "cpu",
        },
    )
    return replace(
        scale,
        base=base,
        train_images=160,
        test_images=20,
        eps=(2, 4, 6, 8),
        limit=20,
        iterative_limit=10,
        transfer_limit=10,
        widths=(0.5, 1.0, 2.0),
        other_architecture={"model.name": "timm/test_resnet", "model.options": {}},
        iterative_training_options={"alpha": 4, "steps": 2},
    )


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Scale:
    """The tiny scale, which the command line uses in place of the one for digits."""
    whole = data.load("digits")

    def first(images: data.ImageSet | data.ImageSource, n: int) -> data.ImageSet:
        assert isinstance(images, data.ImageSet)
        return data.ImageSet(images.images[:n], images.labels[:n], images.classes)

    few = data.ImageData(train=first(whole.train, 160), test=first(whole.test, 20))
    monkeypatch.setattr(data, "load", lambda name, root, download: few)
    monkeypatch.setattr(data, "load_test", lambda name, root, download: few.test)
    monkeypatch.setattr(cost, "_MIN_SECONDS", 0.0)  # rough estimates suffice
    monkeypatch.setitem(scales.SMALL, "digits", tiny)
    return tiny()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
