"""Weights of one's own: every form in which people keep them, and every way in which they do not fit."""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from fastadv import models
from fastadv.models.weight_files import read_weights
from fastadv.models.weights import load_weights


def network(seed: int = 0, **options: Any) -> torch.nn.Module:
    torch.manual_seed(seed)
    return models.create("small_cnn", **{"num_classes": 10, "in_channels": 1, "width": 0.25, **options})


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors"])
def test_every_kind_of_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network(1).state_dict(), path)
    model = network()
    load_weights(model, path)
    assert same(model, network(1))


@pytest.mark.parametrize("container", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "module.model."]
)
def test_as_training_scripts_save_them(tmp_path: Path, container: str | None, prefix: str) -> None:
    weights: Any = {prefix + name: tensor for name, tensor in network(1).state_dict().items()}
    torch.save(weights if container is None else {container: weights, "epoch": 3}, tmp_path / "w.pth")
    model = network()
    load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))


def test_averaged_by_pytorch(tmp_path: Path) -> None:
    torch.save({"model_ema": AveragedModel(network(1)).state_dict()}, tmp_path / "w.pth")
    model = network()
    load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))


def test_a_network_that_has_itself_a_part_called_model(tmp_path: Path) -> None:
    parts = torch.nn.ModuleDict({"model": torch.nn.Linear(2, 2)})
    torch.save(parts.state_dict(), tmp_path / "w.pth")
    load_weights(parts, tmp_path / "w.pth")


def test_weights_of_before_batchnorm_counted(tmp_path: Path) -> None:
    weights = {name: value for name, value in network(1).state_dict().items() if not name.endswith("tracked")}
    torch.save(weights, tmp_path / "w.pth")
    model = network()
    load_weights(model, tmp_path / "w.pth")
    assert same(model, network(1))


BESIDE = {
    "args": argparse.Namespace(lr=np.float32(0.5), size=[3, 64, 64], text="x"),
    **{"best": np.float64(0.25), "epoch": np.int64(3), "name": np.str_("ab"), "yes": np.bool_(True)},
    **{"losses": np.ones(3), "when": np.datetime64("2020-01-01")},
}


def test_what_scripts_save_beside_the_weights(tmp_path: Path) -> None:
    torch.save({"state_dict": network(1).state_dict(), **BESIDE}, tmp_path / "w.pth.tar")
    beside = read_weights(tmp_path / "w.pth.tar").beside
    assert vars(beside["args"]) == {"lr": 0.5, "size": [3, 64, 64], "text": "x"}
    assert [beside[name] for name in ("best", "epoch", "name", "yes", "when")] == [0.25, 3, "ab", True, None]


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}


@pytest.mark.parametrize(
    ("names", "averaged", "taken"),
    [
        (["state_dict"], False, "state_dict"),
        (["state_dict_ema", "state_dict"], False, "state_dict"),
        (["state_dict", "state_dict_ema"], True, "state_dict_ema"),
        (["model", "model_ema"], True, "model_ema"),
        (["model"], True, "model"),
        (["model_ema"], False, "model_ema"),
        (["model", "state_dict"], False, "state_dict"),
        (["teacher"], False, "teacher"),
        (["teacher", "student"], False, ""),
        (["teacher", "student"], True, ""),
        (["module", "model_ema"], True, "model_ema"),
        (["module", "model_ema"], False, ", or give --averaged"),
        (["model_ema", "state_dict_ema"], False, ", or give --averaged"),
    ],
)
def test_of_several_state_dictionaries(tmp_path: Path, names: list[str], averaged: bool, taken: str) -> None:
    """Where none can be told to be meant, ``taken`` is how the refusal ends."""
    content: dict[str, Any] = {"optimizer": OPTIMIZER, "best_acc1": torch.tensor(1.0)}
    torch.save({**content, **{name: {"w": torch.ones(2)} for name in names}}, tmp_path / "w.pth")
    if taken not in names:
        said = rf"w\.pth holds several state dictionaries, {', '.join(names)}, but none .* a separate file{taken}$"
        with pytest.raises(ValueError, match=said):
            read_weights(tmp_path / "w.pth", averaged=averaged)
        return
    file = read_weights(tmp_path / "w.pth", averaged=averaged)
    assert (file.taken, sorted(file.passed_over)) == (taken, sorted({*names} - {taken}))


