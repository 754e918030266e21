"""What a study's folder shows: tables, figures and claims from records, and all of it on one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastadv.evaluate.figures import save_figure
from fastadv.evaluate.tables import Table, save_table, to_markdown
from fastadv.extras import require
from fastadv.study import manifest
from fastadv.study.claims import CLAIMS, findings
from fastadv.study.page import page
from fastadv.study.plan import Network, Shown, Study
from fastadv.study.recipes import STUDIES
from fastadv.study.results import NotMeasured
from fastadv.study.runner import Place
from fastadv.study.scales import Scale
from fastadv.study.verdicts import FAILS, HOLDS, MISSING, UNCLEAR, Finding
from fastadv.train.parsing import flat

MARKS = {HOLDS: "✓", FAILS: "✗", UNCLEAR: "?", MISSING: "-"}
INTERVALS = (
    "A claim holds if the 95 % interval of every figure lies within what is claimed, and does not if one lies wholly "
    "outside. Intervals are of the draw of test images alone: a training with another seed moves most accuracies by "
    "some tenths of a point, so that differences of that size are of these networks and not of the methods."
)


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
        remarks: words on claims, by their names.
    """

    about: manifest.Manifest
    scale: Scale
    sections: Sequence[Section]
    networks: Table
    remarks: Mapping[str, str]


def _write(shown: Shown, folder: Path) -> None:
    """Tables and figures as files."""
    for name, table in shown.tables.items():
        save_table(table, folder / "tables" / name)
    for name, figure in shown.figures.items():
        save_figure(figure, folder / "figures" / name)


def write_report(folder: Path) -> list[Path]:
    """Pages, claims, tables and figures of a study's folder, from its records; returns the paths of the first two.

    Raises:
        FileNotFoundError: the folder holds no study.
        ValueError: records or remarks that cannot be read.
        OSError: a file could not be written.
    """
    report = gather(folder)
    found = [finding for section in report.sections for finding in section.findings]
    texts = {
        "claims.md": claims_markdown(found, report.remarks),
        "claims.json": claims_json(found),
        "report.md": markdown(report),
        "report.html": page(report),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for section in report.sections:
        if section.shown is not None:
            _write(section.shown, folder)
    return [folder / name for name in texts]


def gather(folder: Path) -> Report:
    """What a study's folder holds.

    Raises:
        FileNotFoundError: it holds no study.
        ValueError: records or remarks that cannot be read.
    """
    about = manifest.read(folder)
    if about is None:
        raise FileNotFoundError(f"{folder} is not the folder of a study: no {manifest.NAME} in it")
    scale, results = about.create_scale(), Place(folder).results()
    sections = []
    for name in about.studies:
        study = STUDIES[name]
        found = findings(scale, results, [name])
        try:
            sections.append(Section(study, study.show(scale, results), "", found))
        except NotMeasured as missing:
            sections.append(Section(study, None, str(missing), found))
    studies = [STUDIES[name] for name in about.studies]
    return Report(about, scale, sections, network_table(studies, scale), _remarks(folder))


def _remarks(folder: Path) -> dict[str, str]:
    path = folder / "remarks.yaml"
    if not path.exists():
        return {}
    yaml = require("yaml", extra="train")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    known = {claim.name for claim in CLAIMS}
    if not isinstance(content, dict) or not set(content) <= known:
        unknown = sorted(set(content) - known) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"{path} must map names of claims to words, got {unknown}; known are {', '.join(sorted(known))}"
        )
    return {str(name): str(text).strip() for name, text in content.items()}


def network_table(studies: Sequence[Study], scale: Scale) -> Table:
    """Every network: its id, its names, and where its configuration differs from the base network's."""
    base = flat(asdict(scale.base))
    networks: dict[str, list[Network]] = {}
    for study in studies:
        for network in study.networks(scale):
            networks.setdefault(network.id, []).append(network)
    rows = []
    for one, same in networks.items():
        values = flat(asdict(same[0].config))
        differing = [f"{name} = {value}" for name, value in values.items() if base.get(name) != value]
        differing += [f"no {name}" for name in base if name not in values]
        names = "; ".join(dict.fromkeys(network.name for network in same))
        rows.append((one, names, ", ".join(differing) or "the base network"))
    return Table("Networks", ("Id", "Names", "Differs from the base network in"), tuple(rows), labels=3)


# --- claims as text --------------------------------------------------------------------------------------------------


def summary(found: Sequence[Finding]) -> str:
    """How many claims there are of each verdict."""
    counts = {verdict: sum(finding.verdict == verdict for finding in found) for verdict in MARKS}
    parts = [f"{MARKS[verdict]} {count} {verdict}" for verdict, count in counts.items() if count]
    return f"{len(found)} claims: {', '.join(parts)}."


def claims_markdown(found: Sequence[Finding], remarks: Mapping[str, str]) -> str:
    """Every claim with its verdict and figures, as Markdown."""
    lines = [
        summary(found),
        "",
        INTERVALS,
        "",
        "| | claim | paper | verdict | figures |",
        "| --- | --- | --- | --- | --- |",
    ]
    for finding in found:
        claim = finding.claim
        figures = "<br>".join(str(check).replace("|", "\\|") for check in finding.checks)
        remark = f"<br>{remarks[claim.name]}" if claim.name in remarks else ""
        cells = (MARKS[finding.verdict], f"`{claim.name}` {claim.text}{remark}", claim.source, finding.verdict, figures)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def claims_json(found: Sequence[Finding]) -> str:
    """The same for a program to read; figures are fractions."""
    rows = [
        {
            "name": finding.claim.name,
            "study": finding.claim.study,
            "source": finding.claim.source,
            "text": finding.claim.text,
            "verdict": finding.verdict,
            "figures": [{**asdict(check), "verdict": check.verdict} for check in finding.checks],
        }
        for finding in found
    ]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def markdown(report: Report) -> str:
    """The whole report as Markdown; its figures are the files in figures/."""
    found = [finding for section in report.sections for finding in section.findings]
    parts = [f"# {title(report)}", report.scale.why, f"## Claims\n\n{claims_markdown(found, report.remarks)}"]
    for section in report.sections:
        parts.append(f"## {section.study.title} ({section.study.source})")
        if section.shown is None:
            parts.append(
                f"Not complete: {section.missing} is not measured. `fastadv study {section.study.name}` goes on."
            )
            continue
        parts += [to_markdown(table) for table in section.shown.tables.values()]
        parts += [f"![{name}](figures/{name}.svg)" for name in section.shown.figures]
    parts.append(f"## Networks\n\n{to_markdown(report.networks)}")
    parts.append(f"Base network:\n\n```\n{configuration(report.scale)}\n```")
    parts.append(f"## Machine and versions\n\n```\n{report.about.machine}\n```")
    parts.append("## Commands\n\n```bash\n" + "\n".join(report.about.commands) + "\n```")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def title(report: Report) -> str:
    """Of the page."""
    return (
        f"Adversarial Machine Learning at Scale: the paper's study, {report.about.scale} scale ({report.about.dataset})"
    )


def configuration(scale: Scale) -> str:
    """The base network's, as YAML."""
    text: str = require("yaml", extra="train").safe_dump(asdict(scale.base), sort_keys=False)
    return text.rstrip()
