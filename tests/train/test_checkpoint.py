from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastadv import models
from fastadv.train import ModelConfig, TrainConfig, checkpoint, checkpoint_content
from fastadv.train.checkpoint import CheckpointError, Meta

CONFIG = TrainConfig(model=ModelConfig(options={"width": 0.1}))
CLASSES = (*"abcde", "f\n", "\udcff")  # what a file system allows in names
FILES = ["model.safetensors", "config.yaml", "state.pt", "classes.json", "meta.json", "SHA256SUMS"]


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return models.create("small_cnn", num_classes=7, in_channels=2, width=0.1)


def save(run: Path, step: int, keep: int = 9) -> Path:
    meta = Meta(step=step, epoch=step // 10, in_channels=2)
    state = {"step": step, "tensor": torch.full((3,), step)}
    model = network(step)
    return checkpoint.save(run, model=model, config=CONFIG, classes=CLASSES, state=state, meta=meta, keep=keep)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_round_trip(tmp_path: Path) -> None:
    run = tmp_path / "my_run"
    path = save(run, 12)
    assert path == run / "checkpoints" / "step-00000012"
    assert sorted(os.listdir(path)) == sorted(FILES)
    assert checkpoint.read_meta(path) == Meta(step=12, epoch=1, in_channels=2)
    assert checkpoint.load_config(path) == CONFIG
    state = checkpoint.load_state(path)
    assert state["step"] == 12 and torch.equal(state["tensor"], torch.full((3,), 12))

    for where in (path, run, str(run)):
        loaded = checkpoint.load_model(where)
        assert (loaded.step, loaded.name, loaded.config, loaded.classes) == (12, "my_run", CONFIG, CLASSES)
        assert not any(module.training for module in loaded.model.modules())
        expected = network(12).state_dict()
        assert loaded.model.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in loaded.model.state_dict().items())


