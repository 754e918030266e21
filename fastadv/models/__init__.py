"""Creates models by name: this package's own, timm's and torchvision's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from fastadv.models.activations import ReluDecay, create_activation
from fastadv.models.libraries import names_in_libraries, timm_model, torchvision_model
from fastadv.models.small_cnn import SmallCNN
from fastadv.utils.optional_deps import require
from fastadv.utils.suggestions import did_you_mean, nearest
from fastadv.utils.validation import check_integer

__all__ = ["ReluDecay", "SmallCNN", "create", "create_activation", "library_of", "names"]

_OWN = ("small_cnn", "inception_v3")
_ELSEWHERE = {"inception_v4": "timm/inception_v4"}
_LIBRARIES: dict[str, Callable[..., nn.Module]] = {"timm": timm_model, "torchvision": torchvision_model}
# Options of the libraries that make a model download or read weights.
_FETCHING = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "weights", "weights_backbone"}


def __dir__() -> list[str]:
    return sorted(__all__)


def names() -> list[str]:
    """List the names that :func:`create` accepts; ``<name>`` stands for a library's own names."""
    return [*_OWN, *_ELSEWHERE, *(f"{library}/<name>" for library in _LIBRARIES)]


def library_of(name: str) -> tuple[str, str]:
    """Return (library, name there) for a network of "timm" or "torchvision", and ("", name) for any other."""
    library, slash, model = _ELSEWHERE.get(name, name).partition("/")
    return (library, model) if slash and library in _LIBRARIES else ("", name)


def create(name: str, *, num_classes: int, in_channels: int = 3, **options: Any) -> nn.Module:
    """Create an initialised model in training mode that maps images [N, in_channels, H, W] to logits [N, num_classes].

    ``create("inception_v3", num_classes=1000, width=1.0, activation="relu", deeper=False, aux=True, dropout=0.5)``.
    No weights are ever downloaded; load your own with the model's ``load_state_dict``.

    Args:
        name: one of :func:`names`, e.g. ``"small_cnn"`` or ``"timm/resnet50"``.
        num_classes: number of classes, two or more.
        in_channels: channels of the images.
        **options: options of the model's class. ``inception_v4`` and ``timm/<name>`` take timm's options (its dropout
            is ``drop_rate``), ``torchvision/<name>`` torchvision's.

    Raises:
        ValueError: if the name is unknown, the model has no such option, or a value is out of range.
        TypeError: if the name is not a string.
        ModuleNotFoundError: if the model needs a library that is not installed.
    """
    for field, value, least in (("num_classes", num_classes, 2), ("in_channels", in_channels, 1)):
        check_integer(field, value, least=least)
    if fetching := sorted(_FETCHING & options.keys()):
        raise ValueError(
            f"{', '.join(fetching)}: no weights are downloaded, and models start with random ones; load your own "
            "checkpoint with model.load_state_dict, or give it to fastadv train by --init FILE"
        )
    if not isinstance(name, str):
        raise TypeError(f"name must be a model's name, such as 'small_cnn', got {type(name).__name__}")
    if name in _OWN:
        return _create_own(name, num_classes=num_classes, in_channels=in_channels, **options)
    library, _, model = _ELSEWHERE.get(name, name).partition("/")
    if library not in _LIBRARIES:
        hint = did_you_mean(names_in_libraries(name) or nearest(name, [*_OWN, *_ELSEWHERE]))
        raise ValueError(f"unknown model {name!r}{hint}; accepted: {', '.join(names())}")
    return _LIBRARIES[library](model, num_classes=num_classes, in_channels=in_channels, **options)


def _create_own(name: str, **options: Any) -> nn.Module:
    model = _class_of(name)
    parameters = inspect.signature(model).parameters
    if unknown := [option for option in options if option not in parameters]:
        accepted = [option for option in parameters if option not in ("num_classes", "in_channels")]
        raise ValueError(f"{name} has no option {', '.join(unknown)}; accepted: {', '.join(accepted)}")
    return model(**options)


def _class_of(name: str) -> Callable[..., nn.Module]:
    if name == "small_cnn":
        return SmallCNN
    require("torchvision", extra="train")  # only Inception needs torchvision, for its blocks
    from fastadv.models.inception_v3 import InceptionV3

    return InceptionV3