def test_a_file_that_holds_itself(tmp_path: Path) -> None:
    """Each mapping is looked at once, in however many places it lies: here they would be 1,000 ** 3."""
    levels: list[dict[str, Any]] = [{"w": torch.ones(1)}]
    for _ in range(3):
        levels.append({str(i): levels[-1] for i in range(1000)})
    levels[0]["self"] = levels[-1]
    torch.save(levels[-1], tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").weights.keys() == {"w"}


def without(name: str) -> dict[str, torch.Tensor]:
    weights = network(1).state_dict()
    del weights[name]
    return weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            without("classifier.bias"),
            r"w\.pth does not fit the model SmallCNN: the file lacks classifier\.bias\. Pass the",
        ),
        ({**network().state_dict(), "head": torch.ones(1)}, "the model has no head"),
        (network(num_classes=5).state_dict(), r"classifier\.bias is \[5\] in the file and \[10\] in the model"),
        (network(width=0.5).state_dict(), r"\[4\] in the model and 22 more"),
        (torch.nn.Linear(2, 2).state_dict(), r"the file lacks .* and \d+ more; the model has no bias, weight"),
        (torch.ones(3), "must hold a state dictionary"),
        ({"epoch": 3, "lr": 0.1}, "must hold a state dictionary.*the keys epoch, lr"),
        ({"optimizer": {"state": {}, "param_groups": [], "x": torch.ones(1)}}, "must hold a state dictionary"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    model = network()
    with pytest.raises(ValueError, match=message):
        load_weights(model, tmp_path / "w.pth")
    assert same(model, network())


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), r"is quantized \(torch\.qint8\)"),
        (lambda weight: weight.to_sparse(), r"is not dense \(torch\.sparse_coo\)"),
        (lambda weight: weight.to_sparse_csr(), r"is not dense \(torch\.sparse_csr\)"),
        (lambda weight: weight.to("meta"), "is without values"),
        (lambda weight: weight.to(torch.int8), r"is torch\.int8 in the file and torch\.float32 in the model"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of what it is about to leave out
def test_tensors_that_are_no_plain_weights_are_named(tmp_path: Path, form: Any, said: str) -> None:
    torch.save({"weight": form(torch.ones(2, 2)), "bias": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth does not .*weight {said}") as caught:
        load_weights(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


class _Runs:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.parametrize("where", ["weights", "beside"])
def test_nothing_is_executed(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    content: Any = {"state_dict": network(1).state_dict(), "args": argparse.Namespace(x=_Runs())}
    torch.save(_Runs() if where == "weights" else content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="does not hold plain tensors"):
        read_weights(tmp_path / "w.pth")
    assert not capsys.readouterr().out


def test_memory_that_a_pickle_lies_about_is_not_read(tmp_path: Path) -> None:
    """NumPy's own functions would take eight bytes for the address of an object, if flags say that it is none."""
    lies = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)

    class Type:
        def __reduce__(self) -> Any:
            return np.dtype, ("V8",), lies

    class Scalar:
        def __reduce__(self) -> Any:
            return np.float64(0).__reduce__()[0], (Type(), b"\x01" * 8)

    torch.save({"state_dict": {"w": torch.ones(1)}, "x": Scalar()}, tmp_path / "w.pth", pickle_module=pickle)
    assert read_weights(tmp_path / "w.pth").beside["x"] is None


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
    with pytest.raises(FileNotFoundError, match="there is no weights file"):
        load_weights(network(), tmp_path / f"no{name}")
    with pytest.raises(ValueError, match=r"weights files must be \.safetensors"):
        load_weights(network(), tmp_path / "w.onnx")
