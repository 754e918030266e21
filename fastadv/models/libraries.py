"""Creates classification networks of timm and torchvision by name. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from torch import nn

from fastadv.utils.optional_deps import require
from fastadv.utils.suggestions import did_you_mean, nearest

# Without it these two warn that its default is about to change.
_TORCHVISION_OPTIONS = {name: {"init_weights": True} for name in ("googlenet", "inception_v3")}


def timm_model(name: str, *, num_classes: int, in_channels: int, **options: Any) -> nn.Module:
    """Create a network of timm with timm's options, such as ``drop_rate``.

    Raises:
        ValueError: if the name is unknown or timm rejects the options.
        ModuleNotFoundError: if timm is not installed.
    """
    timm = require("timm", extra="train")
    if not timm.is_model(name):  # false also for what timm would download, such as hf-hub:<name>
        raise _unknown("timm", name, _timm_names())
    make = partial(timm.create_model, name, num_classes=num_classes, in_chans=in_channels)
    return _create(f"timm/{name}", make, options)


def torchvision_model(name: str, *, num_classes: int, in_channels: int, **options: Any) -> nn.Module:
    """Create a classification network of torchvision with its options, such as ``dropout`` for those that have it.

    Raises:
        ValueError: if the name is unknown, images do not have three channels, or torchvision rejects the options.
        ModuleNotFoundError: if torchvision is not installed.
    """
    models = require("torchvision.models", extra="train")
    known = _torchvision_names()
    if name not in known:
        raise _unknown("torchvision", name, known)
    if in_channels != 3:
        raise ValueError(
            f"torchvision/{name} takes images of 3 channels, got in_channels={in_channels}; timm/<name> takes any"
        )
    make = partial(models.get_model, name, num_classes=num_classes)
    return _create(f"torchvision/{name}", make, {**_TORCHVISION_OPTIONS.get(name, {}), **options})


def names_in_libraries(name: str) -> list[str]:
    """Return the full names, such as timm/resnet50, of networks called ``name`` in the installed libraries."""
    known = {"torchvision": _torchvision_names, "timm": _timm_names}
    full = []
    for library, names in known.items():
        with suppress(ModuleNotFoundError):
            full += [f"{library}/{name}"] if name in names() else []
    return full


def _timm_names() -> list[str]:
    names: list[str] = require("timm", extra="train").list_models()
    return names


def _torchvision_names() -> list[str]:
    models = require("torchvision.models", extra="train")
    names: list[str] = models.list_models(module=models)
    return names


def _create(name: str, make: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    """Call ``make``; turn the many errors that libraries raise for wrong options into ValueError."""
    try:
        return make(**options)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items()) or "its defaults"
        raise ValueError(f"{name} cannot be made with {given}: {str(error) or type(error).__name__}") from error


def _unknown(library: str, name: str, known: Sequence[str]) -> ValueError:
    hint = did_you_mean(nearest(name, known, n=3)) or f": {library} has no classification network of that name"
    return ValueError(f"unknown model '{library}/{name}'{hint}")
