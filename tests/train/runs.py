"""Functions for the processes of a group, in a module that a forked process can import."""

from __future__ import annotations

import errno
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.collectives import Collectives
from fastadv import data
from fastadv.data.loaders import dali_loader, factory
from fastadv.distributed import Processes, average_buffers, gathered, on_all, on_main
from fastadv.evaluate import Record, RecordFile, Subject, Sweep, run
from fastadv.pixels import PixelSpace
from fastadv.train import (
    AdversarialTask,
    NonFiniteLoss,
    PairedTask,
    TrainConfig,
    Trainer,
    checkpoint,
    create_trainer,
    outcomes,
    sentinel,
)
from fastadv.train import initial_weights as initial_weights_module
from fastadv.train.outcomes import Outcomes
from fastadv.train.validation import accuracy, validate

UNIT = PixelSpace.unit()
METRICS = 6  # numbers that an iteration of several processes adds up


def use_few_digits() -> None:
    """Reduce the data set ``digits`` to its first 160 train and 61 test images."""
    whole = data.load("digits")

    def first(images: data.ImageSet, n: int) -> data.ImageSet:
        return data.ImageSet(images.images[:n], images.labels[:n], images.classes)

    few = data.ImageData(train=first(whole.train, 160), test=first(whole.test, 61))
    data.load = lambda name, root, download: few  # the process ends with the test


def trainer_of(
    processes: Processes, config: TrainConfig, run: Path, *, resume: bool = False
) -> tuple[Trainer, list[str]]:
    """Create a trainer on few digits; also returns the warnings."""
    use_few_digits()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = create_trainer(config, run, resume=resume, processes=processes)
    return trainer, [str(warning.message) for warning in caught]


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


# --- a run -----------------------------------------------------------------------------------------------------------


def train(
    processes: Processes,
    config: TrainConfig,
    run: Path,
    resume: bool = False,
    stop_at: int = 0,
    stopper: int = 0,
    late: bool = False,
) -> dict[str, Any]:
    """Train, or stop after iteration ``stop_at``, in which process ``stopper`` is asked to stop.

    With ``late``, the processes read how iterations went when they do on GPUs.
    """
    trainer, warned = trainer_of(processes, config, run, resume=resume)
    if late:
        read_late(trainer)
    started_at = trainer.step
    train_step = trainer.train_step

    def and_then(minibatches: Iterable[tuple[Tensor, Tensor]]) -> None:
        train_step(minibatches)
        if trainer.step == stop_at and processes.rank == stopper:
            trainer.request_stop()

    trainer.train_step = and_then  # type: ignore[method-assign]
    trainer.fit()
    return {
        "started_at": started_at,
        "step": trainer.step,
        "checkpoint": trainer.last_checkpoint,
        "weights": weights(trainer.model),
        "warned": warned,
        "accumulate": trainer.config.accumulate,
        "rng": torch.get_rng_state(),
    }


def read_late(trainer: Trainer) -> None:
    trainer._outcomes = Outcomes(at_once=False, log_every=trainer.config.log_every)
    outcomes._SECONDS = 1e9


def initial_weights(processes: Processes, config: TrainConfig, run: Path) -> dict[str, Tensor]:
    """The weights that this process starts from; only the main one can read files of weights."""
    if not processes.main:
        initial_weights_module.read_weights = None  # type: ignore[assignment]
    trainer, _ = trainer_of(processes, config, run)
    return weights(trainer.model)


def fail_at_the_start(processes: Processes, config: TrainConfig, run: Path, rank: int) -> None:
    """Start a run in which process ``rank`` finds no data, and the others wait to share the network."""
    use_few_digits()
    if processes.rank == rank:

        def missing(name: str, root: str | None, download: bool) -> data.ImageData:
            raise FileNotFoundError("there is no such folder here")

        data.load = missing
    create_trainer(config, run, processes=processes)


def fail_to_download(processes: Processes, config: TrainConfig, run: Path) -> None:
    """Start a run whose images the main process cannot download."""
    use_few_digits()
    few = data.load

    def offline(name: str, root: str | None, download: bool) -> data.ImageData:
        if download:
            raise OSError("cannot be reached")
        return few(name, root, download)

    data.load = offline
    create_trainer(config, run, processes=processes)


