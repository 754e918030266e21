"""Several processes train one network: gradients, random draws, counts, communication, and failures."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist

from fastadv import models
from fastadv.distributed import ALONE, Processes, device_name, launch_name, launched
from fastadv.pixels import PixelSpace
from fastadv.train import AdversarialTask, AttackConfig, DataConfig, TrainConfig, checkpoint, create_trainer
from fastadv.utils.rng import RandomStream
from tests.data.loaders import needs_dali
from tests.data.pictures import write_data_set
from tests.train import runs
from tests.train.group import Raised, succeeded, together
from tests.train.test_trainer import log_of, same

# --- without a group -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "expected", "launch"),
    [
        ({}, ALONE, None),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "TORCHELASTIC_ERROR_FILE": ""}, ALONE, None),
        (
            {
                "RANK": "9",
                "WORLD_SIZE": "16",
                "LOCAL_RANK": "1",
                "TORCHELASTIC_ERROR_FILE": "/tmp/none_x/attempt_2/1/error.json",
            },
            Processes(rank=9, world_size=16, local_rank=1),
            "/tmp/none_x",
        ),
    ],
)
def test_what_torchrun_says(
    environment: dict[str, str],
    expected: Processes,
    launch: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_ERROR_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (launched(), launch_name()) == (expected, launch)


@pytest.mark.parametrize(
    ("name", "gpus", "world_size", "expected"),
    [
        ("auto", True, 1, "auto"),
        ("cuda:1", True, 1, "cuda:1"),
        ("auto", True, 4, "cuda:3"),
        ("cuda", True, 4, "cuda:3"),
        ("cpu", True, 4, "cpu"),
        ("auto", False, 4, "auto"),
    ],
)
def test_each_process_has_its_gpu(
    name: str, gpus: bool, world_size: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    assert device_name(name, Processes(rank=3, world_size=world_size, local_rank=3)) == expected


def test_one_gpu_for_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"device must be auto, cuda or cpu for 2 processes, got 'cuda:1'"):
        device_name("cuda:1", Processes(rank=0, world_size=2, local_rank=0))


@pytest.mark.parametrize(("world_size", "examples"), [(1, 4), (2, 4), (4, 3)])
def test_a_split_stream_is_dealt_out_by_rank(world_size: int, examples: int) -> None:
    whole, parts = RandomStream(seed=7), [RandomStream(seed=7) for _ in range(world_size)]
    for rank, part in enumerate(parts):
        part.split(rank, world_size)
    for _ in range(3):
        seed, offset = whole.take(world_size * examples)
        assert [part.take(examples) for part in parts] == [(seed, offset + r * examples) for r in range(world_size)]
    assert {part.offset for part in parts} == {whole.offset}  # a checkpoint's content does not depend on the rank


def test_processes_that_were_seeded_alike_draw_their_own_numbers() -> None:
    drawn = []
    for rank in range(2):
        torch.manual_seed(0)
        stream = RandomStream()
        stream.split(rank, 2)
        drawn.append(stream.take(5))
    assert drawn[1] == (drawn[0][0], 5)


@pytest.mark.parametrize("split_by", ["made before", "made after the task", "made after a call", "the user"])
def test_each_process_draws_the_numbers_of_its_part(split_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the process group is created: Lightning creates it after the module that holds the task."""

    def group(rank: int | None) -> None:
        monkeypatch.setattr(dist, "is_initialized", lambda: rank is not None)
        monkeypatch.setattr(dist, "get_rank", lambda: rank)
        monkeypatch.setattr(dist, "get_world_size", lambda: 2)

    def drawn(task: AdversarialTask, m: int) -> Tensor:  # [m, 1, 2, 2]
        images = torch.full((m, 1, 2, 2), 0.5)
        task(images, torch.zeros(m, dtype=torch.int64))
        return images

    def create() -> AdversarialTask:
        return AdversarialTask(nn.Flatten(), attack="random_normal", k=4, eps=8, space=PixelSpace.unit(), seed=5)

    parts = []
    for rank in range(2):
        group(rank if split_by == "made before" else None)
        task = create()
        if split_by == "made after a call":
            drawn(task, 4)
        if split_by == "the user":
            task.attack.stream.split(rank, 2)
        else:
            group(rank)
        parts.append(drawn(task, 2))
    group(None)
    alone = create()
    if split_by == "made after a call":
        drawn(alone, 4)
    assert torch.equal(torch.cat(parts), drawn(alone, 4))


