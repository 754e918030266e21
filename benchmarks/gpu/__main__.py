"""Tests and benchmarks on a GPU, in parts ordered by importance.

    python -m benchmarks.gpu [--parts first] [--rehearse] [--out DIR]       (or: make gpu PARTS=second)

first       480 s: versions, smoke, trainer, tests, bandwidth, iterations, ncu
second      240 s, after it: versions, failed, compiled, memcheck

versions    hardware and versions; builds the extension first if it is missing or has no kernels for this GPU
smoke       every operator in four dtypes, on its stream and in a graph; errors and failed recordings
trainer     create_trainer: plain, fast, in bfloat16 and resumed; training in a process group of one
tests       all other GPU tests, in six processes
bandwidth   the operators' speed, compared with a copy and with other packages
iterations  whole iterations of ResNet-50 and Inception v3 by option, compared with clean ones
ncu         five operators' kernels under Nsight Compute
failed      what failed before, according to the summary in DIR
compiled    the operators' speed, compared with torch.compile
memcheck    some of the operators' tests under compute-sanitizer: memory errors
racecheck   the same: races in shared memory
attacks     attacks compared with other packages, iterations compared with the pass count, launches, and each option
imagenette  Inception v3 on Imagenette with standard and adversarial training, and attacked (--imagenette)
curves      cost against k, iterations, m, pixels, classes and draws
methods     cost and robustness of each way of training (--fashion-mnist)

Each part runs in its own processes and within its time limit, and writes DIR/PART.md. DIR/summary.json is updated after
each, so that a run that is killed leaves its results. A part that fails or is stopped is reported with its last lines,
and the other parts run. The exit status is 0 if all succeeded. Required: torch >= 2.11, pytest, pytest-xdist,
pytest-timeout, pytest-benchmark, torchvision and timm, but no network access. attacks compares with the packages that
are installed, and imagenette needs the extra [train]. --rehearse runs everything on the CPU at small sizes; its figures
mean nothing.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.plan import GROUPS, PARTS, Part
from benchmarks.gpu.processes import NO_TIME, ROOT, Deadline, run
from benchmarks.gpu.summary import RUNNING, Entry, Summary

RESULTS = ROOT / "benchmarks" / "results" / "gpu"
REHEARSAL = 1800  # seconds per part, on any machine


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; returns 0 if all succeeded."""
    options = _parser().parse_args(argv)
    mistake = _mistake_in(options)
    if mistake is not None:
        print(mistake, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as packages:
        if options.wheels and not install(options.wheels, packages):
            return 1
        return 0 if run_parts(*_chosen(options.parts), _setting(options), options.out) else 1


def run_parts(names: Sequence[str], seconds: float, setting: Setting, folder: Path) -> bool:
    """Run parts within a number of seconds, beginning with ``versions``; returns whether all succeeded."""
    summary = Summary(folder)
    setting = replace(setting, failed=tuple(entry for entry in summary.entries.values() if entry.wrong))
    summary.forget(names)
    whole = Deadline(time.monotonic() + (REHEARSAL * len(names) if setting.rehearsal else seconds))
    right, machine = True, ""
    for name in names:
        findings = run_part(name, whole, setting, summary)
        if name == "versions":
            machine = "\n\n".join(findings.tables)
            if not setting.rehearsal:  # the build does not count against the other parts
                whole = Deadline(time.monotonic() + seconds - PARTS[name].seconds)
        print(f"written to {write(folder / f'{name}.md', PARTS[name], machine, findings)}", flush=True)
        right &= findings.right
        if name == "versions" and not findings.right:
            break  # nothing else can work
    print(summary.text(names), flush=True)
    return right


def run_part(name: str, whole: Deadline, setting: Setting, summary: Summary) -> Findings:
    """Run a part and write its entry in the summary, which says "running" until the part ends."""
    begun, start = datetime.datetime.now().isoformat(" ", "seconds"), time.monotonic()
    limit = whole.share(REHEARSAL if setting.rehearsal else PARTS[name].seconds)
    entry = Entry(name, RUNNING, begun, round(max(limit, 0)))
    summary.put(entry)
    if limit > 0:
        findings = _found(PARTS[name], replace(setting, deadline=Deadline(start + limit)))
    else:
        findings = Findings([f"{name}: {NO_TIME}"], right=False, stopped=True)
    summary.put(
        replace(
            entry,
            outcome=findings.outcome,
            seconds=round(time.monotonic() - start, 1),
            checks=findings.checks,
            failed_tests=findings.failed_tests,
            last_lines=findings.last_lines,
        )
    )
    return findings


def _found(part: Part, setting: Setting) -> Findings:
    """Run a part; an exception is reported like a failed command, and the other parts run."""
    try:
        return part.run(setting)
    except Exception as error:
        lines = traceback.format_exc().splitlines()
        said = f"{part.title}: {type(error).__name__}: {error}"
        return Findings([said], right=False, last_lines={part.title: lines})


def write(path: Path, part: Part, machine: str, findings: Findings) -> Path:
    """Write the file of a part and its figure."""
    checks = "\n".join(f"- {check}" for check in findings.checks)
    text = [f"# {part.title}", machine or f"- date: {datetime.date.today()}", "## Checks", checks]
    for name, lines in findings.last_lines.items():
        text += [f"Last lines of {name}:", "\n".join(["```text", *lines, "```"])]
    if part is not PARTS["versions"]:  # whose table describes the machine
        text += findings.tables
    if findings.figure is not None:
        path.with_suffix(".svg").write_text(findings.figure)
        text.append(f"![{part.title}]({path.stem}.svg)")
    path.write_text("\n\n".join(text) + "\n")
    return path


# --- options ---------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--parts",
        type=_names,
        default=["first"],
        metavar="A,B,...",
        help="parts or groups from the list above (default: first)",
    )
    add("--build", action="store_true", help="rebuild the extension, for this GPU only")
    add("--wheels", type=Path, metavar="DIR", help="wheels to use in addition to installed packages")
    add("--imagenette", type=Path, metavar="PATH", help="a folder with train/ and val/, or a tar archive")
    add("--fashion-mnist", type=Path, metavar="DIR", help="its files, for methods (default: digits)")
    add("--rehearse", action="store_true", help="run on the CPU at small sizes")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="output folder (default: benchmarks/results/gpu)")
    return parser


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    known = (*GROUPS, *PARTS)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: a part is one of {', '.join(known)}")
    return names


