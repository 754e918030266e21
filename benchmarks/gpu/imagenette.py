"""Inception v3 on ten classes of ImageNet, with standard and adversarial training by the commands for users."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import NO_TIME, Done, run
from benchmarks.harness import Table

COMMAND = [sys.executable, "-m", "fastadv"]
TRAININGS = ("adversarial", "standard")  # the longer one first; each gets half of the remaining time
EVALUATION = 75  # seconds reserved for it
TRIAL = 2  # epochs: the first chooses kernels and records graphs, the second is measured
SPARE = 0.9  # share of its time that a training is planned for, because epochs vary


@dataclass(frozen=True)
class Sizes:
    """The size of the run.

    Args:
        side: of the images.
        m: examples in a minibatch; half of them become adversarial.
        epochs: at most.
        warmup: iterations of a rising learning rate, in which nothing becomes adversarial: running statistics lag.
        options: more of the command's.
    """

    side: int
    m: int
    epochs: int
    warmup: int
    options: tuple[str, ...] = ()


FULL = Sizes(side=128, m=128, epochs=40, warmup=150)
TINY = Sizes(
    side=75,
    m=4,
    epochs=1,
    warmup=1,
    options=("--model.options.width", "0.125", "--data.workers", "1", "--log_every", "1"),
)


@dataclass(frozen=True)
class Job:
    """What all commands share: images in ``root``, and runs in ``folder``."""

    setting: Setting
    sizes: Sizes
    root: Path
    folder: Path

    def train(self, name: str, *, epochs: int, clean: bool = False, start_after: int = 0) -> list[str]:
        """The command ``fastadv train`` in bfloat16 with the fast options, which include channels_last."""
        sizes = self.sizes
        data = {"--data.name": "imagenet", "--data": self.root, "--data.size": sizes.side, "--data.least_area": 0.25}
        model = {"--data.space": "symmetric", "--model.name": "inception_v3", "--m": sizes.m, "--label_smoothing": 0.1}
        attack = {"--attack.k": 0 if clean else sizes.m // 2, "--attack.start_after": start_after}
        optimizer = {"--optimizer.name": "adamw", "--optimizer.lr": 0.001, "--optimizer.weight_decay": 0.05}
        schedule = {"--schedule.name": "cosine", "--schedule.warmup": sizes.warmup, "--epochs": epochs}
        place = {"--precision": "bfloat16", "--device": self.setting.device, "--out": self.folder / name}
        valued = {**data, **model, **attack, **optimizer, **schedule, **place}
        options = [str(word) for pair in valued.items() for word in pair]
        return [*COMMAND, "train", "--data.flip", "--fast", *options, *sizes.options]

    def shown(self, words: list[str]) -> str:
        """A command as a user would type it."""
        text = shlex.join(["fastadv", *words[len(COMMAND) :]])
        return text.replace(str(self.root), "DIR").replace(str(self.folder), "runs")

    def for_each(self, trainings: int) -> float:
        """Seconds for each of a number of trainings."""
        return (self.setting.limit(480) - EVALUATION) / trainings


def imagenette(setting: Setting) -> Findings:
    """Train both networks for as many epochs as time permits, and attack them with step l.l."""
    findings = Findings()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = Job(setting, TINY if setting.rehearsal else FULL, images(setting, folder / "images"), folder)
        epochs = _trial(findings, job)
        if epochs is not None:
            _evaluate(findings, job, _train(findings, job, epochs))
    return findings


def _add(findings: Findings, done: Done, *, may_be_stopped: bool = True) -> None:
    """Add the outcome of a command, and the options that it skipped with a warning."""
    findings.add(done, may_be_stopped=may_be_stopped)
    left_out = re.findall(r"^.*(?:runs|goes on|continues) without .*$", done.output, re.MULTILINE)
    findings.checks += [f"{done.name}: {line.strip()}" for line in dict.fromkeys(left_out)]


def images(setting: Setting, folder: Path) -> Path:
    """The folder with train/ and val/: as given, from the archive, or with generated images for a rehearsal."""
    given = setting.imagenette
    if given is None:
        return _made_images(folder)
    if given.is_dir():
        return given
    with tarfile.open(given) as archive:
        # Not as an argument: Python before 3.11.4 or 3.10.12 has no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    return folder if (folder / "train").is_dir() else next(folder.iterdir())


def _made_images(folder: Path) -> Path:
    from PIL import Image

    for part, count in (("train", 4), ("val", 2)):
        for label, colour in enumerate(("red", "green")):
            place = folder / part / f"class{label}"
            place.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (90, 80), colour).save(place / f"{number}.jpg")
    return folder


# --- training --------------------------------------------------------------------------------------------------------


def _trial(findings: Findings, job: Job) -> int | None:
    """Run a trial; returns how many epochs both trainings have time for, or None if it failed."""
    trial = run(f"trial of {TRIAL} epochs", job.train("trial", epochs=TRIAL), job.setting.limit(150))
    _add(findings, trial, may_be_stopped=False)
    loader = re.search(r"data\.loader auto: (.*)", trial.output)
    cores = len(os.sched_getaffinity(0))
    findings.checks += [f"loader, on {cores} cores: {loader[1]}"] if loader else []
    if trial.code != 0:
        return None
    epoch = seconds_of_an_epoch(job.folder / "trial")
    start = max(trial.seconds - TRIAL * epoch, 0)
    time = SPARE * (job.for_each(len(TRAININGS)) - start)
    epochs = max(1, min(job.sizes.epochs, int(time / epoch)))
    findings.checks.append(f"an epoch takes {epoch:.1f} s with its test and checkpoint: {epochs} for each network")
    return epochs


def seconds_of_an_epoch(run_dir: Path) -> float:
    """Seconds between a run's last two checkpoints, which are an epoch apart."""
    *_, before, last = sorted(path.stat().st_mtime for path in run_dir.glob("checkpoints/step-*"))
    return last - before


