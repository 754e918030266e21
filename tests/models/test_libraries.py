"""timm's and torchvision's networks by name: made with the sizes asked for, and without a word to the network."""

from __future__ import annotations

import socket
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fastadv import models


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was to be made without a download")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("name", "in_channels", "options"),
    [
        ("timm/resnet18", 3, {}),
        ("timm/resnet18.a1_in1k", 1, {"drop_rate": 0.3}),
        ("timm/mobilenetv3_small_050", 4, {}),
        ("timm/vit_tiny_patch16_224", 1, {"img_size": 64}),
        ("torchvision/resnet18", 3, {}),
        ("torchvision/mobilenet_v3_small", 3, {"dropout": 0.5}),
        ("torchvision/squeezenet1_1", 3, {}),
        ("torchvision/googlenet", 3, {"aux_logits": False}),
    ],
)
def test_sizes_and_options(name: str, in_channels: int, options: dict[str, Any]) -> None:
    model = models.create(name, num_classes=7, in_channels=in_channels, **options)
    assert model.training
    assert model(torch.rand(2, in_channels, 64, 64)).shape == (2, 7)
    assert type(model).__module__.startswith(name.partition("/")[0])


def test_inception_v4_is_timms() -> None:
    with torch.device("meta"):
        model = models.create("inception_v4", num_classes=1000, drop_rate=0.2)
    assert sum(parameter.numel() for parameter in model.parameters()) == 42_679_816
    assert type(model).__module__ == "timm.models.inception_v4" and model.head_drop.p == 0.2


def test_torchvisions_inception_keeps_its_auxiliary_head_and_its_initial_weights() -> None:
    with torch.device("meta"):
        model = models.create("torchvision/inception_v3", num_classes=1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == 27_161_264


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/resnet5", {}, "unknown model 'timm/resnet5' .did you mean resnet50 or .*"),
        ("timm/hf-hub:timm/resnet18", {}, "unknown model 'timm/hf-hub:timm/resnet18'"),
        ("timm/qqqqqq", {}, "unknown model 'timm/qqqqqq': timm has no classification network of that name"),
        ("timm/", {}, "unknown model 'timm/'"),
        ("timm/resnet18.nonsense", {}, "timm/resnet18.nonsense cannot be made with its defaults: .*nonsense"),
        ("timm/resnet18", {"width": 2.0}, "timm/resnet18 cannot be made with width=2.0: .*unexpected keyword"),
        ("timm/resnet18", {"pretrained": True}, "pretrained: no weights are downloaded.*load your own checkpoint"),
        (
            "timm/resnet18",
            {"checkpoint_path": "x"},
            "checkpoint_path: no weights are downloaded.*load your own checkpoint",
        ),
        ("inception_v4", {"output_stride": 16}, "timm/inception_v4 cannot be made with output_stride=16: Assertion"),
        ("torchvision/resnet5", {}, "unknown model 'torchvision/resnet5' .did you mean resnet50 or .*"),
        ("torchvision/fcn_resnet50", {}, "unknown model 'torchvision/fcn_resnet50'"),  # it would fetch a backbone
        ("torchvision/resnet18", {"activation": "elu"}, "cannot be made with activation='elu': .*unexpected keyword"),
        (
            "torchvision/resnet18",
            {"weights": "DEFAULT"},
            "weights: no weights are downloaded.*load your own checkpoint",
        ),
        ("torchvision/resnet18", {"in_channels": 1}, "images of 3 channels, got in_channels=1; timm/<name> takes any"),
        ("torchvision/resnet18", {"num_classes": 1}, "num_classes must be an integer of at least 2, got 1"),
    ],
)
def test_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create(name, **{"num_classes": 10, **options})


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("timm/resnet18", "timm"),
        ("inception_v4", "timm"),
        ("torchvision/resnet18", "torchvision"),
        ("inception_v3", "torchvision"),
    ],
)
def test_a_library_that_is_not_there(name: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{library}.* is needed for this.*fastadv\[train\]"):
        models.create(name, num_classes=10)
