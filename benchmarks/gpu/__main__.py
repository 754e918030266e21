"""What a GPU can show, in parts, each in a dated file of its own.

    python -m benchmarks.gpu [--parts kernels,attacks] [--build] [--out DIR]       (or: make gpu PARTS=attacks)

kernels     the tests of a GPU, the operators' speed beside a copy's, compute-sanitizer
attacks     whole attacks beside other packages, training iterations beside the floor, launches, and each option's worth
imagenette  Inception v3 trained as usual and adversarially on Imagenette, and attacked (--imagenette)
curves      cost against k, iterations, m, pixels, classes and draws
methods     cost and robustness of Algorithm 1, free, fast and PGD training (--fashion-mnist)

They need torch >= 2.11 and no network. Each part ends within eight minutes: a command has its share of what is left of
them, and what it had not done by then is missing from the report, which says so. A part whose packages are missing says
so, and the others run: fastadv train, of imagenette, needs the extra [train], and kernels and attacks pytest-benchmark.
--rehearse runs the same on the CPU, at small sizes, to see that the command works; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.attacks import attacks
from benchmarks.gpu.costs import curves, methods
from benchmarks.gpu.extension import build, without_kernels
from benchmarks.gpu.imagenette import imagenette
from benchmarks.gpu.kernels import kernels
from benchmarks.gpu.part import Findings, Setting
from benchmarks.gpu.processes import ROOT, Deadline, run

LIMIT = 480  # seconds of a part; the first one's include building
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Part:
    """A part of the command: the title of its report, what the file's name ends in, and what it runs."""

    title: str
    suffix: str
    run: Callable[[Setting], Findings]


PARTS = {
    "kernels": Part("The operators on a GPU", "", kernels),
    "attacks": Part("Attacks and training iterations on a GPU", "-attacks", attacks),
    "imagenette": Part("Inception v3 on Imagenette, on a GPU", "-imagenette", imagenette),
    "curves": Part("Cost against work on a GPU", "-curves", curves),
    "methods": Part("Ways of training on a GPU", "-methods", methods),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; 0 if all that ran was right."""
    deadline = Deadline(time.monotonic() + LIMIT)
    parser = _parser()
    options = parser.parse_args(argv)
    mistake = _mistake_in(options)
    if mistake is not None:
        return _refused(mistake)
    with tempfile.TemporaryDirectory() as packages:
        if options.wheels and not install(options.wheels, packages, deadline):
            return 1
        built = build(deadline.share(120)) if options.build else None
        if built is not None and built.code != 0:
            return 1
        mistake = None if options.rehearse else without_kernels()
        if mistake is not None:
            return _refused(mistake)
        right = True
        for name in options.parts:
            findings = PARTS[name].run(_setting(options, deadline))
            print(f"written to {write(PARTS[name], findings, options.out)}", flush=True)
            right &= findings.right
            deadline = Deadline(time.monotonic() + LIMIT)
    return 0 if right else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", type=_names, default=["kernels"], metavar="A,B,...", help="of those above (default: kernels)")
    add("--build", action="store_true", help="build the extension in place first, for this GPU alone")
    add("--wheels", type=Path, metavar="DIR", help="packages to use besides those installed here, without installing")
    add("--imagenette", type=Path, metavar="PATH", help="its images: a folder with train/ and val/, or a tar archive")
    add("--fashion-mnist", type=Path, metavar="DIR", help="its files, for methods; scikit-learn's digits unless given")
    add("--rehearse", action="store_true", help="on the CPU, at small sizes")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="for YYYY-MM-GPU.md (default: benchmarks/results)")
    return parser


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: a part is one of {', '.join(PARTS)}")
    return names


def _mistake_in(options: argparse.Namespace) -> str | None:
    """What keeps the command from running, known before anything is done."""
    for option in ("out", "wheels", "fashion_mnist"):
        folder = getattr(options, option)
        if folder is not None and not folder.is_dir():
            return f"--{option.replace('_', '-')} {folder}: there is no such folder"
    if options.wheels is not None and not any(options.wheels.glob("*.whl")):
        return f"--wheels {options.wheels}: there is no wheel in it, that is, no file *.whl"
    images = options.imagenette
    if images is not None and not (images.is_dir() or (images.is_file() and tarfile.is_tarfile(images))):
        return f"--imagenette {images}: this is neither a folder nor a tar archive"
    if options.rehearse:
        return None
    if not torch.cuda.is_available():
        return "there is no GPU that torch can use; --rehearse shows that the command works"
    if "imagenette" in options.parts and options.imagenette is None:
        return "the part imagenette needs its images: --imagenette PATH"
    return None


def _refused(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _setting(options: argparse.Namespace, deadline: Deadline) -> Setting:
    given = {"imagenette": options.imagenette, "fashion_mnist": options.fashion_mnist}
    absolute = {name: None if path is None else path.absolute() for name, path in given.items()}
    if options.rehearse:
        deadline = Deadline(time.monotonic() + 1800)  # on whatever machine
    return Setting(deadline, options.rehearse, **absolute)


def install(wheels: Path, folder: str, deadline: Deadline) -> bool:
    """Make the packages in some wheels importable here and for all commands, and leave those that are installed alone.

    Without what they depend on, which must be among them or installed in any version: some peers ask for versions of
    years ago.
    """
    files = sorted(map(str, wheels.absolute().glob("*.whl")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", folder, *files]
    if run("wheels", pip, deadline.share(60)).code != 0:
        return False
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = folder if before is None else f"{folder}{os.pathsep}{before}"
    sys.path.insert(0, folder)
    return True


def write(part: Part, findings: Findings, folder: Path) -> Path:
    """The dated file of a part, and its figure."""
    machine = importlib.import_module("benchmarks.machine")  # which needs the extension that was built
    path: Path = folder / f"{machine.slug()}{part.suffix}.md"
    checks = "\n".join(f"- {check}" for check in findings.checks)
    text = [f"# {part.title}", machine.describe(machine.COMPARED), "## Checks", checks, *findings.tables]
    if findings.figure is not None:
        path.with_suffix(".svg").write_text(findings.figure)
        text.append(f"![{part.title}]({path.stem}.svg)")
    path.write_text("\n\n".join(text) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
