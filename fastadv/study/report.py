"""Writes a study's tables, figures, claims and report from its records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastadv.evaluate.figures import save_figure
from fastadv.evaluate.tables import Table, save_table
from fastadv.evaluate.tables import to_markdown as table_to_markdown
from fastadv.study import manifest
from fastadv.study.claims import CLAIMS, findings
from fastadv.study.experiments import STUDIES
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.report_content import Report, Section
from fastadv.study.report_html import to_html
from fastadv.study.results import NotMeasured
from fastadv.study.runner import StudyFolder, WorkTime
from fastadv.study.scales import Scale
from fastadv.study.verdicts import MARKS, REASONS, RULE, Check, Finding, summary
from fastadv.train.config_parsing import flat
from fastadv.train.yaml_text import read_yaml
from fastadv.utils.regular_files import read_regular
from fastadv.utils.text import duration, printable

_FIGURES_SHOWN = 8  # of a claim, in a cell of the table; the others are folded away


def _write_files(output: StudyOutput, folder: Path) -> None:
    """Write tables and figures as files."""
    for name, table in output.tables.items():
        save_table(table, folder / "tables" / name)
    for name, plot in output.plots.items():
        save_figure(plot.figure, folder / "figures" / name)


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write the report's pages, claims, tables and figures into a folder; returns the paths of the pages.

    Raises:
        OSError: if a file could not be written.
    """
    head = "".join(f"{line}\n\n" for line in (report.title if report.scale.shortening else "", report.notice) if line)
    texts = {
        "claims.md": head + claims_markdown(report.findings, report.notes),
        "claims.json": claims_json(report.findings),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    for section in report.sections:
        if section.output is not None:
            _write_files(section.output, folder)
    return [folder / name for name in texts]


def collect_report(folder: Path) -> Report:
    """Collect the content of the report from a study's folder.

    Raises:
        FileNotFoundError: if the folder holds no study.
        ValueError: if records or notes cannot be read.
    """
    about = manifest.read(folder)
    if about is None:
        raise FileNotFoundError(
            f"{folder} has nothing to report: no robustness.jsonl, transfer.jsonl or {manifest.NAME}; a card that "
            "--until stopped is its own report, card.html"
        )
    scale, results, notes = about.create_scale(), StudyFolder(folder).results(), _read_notes(folder)
    sections = []
    for name in about.studies:
        study = STUDIES[name]
        found = findings(scale, results, [name])
        try:
            sections.append(Section(study, study.show(scale, results), "", found))
        except NotMeasured as missing:
            sections.append(Section(study, None, str(missing), found))
    studies = [STUDIES[name] for name in about.studies]
    return Report(
        about,
        scale,
        sections,
        network_table(studies, scale),
        time_table(StudyFolder(folder).times().records),
        notes,
    )


def _read_notes(folder: Path) -> dict[str, str]:
    """Likely reasons for verdicts, keyed by claim, from notes.yaml."""
    path = folder / "notes.yaml"
    if not path.exists():
        return {}
    try:
        content = read_yaml(read_regular(path).decode()) or {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    known = {claim.name for claim in CLAIMS}
    if not isinstance(content, dict) or not set(content) <= known:
        unknown = sorted(map(str, set(content) - known)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} must map names of claims to text, got {unknown}; known claims are {', '.join(sorted(known))}"
        )
    return {str(name): f"Likely reason: {' '.join(str(text).split())}" for name, text in content.items()}


def network_table(studies: Sequence[Study], scale: Scale) -> Table:
    """All networks: ids, names, and how the configuration differs from the base network's."""
    base = flat(asdict(scale.base))
    networks: dict[str, list[Network]] = {}
    for study in studies:
        for network in study.networks(scale):
            networks.setdefault(network.id, []).append(network)
    rows = []
    for network_id, same in networks.items():
        values = flat(asdict(same[0].config))
        differing = [f"{name} = {value}" for name, value in values.items() if base.get(name) != value]
        differing += [f"no {name}" for name in base if name not in values]
        names = "; ".join(dict.fromkeys(network.name for network in same))
        rows.append((network_id, names, ", ".join(differing) or "the base network"))
    return Table("Networks", ("Id", "Names", "Differs from the base network in"), tuple(rows), labels=3)


def time_table(times: Sequence[WorkTime]) -> Table | None:
    """The time that each study took, and their sum; None if no times were recorded."""
    taken: dict[str, list[float]] = {}
    for one in times:
        taken.setdefault(one.study, []).append(one.seconds)
    rows = [(name, str(len(taken[name])), duration(sum(taken[name]))) for name in STUDIES if name in taken]
    if not rows:
        return None
    everything = [seconds for one in taken.values() for seconds in one]
    rows.append(("all", str(len(everything)), duration(sum(everything))))
    notes = (
        "Trainings and evaluations, each counted for the study that needed it first. Interrupted ones are not counted.",
    )
    return Table("Time taken", ("Study", "Trainings and evaluations", "Time"), tuple(rows), notes=notes)


# --- claims as text --------------------------------------------------------------------------------------------------


def claims_markdown(found: Sequence[Finding], notes: Mapping[str, str]) -> str:
    """All claims with their verdicts and figures, as Markdown."""
    lines = [
        summary(found),
        "",
        RULE,
        "",
        *([REASONS, ""] if notes else []),
        "| | claim | paper | verdict | figures |",
        "| --- | --- | --- | --- | --- |",
    ]
    for finding in found:
        claim = finding.claim
        figures = _folded([f"{check} {MARKS[verdict]}".replace("|", "\\|") for check, verdict in finding.listed])
        said = [
            f"`{claim.name}` {claim.statement}",
            *([notes[claim.name].replace("|", "\\|")] if claim.name in notes else []),
        ]
        cells = (MARKS[finding.verdict], "<br>".join(said), claim.source, finding.verdict, figures)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _folded(figures: Sequence[str]) -> str:
    """Figures for a cell of a table: beyond some number, the others are folded away."""
    shown, others = "<br>".join(figures[:_FIGURES_SHOWN]), figures[_FIGURES_SHOWN:]
    if not others:
        return shown
    return f"{shown}<details><summary>{len(others)} more</summary>{'<br>'.join(others)}</details>"


def claims_json(found: Sequence[Finding]) -> str:
    """The same as JSON; figures are fractions with their 95 % intervals, null if undefined."""
    rows = [
        {
            "name": finding.claim.name,
            "study": finding.claim.study,
            "source": finding.claim.source,
            "text": finding.claim.text,
            "one_is_enough": finding.claim.any_suffices,
            "premise": finding.claim.premise and finding.claim.premise.name,
            "added": finding.claim.added_later,
            "verdict": finding.verdict,
            "figures": [_figure_json(check, verdict) for check, verdict in finding.checks],
        }
        for finding in found
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _figure_json(check: Check, verdict: str) -> dict[str, Any]:
    found = {name: None if math.isnan(value) else value for name, value in asdict(check.estimate()).items()}
    bounds = {"above": check.above, "below": check.below, "unit": check.unit}
    return {"what": check.what, "estimate": found, **bounds, "verdict": verdict}


def to_markdown(report: Report) -> str:
    """The report as Markdown, with links to the figures in figures/."""
    claims = claims_markdown(report.findings, report.notes)
    parts = [f"# {report.title}", *filter(None, [report.notice]), report.scale.description, f"## Claims\n\n{claims}"]
    for section in report.sections:
        parts.append(f"## {section.study.title} ({section.study.source})")
        if section.output is None:
            command = f"`fastadv study {section.study.name}`, with the options of the commands below, continues it"
            parts.append(f"Not complete: {section.missing} is not measured. {command}.")
            continue
        parts += [table_to_markdown(table) for table in section.output.tables.values()]
        parts += [f"![{name}](figures/{name}.svg)\n\n{plot.caption}" for name, plot in section.output.plots.items()]
    parts.append(f"## Networks\n\n{table_to_markdown(report.networks)}")
    parts.append(f"Base network:\n\n```\n{report.configuration}\n```")
    parts.append(f"## Machine and versions\n\n```\n{report.about.machine}\n```")
    parts += [table_to_markdown(report.times)] if report.times else []
    parts.append("## Commands\n\n```bash\n" + "\n".join(map(printable, report.about.commands)) + "\n```")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"
