"""Every command and every line of Python in the README is run, here or by continuous integration."""

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
from tests import test_install
from tests.data.pictures import write_data_set

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    return [line for block in blocks("bash", text) for line in block.replace("\\\n", "").splitlines() if line]


COMMANDS = commands(README)


@pytest.fixture(scope="module")
def images_in_files(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the README calls /data/imagenet."""
    folder = tmp_path_factory.mktemp("imagenet")
    write_data_set(folder, per_class=12, classes=3)
    return str(folder)


def test_python_blocks_run_in_order(images_in_files: str) -> None:
    """The blocks continue one another; what they leave to the reader is a network, an optimiser and some images."""
    torch.manual_seed(0)
    space = fastadv.PixelSpace.imagenet()
    model = fastadv.models.create("small_cnn", num_classes=10)
    images, labels = space.from_pixels(torch.randint(0, 256, (32, 3, 16, 16))), torch.randint(0, 10, (32,))
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.01),
        "loader": [(images.clone(), labels)],
        "test_loader": [(images, labels)],
        "images": images,
        "labels": labels,
    }
    before = [parameter.clone() for parameter in model.parameters()]
    for block in blocks("python"):
        exec(block.replace("/data/imagenet", images_in_files), names)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
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


def test_the_recorded_run_is_the_readmes() -> None:
    """With the same options, in folders of its own."""
    results = ROOT / "benchmarks" / "results" / "2026-11-imagenette-two-processes.md"

    def options(text: str) -> list[str]:
        (command,) = [line for line in commands(text) if "inception_v3" in line]
        return shlex.split(re.sub(r"--(data|out) \S+", r"--\1 DIR", command))

    assert options(results.read_text()) == options(README)


@pytest.mark.timeout(900)
def test_command_line_of_the_readme(tmp_path: Path, images_in_files: str) -> None:
    modules = {"fastadv": "fastadv", "torchrun": "torch.distributed.run"}
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        if program not in modules:
            continue
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                modules[program],
                *(a.replace("/data/imagenet", images_in_files) for a in arguments),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, f"{command}\n{run.stderr}"
    assert (tmp_path / "runs/evaluation/figures/robustness-top1.png").exists()
