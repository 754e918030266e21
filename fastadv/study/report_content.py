"""What the page of a study shows, before it is written as HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fastadv.evaluate.tables import Table
from fastadv.study import manifest
from fastadv.study.plan import Shown, Study
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Finding
from fastadv.utils.optional_deps import require


@dataclass(frozen=True, eq=False)
class Section:
    """A study on the page.

    Args:
        study: it.
        shown: its tables and figures; None if it is not complete.
        missing: what is not measured.
        findings: on its claims.
    """

    study: Study
    shown: Shown | None
    missing: str
    findings: Sequence[Finding]


@dataclass(frozen=True, eq=False)
class Report:
    """All that a page shows.

    Args:
        about: the folder's manifest.
        scale: its scale.
        sections: one for each study.
        networks: the configurations, by what differs from the base network.
        times: what the studies took; None if that was not noted.
        remarks: likely reasons for verdicts, by the names of their claims; each says that it is one.
    """

    about: manifest.Manifest
    scale: Scale
    sections: Sequence[Section]
    networks: Table
    times: Table | None
    remarks: Mapping[str, str]

    @property
    def title(self) -> str:
        """Of the page."""
        about, cut = self.about, f", {self.scale.cut}" if self.scale.cut else ""
        return f"Adversarial Machine Learning at Scale: the paper's study, {about.scale} scale ({about.dataset}){cut}"

    @property
    def notice(self) -> str:
        """What a reader of verdicts must know first; "" if all is complete."""
        unfinished = [section.study.name for section in self.sections if section.shown is None]
        if not unfinished:
            return ""
        return (
            f"Not complete: {', '.join(unfinished)}. Of what is measured so far those claims are judged whose figures "
            "all are; the others are called not measured."
        )

    @property
    def configuration(self) -> str:
        """The base network's, as YAML."""
        text: str = require("yaml", extra="train").safe_dump(asdict(self.scale.base), sort_keys=False)
        return text.rstrip()

    @property
    def findings(self) -> list[Finding]:
        """On the claims of all sections."""
        return [finding for section in self.sections for finding in section.findings]
