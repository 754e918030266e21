"""Create a Trainer from a TrainConfig."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastadv import attacks, data
from fastadv.attacks.base import options_of
from fastadv.distributed import ALONE, Processes, data_parallel, on_all, on_main, seed_draws
from fastadv.train.attack_options import check_attack_options
from fastadv.train.compiled import CompiledOrEager
from fastadv.train.config import TrainConfig
from fastadv.train.initial_weights import initialise
from fastadv.train.optim import create_optimizer, create_schedule
from fastadv.train.parts import Parts, check_same_images, create_parts, download, naming, naming_phase
from fastadv.train.phases import Timeline
from fastadv.train.protocols import Averages, Task
from fastadv.train.replay_loader import Replayed
from fastadv.train.resume import starting_point, with_absolute_paths
from fastadv.train.run import Run, Stage
from fastadv.train.sentinel import create_sentinel
from fastadv.train.static_sources import load_sources
from fastadv.train.tasks.adversarial import AdversarialTask
from fastadv.train.tasks.base import AttackTask
from fastadv.train.tasks.fast import fast_task
from fastadv.train.tasks.free import FreeTask
from fastadv.train.tasks.paired import PairedTask
from fastadv.train.tasks.sources import Source
from fastadv.train.tasks.trades import TradesTask
from fastadv.train.trainer import Trainer
from fastadv.train.validation import chance
from fastadv.train.without_effect import without_effect
from fastadv.utils.optional_deps import require

# Loaders clip images to the pixel range: checking every minibatch would find nothing.
_VALIDATE = {"validate": "first"}


def create_trainer(
    config: TrainConfig,
    run_dir: str | os.PathLike[str],
    *,
    resume: bool | Literal["auto"] = False,
    processes: Processes = ALONE,
) -> Trainer:
    """Create a Trainer that starts the run ``config`` in the folder ``run_dir``, or continues it.

    Seeds PyTorch's default generator, from which initial weights and dropout are drawn, and sets the number of CPU
    threads if the configuration has one.

    Args:
        config: the run's configuration.
        run_dir: the run's folder; with several processes, only the main one uses it.
        resume: continue from the last good checkpoint; "auto" starts the run if there is none.
        processes: the processes that train together; each calls this function.

    Raises:
        ValueError: if the configuration cannot be built, or differs from that of the run to be resumed.
        FileExistsError: if the folder holds a run and ``resume`` is False.
        FileNotFoundError: if there is nothing to resume, or no data.
        CheckpointError: if no checkpoint is usable.
        FailedElsewhere: if another process raised one of these.

    Warns:
        UserWarning: if a run continues with another number of processes than it had, or if the network was not designed
            for the pixel space, if attacks start or reach their size after the run's end, or if the sentinel does not
            watch a phase of a run that sets its options.
    """
    run_dir, config = Path(run_dir), with_absolute_paths(config)
    config, start, warning = on_main(processes, lambda: starting_point(config, run_dir, resume, processes))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    on_main(processes, lambda: download(config))
    parts = on_all(processes, lambda: create_parts(config, processes))
    check_same_images(parts, processes)
    if start is None:
        initialise(parts, config, processes)
    config = _with_absolute_root(config)
    wrapped, parallel = _wrap(parts.model, config, parts.device, processes)
    trainer = on_all(processes, lambda: _assemble(config, run_dir, parts, wrapped, parallel, processes))
    seed_draws(config.seed, processes)
    if start is not None:
        trainer.load(start)
    # Last: after an error there is nothing to warn of.
    if config.model.name == "inception_v3" and config.data.space != "symmetric" and processes.main:
        warnings.warn(f"inception_v3 is designed for data.space symmetric, got {config.data.space}", stacklevel=2)
    if warning is not None and processes.main:
        warnings.warn(warning, stacklevel=2)
    if processes.main:
        for text in without_effect(trainer.run):
            warnings.warn(text, stacklevel=2)
    return trainer


def _assemble(
    config: TrainConfig,
    run_dir: Path,
    parts: Parts,
    wrapped: nn.Module,
    parallel: DistributedDataParallel | None,
    processes: Processes,
) -> Trainer:
    with naming("attack.sources"):
        sources = load_sources(config, parts, say=processes.main)
    model, stages = parts.model, _stages(config, parts, wrapped, sources)
    with naming("optimizer"):
        optimizer = create_optimizer(model, config.optimizer)
    timeline = Timeline(
        [stage.config.epochs for stage in stages], [len(stage.train_loader) // config.accumulate for stage in stages]
    )
    rates = [stage.config.optimizer.lr / config.optimizer.lr for stage in stages]
    schedule = create_schedule(optimizer, config.schedule, timeline, rates)
    run = Run(
        config=config,
        run_dir=run_dir,
        model=model,
        task=stages[0].task,
        optimizer=optimizer,
        schedule=schedule,
        train_loader=stages[0].train_loader,
        test_loader=stages[0].test_loader,
        classes=parts.images.train.classes,
        in_channels=parts.shape[0],
        training_set=parts.training_set,
        chance=chance(parts.images.test.labels),
        processes=processes,
        local_backward=nullcontext if parallel is None else parallel.no_sync,
        averages=_averages(model, config),
        stages=stages,
    )
    run.stages = [
        replace(stage, sentinel=create_sentinel(run, stage, partial(_n_fgsm, wrapped, stage.config)))
        for stage in stages
    ]
    run.sentinel = run.stages[0].sentinel
    trainer = Trainer(run)
    if config.data.on_bad_image == "stop":
        _stop_at_bad_images(trainer)
    return trainer


def _stages(config: TrainConfig, parts: Parts, wrapped: nn.Module, sources: Sequence[Source]) -> list[Stage]:
    """The parts of each phase."""
    stages = []
    for number, phase in enumerate(config.in_phases()):
        train_loader, test_loader = parts.loaders[number]
        if phase.attack.training == "free":
            train_loader = Replayed(train_loader, phase.attack.replays, together=phase.accumulate)
        with naming_phase(config, number):
            check_attack_options(phase.attack.training, phase.attack.name, phase.attack.options)
            with naming("attack"):
                task = _task(wrapped, phase, sources)
        if isinstance(task, AttackTask):
            task.minibatches_per_iteration = config.accumulate
        stages.append(Stage(config=phase, task=task, train_loader=train_loader, test_loader=test_loader))
    return stages


def _with_absolute_root(config: TrainConfig) -> TrainConfig:
    """The configuration to store with the run, which may be read from another working directory."""
    root = config.data.root
    if root is None:
        return config
    return replace(config, data=replace(config.data, root=os.path.abspath(os.path.expanduser(root))))


def _stop_at_bad_images(trainer: Trainer) -> None:
    check = data.check_command(str(trainer.config.data.root))

    def stop(bad: data.BadImage) -> None:
        data.warn_of_bad_image(bad)
        trainer.request_stop(
            f"{bad.name} cannot be used (data.on_bad_image stop); {check} finds all such files and has "
            f"training leave them out"
        )

    for stage in trainer.run.stages:
        train_loader = stage.train_loader
        for loader in (train_loader.loader if isinstance(train_loader, Replayed) else train_loader, stage.test_loader):
            if isinstance(loader, data.ImageLoader):
                loader.on_bad_image = stop


def _wrap(
    model: nn.Module, config: TrainConfig, device: torch.device, processes: Processes
) -> tuple[nn.Module, DistributedDataParallel | None]:
    """Wrap the model for the training pass; returns it, and the DistributedDataParallel within it if there is one."""
    wrapped, parallel = model, None
    if not processes.alone:
        # for each exchange of gradients
        one_pass = config.accumulate == 1 and config.attack.training not in ("paired", "trades")
        parallel = wrapped = data_parallel(model, device, static_graph=one_pass and not config.compile)
    # torch.compile goes outside of DistributedDataParallel, where it splits the graph at full gradient buckets.
    return CompiledOrEager(wrapped) if config.compile else wrapped, parallel


def _averages(model: nn.Module, config: TrainConfig) -> Averages | None:
    if config.ema_decay is None:
        return None
    # TensorFlow's (1 + n) / (10 + n), n from 0, starting at the second iteration; the first copies the weights.
    averages: Averages = require("timm.utils", extra="train").ModelEmaV3(
        model, decay=config.ema_decay, use_warmup=True, warmup_gamma=9, warmup_power=1
    )
    return averages


def _task(model: nn.Module, config: TrainConfig, sources: Sequence[Source]) -> Task:
    attack = config.attack
    options: dict[str, Any] = {
        **{"space": config.data.pixel_space, "eps": attack.size},
        **{"label_smoothing": config.label_smoothing, "aux_weight": config.aux_weight},
    }
    if attack.training == "free":
        return FreeTask(model, accumulate=config.accumulate, **_VALIDATE | attack.options, **options)
    options["start_after"] = attack.start_after * config.accumulate  # the task counts minibatches
    options["eps_warmup"] = attack.eps_warmup
    options["seed"] = config.seed
    given = attack_options(config)
    if attack.training == "paired":
        given = {**_VALIDATE, "label_smoothing": attack.label_smoothing, **attack.options}
        statistics = attack.running_statistics
        return PairedTask(
            model, attack=attack.name, lambda_=attack.lambda_, bn=statistics, attack_options=given, **options
        )
    if attack.training == "fast":
        own = {name: given.pop(name) for name in ("alpha", "start") if name in given}
        return fast_task(model, **own, attack_options=given, sources=sources, **options)
    if attack.training == "trades":
        options |= {name: given.pop(name) for name in ("alpha", "steps") if name in given}
        return TradesTask(model, beta=attack.beta, attack_options=given, **options)
    return AdversarialTask(
        model,
        attack=attack.name,
        k=attack.k,
        lambda_=attack.lambda_,
        attack_options=given,
        sources=sources if attack.k else (),  # a phase on clean images makes nothing on them
        **options,
    )


def attack_options(config: TrainConfig) -> dict[str, Any]:
    """Options for the attack of Algorithm 1, fast training or TRADES, in addition to those that the task sets."""
    attack = config.attack
    own = {"bn": attack.bn, "label_smoothing": attack.label_smoothing, "fast": config.fast}
    options = {**_VALIDATE, **own, **attack.options}
    if config.capture and options.pop("fast"):
        # `fast` is fold_bn and capture. Capturing generation separately would hold the memory of a second recording.
        kind = attacks.PGD if attack.training in ("fast", "trades") else attacks.get(attack.name)
        if attack.bn == "eval" and issubclass(kind, attacks.GradientAttack):
            options.setdefault("fold_bn", True)
    return options


def _n_fgsm(model: nn.Module, config: TrainConfig) -> attacks.Attack:
    """The attack that takes the place of another one-step attack after a collapse: its options, except its step."""
    taken = options_of(attacks.NFGSM) - {"alpha", "noise"}
    options = {name: value for name, value in attack_options(config).items() if name in taken}
    return attacks.create("n_fgsm", model, eps=config.attack.size, space=config.data.pixel_space, **options)
