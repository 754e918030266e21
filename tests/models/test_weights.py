"""Weights of one's own: every form in which people keep them, and every way in which they do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from fastadv import models
from fastadv.models.weights import load_weights


def network(seed: int = 0, **options: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return models.create("small_cnn", **{"num_classes": 10, "in_channels": 1, "width": 0.25, **options})


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".safetensors"])
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network(1).state_dict(), path)
    model = network()
    load_weights(model, path)
    assert same(model, network(1))


@pytest.mark.parametrize("container", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_as_training_scripts_save_them(tmp_path: Path, container: str | None, prefix: str) -> None:
    weights: Any = {prefix + name: tensor for name, tensor in network(1).state_dict().items()}
    torch.save(weights if container is None else {container: weights, "epoch": 3}, tmp_path / "w.pth")
    model = network()
    load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))


def without(name: str) -> dict[str, torch.Tensor]:
    weights = network(1).state_dict()
    del weights[name]
    return weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("classifier.bias"), r"w\.pth does not fit the model SmallCNN: the file lacks classifier\.bias\. Name"),
        ({**network().state_dict(), "head": torch.ones(1)}, "the model has no head"),
        (network(num_classes=5).state_dict(), r"classifier\.bias is \[5\] in the file and \[10\] in the model"),
        (network(width=0.5).state_dict(), r"\[4\] in the model and 22 more"),
        (torch.nn.Linear(2, 2).state_dict(), r"the file lacks .* and \d+ more; the model has no bias, weight"),
        (torch.ones(3), "must hold a state dictionary"),
        ({"epoch": 3, "lr": 0.1}, "must hold a state dictionary.*the keys epoch, lr"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    model = network()
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "w.pth")
    assert same(model, network())


def test_a_whole_module_is_code_and_is_not_run(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"does not hold plain tensors.*state_dict"):
        load_weights(network(), tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"not weights at all", b"", b"\x80\x02", b"a\n", b"q\x00."], ids=repr)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(name)} (does not hold plain|is not a safetensors)") as caught:
        load_weights(network(), tmp_path / name)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        load_weights(network(), tmp_path / f"no{name}")
    with pytest.raises(ValueError, match=r"weights are read from \.safetensors"):
        load_weights(network(), tmp_path / "w.onnx")
