"""The networks that a study trains, identified by their configurations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import flat

# Fields that change where and how a network is trained, but not the result.
_EXCLUDED_FROM_ID = {
    *("device", "threads", "checkpoint_every", "keep", "log_every", "fast", "compile", "capture"),
    *("data.root", "data.download", "data.loader", "data.workers", "data.prefetch", "data.on_bad_image"),
}
# Fields that were added after the first records, with the values that all networks had before. With these values a
# network keeps its id, so that old records stay valid. Add new fields of the configuration here.
_EARLIER_DEFAULTS = {
    **{"data.keep_aspect": False, "data.interpolation": "bilinear"},
    **{"cudnn_benchmark": False, "tf32": False, "attack.running_statistics": "shared", "attack.beta": 6.0},
    **{"model.init": None, "model.init_head": True, "attack.sources": []},
    **{"sentinel.every": None, "sentinel.then": "warn", "sentinel.fall": 0.2},
    **{"phases": [], "attack.eps_warmup": 0},
}


@dataclass(frozen=True)
class Network:
    """A network to be trained.

    Args:
        name: for tables and figures; other studies may use another name for the same network.
        config: how it is trained.
    """

    name: str
    config: TrainConfig = field(repr=False)

    @property
    def id(self) -> str:
        """Equal for networks with the same training, whatever their names; names the folder and the records."""
        identity = flat(asdict(self.config))
        if self.config.attack.k == 0:  # standard training uses no attack
            identity = {name: value for name, value in identity.items() if not name.startswith("attack.")}
        if identity.get("attack.label_smoothing") == identity["label_smoothing"]:  # there was one option for both
            del identity["attack.label_smoothing"]
        left_out = _EXCLUDED_FROM_ID | {
            name for name, value in _EARLIER_DEFAULTS.items() if identity.get(name) == value
        }
        kept = {name: value for name, value in identity.items() if name not in left_out}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def vary(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Change values of a configuration: ``{"attack.k": 0, "model.options.width": 2}``.

    Raises:
        TypeError: if there is no such field.
    """
    for path, value in changes.items():
        config = _with(config, path.split("."), value)
    return config


def _with(node: Any, path: Sequence[str], value: Any) -> Any:
    name, *rest = path
    if is_dataclass(node) and not isinstance(node, type):
        return replace(node, **{name: _with(getattr(node, name), rest, value) if rest else value})
    return {**node, ".".join(path): value}
