"""Start from weights instead of at random: see ``ModelConfig.init``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from fastadv import data
from fastadv.distributed import Processes, on_main
from fastadv.models.known_input import known_input
from fastadv.models.shapes import head_of
from fastadv.models.weight_files import read_weights
from fastadv.models.weights import WeightsDoNotFitError, load_state
from fastadv.pixels import PixelSpace
from fastadv.train.checkpoint import load_model
from fastadv.train.config import TrainConfig
from fastadv.train.parts import Parts, naming, naming_run
from fastadv.utils.log import logger
from fastadv.utils.stacklevel import user_stacklevel
from fastadv.utils.text import few


def initialise(parts: Parts, config: TrainConfig, processes: Processes) -> None:
    """Load ``config.model.init`` into the network, if it is given; the main process reads it for all.

    Raises:
        ValueError: if the weights do not fit the network.
        OSError: if they cannot be read.
        CheckpointError: if a checkpoint is not usable.
        FailedElsewhere: if the main process raised one of these.

    Warns:
        UserWarning: if it is known that the weights are for another pixel space, or for other classes in their order.
    """
    if config.model.init is None:
        return
    path = Path(config.model.init)

    def read() -> dict[str, Tensor]:
        # A run's network is created, which draws: dropout must not depend on where the weights are from.
        with naming("model.init"), torch.random.fork_rng([]):
            _load(path, parts, config)
        return {} if processes.alone else {name: value.cpu() for name, value in parts.model.state_dict().items()}

    weights = on_main(processes, read)
    if not processes.main:
        parts.model.load_state_dict(weights)


def _load(path: Path, parts: Parts, config: TrainConfig) -> None:
    network, classes = config.model, parts.images.train.classes
    weights, space, own_classes = _read(path, network.name)
    find_head = partial(
        head_of, network.name, num_classes=len(classes), in_channels=parts.shape[0], options=network.options
    )
    try:
        if network.init_head:
            load_state(parts.model, weights, path)
        else:
            head = find_head()
            load_state(parts.model, weights, path, left_out=head)
            logger.info("model.init: %s start at random (model.init_head false)", few(sorted(head)))
    except WeightsDoNotFitError as error:
        hint = "; model.init_head false leaves out the classifier, all that differs"
        fits = network.init_head and _fits_without(find_head(), parts.model, weights, path)
        raise ValueError(f"{error}{hint if fits else ''}") from error
    if space is not None and space != config.data.pixel_space:
        _warn(
            f"{path} was trained in {space}, and data.space is {config.data.space}: the network is less accurate in it"
        )
    if own_classes is not None and network.init_head and (differ := data.other_classes(own_classes, classes)):
        _warn(f"{path} was trained on other classes: {differ}; model.init_head false leaves out its classifier")


def _fits_without(head: frozenset[str], model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> bool:
    try:
        load_state(deepcopy(model), weights, path, left_out=head)
    except WeightsDoNotFitError:
        return False
    return True


def _read(path: Path, network: str) -> tuple[Mapping[str, Tensor], PixelSpace | None, tuple[str, ...] | None]:
    """The weights of a run, a checkpoint or a file, and their pixel space and classes if these are known."""
    if path.is_dir():
        with naming_run("model.init"):
            run = load_model(path)
        return run.model.state_dict(), run.config.data.pixel_space, run.classes
    if not path.exists():
        after = str(path).partition("@")[2]
        meant = f": give {after} alone, and the network by model.name" if after and Path(after).exists() else ""
        raise FileNotFoundError(f"model.init: there is no run, checkpoint or file of weights {path}{meant}")
    file = read_weights(path)
    if file.passed_over:
        logger.info("model.init: of the weights in %s, %s are used, not %s", path, file.taken, few(file.passed_over))
    return file.weights, known_input(network, path, file).space, None


def _warn(text: str) -> None:
    warnings.warn(f"model.init: {text}", stacklevel=user_stacklevel())
