"""Loads the networks that come with their architecture, their weights and what is known of their input."""

from __future__ import annotations

from torch import nn

from fastadv.models.hf_folder import hf_input, load_hf
from fastadv.models.known_input import KnownInput
from fastadv.models.own_code import create_by_code, input_by_code
from fastadv.models.specs import ModelSpec


def load_complete(spec: ModelSpec) -> tuple[nn.Module, KnownInput]:
    """Load a network of the kinds ``hf`` and ``code``, in evaluation mode, with what is known of its input.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if there is no such network, or it cannot be made.
        ModuleNotFoundError: if it needs a library that is not installed.
    """
    if spec.kind == "hf":
        return load_hf(spec.path), hf_input(spec.path)
    model = create_by_code(str(spec.path), spec.factory)
    return model.eval(), input_by_code(model, spec.text)