def test_tensors_that_share_memory(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    model[1].weight = model[0].weight
    meta = Meta(step=0, epoch=0, in_channels=3)
    path = checkpoint.save(tmp_path, model=model, config=CONFIG, classes="abc", state={}, meta=meta)
    other = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    other.load_state_dict(checkpoint.load_weights(path))
    assert torch.equal(other[1].weight, model[0].weight)


def test_meta_says_what_wrote_it(tmp_path: Path) -> None:
    meta = json.loads((save(tmp_path, 1) / "meta.json").read_text())
    assert meta["torch"] == torch.__version__
    assert meta["fastadv"]


def test_hashes_are_what_sha256sum_takes(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    said = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=path, capture_output=True, text=True, check=True)
    assert sorted(said.stdout.splitlines()) == sorted(f"{name}: OK" for name in FILES[:-1])


@pytest.mark.parametrize(("keep", "left"), [(1, [4]), (2, [3, 4]), (9, [1, 2, 3, 4])])
def test_keep(keep: int, left: list[int], tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step, keep)
    assert names(tmp_path) == [f"step-{step:08d}" for step in left]


def test_steps_of_nine_digits_come_last(tmp_path: Path) -> None:
    save(tmp_path, 99_999_999)
    last = save(tmp_path, 100_000_000, keep=1)
    assert names(tmp_path) == ["step-100000000"]
    assert checkpoint.latest(tmp_path) == last


# --- writing that fails ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(len(FILES)))
def test_killed_in_the_middle_of_writing(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path, 1)
    write, written = checkpoint._write, []

    def killed(path: Path, data: bytes) -> None:
        if len(written) == at:
            path.write_bytes(data[: len(data) // 2])
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    monkeypatch.setattr(checkpoint, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.latest(tmp_path) == good
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-00000001", "step-00000003"]  # and nothing half-written


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = save(tmp_path, 1, keep=1)

    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "_write", full)
    with pytest.raises(CheckpointError, match=r"step-00000002: .*No space left.*earlier checkpoints are intact"):
        save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoint.latest(tmp_path) == good


WRITES_UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from tests.train.test_checkpoint import save
from fastadv.train.checkpoint import CheckpointError
run = Path(sys.argv[1])
save(run, 1, keep=1)
largest = max(file.stat().st_size for file in (run / "checkpoints/step-00000001").iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))
try:
    save(run, 2, keep=1)
except CheckpointError as error:
    print(error)
"""


def test_the_system_refuses_to_write(tmp_path: Path) -> None:
    """The file system itself fails, in the middle of the largest file; the write is not replaced."""
    command = [sys.executable, "-c", WRITES_UNDER_A_LIMIT, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "could not write checkpoint" in said and "File too large; earlier checkpoints are intact" in said
    assert names(tmp_path) == ["step-00000001"]
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints/step-00000001"


# --- damaged checkpoints ---------------------------------------------------------------------------------------------


def flip_a_bit(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


def sign(path: Path, *, without: str = "") -> None:
    """Write the hashes of the current files."""
    names = [name for name in FILES[:-1] if name != without]
    lines = [f"{hashlib.sha256((path / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (path / "SHA256SUMS").write_text("".join(lines))


def say(path: Path, meta: str) -> None:
    """Replace meta.json by other content with a correct hash."""
    (path / "meta.json").write_text(meta)
    sign(path)


def edit(path: Path, old: str, new: str) -> None:
    """Change meta.json so that it is still readable."""
    text = (path / "meta.json").read_text()
    assert old in text
    (path / "meta.json").write_text(text.replace(old, new))


DAMAGES: list[tuple[Callable[[Path], Any], str]] = [
    *((lambda p, name=name: os.truncate(p / name, 20), name) for name in FILES),
    *((lambda p, name=name: (p / name).unlink(), f"no {name}") for name in FILES),
    *((lambda p, name=name: flip_a_bit(p / name), name) for name in FILES[:-1]),
    *((lambda p, name=name: sign(p, without=name), f"SHA256SUMS cannot be read ('{name}')") for name in FILES[:-1]),
    *((lambda p, at=at: flip_a_bit(p / "meta.json", at), "meta.json") for at in (0, 0.1, 0.3, 0.7, 0.9, 1)),
    *((lambda p, at=at: flip_a_bit(p / "SHA256SUMS", at), "is damaged: ") for at in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)),
    (lambda p: edit(p, '"step": 2', '"step": 3'), "meta.json is not what was written"),
    (lambda p: edit(p, "\n}", "\n }"), "meta.json is not what was written"),
    (lambda p: say(p, '{"format": 2, "step": 2, "epoch": 0, "in_channels": 2}'), "cannot be read ('processes')"),
    (lambda p: say(p, '{"name": "another program"}'), "not a checkpoint of this version"),
    (lambda p: say(p, '{"format": 1}'), "not a checkpoint of this version"),
    (lambda p: say(p, "[]"), "not a checkpoint of this version"),
    (lambda p: say(p, "{"), "meta.json cannot be read"),
    (lambda p: [file.unlink() for file in p.iterdir()], "or was written by an earlier version: no SHA256SUMS"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_damage_is_refused_and_the_previous_one_used(
    damage: Callable[[Path], Any], reason: str, tmp_path: Path
) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    damage(bad)
    with pytest.raises(CheckpointError) as refused:
        checkpoint.resolve(bad)
    assert str(bad) in str(refused.value) and reason in str(refused.value)
    with pytest.warns(UserWarning) as warned:
        assert checkpoint.load_model(tmp_path).step == 1
    message = str(warned[0].message)
    assert str(bad) in message and str(good) in message and reason in message

    shutil.rmtree(good)
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoint.latest(tmp_path)


def test_damaged_ones_do_not_count_as_kept_and_are_replaced(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    for step in (2, 3):
        (tmp_path / f"checkpoints/step-{step:08d}/meta.json").unlink()
    save(tmp_path, 2, keep=1)  # a run that fell back to step 1 reaches step 2 again
    assert names(tmp_path) == ["step-00000002", "step-00000003"]
    assert checkpoint.read_meta(tmp_path / "checkpoints/step-00000002").step == 2


def test_state_is_not_unpickled_blindly(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    path = save(tmp_path, 1)
    torch.save({"step": Harmful()}, path / "state.pt")
    sign(path)
    with pytest.raises(CheckpointError, match=r"state\.pt does not hold plain values and tensors$"):
        checkpoint.resolve(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("at", ["found", "read"])
def test_a_run_that_is_read_while_it_trains(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --keep 1, each checkpoint is deleted some time after it was found."""
    save(tmp_path, 1)
    read_regular, find = checkpoint_content.read_regular, checkpoint._folders

    def reading(path: Path) -> bytes:
        if path.name == "state.pt" and not (tmp_path / "checkpoints/step-00000002").exists():
            save(tmp_path, 2, keep=1)
        return read_regular(path)

    def finding(run: Path) -> list[Path]:
        found = find(run)
        if len(found) == 1 and found[0].name == "step-00000001":
            monkeypatch.setattr(checkpoint, "_folders", find)
            save(tmp_path, 2, keep=1)
        return found

    if at == "found":
        monkeypatch.setattr(checkpoint, "_folders", finding)
    else:
        monkeypatch.setattr(checkpoint_content, "read_regular", reading)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoint.load_model(tmp_path).step == 2
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*00000001; a run deletes all but the last"):
        checkpoint.resolve(tmp_path / "checkpoints/step-00000001")


def test_one_that_is_about_to_be_deleted_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # as if it took long
    save(tmp_path, 2, keep=1)
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["step-00000002"]
    monkeypatch.undo()
    save(tmp_path, 3, keep=1)
    assert names(tmp_path) == ["step-00000003"]


def test_nothing_there(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "nowhere") is None
    with pytest.raises(FileNotFoundError, match="neither a checkpoint nor the folder of a run"):
        checkpoint.resolve(tmp_path)