def read_other_images(
    processes: Processes, config: TrainConfig, run: Path, rank: int, which: str, resume: bool
) -> None:
    """Start or resume a run in which one process reads fewer test images or other labels; no warning of resuming."""
    warnings.filterwarnings("error", "this run continues")
    use_few_digits()
    few = data.load("digits", None, False)
    if processes.rank == rank:
        fewer = data.ImageSet(few.test.images[:60], few.test.labels[:60], few.test.classes)
        other = data.ImageSet(few.train.images, few.train.labels.roll(1), few.train.classes)
        sets = data.ImageData(few.train, fewer) if which == "test" else data.ImageData(other, few.test)
        data.load = lambda name, root, download: sets
    create_trainer(config, run, resume=resume, processes=processes)


def leave_one_out(processes: Processes, config: TrainConfig, run: Path) -> None:
    """Start a run on images in files in which only process 1 has a manifest that leaves one out."""
    read = data.load(config.data.name, config.data.root, False)
    if processes.rank == 1:
        sets = data.ImageData(replace(read.train, left_out=frozenset({3})), read.test)  # type: ignore[type-var]
        data.load = lambda name, root, download: sets
    create_trainer(config, run, processes=processes)


def loader_where_one_lacks_dali(processes: Processes, config: TrainConfig, run: Path, rank: int) -> str:
    """The loader of a run in which process ``rank`` finds no DALI."""
    if processes.rank == rank:
        found = factory.require

        def without_dali(module: str, *, extra: str) -> Any:
            if module == "nvidia.dali":
                raise ModuleNotFoundError("no DALI here")
            return found(module, extra=extra)

        for place in (factory, dali_loader):
            place.require = without_dali
    return create_trainer(config, run, processes=processes).config.data.loader


def fail_at(processes: Processes, config: TrainConfig, run: Path, at: int, faulty: int, late: bool = False) -> Any:
    """Train with a loss of NaN in process ``faulty`` at iteration ``at``; ``late`` as in :func:`train`."""
    trainer, _ = trainer_of(processes, config, run)
    if late:
        read_late(trainer)
    task = trainer.task
    seen: list[list[int]] = []

    class Spoiled:
        def __getattr__(self, name: str) -> Any:
            return getattr(task, name)

        def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
            loss = task(images, labels)
            seen.append(trainer.train_loader.indices.tolist())
            return loss * math.nan if processes.rank == faulty and task.iteration == at else loss

    trainer.run.task = Spoiled()
    try:
        trainer.fit()
    except NonFiniteLoss as error:
        return {"text": str(error), "indices": error.indices, "mine": seen[at - 1], "step": trainer.step}


def save_on_full_disk(processes: Processes, config: TrainConfig, run: Path) -> None:
    """Save a second checkpoint on a full disk."""
    trainer, _ = trainer_of(processes, config, run)
    trainer.save()

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoint._write = full
    trainer.step = 1
    trainer.save()


# --- communication ---------------------------------------------------------------------------------------------------


def count_collectives(processes: Processes, config: TrainConfig, run: Path) -> dict[str, Any]:
    """Count collectives in a generation, an iteration, a test, the end of an epoch, and a checkpoint."""
    trainer, _ = trainer_of(processes, config, run)
    settle(trainer)
    images, labels = next(trainer.train_loader.epoch(0))
    attack = trainer.task.attack  # type: ignore[attr-defined]
    gradients = [None if p.grad is None else p.grad.clone() for p in trainer.model.parameters()]
    with Collectives() as generation:
        attack.perturb_(images[:12].clone(), labels[:12])
    unchanged = all(torch.equal(p.grad, g) for p, g in zip(trainer.model.parameters(), gradients, strict=True))
    with Collectives() as test:
        validate(trainer.run, trainer.model)
    with Collectives() as statistics:
        average_buffers(trainer.model, processes)
    with Collectives() as saved:
        trainer.save()
    return {
        "generation": generation.counts,
        "unchanged": unchanged,
        "test": test.counts,
        "statistics": statistics.counts,
        "values": sum(buffer.numel() for buffer in trainer.model.buffers() if buffer.is_floating_point()),
        "checkpoint": of_each_kind(saved.counts),
        **count_in_an_iteration(trainer),
    }