# --- on_main and on_all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "expected"),
    [
        ([], [0, 10, 20]),
        (
            [1],
            ["FailedElsewhere: process 1 failed", "ValueError: process 1 cannot", "FailedElsewhere: process 1 failed"],
        ),
        ([0, 2], ["ValueError: process 0 cannot", *["FailedElsewhere: process 0 failed"] * 2]),
    ],
)
def test_a_failure_is_one_of_all(failing: list[int], expected: list[Any]) -> None:
    results = together(3, runs.failures, failing)
    assert [f"{r.kind}: {r.text}" if isinstance(r, Raised) else r for r in results] == expected


def test_what_the_main_process_does_all_know() -> None:
    assert together(2, runs.main_alone, False) == [("from", 0), ("from", 0)]
    first, second = together(2, runs.main_alone, True)
    assert (first.kind, first.text, second.kind) == ("ValueError", "the main process cannot", "FailedElsewhere")


@pytest.mark.parametrize("how", ["gathered", "on_main", "gradients", "buffers"])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_is_a_line_of_the_other(rank: int, how: str) -> None:
    results = together(2, runs.die, rank, how)
    lost = results[1 - rank]
    assert (results[rank].kind, lost.kind) == ("Died", "ProcessLost")
    assert lost.text.startswith("another process has died or cannot be reached (") and "\n" not in lost.text
    assert "gloo/" not in lost.text and len(lost.text) < 160


def test_another_failure_is_none_of_a_process() -> None:
    assert [result.kind for result in together(2, runs.another_failure)] == ["RuntimeError"] * 2


def test_running_statistics_are_averaged() -> None:
    assert succeeded(together(2, runs.averaged_buffers)) == [[0.5, 0.5, 5.5, 11.0]] * 2


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "options"),
    [
        (8, {"k": 0}),
        (8, {"k": 3, "eps": 16}),
        (8, {"k": 3}),  # drawn eps
        (8, {"k": 8, "attack": "random_sign"}),
        (5, {"k": 2, "attack": "step_rnd", "label_smoothing": 0.1}),
    ],
)
def test_gradients_do_not_depend_on_the_number_of_processes(m: int, options: dict[str, Any]) -> None:
    alone = runs.gradients(ALONE, m, 4, options)
    for world_size, accumulate in ((2, 2), (4, 1)):
        for gradients in succeeded(together(world_size, runs.gradients, m, accumulate, options)):
            for got, expected in zip(gradients, alone, strict=True):
                torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [0, 8])
