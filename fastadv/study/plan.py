"""What a study consists of: evaluations of networks, and how their results are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastadv.evaluate.tables import Table
from fastadv.study.evaluations import Evaluations
from fastadv.study.networks import Network
from fastadv.study.results import Results
from fastadv.study.scales import Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
