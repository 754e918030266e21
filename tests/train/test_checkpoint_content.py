"""Checkpoints with correct hashes and wrong content: one line, and the previous checkpoint is used."""

from __future__ import annotations

import copy
import io
import json
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as serialized

from fastadv.train import NonFiniteLoss, TrainConfig, Trainer, checkpoint, create_trainer
from fastadv.train.checkpoint import CheckpointError
from fastadv.train.checkpoint_content import classes_of, meta_of
from fastadv.train.run_state import process_state, shared_state
from fastadv.train.state_check import OPTIONAL, state_problem
from tests.evaluate.test_records import JSON
from tests.train.test_checkpoint import network, save, sign
from tests.train.test_config import LAUGHS
from tests.train.test_trainer import at_step


def meta(**values: Any) -> bytes:
    return json.dumps({"format": 2, "step": 2, "epoch": 0, "in_channels": 2, "processes": 1, **values}).encode()


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


WEIGHTS = network().state_dict()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("content"), 2)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("meta.json", meta(step=-2), "step must be at least 0"),
        ("meta.json", meta(step=10**30), "step cannot be 10"),
        ("meta.json", meta(step=3), "step is 3, and the folder's name says 2"),
        ("meta.json", meta(step="2"), "step cannot be '2'"),
        ("meta.json", meta(step=None), "step cannot be None"),
        ("meta.json", meta(step=True), "step cannot be True"),
        ("meta.json", meta(epoch=-1), "epoch must be at least 0"),
        ("meta.json", meta(in_channels=10**9), "in_channels must be at least 1 and at most 1024"),
        ("meta.json", meta(processes=0), "processes must be at least 1"),
        ("meta.json", meta(in_channels=3), "model.safetensors is of another network"),
        ("meta.json", b"[" * 100_000, "nested too deeply"),
        ("classes.json", b'["a", "b"]', "model.safetensors is of another network: classifier.bias is [7] in the file"),
        ("classes.json", json.dumps(["a"] * 10**5).encode(), "model.safetensors is of another network"),
        ("classes.json", b"[]", "it must be a list of names"),
        ("classes.json", b"7", "it must be a list of names"),
        ("classes.json", b"[1, 2]", "it must be a list of names"),
        ("config.yaml", b"", "it must map fields to values, got NoneType"),
        ("config.yaml", b"[1]", "it must map fields to values, got list"),
        ("config.yaml", b"\xff", "config.yaml cannot be read ("),
        ("config.yaml", b"model: !!python/object/apply:os.mkdir [x]", "could not determine a constructor"),
        ("config.yaml", LAUGHS.encode(), "with its aliases expanded"),
        ("config.yaml", b"model: &a\n  options: *a", "a node contains itself"),
        ("config.yaml", b"model: {name: 3}", "model.name cannot be 3"),
        ("config.yaml", b"model: {nam: small_cnn}", "there is no field 'model.nam'"),
        ("config.yaml", b"model: small_cnn", "model must map fields to values, got str"),
        ("config.yaml", b"m: null", "m cannot be None"),
        ("config.yaml", b"precision: half", "precision cannot be 'half'"),
        ("config.yaml", b"model: {options: {width: 100000.0}}", "model.safetensors is of another network"),
        ("config.yaml", b"model: {options: {width: .inf}}", "config.yaml cannot be read ("),
        ("model.safetensors", b"", "model.safetensors cannot be read ("),
        ("model.safetensors", struct.pack("<Q", 2**60), "model.safetensors cannot be read ("),
        ("model.safetensors", serialized(WEIGHTS)[:-9], "model.safetensors cannot be read ("),
        ("model.safetensors", serialized({"x": torch.ones(1)}), "model.safetensors is of another network: the file"),
        ("state.pt", b"", "state.pt cannot be read ("),
        ("state.pt", pickled([1]), "state.pt cannot be read (it must be a dictionary, got list)"),
        ("state.pt", pickled({"step": 1})[:-40], "state.pt cannot be read ("),
    ],
    ids=lambda value: str(value)[:30],
)
def test_content_that_cannot_be(file: str, content: bytes, said: str, saved: Path) -> None:
    before = (saved / file).read_bytes()
    (saved / file).write_bytes(content)
    sign(saved)
    with pytest.raises(CheckpointError) as refused:
        checkpoint.resolve(saved)
    (saved / file).write_bytes(before)
    assert str(saved) in str(refused.value) and said in str(refused.value) and "\n" not in str(refused.value)