def count_of_iteration(processes: Processes, config: TrainConfig, run: Path) -> dict[str, Any]:
    """Count collectives in an iteration."""
    trainer, _ = trainer_of(processes, config, run)
    settle(trainer)
    return count_in_an_iteration(trainer)


def of_each_kind(counts: Counter[tuple[str, int]]) -> Counter[str]:
    """Number of collectives by name, whatever their size."""
    return sum((Counter({name: n}) for (name, _), n in counts.items()), Counter())


def settle(trainer: Trainer) -> None:
    """DDP rearranges its buckets after the first iteration, or with a static graph after the second."""
    for _ in range(3):
        trainer.train_step(islice(trainer.train_loader.epoch(0), trainer.config.accumulate))


def count_in_an_iteration(trainer: Trainer) -> dict[str, Any]:
    with Collectives() as iteration:
        trainer.train_step(islice(trainer.train_loader.epoch(0), trainer.config.accumulate))
    parameters = sum(p.numel() for p in trainer.model.parameters())
    return {"step": iteration.counts, "parameters": parameters}


def count_of_unwrapped_generation(processes: Processes) -> Counter[tuple[str, int]]:
    """The same count if generation goes through the wrapper: shows that the count would notice."""
    model = DistributedDataParallel(small())
    images, labels = batch(0, 4)
    images = images.requires_grad_()
    with Collectives() as generation:
        nn.functional.cross_entropy(model(images), labels).backward()
    return generation.counts


def count_of_sync_bn(processes: Processes) -> Counter[tuple[str, int]]:
    """Collectives of SyncBatchNorm with three and with five channels in a forward and a backward pass.

    PyTorch has its arithmetic for GPUs alone. Here that is stood in for, and what is sent is by PyTorch's own code.
    """
    torch.batch_norm_stats = lambda x, eps: (x.mean((0, 2, 3)), x.var((0, 2, 3)))
    torch.batch_norm_gather_stats_with_counts = lambda x, mean, invstd, *_: (mean.mean(0), invstd.mean(0))
    torch.batch_norm_elemt = lambda x, *_: x.clone()
    torch.batch_norm_backward_reduce = lambda grad, x, mean, *_: (mean, mean, mean, mean)
    torch.batch_norm_backward_elemt = lambda grad, *_: grad
    torch._C._get_privateuse1_backend_name = lambda: "cpu"  # the layer accepts only a GPU's tensors
    layers = [nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)]
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(*layers))
    with Collectives() as passes:
        model(torch.rand(4, 1, 2, 2)).sum().backward()
    return passes.counts


def paired_iterations(processes: Processes, attack: str) -> dict[str, Any]:
    """What travels in an iteration of PairedTask, its gradients, and those of one process for all images."""

    def iteration(model: nn.Module, wrapped: nn.Module, images: Tensor, labels: Tensor) -> None:
        model.zero_grad()
        PairedTask(wrapped, attack=attack, eps=8, space=UNIT).backward(images, labels)

    model = small()
    wrapped = DistributedDataParallel(model)
    images, labels = batch(0, 8)
    half = slice(4 * processes.rank, 4 * processes.rank + 4)
    for _ in range(3):  # DDP arranges its buckets anew after the first
        with Collectives() as sent:
            iteration(model, wrapped, images[half].clone(), labels[half])
    gradients = [parameter.grad for parameter in model.parameters()]
    alone = small()
    iteration(alone, alone, images.clone(), labels)
    return {
        "sent": sent.counts,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gradients": gradients,
        "alone": [parameter.grad for parameter in alone.parameters()],
    }


def paired_with_static_graph(processes: Processes) -> str:
    """What PairedTask says of a wrapper that supports one backward pass per iteration."""
    wrapped = DistributedDataParallel(small(), static_graph=True)
    try:
        PairedTask(wrapped, eps=8, space=UNIT).backward(*batch(0, 4))
    except ValueError as error:
        return str(error)
    return ""