def test_two_processes_with_half_the_minibatch(k: int) -> None:
    (whole,) = [runs.gradients(ALONE, 16, 1, {"k": 2 * k})]
    for gradients in succeeded(together(2, runs.gradients, 8, 1, {"k": k})):
        for got, expected in zip(gradients, whole, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture
def run_config(config: TrainConfig) -> TrainConfig:
    """Two processes with m = 16 train on the 160 digits in five iterations."""
    attack = replace(config.attack, k=6, bn="batch")
    return replace(config, m=16, attack=attack, model=replace(config.model, options={"width": 0.25, "dropout": 0.0}))


@pytest.mark.usefixtures("few_digits")
def test_a_run_of_two_is_that_of_one_that_accumulates(run_config: TrainConfig, tmp_path: Path) -> None:
    """With BatchNorm, too: each minibatch uses its own statistics, and so does generation here."""
    config = replace(run_config, clip_grad_norm=0.5, optimizer=replace(run_config.optimizer, name="rmsprop_tf"))
    two = succeeded(together(2, runs.train, config, tmp_path / "two"))
    one = create_trainer(replace(config, accumulate=2), tmp_path / "one")
    one.fit()
    assert two[0]["step"] == one.step == 15
    assert same(two[0]["weights"], two[1]["weights"])
    for name, parameter in one.model.named_parameters():
        torch.testing.assert_close(two[0]["weights"][name], parameter.detach(), rtol=1e-4, atol=1e-6)
    losses = [[record["loss"] for record in log_of(tmp_path / run) if "loss" in record] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    ends = [[record for record in log_of(tmp_path / run) if "mean_loss" in record] for run in ("one", "two")]
    for name in ("mean_loss", "mean_clean_accuracy", "mean_adversarial_accuracy"):
        means = [[record[name] for record in records] for records in ends]
        assert means[0] == pytest.approx(means[1], rel=1e-5), name


# --- communication ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("attack", ["step_ll", "iter_basic"])
def test_collectives(attack: str, accumulate: int, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16, accumulate=accumulate, attack=AttackConfig(name=attack, k=12, eps=8))
    for seen in succeeded(together(2, runs.count_collectives, config, tmp_path)):
        assert seen["generation"] == Counter()
        assert seen["unchanged"]  # no gradient of a weight was touched
        # The gradients once, in DDP's single bucket, and the metrics.
        assert seen["step"] == Counter(
            {("gloo:all_reduce", seen["parameters"]): 1, ("gloo:all_reduce", runs.METRICS): 1}
        )
        assert seen["test"] == Counter({("gloo:all_reduce", 2): 1})
        assert seen["statistics"] == Counter({("gloo:all_reduce", seen["values"]): 1})
        # Objects, each as length and content: whether weights are finite; generators and statistics; the path.
        assert seen["checkpoint"] == Counter({"gloo:all_gather": 3, "gloo:gather": 1, "gloo:broadcast": 2})


def test_the_count_would_see_a_generation_through_the_wrapper() -> None:
    for counts in succeeded(together(2, runs.count_of_unwrapped_generation)):
        assert sum(counts.values()) >= 1


def test_sync_bn_sends_twice_a_layer() -> None:
    for counts in succeeded(together(2, runs.count_of_sync_bn)):
        # Forward the mean, the deviation and the number of values of C channels, backward two sums of each.
        assert counts == Counter(
            {
                **{("gloo:all_gather", 2 * channels + 1): 1 for channels in (3, 5)},
                **{("gloo:all_reduce", 2 * channels): 1 for channels in (3, 5)},
            }
        )


# --- evaluation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world_size", "batch_size"), [(2, 256), (2, 7), (3, 20)])
def test_each_test_image_is_counted_once(world_size: int, batch_size: int) -> None:
    torch.manual_seed(0)
    model = models.create("small_cnn", num_classes=10, in_channels=1, width=0.25)
    alone = together(1, runs.share_of_digits, model, 64)
    assert 0 < alone[0] < 1
    assert succeeded(together(world_size, runs.share_of_digits, model, batch_size)) == alone * world_size


# --- stopping, failing, resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopper", [0, 1])
def test_all_stop_after_the_same_iteration(stopper: int, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16)
    results = succeeded(together(2, runs.train, config, tmp_path, False, 6, stopper))
    assert [result["step"] for result in results] == [7, 7]  # requested after the sixth had shared its metrics
    assert checkpoint.latest(tmp_path) == results[1]["checkpoint"] == tmp_path / "checkpoints/step-00000007"


def test_all_stop_where_they_read_how_iterations_went(config: TrainConfig, tmp_path: Path) -> None:
    """As on GPUs: after iterations 1, 3, 4, which is logged, 5, which ends an epoch, and 8, which is logged."""
    config = replace(config, m=16, log_every=4, checkpoint_every=0)
    results = succeeded(together(2, runs.train, config, tmp_path, False, 6, 1, True))
    assert [result["step"] for result in results] == [8, 8]
    assert [record["step"] for record in log_of(tmp_path) if "loss" in record] == [4, 8]


def test_resumed_run_is_the_uninterrupted_one(config: TrainConfig, tmp_path: Path) -> None:
    """With dropout and BatchNorm's running statistics, which are each process's own."""
    config = replace(config, m=16, ema_decay=0.9)
    whole = succeeded(together(2, runs.train, config, tmp_path / "whole"))
    assert not torch.equal(whole[0]["rng"], whole[1]["rng"])
    succeeded(together(2, runs.train, config, tmp_path / "parts", False, 6, 1))
    parts = succeeded(together(2, runs.train, config, tmp_path / "parts", True))
    for result, expected in zip(parts, whole, strict=True):
        assert (result["started_at"], result["step"], result["warned"]) == (7, 15, [])
        assert same(result["weights"], expected["weights"]) and torch.equal(result["rng"], expected["rng"])
    states = [checkpoint.load_state(tmp_path / run / "checkpoints/step-00000015") for run in ("whole", "parts")]
    assert same(*states)
    assert log_of(tmp_path / "whole") == log_of(tmp_path / "parts")


def test_all_take_the_checkpoint_before_a_damaged_one(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16)
    whole = succeeded(together(2, runs.train, config, tmp_path))
    damaged = tmp_path / "checkpoints/step-00000015/state.pt"
    damaged.write_bytes(damaged.read_bytes()[:-5])
    resumed = succeeded(together(2, runs.train, config, tmp_path, True))
    assert [result["started_at"] for result in resumed] == [12, 12]
    (said,) = resumed[0]["warned"]
    assert "step-00000015" in said and "falling back to" in said and "step-00000012" in said
    assert resumed[1]["warned"] == []
    assert same(resumed[0]["weights"], whole[0]["weights"])


def test_resume_with_another_number_of_processes(run_config: TrainConfig, tmp_path: Path) -> None:
    """Without dropout, continuing with one process differs by rounding alone: the examples are the same."""
    whole = succeeded(together(2, runs.train, run_config, tmp_path / "whole"))
    succeeded(together(2, runs.train, run_config, tmp_path / "parts", False, 6, 0))
    shutil.copytree(tmp_path / "parts", tmp_path / "refused")
    (alone,) = succeeded(together(1, runs.train, run_config, tmp_path / "parts", True))
    assert (alone["started_at"], alone["step"], alone["accumulate"]) == (7, 15, 2)
    (said,) = alone["warned"]
    assert "1 process instead of 2, and accumulate 2 instead of 1: the examples of each iteration stay" in said
    for name, tensor in whole[0]["weights"].items():
        if "running" not in name and "tracked" not in name:
            torch.testing.assert_close(alone["weights"][name], tensor, rtol=1e-4, atol=1e-6)
    # The same command again, after it has stored another accumulate; then back to two processes.
    (again,) = succeeded(together(1, runs.train, run_config, tmp_path / "parts", True))
    assert (again["started_at"], again["accumulate"]) == (15, 2)
    assert again["warned"] == ["this run continues with accumulate 2, as before, not 1"]
    resumed = succeeded(together(2, runs.train, run_config, tmp_path / "parts", True))
    assert [result["accumulate"] for result in resumed] == [1, 1]

    first, *others = together(3, runs.train, run_config, tmp_path / "refused", True)
    assert "takes 2 minibatches, 1 (accumulate) on each of 2 processes" in first.text
    assert first.text.endswith("Possible numbers of processes, with their accumulate: 1 with 2, 2 with 1")
    assert [other.kind for other in others] == ["FailedElsewhere"] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_fails_at_the_start_is_not_waited_for(rank: int, config: TrainConfig, tmp_path: Path) -> None:
    results = together(2, runs.fail_at_the_start, config, tmp_path, rank)
    assert (results[rank].kind, results[rank].text) == ("FileNotFoundError", "there is no such folder here")
    assert (results[1 - rank].kind, results[1 - rank].text) == ("FailedElsewhere", f"process {rank} failed")


def test_images_that_cannot_be_fetched_end_all(config: TrainConfig, tmp_path: Path) -> None:
    data = replace(config.data, name="mnist", root=str(tmp_path), download=True)
    main, other = together(2, runs.fail_to_download, replace(config, data=data), tmp_path)
    assert (main.kind, main.text, other.kind) == ("OSError", "cannot be reached", "FailedElsewhere")


@pytest.mark.parametrize("other", [0, 1])
@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(("which", "said"), [("training", "160 images and 160"), ("test", "{1} images and {0}")])
def test_all_processes_read_the_same_images(
    which: str, said: str, resume: bool, other: int, run_config: TrainConfig, tmp_path: Path
) -> None:
    if resume:
        succeeded(together(2, runs.train, run_config, tmp_path, False, 1, 0))
    main, second = together(2, runs.read_other_images, run_config, tmp_path, other, which, resume)
    counts = [60, 61] if other == 0 else [61, 60]
    assert main.kind == "ValueError" and second.kind == "FailedElsewhere"
    assert f"the {which} set of process 1 differs from that of process 0 ({said.format(*counts)})" in main.text


def test_a_manifest_of_one_process_alone_is_refused(images_config: TrainConfig, tmp_path: Path) -> None:
    main, second = together(2, runs.leave_one_out, images_config, tmp_path / "run")
    assert (
        main.kind == "ValueError"
        and "the training set of process 1 differs from that of process 0 (24 images" in main.text
    )
    assert second.kind == "FailedElsewhere"


@needs_dali
@pytest.mark.parametrize("rank", [0, 1])
def test_auto_is_the_same_loader_for_all(rank: int, images_config: TrainConfig, tmp_path: Path) -> None:
    """The main process chooses; if another process lacks it, all end instead of training at different speeds."""
    results = together(2, runs.loader_where_one_lacks_dali, images_config, tmp_path / "run", rank)
    if rank == 0:
        assert results == ["torchvision"] * 2
    else:
        assert (results[1].kind, results[0].kind) == ("ModuleNotFoundError", "FailedElsewhere")


@pytest.fixture
def images_config(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """24 small photographs in files."""
    write_data_set(tmp_path / "images", per_class=8, classes=3)
    images = DataConfig(name="imagenet", root=str(tmp_path / "images"), size=16, workers=1)
    return replace(config, m=4, attack=AttackConfig(k=2), data=images)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"m": 8}, "m was 16 and is now 8"),
        ({"accumulate": 3}, "with 1 process and accumulate 3 it would be 3, .* accumulate: 1 with 2, 2 with 1"),
    ],
)
def test_what_is_refused_is_not_warned_of(
    changed: dict[str, Any], said: str, run_config: TrainConfig, tmp_path: Path
) -> None:
    succeeded(together(2, runs.train, run_config, tmp_path, False, 1, 0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=said):
            create_trainer(replace(run_config, **changed), tmp_path, resume=True)


def test_an_error_leaves_nothing_to_warn_of(run_config: TrainConfig, tmp_path: Path) -> None:
    """Nor is there a warning that the run continues with another number of processes."""
    succeeded(together(2, runs.train, run_config, tmp_path, False, 1, 0))
    (alone,) = together(1, runs.read_other_images, run_config, tmp_path, 0, "training", True)
    assert alone.kind == "ValueError" and "its 160 images have other labels" in alone.text


@pytest.mark.parametrize(("faulty", "late"), [(0, False), (1, False), (1, True)])
def test_a_loss_that_is_not_finite_stops_all(faulty: int, late: bool, config: TrainConfig, tmp_path: Path) -> None:
    """Also where it is read late, as on GPUs: before the checkpoint of iteration 9."""
    config = replace(config, m=16, log_every=10)
    results = succeeded(together(2, runs.fail_at, config, tmp_path, 8, faulty, late))
    for result in results:
        assert f"process {faulty}: the loss is nan at iteration 8" in result["text"]
        assert result["indices"] == results[faulty]["mine"] and len(result["indices"]) == 16
        assert str(result["indices"]) in result["text"] and "step-00000006" in result["text"]
        assert result["step"] == 7
    assert results[0]["mine"] != results[1]["mine"]


def test_a_full_disk_stops_all_and_leaves_the_last_checkpoint(config: TrainConfig, tmp_path: Path) -> None:
    main, other = together(2, runs.save_on_full_disk, replace(config, m=16, keep=1), tmp_path)
    assert main.kind == "CheckpointError" and "No space left" in main.text
    assert other.kind == "FailedElsewhere"
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoints/step-00000000"


def test_sync_bn_and_generation_by_batch_are_refused_at_once(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16, attack=replace(config.attack, bn="batch"))
    main, _ = together(2, runs.sync_bn_on_cpu, config, tmp_path)
    assert (main.kind, main.text) == (
        "ValueError",
        "model: sync_bn needs attack.bn eval: by batch, each generation would wait for all processes",
    )


def test_sync_bn_needs_gpus_for_one_process_too(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model: sync_bn needs GPUs"):
        create_trainer(replace(config, sync_bn=True), tmp_path)


def test_capture_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    main, _ = together(2, runs.trainer_of, replace(config, m=16, capture=True), tmp_path)
    assert (main.kind, main.text) == ("ValueError", "capture does not go with several processes, got 2")


def test_sync_bn_needs_gpus(config: TrainConfig, tmp_path: Path) -> None:
    main, other = together(2, runs.sync_bn_on_cpu, replace(config, m=16), tmp_path)
    assert (main.kind, main.text) == (
        "ValueError",
        "model: sync_bn needs GPUs: PyTorch has no SyncBatchNorm for the CPU",
    )
    assert other.kind == "FailedElsewhere"
    assert isinstance(nn.SyncBatchNorm(1), nn.BatchNorm2d.__base__)  # so that generation switches it to eval mode


# --- on GPUs ---------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("k", [0, 8])
def test_sync_bn_of_two_gpus_is_batch_norm_of_one(k: int) -> None:
    whole = runs.gradients_of_sync_bn(ALONE, 16, 2 * k)
    for gradients in succeeded(together(2, runs.gradients_of_sync_bn, 8, k)):
        for got, expected in zip(gradients, whole, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("sync_bn", [False, True])
def test_two_gpus(sync_bn: bool, config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16, device="auto", precision="bfloat16", channels_last=True, sync_bn=sync_bn)
    first, second = succeeded(together(2, runs.train, config, tmp_path))
    assert first["step"] == second["step"] == 15
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor.cpu(), second["weights"][name].cpu()), name


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_collectives_on_gpus(config: TrainConfig, tmp_path: Path) -> None:
    config = replace(config, m=16, device="auto", attack=AttackConfig(k=12, eps=8))
    for seen in succeeded(together(2, runs.count_collectives, config, tmp_path)):
        assert seen["generation"] == Counter() and seen["unchanged"]
        assert seen["step"] == Counter(
            {("nccl:all_reduce", seen["parameters"]): 1, ("nccl:all_reduce", runs.METRICS): 1}
        )