def _train(findings: Findings, job: Job, epochs: int) -> list[str]:
    """Train; returns the names of the runs that exist."""
    table = Table(
        "Training",
        ["training", f"epochs, of {epochs}", "images/s", "waiting for data, of an iteration's time"],
        notes=["Images/s and waiting: without the first epoch, the tests and the checkpoints."],
    )
    commands, runs = [], []
    for number, name in enumerate(TRAININGS):
        limit = job.for_each(len(TRAININGS) - number)
        if limit <= 0:
            findings.missing(name)
            continue
        words = job.train(name, epochs=epochs, clean=name == "standard", start_after=job.sizes.warmup)
        _add(findings, run(name, words, limit))
        commands.append(job.shown(words))
        if (job.folder / name / "log.jsonl").exists():
            runs.append(name)
            table.rows.append([name, *speed(read_log(job.folder / name))])
    findings.tables += ["```bash\n" + "\n".join(commands) + "\n```", table.markdown()]
    return runs


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """The log records of a run."""
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def speed(log: list[dict[str, Any]]) -> list[str]:
    """Epochs done, images/s, and the share of time that iterations waited for data, from a run's log."""
    steps = [record for record in log if "images_per_s" in record]
    steady = [record for record in steps if record["epoch"] > 1] or steps
    done = sum("test_accuracy" in record for record in log)
    if not steady:
        return [str(done), "", ""]
    # All records cover equally many images, so their times are proportional to the inverse rates.
    seconds = [1 / record["images_per_s"] for record in steady]
    waited = sum(record["data_wait"] * time for record, time in zip(steady, seconds, strict=True))
    return [str(done), f"{len(seconds) / sum(seconds):,.0f}", f"{waited / sum(seconds):.1%}"]


# --- evaluation ------------------------------------------------------------------------------------------------------


def _evaluate(findings: Findings, job: Job, runs: list[str]) -> None:
    """Evaluate on clean images and under step l.l., with standard training first as in the paper's tables."""
    limit = job.setting.limit(480)
    if not runs or limit <= 0:
        findings.missing("evaluation", NO_TIME if runs else "not run: no network was trained")
        return
    folders = [str(job.folder / name) for name in reversed(TRAININGS) if name in runs]
    out = job.folder / "evaluation"
    options = ["--batch-size", "250", "--fast", "--device", job.setting.device, "--out", str(out)]
    words = [*COMMAND, "evaluate", *folders, "--attacks", "step_ll", "--eps", "2,4,8,16", *options]
    _add(findings, run("evaluation", words, limit))
    table = out / "tables" / "robustness-step_ll.md"
    if table.exists():
        findings.tables += ["## Accuracy", f"```bash\n{job.shown(words)}\n```", table.read_text().strip()]
    else:
        findings.lacks("evaluation", "table")
