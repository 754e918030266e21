"""Static sources: frozen networks on which some adversarial examples are made (Tramèr et al., 2018)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fastadv.attacks import Attack
from fastadv.pixels import PixelSpace
from fastadv.utils.input_hints import explain_model_errors
from fastadv.utils.model_outputs import split_logits
from fastadv.utils.module_modes import isolated, raw_module
from fastadv.utils.modules_behind import modules_behind
from fastadv.utils.text import counted

Source: TypeAlias = nn.Module | tuple[nn.Module, PixelSpace]

_FOLLOWED = ("stream", "eps", "alpha")  # a loop may change these of the task's attack during training


class StaticSources:
    """Chooses for each minibatch which network its adversarial examples are made on.

    That is the network that is trained or one of the sources, each with the same probability. The choice is a function
    of the attack's seed and the number of the minibatch, so a resumed run repeats it.

    Args:
        sources: see :class:`fastadv.train.AdversarialTask`; put in eval mode and frozen here.
        own: the attack on the network that is trained.
        create: creates the same attack on a source.

    Raises:
        TypeError: if a source is neither a module nor a pair of a module and a PixelSpace.
        ValueError: if a source has parameters of the network that is trained, comes twice, or its space does not fit.
    """

    def __init__(self, sources: Sequence[Source], own: Attack, create: Callable[[nn.Module], Attack]) -> None:
        if isinstance(sources, nn.Module) or not isinstance(sources, Sequence):
            raise TypeError(f"sources must be a list of modules, as in [model], got {type(sources).__name__}")
        self._own = own
        self.modules = [_source(number, one, own.space) for number, one in enumerate(sources)]
        trained = {parameter for module in modules_behind(own.model) for parameter in module.parameters()}
        for number, source in enumerate(self.modules):
            if not trained.isdisjoint(source.parameters()):
                raise ValueError(
                    f"sources[{number}] has parameters of the model that is trained, and sources are frozen: pass a "
                    f"copy.deepcopy of it; the model itself is always one of the networks that examples are made on"
                )
        _check_distinct(sources)
        for source in self.modules:
            source.eval().requires_grad_(False)
        self._attacks = [create(source) for source in self.modules]
        self._checked = not self.modules

    @cached_property
    def fingerprints(self) -> list[str]:
        """A hash of each source's weights and pixel space, for checkpoints."""
        return [_fingerprint(source) for source in self.modules]

    def choose(self, own: Attack, minibatch: int) -> Attack:
        """The attack of a minibatch, by its number in the run: the task's own, or the same one on a source."""
        if not self._attacks:
            return own
        seed, _ = own.stream.take(0)  # without a seed, a new number from PyTorch's default generator
        drawn = np.random.SeedSequence(int(seed) % 2**64, spawn_key=(minibatch,)).generate_state(1)
        number = int(drawn[0]) % (1 + len(self._attacks))
        if number == 0:
            return own
        chosen = self._attacks[number - 1]
        for name in _FOLLOWED:
            if hasattr(own, name):
                setattr(chosen, name, getattr(own, name))
        return chosen

    def check(self, images: Tensor) -> None:
        """Check once that all sources take images [m, C, H, W] and have as many classes as the network that is trained.

        Raises:
            ValueError: if a source is on another device, does not take such images, or has another number of classes.
        """
        if self._checked:
            return
        for number, source in enumerate(self.modules):
            places = {parameter.device for parameter in source.parameters()} - {images.device}
            if places:
                raise ValueError(
                    f"sources[{number}] is on {places.pop()}, and the images are on {images.device}: move it there by "
                    f".to({str(images.device)!r})"
                )
            source.to(images.device)  # nothing but the constants of _Renormalised: each call would copy them
        with explain_model_errors(self._own.model, images):
            classes = _count_classes(self._own.model, images)
        for number, source in enumerate(self.modules):
            try:
                own = _count_classes(source, images)
            except (torch.OutOfMemoryError, torch.AcceleratorError):
                raise
            except (RuntimeError, TypeError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise ValueError(f"sources[{number}] fails on images {list(images.shape)}: {reason}") from error
            if own != classes:
                raise ValueError(
                    f"sources[{number}] has {counted(own, 'class')}, and the model has {classes}: a source must be a "
                    f"network for the same classes, in the same order"
                )
        self._checked = True

    def check_same(self, saved: object) -> None:
        """Check that a state was saved with these sources.

        Args:
            saved: their :attr:`fingerprints` then.

        Raises:
            ValueError: if it was saved with others.
        """
        if not isinstance(saved, (list, tuple)) or len(saved) != len(self.fingerprints):
            number = len(saved) if isinstance(saved, (list, tuple)) else "others"
            raise ValueError(f"the state was saved with another number of sources: {number}, not {len(self.modules)}")
        differing = [i for i, (one, other) in enumerate(zip(saved, self.fingerprints, strict=True)) if one != other]
        if differing:
            raise ValueError(
                f"the state was saved with another network, or with another pixel space, as sources[{differing[0]}]: "
                f"pass the same sources in the same order"
            )

    def __repr__(self) -> str:
        return f"[{', '.join(type(source).__name__ for source in self.modules)}]"


class _Renormalised(nn.Module):
    """A network for images of another pixel space: converts them to its own.

    Args:
        model: takes images of ``wanted``.
        given: the space of the images.
        wanted: the space of the network.
    """

    def __init__(self, model: nn.Module, given: PixelSpace, wanted: PixelSpace) -> None:
        super().__init__()
        self.model = model
        mean, std, own_mean, own_std = (
            torch.tensor(constants, dtype=torch.float64)[:, None, None]
            for constants in (given.mean, given.std, wanted.mean, wanted.std)
        )  # [C or 1, 1, 1]
        self.register_buffer("scale", std / own_std)
        self.register_buffer("shift", (mean - own_mean) / own_std)

    def forward(self, images: Tensor) -> object:  # [N, C, H, W]
        return self.model(images * self.get_buffer("scale").to(images) + self.get_buffer("shift").to(images))


def _source(number: int, given: object, space: PixelSpace) -> nn.Module:
    """The network of an entry of ``sources``, for images of the task's space."""
    model, own = given if isinstance(given, (list, tuple)) and len(given) == 2 else (given, space)
    if not isinstance(model, nn.Module) or not isinstance(own, PixelSpace):
        raise TypeError(f"sources[{number}] must be a module, or a pair (module, PixelSpace), got {_described(given)}")
    if own == space:
        return model
    if own.channels > 1 < space.channels != own.channels:
        raise ValueError(
            f"sources[{number}] has a space of {counted(own.channels, 'channel')}, and that of the task has "
            f"{space.channels}"
        )
    return _Renormalised(model, space, own)


def _check_distinct(given: Sequence[Source]) -> None:
    """Check that no module comes twice: it would be chosen twice as often as the others."""
    modules = [one if isinstance(one, nn.Module) else one[0] for one in given]
    for number, module in enumerate(modules):
        if module in modules[:number]:
            raise ValueError(
                f"sources[{number}] is sources[{modules.index(module)}] again: each network is chosen with the same "
                f"probability, so name it once"
            )


def _described(value: object) -> str:
    return "(" + ", ".join(type(one).__name__ for one in value) + ")" if isinstance(value, tuple) else repr(value)[:80]


@torch.no_grad()
def _count_classes(model: Callable[..., object], images: Tensor) -> int:
    """Number of a network's logits, from a pass over one of the images [m, C, H, W] that leaves no trace."""
    gpus = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(gpus), isolated(model, bn="eval"):
        logits, _ = split_logits(raw_module(model)(images[:1].clone()))  # [1, K]
    return logits.shape[-1]


def _fingerprint(source: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in source.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        # In one memory layout: channels_last must not change the hash.
        values = tensor.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()
