"""The networks that a study trains, by their configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import flat

# Fields that say where and how a network is trained, and not which network comes out.
_NOT_IDENTITY = {
    *("device", "threads", "checkpoint_every", "keep", "log_every", "fast", "compile", "capture"),
    *("data.root", "data.download", "data.loader", "data.workers", "data.prefetch", "data.on_bad_image"),
}
# Fields that are newer than the first records, with the values that all networks had before: at these a network keeps
# its id, and what was measured of it stays valid. A field that is added to the configuration belongs here.
_BEFORE = {
    **{"data.keep_aspect": False, "data.interpolation": "bilinear"},
    **{"cudnn_benchmark": False, "tf32": False, "attack.running_statistics": "shared"},
}


@dataclass(frozen=True)
class Network:
    """A network to be trained.

    Args:
        name: what a reader may call it; the same network may have another name in another study.
        config: how it is trained.
    """

    name: str
    config: TrainConfig = field(repr=False)

    @property
    def id(self) -> str:
        """Equal for networks that are trained alike, whatever their names: its folder's name and its records'."""
        identity = flat(asdict(self.config))
        if self.config.attack.k == 0:  # standard training: of no attack
            identity = {name: value for name, value in identity.items() if not name.startswith("attack.")}
        left_out = _NOT_IDENTITY | {name for name, value in _BEFORE.items() if identity.get(name) == value}
        kept = {name: value for name, value in identity.items() if name not in left_out}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def vary(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration with other values: ``{"attack.k": 0, "model.options.width": 2}``.

    Raises:
        TypeError: a field that there is not.
    """
    for path, value in changes.items():
        config = _with(config, path.split("."), value)
    return config


def _with(node: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{name: _with(getattr(node, name), rest, value) if rest else value})
    return {**node, ".".join(path): value}
