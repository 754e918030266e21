"""What makes up a study: evaluations of networks, and how their results are shown."""

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
    """A figure with its caption."""

    figure: Figure
    caption: str


@dataclass(frozen=True, eq=False)
class StudyOutput:
    """A study's tables and figures, keyed by file name without suffix."""

    tables: Mapping[str, Table]
    plots: Mapping[str, Plot]


@dataclass(frozen=True)
class Study:
    """One of the paper's experiments.

    Args:
        name: the name on the command line.
        title: the heading in reports.
        source: the table, figure or section of the paper.
        evaluations: what is measured at a scale; this determines the networks.
        show: makes tables and figures from records.
    """

    name: str
    title: str
    source: str
    evaluations: Callable[[Scale], Evaluations]
    show: Callable[[Scale, Results], StudyOutput]

    def networks(self, scale: Scale) -> list[Network]:
        """All networks that the study needs, without duplicates."""
        found = {network.id: network for part in self.evaluations(scale) for network in reversed(part.networks)}
        order = [network.id for part in self.evaluations(scale) for network in part.networks]
        return [found[one] for one in dict.fromkeys(order)]
