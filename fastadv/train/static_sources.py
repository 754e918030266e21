"""Load the static sources that a configuration names: see ``AttackConfig.sources``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fastadv import data, models
from fastadv.models.check_input import check_accepts
from fastadv.models.complete import load_complete
from fastadv.models.known_input import known_input
from fastadv.models.specs import ModelSpec, check_names_a_network, parse_spec
from fastadv.models.weight_files import read_weights
from fastadv.models.weights import load_state
from fastadv.pixels import PixelSpace
from fastadv.train.check_classes import check_classes
from fastadv.train.checkpoint import load_model
from fastadv.train.config import TrainConfig
from fastadv.train.parts import Parts, in_layout, naming_run
from fastadv.utils.log import logger
from fastadv.utils.model_outputs import logits_of
from fastadv.utils.text import counted


def load_sources(config: TrainConfig, parts: Parts, *, say: bool) -> list[tuple[nn.Module, PixelSpace]]:
    """Load each source onto the run's device, with the pixel space of its input.

    Args:
        config: the run's configuration.
        parts: what this process has made from it.
        say: log what is assumed of sources whose pixel space is not known.

    Raises:
        ValueError: if a source was trained on other classes, or does not take the images of every phase, or its weights
            do not fit.
        OSError: if a file cannot be read.
        CheckpointError: if a checkpoint is not usable.
    """
    sources = []
    for spec in map(parse_spec, config.attack.sources):
        model, space = _from_run(spec, config, parts) if spec.kind == "run" else _from_files(spec, config, parts, say)
        for shape in dict.fromkeys(data.shape_of(parts.images.train, phase.data) for phase in config.in_phases()):
            try:
                _check_output(check_accepts(model.eval(), shape), parts)
            except ValueError as error:
                raise ValueError(f"{spec.text}: {error}") from error
        sources.append((in_layout(model.to(parts.device), config), space))
    return sources


def _from_run(spec: ModelSpec, config: TrainConfig, parts: Parts) -> tuple[nn.Module, PixelSpace]:
    check_names_a_network(spec)
    with naming_run("attack.sources"):
        run = load_model(spec.path)
    where = f"{config.data.name} in {config.data.root}" if config.data.root else config.data.name
    check_classes(spec.text, run, parts.images.train, where)
    return run.model, run.config.data.pixel_space


def _check_output(output: Any, parts: Parts) -> None:
    """Check that a source has the run's classes, by its output for some images."""
    logits, classes = logits_of(output), len(parts.images.train.classes)
    if isinstance(logits, Tensor) and logits.shape[-1] != classes:
        raise ValueError(f"it has {counted(logits.shape[-1], 'class')}, and the data set has {classes}")


def _from_files(spec: ModelSpec, config: TrainConfig, parts: Parts, say: bool) -> tuple[nn.Module, PixelSpace]:
    channels, classes = parts.shape[0], len(parts.images.train.classes)
    if spec.kind == "weights":
        file = read_weights(spec.path)
        known = known_input(spec.network or "", spec.path, file)
        model = models.create(spec.architecture, num_classes=classes, in_channels=channels)
        load_state(model, file.weights, spec.path)
    else:
        model, known = load_complete(spec)
    if known.space is not None and known.space.channels in (1, channels):
        return model, known.space
    if say:
        logger.info("attack.sources: %s is taken to need data.space %s", spec.text, config.data.space)
    return model, config.data.pixel_space