def paired_without_sync(processes: Processes) -> Counter[tuple[str, int]]:
    """What travels in an iteration of PairedTask whose gradients are accumulated."""
    wrapped = DistributedDataParallel(small())
    task = PairedTask(nn.Sequential(wrapped), eps=8, space=UNIT)  # the wrapper may be a part of the model
    with wrapped.no_sync(), Collectives() as sent:
        task.backward(*batch(0, 4))
    return sent.counts


# --- gradients -------------------------------------------------------------------------------------------------------


def small() -> nn.Module:
    """A network without BatchNorm, in float64."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 9, 10)]
    return nn.Sequential(*layers).double()


def batch(start: int, end: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(32, 1, 8, 8, generator=generator, dtype=torch.float64)
    return images[start:end], torch.randint(10, (32,), generator=generator)[start:end]


def gradients(processes: Processes, m: int, accumulate: int, options: dict[str, Any]) -> list[Tensor]:
    """Averaged gradient of the first minibatches of m examples, which the processes take in turn."""
    model = small()
    wrapped = model if processes.alone else DistributedDataParallel(model)
    task = AdversarialTask(wrapped, space=UNIT, seed=4, **options)
    for number in range(accumulate):
        first = m * (number * processes.world_size + processes.rank)
        images, labels = batch(first, first + m)
        keep = number + 1 < accumulate and isinstance(wrapped, DistributedDataParallel)
        with wrapped.no_sync() if keep else torch.enable_grad():
            (task(images.clone(), labels) / accumulate).backward()
    return [parameter.grad for parameter in model.parameters()]  # type: ignore[misc]


def gradients_of_sync_bn(processes: Processes, m: int, k: int) -> list[Tensor]:
    """On GPUs, in float64: averaged gradient of m examples per process, with BatchNorm over all of them."""
    device = torch.device("cuda", processes.rank)
    torch.cuda.set_device(device)
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten(), nn.Linear(6 * 9, 10)]
    model: nn.Module = nn.Sequential(*layers).double().to(device)
    if not processes.alone:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    wrapped = model if processes.alone else DistributedDataParallel(model, device_ids=[device])
    task = AdversarialTask(wrapped, space=UNIT, seed=4, k=k, eps=16)
    images, labels = batch(m * processes.rank, m * (processes.rank + 1))  # [m, 1, 8, 8], [m]
    task(images.to(device), labels.to(device)).backward()
    return [parameter.grad.cpu() for parameter in model.parameters()]  # type: ignore[union-attr]


# --- evaluation ------------------------------------------------------------------------------------------------------


def evaluated(processes: Processes, out: Path, n: int, given: dict[str, Any], fault: str = "") -> Any:
    """Records of a sweep over the first n digits, without fields that differ between runs."""
    torch.manual_seed(processes.rank if fault == "other weights" else 0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole = data.load("digits", None, False).test
    images = data.ImageSet(whole.images[:n], whole.labels[:n], whole.classes)
    sweep = Sweep(dataset="digits", images=images, **given)
    file = on_main(processes, lambda: RecordFile(out / "robustness.jsonl", Record))
    if fault == "full disk":
        file.path = out / "full.jsonl"

        def link() -> None:
            out.mkdir(exist_ok=True)
            file.path.symlink_to("/dev/full")

        on_main(processes, link)
    if fault == "one process" and processes.rank == 1:
        model.forward = None  # type: ignore[assignment]
    records = run(sweep, [Subject("a", model, UNIT)], file, processes)
    assert len(file.records) == len(records)
    return [replace(record, seconds=0.0, versions={}) for record in records]


class InDouble(nn.Module):
    """A network that computes in float64; it may be interrupted at one of its calls."""

    def __init__(self, interrupt_at: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).double()
        self.calls, self.interrupt_at = 0, interrupt_at

    def forward(self, images: Tensor) -> Tensor:  # [N, 1, 8, 8] -> [N, 10]
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise ValueError("interrupted")
        return self.layers(images.double())


def evaluated_in_double(
    processes: Processes, out: Path, n: int, given: dict[str, Any], interrupt_at: int | None = None
) -> Any:
    """Records of a sweep over the first n digits, and how often this process called the network."""
    model = InDouble(interrupt_at)
    whole = data.load("digits", None, False).test
    labels = model.layers(UNIT.from_pixels(whole.images[:n]).double()).argmax(dim=1)  # [n], all are correct
    images = data.ImageSet(whole.images[:n], labels, whole.classes)
    file = on_main(processes, lambda: RecordFile(out / "robustness.jsonl", Record))
    sweep = Sweep(dataset="digits", images=images, **given)
    records = run(sweep, [Subject("a", model, UNIT)], file, processes)
    return [replace(record, seconds=0.0) for record in records], model.calls


# --- the rest --------------------------------------------------------------------------------------------------------


def failures(processes: Processes, failing: list[int]) -> Any:
    def work() -> int:
        if processes.rank in failing:
            raise ValueError(f"process {processes.rank} cannot")
        return 10 * processes.rank

    return on_all(processes, work)


def die(processes: Processes, rank: int, how: str) -> Any:
    """Process ``rank`` dies while the others wait for it in one kind of collective."""
    gathered(processes, 0)  # all are there
    if processes.rank == rank:
        os._exit(9)
    if how == "gathered":
        return gathered(processes, 0)
    if how == "on_main":
        return on_main(processes, lambda: 0)
    model = DistributedDataParallel(small()) if how == "gradients" else small()
    images, labels = batch(0, 4)
    nn.functional.cross_entropy(model(images), labels).backward()
    average_buffers(nn.BatchNorm1d(2), processes)


def another_failure(processes: Processes) -> None:
    raise RuntimeError("[enforce fail at gloo.cpp] not of a collective")


def main_alone(processes: Processes, fails: bool) -> Any:
    def work() -> tuple[str, int]:
        if fails:
            raise ValueError("the main process cannot")
        return "from", processes.rank

    return on_main(processes, work)


def averaged_buffers(processes: Processes) -> list[float]:
    layer = nn.BatchNorm1d(2)
    assert layer.running_mean is not None and layer.running_var is not None
    layer.running_mean.fill_(processes.rank)
    layer.running_var.copy_(torch.tensor([1.0, 2.0]) * 10**processes.rank)
    average_buffers(layer, processes)
    return [*layer.running_mean.tolist(), *layer.running_var.tolist()]


def share_of_digits(processes: Processes, model: nn.Module, batch_size: int) -> float:
    use_few_digits()
    images = data.load("digits", None, False).test
    loader = data.TensorLoader(
        images,
        batch_size,
        space=UNIT,
        rank=processes.rank,
        world_size=processes.world_size,
        shuffle=False,
        drop_last=False,
    )
    return accuracy(model, loader.epoch(0), processes)


def sync_bn_on_cpu(processes: Processes, config: TrainConfig, run: Path) -> None:
    trainer_of(processes, replace(config, sync_bn=True), run)


def train_all_digits(processes: Processes, config: TrainConfig, run: Path) -> None:
    create_trainer(config, run, processes=processes).fit()


def train_with_collapse(processes: Processes, config: TrainConfig, run: Path, collapsed: int) -> dict[str, Any]:
    """Train; from iteration 9 on, until it recovers, process ``collapsed`` loses all of its images under PGD."""
    trainer, _ = trainer_of(processes, config, run)
    watch = trainer.run.sentinel
    assert isinstance(watch, sentinel.Sentinel)
    calls: list[int] = []

    def correct(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(images))
        under_pgd = len(calls) % 2 == 1
        lost = under_pgd and processes.rank == collapsed and trainer.step > 8 and not watch.recovered
        return torch.tensor(0 if lost else len(images))

    sentinel._correct = correct
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit()
    assert set(calls) == {16}  # two minibatches of each process
    return {
        "step": trainer.step,
        "recovered": watch.recovered,
        "robust": watch.state_dict()["last"][0],
        "weights": weights(trainer.model),
        "warned": [text for warning in caught if "robust accuracy" in (text := str(warning.message))],
    }