def test_the_checkpoint_before_is_used(tmp_path: Path) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    (bad / "state.pt").write_bytes(pickled([1]))
    sign(bad)
    with pytest.warns(UserWarning, match=f"state.pt cannot be read .*falling back to {good}"):
        assert checkpoint.load_model(tmp_path).step == 1


NUMBERS = ["format", "step", "epoch", "in_channels", "processes"]


@settings(max_examples=60, deadline=None, database=None)
@given(changes=st.dictionaries(st.sampled_from(NUMBERS), JSON, min_size=1), text=st.binary(max_size=20))
def test_any_text_is_read_or_refused(changes: dict[str, Any], text: bytes) -> None:
    path = Path("step-00000002")
    for content in (meta(**changes), text, json.dumps(changes).encode()):
        for name, read in (("meta.json", meta_of), ("classes.json", classes_of)):
            try:
                found: Any = read(path, {name: content})
            except CheckpointError as error:
                assert str(error).startswith(f"{path} is ") and "\n" not in str(error)
            else:
                assert found.step == 2 if name == "meta.json" else found


def test_what_has_no_end_is_not_read(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for name in ("meta.json", "SHA256SUMS"):
        (path / name).unlink()
        (path / name).symlink_to("/dev/zero")
        with pytest.raises(CheckpointError, match=f"a device, not a regular file: .*{name}|no SHA256SUMS"):
            checkpoint.resolve(path)


# --- the state of a run ----------------------------------------------------------------------------------------------


@pytest.fixture
def run(few_digits: None, config: TrainConfig, tmp_path: Path) -> Path:
    trainer = create_trainer(config, tmp_path / "run")
    at_step(trainer, 1, trainer.request_stop)
    trainer.fit()
    return tmp_path / "run"


def differs(trainer: Trainer, state: dict[str, Any]) -> str | None:
    return state_problem(
        state,
        {**shared_state(trainer.run, trainer._log.metrics), "processes": [process_state(trainer.run)]},
        step=1,
        processes=1,
        weights=[weight for group in trainer.optimizer.param_groups for weight in group["params"]],
        buffers=list(trainer.run.buffers()),
        optimizer=trainer.config.optimizer,
    )


def put(*keys: Any) -> Callable[[dict[str, Any], Any], None]:
    """Create a function that sets a value at a place in nested containers."""

    def change(state: Any, value: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


WRONG: list[tuple[tuple[Any, ...], Any, str]] = [
    (("training_set",), [], "training_set is list"),
    (("training_set", "images"), torch.ones(2), "training_set has tensors"),
    (("task",), None, "task is None, not a mapping with iteration, stream"),
    (("task", "iteration"), "1", "task.iteration is str, not a number"),
    (("task", "stream", "offset"), 2**70, "task.stream.offset is int, not a number"),
    (("means", "sums"), [0.0], "means.sums is list, not a list of 3"),
    (("means", "counts"), [0, None, 0], "means.counts is None, not a number"),
    (("schedule", "last_epoch"), -5, "schedule has done -5 iterations, not 1"),
    (("schedule", "base_lrs"), ["x", 1.0], "schedule.base_lrs is str, not a number"),
    (("schedule", "base_lrs"), [0.5, 0.5], "schedule has another learning rate than the configuration"),
    (("optimizer",), [], "optimizer is list, not a mapping"),
    (("optimizer", "param_groups"), [], "optimizer.param_groups is list, not a list of 2"),
    (("optimizer", "param_groups", 0, "lr"), "high", "optimizer.param_groups.lr is str, not a number"),
    (("optimizer", "param_groups", 0, "params"), [0], "optimizer.param_groups.params is list, not a list of"),
    (("optimizer", "state", 10**6), {}, "optimizer.state.1000000 is a mapping with nothing"),
    (("optimizer", "state", 0), {"step": torch.tensor(1.0)}, "optimizer.state.0 is a mapping with step, not a mapping"),
    (("optimizer", "state", 0, "square_avg"), torch.ones(3), r"optimizer.state.0.square_avg is a tensor \[3\]"),
    (("optimizer", "state", 0, "step"), torch.ones(3), "optimizer.state.0.step is a tensor"),
    (("optimizer", "state", 0, "step"), None, "optimizer.state.0.step is None, not a number"),
    (
        ("optimizer", "param_groups", 0, "fused"),
        "yes",
        "optimizer.param_groups.fused is str, not true, false or nothing",
    ),
    (("optimizer", "param_groups", 0, "foreach"), torch.ones(2), "optimizer.param_groups have tensors"),
    (("optimizer", "param_groups", 0, "alpha"), 0.5, "optimizer.param_groups have another alpha than the config"),
    (("sentinel",), [], "sentinel is list, not a mapping with recovered, best, last, healthy, collapsed"),
    (("sentinel", "recovered"), 1, "sentinel.recovered is 1"),
    (("sentinel", "best"), [0.5], "sentinel.best is list, not a list of 3"),
    (("sentinel", "healthy"), "6", "sentinel.healthy is str, not a number"),
    (("processes",), [], "processes is list, not a list of 1"),
    (("processes", 0), 3, "processes has 3, not a mapping with rng"),
    (("processes", 0, "rng"), torch.zeros(3, dtype=torch.uint8), "rng is not the state of a generator"),
    (("processes", 0, "buffers"), [torch.ones(1)], "buffers is list, not a list of"),
    (("processes", 0, "task"), {"iteration": 0}, "task is a mapping with iteration"),
]


def test_states_that_no_run_saves(run: Path, config: TrainConfig) -> None:
    trainer = create_trainer(config, run, resume=True)
    state = checkpoint.load_state(checkpoint.resolve(run))
    assert differs(trainer, state) is None
    for keys, value, said in WRONG:
        changed = copy.deepcopy(state)
        put(*keys)(changed, value)
        found = differs(trainer, changed)
        assert found is not None and found.startswith(said.replace("\\", "")), (keys, found)
    # Tensors with more values than memory would fill any memory when they are used.
    moments = state["optimizer"]["state"][0]
    moments["square_avg"] = torch.zeros(1).expand(moments["square_avg"].shape)
    assert "optimizer.state.0.square_avg" in str(differs(trainer, state))


def test_a_run_continues_from_the_previous_checkpoint(run: Path, config: TrainConfig) -> None:
    for step in (1, 0):
        path = run / f"checkpoints/step-{step:08d}"
        state = checkpoint.load_state(path)
        del state["optimizer"]["state"], state["optimizer"]["param_groups"]
        (path / "state.pt").write_bytes(pickled(state))
        sign(path)
        if step == 1:
            with pytest.warns(UserWarning, match=r"step-00000001 is damaged: optimizer .*; falling back to .*00000000"):
                trainer = create_trainer(config, run, resume=True)
            assert trainer.step == 0 and trainer.last_checkpoint == run / "checkpoints/step-00000000"
    with pytest.raises(CheckpointError, match=r"no usable checkpoint: .*00000001 is damaged.*00000000 is damaged"):
        create_trainer(config, run, resume=True)


def test_a_run_that_an_earlier_version_started(run: Path, config: TrainConfig) -> None:
    """It goes on without the state of a sentinel, and its cost is counted from here."""
    path = checkpoint.resolve(run)
    state = checkpoint.load_state(path)
    for name in OPTIONAL:
        del state[name]
    (path / "state.pt").write_bytes(pickled(state))
    sign(path)
    trainer = create_trainer(config, run, resume=True)
    assert trainer.step == 1 and trainer.run.cost == 0


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=2),
    st.sampled_from([[], {}, [None], (1, 2), torch.ones(2), torch.ones(()), torch.zeros(1).expand(3, 3)]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in nested containers."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def test_what_passes_can_be_gone_on_from(run: Path, config: TrainConfig) -> None:
    trainer = create_trainer(config, run, resume=True)
    path = checkpoint.resolve(run)
    saved = checkpoint.read(path)
    batch = next(iter(trainer.train_loader.epoch(0)))
    everywhere = [place for place in places(saved.state) if place]

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(place=st.sampled_from(everywhere), value=VALUES)
    def check(place: tuple[Any, ...], value: Any) -> None:
        state = copy.deepcopy(saved.state)
        put(*place)(state, value)
        try:
            refused = differs(trainer, state)
        except Exception as error:
            raise AssertionError((place, value)) from error
        if refused is None and place[0] != "training_set":  # whose values are compared
            trainer._restore(checkpoint.Saved(**{**vars(saved), "state": state}))
            with suppress(NonFiniteLoss):  # from a huge learning rate: one line, as in any run
                trainer.train_step([batch])
        assert refused is None or "\n" not in refused

    check()
