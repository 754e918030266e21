"""Every command and every line of Python in the README and the guides is run, here or by continuous integration.

Blocks marked as bash are run. Those marked as sh need a GPU, ImageNet or hours: their options are looked up.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastadv
from fastadv.cli import main
from tests import test_install
from tests.data.pictures import write_data_set

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "contributing").glob("*.md"))]
# Their Python needs a package that may not be installed: tests/docs/test_real_network.py runs it.
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str, language: str = "bash") -> list[str]:
    lines = (line for block in blocks(language, text) for line in block.replace("\\\n", "").splitlines())
    return [" ".join(line.split()) for line in lines if line]


# The README's come first: others work on what they made. A command that several pages have is run once.
COMMANDS = list(dict.fromkeys(command for page in PAGES for command in commands(page.read_text())))
WITH_PYTHON = [page for page in PAGES if blocks("python", page.read_text())]


@pytest.fixture(scope="module")
def images_in_files(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the documents call /data/imagenet."""
    folder = tmp_path_factory.mktemp("imagenet")
    write_data_set(folder, per_class=12, classes=3)
    return str(folder)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=[page.stem for page in WITH_PYTHON])
def test_python_blocks_run_in_order(page: Path, images_in_files: str) -> None:
    """A page's blocks continue one another; they leave to the reader a network, an optimizer and some images."""
    torch.manual_seed(0)
    space = fastadv.PixelSpace.imagenet()
    model = fastadv.models.create("small_cnn", num_classes=10, width=0.25)
    images, labels = space.from_pixels(torch.randint(0, 256, (32, 3, 16, 16))), torch.randint(0, 10, (32,))
    clean = images.clone()
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "loader": [(images.clone(), labels)],
        "test_loader": [(images, labels)],
        "images": images,
        "labels": labels,
    }
    before = [parameter.clone() for parameter in model.parameters()]
    code = blocks("python", page.read_text())
    for block in code:
        exec(block.replace("/data/imagenet", images_in_files), names)
    assert torch.equal(images, clean)
    if "optimizer.step()" in "".join(code):
        assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    if "adv" in names:
        assert names["adv"].shape == images.shape and not torch.equal(names["adv"], images)


def test_every_command_has_somebody_who_runs_it() -> None:
    integration = (ROOT / ".ci" / "run").read_text()
    for command in COMMANDS:
        program = command.split()[0]
        assert program in ("make", "pip", "fastadv", "torchrun"), command
        if program == "make":
            assert command in integration
        if program == "pip":
            assert command in (test_install.TOOLS, test_install.INSTALL)


def test_the_recorded_run_is_the_guides() -> None:
    """With the same options, in folders of its own."""
    results = ROOT / "benchmarks" / "results" / "2026-11-imagenette-two-processes.md"

    def options(text: str) -> list[str]:
        (command,) = [line for line in commands(text) if "inception_v3" in line]
        return shlex.split(re.sub(r"--(data|out) \S+", r"--\1 DIR", command))

    assert options(results.read_text()) == options((ROOT / "docs" / "images.md").read_text())


@pytest.mark.timeout(900)
def test_commands_run(tmp_path: Path, images_in_files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # these networks are too small to be worth a second one
    for command in COMMANDS:
        program, *arguments = shlex.split(command.replace("/data/imagenet", images_in_files))
        if program == "fastadv":
            assert main(arguments) == 0, command
        elif program == "torchrun":
            run = subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", *arguments],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
            )
            assert run.returncode == 0, f"{command}\n{run.stderr}"
    torch.set_num_threads(threads)
    assert (tmp_path / "runs/evaluation/figures/robustness-top1.png").exists()


def test_commands_that_are_not_run_have_known_options(capsys: pytest.CaptureFixture[str]) -> None:
    found = 0
    for page in (*PAGES, *TUTORIALS):
        for command in commands(page.read_text(), "sh"):
            _, marker, rest = command.partition("fastadv ")
            if not marker:
                continue
            words = shlex.split(rest)
            name = words[:2] if words[0] == "data" else words[:1]
            with pytest.raises(SystemExit, match="0"):
                main([*name, "--help"])
            known = set(re.findall(r"--[\w.-]+", capsys.readouterr().out))
            assert {word for word in words if word.startswith("--")} <= known, command
            found += 1
    assert found


def test_links_lead_somewhere() -> None:
    """On a code host and in a source distribution alike: to files of the repository, and to headings in them."""
    for page in (*PAGES, *TUTORIALS):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            target, _, heading = link.partition("#")
            if ":" in target:
                continue
            file = (page.parent / target).resolve() if target else page
            assert file.exists() and file.is_relative_to(ROOT), f"{page.name}: {link}"
            assert not heading or heading in anchors(file.read_text()), f"{page.name}: {link}"


def anchors(text: str) -> set[str]:
    """What a code host calls the headings of a Markdown file."""
    without_code = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150
