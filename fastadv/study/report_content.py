"""The content of a study's report, before it is rendered as HTML or Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from fastadv.evaluate.tables import Table
from fastadv.study import manifest
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Finding
from fastadv.utils.optional_deps import require


@dataclass(frozen=True, eq=False)
class Section:
    """One study in the report.

    Args:
        study: the study.
        output: its tables and figures; None if measurements are missing.
        missing: the first missing measurement.
        findings: the verdicts on its claims.
    """

    study: Study
    output: StudyOutput | None
    missing: str
    findings: Sequence[Finding]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything in a report.

    Args:
        about: the folder's manifest.
        scale: the scale of the study.
        sections: one per study.
        networks: how each network's configuration differs from the base network's.
        times: how long the studies took; None if no times were recorded.
        notes: likely reasons for verdicts, keyed by claim.
    """

    about: manifest.Manifest
    scale: Scale
    sections: Sequence[Section]
    networks: Table
    times: Table | None
    notes: Mapping[str, str]

    @property
    def title(self) -> str:
        """The title of the report."""
        about, shortening = self.about, f", {self.scale.shortening}" if self.scale.shortening else ""
        scale = f"{about.scale} scale ({about.dataset}){shortening}"
        return f"Adversarial Machine Learning at Scale: the paper's study, {scale}"

    @property
    def notice(self) -> str:
        """A warning that goes first if studies are incomplete; "" if all are complete."""
        unfinished = [section.study.name for section in self.sections if section.output is None]
        if not unfinished:
            return ""
        return (
            f"Not complete: {', '.join(unfinished)}. Claims are judged if all of their figures are measured, and are "
            "listed as not measured otherwise."
        )

    @property
    def configuration(self) -> str:
        """The base network's configuration as YAML."""
        text: str = require("yaml", extra="train").safe_dump(asdict(self.scale.base), sort_keys=False)
        return text.rstrip()

    @property
    def findings(self) -> list[Finding]:
        """The verdicts on the claims of all sections."""
        return [finding for section in self.sections for finding in section.findings]
