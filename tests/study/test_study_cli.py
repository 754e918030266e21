"""Studies from end to end, at a scale that takes seconds."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastadv.cli import report as report_cli
from fastadv.cli import run_study
from fastadv.cli import study as study_cli
from fastadv.evaluate import Record, read_records
from fastadv.study import cost
from fastadv.study.experiments import STUDIES
from fastadv.study.scales import Scale
from fastadv.study.verdicts import REASONS
from fastadv.train.non_finite import NonFiniteLoss
from fastadv.train.trainer import Trainer
from tests.study.conftest import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("scale")]


def study(*arguments: str | Path) -> int:
    return study_cli.main([*map(str, arguments), "--device", "cpu"])


def counts(out: Path) -> dict[str, tuple[int, int | None]]:
    return {record.key: (record.top1, record.top5) for record in read_records(out / "records/robustness.jsonl", Record)}


@pytest.mark.timeout(300)
def test_all_studies(
    tmp_path: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert study("all", "--out", tmp_path) == 0
    networks = {network.id for one in STUDIES.values() for network in one.networks(scale)}
    trained = {path.name for path in (tmp_path / "networks").iterdir()}
    assert trained == networks  # each once
    tables = {path.stem for path in (tmp_path / "tables").glob("*.md")}
    assert tables == {
        *(set(STUDIES) - {"capacity", "transfer"}),
        *("capacity-top1", "capacity-top5", "transfer-error", "transfer-rate", "table3-leaking"),
    }
    figures = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert figures >= {
        "capacity-top1",
        "capacity-top5",
        "transfer-rate",
        "transfer-error",
        "table3-leaking",
        "one_step",
    }
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == figures

    claims = json.loads((tmp_path / "claims.json").read_text())
    assert "not measured" not in {claim["verdict"] for claim in claims} and all(claim["figures"] for claim in claims)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == page.count("</figcaption>") == len(figures) and "Not complete" not in page
    assert not re.search(r'(src|href)="(?!#)', page)  # self-contained
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    markdown = (tmp_path / "report.md").read_text()
    for part in (
        *("fastadv study all", "processor:", "Table 5, Figure 3", "base network", "79 of 10,000", "Time taken"),
        *("Transfer rate of images made with A and shown to B, against eps", "at eps = 0 on clean images."),
    ):
        assert part in page and part in markdown
    seeds = (tmp_path / "tables/seeds.md").read_text()
    assert seeds.count("1 over 0") == 6 and "First 20 (step l.l.) and 10 (iter. l.l., iter. basic) of 20 test" in seeds
    times = [json.loads(line) for line in (tmp_path / "times.jsonl").read_text().splitlines()]
    assert {time["study"] for time in times} == set(STUDIES) and all(time["seconds"] > 0 for time in times)
    assert sum(time["what"].startswith("train ") for time in times) == len(networks)

    # The command ends with the verdicts, and the pages that have the figures.
    shown = capsys.readouterr().out
    table, _, pages = shown[shown.index("Verdicts on the paper's claims") :].partition(f"{tmp_path}/claims.md")
    assert max(map(len, table.splitlines())) <= 80 and pages.rstrip().endswith("report.html")
    rows = {row[0]: row for row in map(str.split, table.splitlines()) if row}
    for claim in claims:
        assert claim["verdict"].split()[0] in rows[claim["name"]]
    assert f"{len(claims)} claims." in table

    # Running the same command again does nothing.
    monkeypatch.setattr(run_study, "write_report", lambda report, folder: [])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}
    assert study("all", "--out", tmp_path) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")} == before
    shown = capsys.readouterr().err
    assert ": train" not in shown and ": evaluate" not in shown and ": transfer" not in shown


def test_records_of_other_weights_are_measured_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("fixed_eps", "--out", tmp_path) == 0
    small, large = (tmp_path / "networks" / network.id for network in STUDIES["fixed_eps"].networks(tiny())[1:])
    for run in (small, large):
        shutil.rmtree(run / "checkpoints")
    large.rename(tmp_path / "gone")
    shutil.copytree(tmp_path / "networks" / STUDIES["fixed_eps"].networks(tiny())[0].id, small, dirs_exist_ok=True)
    capsys.readouterr()
    assert study("fixed_eps", "--out", tmp_path) == 0
    shown = capsys.readouterr().err
    assert "evaluate eps = 4" in shown  # its weights were replaced by another network's
    assert "train eps = 8" in shown and "evaluate eps = 8" not in shown  # trained again to the same weights
    assert "evaluate Random eps" not in shown


def test_the_other_networks_are_done_after_a_failed_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Trainer.train_step

    def step(self: Trainer, minibatches: Any) -> None:
        if self.config.attack.eps == 4:
            raise NonFiniteLoss("the loss", iteration=1, indices=[3], checkpoint=None)
        original(self, minibatches)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        assert study("fixed_eps", "--out", tmp_path) == 1
    shown = capsys.readouterr().err
    assert "the training of eps = 4 failed: the loss at iteration 1" in shown
    assert "evaluate eps = 8" in shown and "evaluate eps = 4" not in shown
    assert "Not complete: eps = 4 under step_ll" in (tmp_path / "report.html").read_text()
    pages = [tmp_path / name for name in ("report.html", "report.md", "claims.md")]
    assert all("Not complete: fixed_eps. Claims are judged" in page.read_text() for page in pages)
    assert study("fixed_eps", "--out", tmp_path) == 0
    assert not any("Not complete" in page.read_text() for page in pages)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruptions_in_training_and_evaluation(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert study("fixed_eps", "--out", whole) == 0

    original, steps = Trainer.train_step, []

    def step(self: Trainer, minibatches: Any) -> None:
        original(self, minibatches)
        steps.append(self.step)
        if len(steps) == 8:  # in the second network
            signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        assert study("fixed_eps", "--out", out) == 128 + number
    assert "the same command continues" in capsys.readouterr().err

    with monkeypatch.context() as patch:
        patch.setattr("fastadv.attacks.StepLL.at_each", lambda *_, **__: signal.raise_signal(number))
        assert study("fixed_eps", "--out", out) == 128 + number
    assert len(read_records(out / "records/robustness.jsonl", Record)) == 1  # clean images
    assert study("fixed_eps", "--out", out) == 0
    assert counts(out) == counts(whole)
    assert (out / "tables/fixed_eps.md").read_text() == (whole / "tables/fixed_eps.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("option", "goes_on"), [("--limit=5", True), ("--dry-run", False)])
def test_interruption_while_estimating(
    tmp_path: Path,
    number: signal.Signals,
    option: str,
    goes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cost.Speeds, "_measure", lambda *_: signal.raise_signal(number))
    assert study("fixed_eps", "--out", tmp_path, option) == 128 + number
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("fastadv study: interrupted")
    assert ("the same command continues" in told) is goes_on


def test_studies_share_networks_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("fixed_eps", "--out", tmp_path) == 0
    assert study("delay", "--out", tmp_path) == 0
    assert "cut short" not in (tmp_path / "report.md").read_text()
    shown = capsys.readouterr().err
    assert len(re.findall(r"fixed_eps: train", shown)) == 3 and len(re.findall(r"delay: train", shown)) < 4
    manifest = json.loads((tmp_path / "study.json").read_text())
    assert manifest["studies"] == ["delay", "fixed_eps"] and len(manifest["commands"]) == 2
    page = (tmp_path / "report.html").read_text()
    assert 'id="delay"' in page and 'id="fixed_eps"' in page and 'id="table1"' not in page


def test_a_report_is_made_from_records_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("fixed_eps", "--out", tmp_path) == 0
    for folder in ("networks", "tables", "figures"):
        (tmp_path / folder).rename(tmp_path / f"no-{folder}")
    before = (tmp_path / "report.html").read_text()
    (tmp_path / "notes.yaml").write_text("fixed_is_narrow: Three iterations <teach> little.\n")
    assert report_cli.main([str(tmp_path)]) == 0
    after = (tmp_path / "report.html").read_text()
    note = f'<p class="note">{REASONS}</p>'
    assert note in after and note not in before
    reason = "<p>Likely reason: Three iterations &lt;teach&gt; little.</p>"
    assert after.replace(reason, "").replace(note, "") == before
    for name in ("claims.md", "report.md"):
        text = (tmp_path / name).read_text()
        assert REASONS in text and "<br>Likely reason: Three iterations <teach> little. |" in text
    assert (tmp_path / "tables/fixed_eps.md").exists() and (tmp_path / "figures/fixed_eps.svg").exists()

    records = (tmp_path / "records/robustness.jsonl").read_text().splitlines(True)
    (tmp_path / "records/robustness.jsonl").write_text("".join(records[:-1]))
    assert report_cli.main([str(tmp_path)]) == 0
    assert "Not complete: eps = 8 under step_ll, eps = 8 is not measured" in (tmp_path / "report.html").read_text()

    for notes, message in (
        ("no_such_claim: x\n", "['no_such_claim']"),
        ("- robust\n", "must map names of claims to text, got list"),
        ("no_such_claim: x\n1: y\n", "['1', 'no_such_claim']"),
        ("robust: [\n", "notes.yaml cannot be read: while parsing"),
        ("robust: 2020-13-45\n", "notes.yaml cannot be read: month must be in 1..12"),
        ("[" * 3000, "notes.yaml cannot be read: it is nested too deeply"),
        ("robust: \xff\n", "notes.yaml cannot be read: 'utf-8' codec"),
    ):
        (tmp_path / "notes.yaml").write_text(notes, encoding="latin-1")
        assert report_cli.main([str(tmp_path)]) == 2
        assert message in capsys.readouterr().err


def test_a_dry_run_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("all", "--out", tmp_path / "none", "--dry-run") == 0
    shown = capsys.readouterr().out
    for part in ("networks;", "MiB of checkpoints", "Adv. training", "regularizers", "together"):
        assert part in shown
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("share", "said"), [(0.4, True), (0.75, True), (1.0, False)])
def test_estimates_on_a_busy_machine_have_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], share: float, said: bool
) -> None:
    looks = itertools.count()
    now = [0]

    def look() -> int:  # a second passes between any two readings of the wall clock
        now[0] = next(looks)
        return now[0]

    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=look, process_time=lambda: share * now[0]))
    assert study("table1", "--out", tmp_path / "none", "--dry-run") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (f"got only {100 * share:.0f} % of its processor time: other programs are running" in shown) is said


def test_the_note_scales_the_estimate_to_an_idle_machine() -> None:
    assert "On an idle machine it is at most 4.0 h in total" in run_study._busy_machine_note(0.4, 36_000)
    assert run_study._busy_machine_note(None, 36_000) == ""  # a GPU


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table1", "--scale", "imagenet"], "--scale imagenet needs --data, the folder with train/ and val/"),
        (["table1", "--device", "nonsense"], "nonsense"),
    ],
)
def test_mistakes_in_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert study_cli.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_holds_one_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("fixed_eps", "--out", tmp_path, "--limit", "5") == 0
    cut = "cut short: 5 test images instead of 20 for one-step methods"
    for name, head in (("report.html", "<h1>"), ("report.md", "# "), ("claims.md", "")):
        beginning = f"{head}Adversarial Machine Learning at Scale: the paper's study, small scale (digits), {cut}"
        assert beginning.replace("'", "&#x27;" if head == "<h1>" else "'") in (tmp_path / name).read_text()
    assert study("fixed_eps", "--out", tmp_path) == 2
    refused = "holds a study with limit = 5, and this one has limit = the scale's own: choose another --out"
    assert refused in capsys.readouterr().err
    assert study("fixed_eps", "--out", tmp_path, "--dry-run") == 2
    assert refused in capsys.readouterr().err


def test_a_dry_run_rejects_what_a_run_rejects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    for options in ((), ("--dry-run",)):
        assert study("fixed_eps", "--out", taken, *options) == 2
        assert f"cannot write to the folder {taken}: it is a file" in capsys.readouterr().err


@pytest.mark.parametrize("content", ['{"scale": "small", "speed": 1}', "not JSON", "[" * 100_000])
def test_a_folder_of_another_version(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "study.json").write_text(content)
    for code in (study("fixed_eps", "--out", tmp_path), report_cli.main([str(tmp_path)])):
        assert code == 2
    assert capsys.readouterr().err.count("study.json is not of this version of fastadv") == 2


def test_report_of_a_folder_without_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_cli.main([str(tmp_path)]) == 2
    assert "has nothing to report: no robustness.jsonl, transfer.jsonl or study.json" in capsys.readouterr().err


def test_help_names_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        study_cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*STUDIES, "exit codes", "--dry-run"))