def _chosen(names: Sequence[str]) -> tuple[list[str], float]:
    """The parts, with groups expanded and ``versions`` first, and the seconds for all of them."""
    parts, seconds = ["versions"], 0.0
    for name in names:
        parts += GROUPS[name].parts if name in GROUPS else [name]
        seconds += GROUPS[name].seconds if name in GROUPS else PARTS[name].seconds
    return list(dict.fromkeys(parts)), seconds


def _mistake_in(options: argparse.Namespace) -> str | None:
    """A mistake in the options, found before anything is done; None if there is none."""
    for option in ("wheels", "fashion_mnist"):
        folder = getattr(options, option)
        if folder is not None and not folder.is_dir():
            return f"--{option.replace('_', '-')} {folder}: there is no such folder"
    if options.wheels is not None and not any(options.wheels.glob("*.whl")):
        return f"--wheels {options.wheels}: there is no wheel in it, that is, no file *.whl"
    images = options.imagenette
    if images is not None and not (images.is_dir() or (images.is_file() and tarfile.is_tarfile(images))):
        return f"--imagenette {images}: this is neither a folder nor a tar archive"
    if "imagenette" in options.parts and images is None and not options.rehearse:
        return "the part imagenette needs its images: --imagenette PATH"
    return None


def _setting(options: argparse.Namespace) -> Setting:
    given = {"imagenette": options.imagenette, "fashion_mnist": options.fashion_mnist}
    absolute = {name: None if path is None else path.absolute() for name, path in given.items()}
    return Setting(Deadline(time.monotonic()), options.rehearse, options.build, **absolute)


def install(wheels: Path, folder: str) -> bool:
    """Make the packages in wheels importable here and in all commands, without changing installed packages.

    Dependencies are not resolved and must be among the wheels or installed in any version, because some packages
    require versions that are years old.
    """
    files = sorted(map(str, wheels.absolute().glob("*.whl")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, *files]
    if run("wheels", pip, 60).code != 0:
        return False
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = folder if before is None else f"{folder}{os.pathsep}{before}"
    sys.path.insert(0, folder)
    return True


def end_when_terminated() -> None:
    """On SIGTERM, exit through Python, so that the processes of the running part are ended as well."""

    def end(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    end_when_terminated()
    sys.exit(main())
