"""Networks that one's own code makes: ``path/to/file.py:factory`` or ``module:factory``."""

from __future__ import annotations

from torch import nn

from fastadv.models.known_input import KnownInput, input_of_timm_config
from fastadv.utils.user_code import load_named


def create_by_code(place: str, name: str) -> nn.Module:
    """Return the network that a function of one's own makes, or that a file holds.

    Args:
        place: a file that ends in .py, or a module.
        name: of a function or class that is called without arguments, or of a network.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such object, the code raises, or it makes no module.
    """
    found = load_named(place, name)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ValueError(f"{place}:{name} must be a function that returns a network, got {type(found).__name__}")
        try:
            found = found()
        except Exception as error:
            raise ValueError(f"{place}:{name}() raised {type(error).__name__}: {error}") from error
    if not isinstance(found, nn.Module):
        raise ValueError(f"{place}:{name}() must return a torch.nn.Module, got {type(found).__name__}")
    return found


def input_by_code(model: nn.Module, text: str) -> KnownInput:
    """Return what is known of the input of such a network: the configuration that networks made by timm carry."""
    config = getattr(model, "pretrained_cfg", None)
    return input_of_timm_config(config, f"pretrained_cfg of {text}") if isinstance(config, dict) else KnownInput()
