"""What a study consists of: networks to train, evaluations of them, and how the results are shown."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from fastadv.evaluate.tables import Table
from fastadv.train.config import TrainConfig
from fastadv.train.config_parsing import flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastadv.study.results import Results
    from fastadv.study.scales import Scale

# Fields that say where and how a network is trained, and not which network comes out.
_NOT_IDENTITY = {
    *("device", "threads", "checkpoint_every", "keep", "log_every", "fast", "compile"),
    *("data.root", "data.download", "data.loader", "data.workers", "data.prefetch", "data.on_bad_image"),
}
# Fields that are newer than the first records, with the values that all networks had before: at these a network keeps
# its id, and what was measured of it stays valid. A field that is added to the configuration belongs here.
_BEFORE = {"data.keep_aspect": False, "data.interpolation": "bilinear"}


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


@dataclass(frozen=True)
class Robustness:
    """Accuracy on clean images and under attacks.

    Args:
        networks: each attacked with itself.
        attacks: names of ``fastadv.attacks.names()``.
        eps: sizes of the perturbation in pixel values.
        limit: how many test images; None for all.
    """

    networks: tuple[Network, ...]
    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    limit: int | None


@dataclass(frozen=True)
class Transfer:
    """Transfer of adversarial images from each network to each.

    Args:
        networks: by the names of their rows.
        attacks: as in :class:`Robustness`, like eps.
        limit: how many test images, drawn at random.
    """

    networks: tuple[Network, ...]
    attacks: tuple[str, ...]
    eps: tuple[float, ...]
    limit: int


@dataclass(frozen=True)
class Leaking:
    """Counts of leaked labels.

    Args:
        networks: as in :class:`Robustness`, like eps and limit.
        pairs: an attack that uses the true label and one that does not.
    """

    networks: tuple[Network, ...]
    pairs: tuple[tuple[str, str], ...]
    eps: tuple[float, ...]
    limit: int | None


Evaluations = Sequence[Robustness | Transfer | Leaking]


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure and, in a sentence, what it shows."""

    figure: Figure
    caption: str


@dataclass(frozen=True, eq=False)
class Shown:
    """A study's tables and figures, by the names of their files."""

    tables: Mapping[str, Table]
    plots: Mapping[str, Plot]


@dataclass(frozen=True)
class Study:
    """One of the paper's experiments.

    Args:
        name: on the command line.
        title: what it is about, for a heading.
        source: where it is in the paper.
        evaluations: what is measured at a scale; the networks follow from it.
        show: tables and figures from the records.
    """

    name: str
    title: str
    source: str
    evaluations: Callable[[Scale], Evaluations]
    show: Callable[[Scale, Results], Shown]

    def networks(self, scale: Scale) -> list[Network]:
        """Every network that the study needs, once."""
        found = {network.id: network for part in self.evaluations(scale) for network in reversed(part.networks)}
        order = [network.id for part in self.evaluations(scale) for network in part.networks]
        return [found[one] for one in dict.fromkeys(order)]


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
