"""What the checks for masked gradients say of networks that mask and of honest ones, on many samples of images.

    python -m benchmarks.masking_checks --data DIR --out FILE
    python -m benchmarks.masking_checks --data-set digits --width 0.5 --limit 1297 --epochs 10 --draws 2 --out FILE

Honest networks are trained for each seed; those that mask are the one of standard training with something before or
after it. Each sample is drawn at random from the test images.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.harness import Table
from benchmarks.machine import describe
from fastadv import PixelSpace, TruncatedNormalEps, data, models
from fastadv.evaluate.checks import Finding, run_checks
from fastadv.train import AdversarialTask, fast_task

SPACE = PixelSpace.unit()
M = 128  # images of a minibatch
Layer = Callable[[Tensor], Tensor]
Task = Callable[[Tensor, Tensor], Tensor]  # from images and labels to a loss

# --- networks that mask ----------------------------------------------------------------------------------------------


class Around(nn.Module):
    """A network with a function before it and one behind it."""

    def __init__(self, network: nn.Module, before: Layer | None = None, behind: Layer | None = None) -> None:
        super().__init__()
        self.network = network
        self.before, self.behind = before or nn.Identity(), behind or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, K]
        logits: Tensor = self.behind(self.network(self.before(images)))
        return logits


class _Zero(torch.autograd.Function):
    """Passes images on, and no gradient back."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:  # type: ignore[override]
        return torch.zeros_like(grad)


def zero_gradient(images: Tensor) -> Tensor:
    """A layer without a gradient."""
    found: Tensor = _Zero.apply(images)  # type: ignore[no-untyped-call]
    return found


def quantised(images: Tensor) -> Tensor:
    """Eight grey levels."""
    return (images * 7).round() / 7


def resized(images: Tensor) -> Tensor:
    """Shrinks images by up to a quarter, and pads them to their size at a random place (Xie et al., 2018)."""
    size = images.shape[-1]
    side = int(torch.randint(size - size // 4, size, ()))
    left, top = (int(torch.randint(0, size - side + 1, ())) for _ in range(2))
    small = F.interpolate(images, (side, side), mode="bilinear")
    return F.pad(small, (left, size - side - left, top, size - side - top))


MASKS: dict[str, tuple[str, Callable[[nn.Module], nn.Module]]] = {
    "zero-gradient layer": ("no_gradient", lambda net: Around(net, before=zero_gradient)),
    "logits x 1e4": ("logit_spread", lambda net: Around(net, behind=lambda logits: logits * 1e4)),
    "quantised input": ("steps_in_input", lambda net: Around(net, before=quantised)),
    "random resizing": ("two_answers", lambda net: Around(net, before=resized)),
    "softmax outputs": ("softmax_outputs", lambda net: Around(net, behind=nn.Softmax(dim=1))),
    "dropout left on": ("two_answers", lambda net: Around(net, before=lambda x: F.dropout(x, 0.1, training=True))),
}
"""By name, the check that should see it, and how to make it of a network."""

# --- honest networks -------------------------------------------------------------------------------------------------


class Standard(nn.Module):
    """Cross-entropy on clean images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self.model(images), labels)


def tasks(eps: float, seed: int) -> dict[str, Callable[[nn.Module], Task]]:
    """Ways of training, by name, that are aimed at one eps."""
    drawn = TruncatedNormalEps(sigma=eps, upper=2 * eps)
    common: dict[str, Any] = {"space": SPACE, "seed": seed}
    return {
        "standard": Standard,
        "Algorithm 1": lambda net: AdversarialTask(net, attack="step_ll", k=M // 2, eps=drawn, **common),
        "fast": lambda net: fast_task(net, eps=eps, **common),
        "PGD": lambda net: AdversarialTask(net, attack="pgd", k=M, eps=eps, attack_options={"steps": 5}, **common),
    }


def trained(
    net: nn.Module, make: Callable[[nn.Module], Task], images: data.ImageSet, epochs: int, seed: int
) -> nn.Module:
    """Train a network, and return it in evaluation mode."""
    task = make(net)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.002, weight_decay=0.0)
    loader = data.TensorLoader(images, M, space=SPACE, seed=seed)
    net.train()
    for epoch in range(epochs):
        for batch, labels in loader.epoch(epoch):
            optimizer.zero_grad()
            task(batch, labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval()


def small_cnn(images: data.ImageSet, width: float, seed: int) -> nn.Module:
    """A network with initial weights by the seed."""
    torch.manual_seed(seed)
    channels = images.images.shape[1]
    return models.create("small_cnn", num_classes=len(images.classes), in_channels=channels, width=width)


def small_vit(images: data.ImageSet, seed: int) -> nn.Module:
    """A small vision transformer with initial weights by the seed; an image has 4 x 4 or 7 x 7 patches."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(seed)
    side = images.images.shape[-1]
    patch, channels, classes = 4 if side > 16 else 2, images.images.shape[1], len(images.classes)
    return VisionTransformer(side, patch, channels, classes, embed_dim=48, depth=3, num_heads=3)


# --- what the checks say ---------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Counts the images that a network is asked about, by whether a gradient follows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rows = {True: 0, False: 0}

    def forward(self, images: Tensor) -> Tensor:  # [N, C, H, W] -> [N, K]
        self.rows[images.requires_grad] += len(images)
        logits: Tensor = self.network(images)
        return logits


@dataclass
class Said:
    """What the checks said of one network over all samples.

    Args:
        samples: how many samples.
        checks: in how many of them each check spoke.
        examples: the first finding of each check.
        seconds: process time.
        rows: of passes with and without a gradient.
        clean: images that were classified correctly.
    """

    samples: int = 0
    checks: Counter[str] = field(default_factory=Counter)
    examples: dict[str, Finding] = field(default_factory=dict)
    seconds: float = 0.0
    rows: Counter[bool] = field(default_factory=Counter)
    clean: int = 0

    def add(self, network: nn.Module, images: Tensor, labels: Tensor, *, eps: float, seed: int) -> None:
        """Run the checks on one sample."""
        counted = Counted(network).eval()
        begin = time.process_time()
        found = run_checks(counted, images, labels, space=SPACE, accuracies={}, eps=eps, seed=seed)
        self.seconds += time.process_time() - begin
        self.samples += 1
        self.rows.update(counted.rows)
        self.checks.update(finding.check for finding in found)
        self.examples = {**{finding.check: finding for finding in found}, **self.examples}
        with torch.no_grad():
            self.clean += int((network(images).argmax(dim=1) == labels).sum())


def measured(images: data.ImageData, options: argparse.Namespace) -> Iterator[dict[str, Said]]:
    """Run the checks on all networks, each with its samples; yield what is known after each network."""
    said: dict[str, Said] = {}
    train, test = images.train, images.test
    assert isinstance(train, data.ImageSet) and isinstance(test, data.ImageSet)
    few = data.ImageSet(train.images[: options.limit], train.labels[: options.limit], train.classes)
    for seed in range(options.seeds):
        for name, net in networks(few, options, seed):
            one = said.setdefault(name, Said())
            for draw in range(options.draws if name not in MASKS else options.draws_of_masks):
                chosen = torch.randperm(len(test.labels), generator=torch.Generator().manual_seed(draw))
                chosen = chosen[: options.images]
                x = SPACE.from_pixels(test.images[chosen])
                one.add(net, x, test.labels[chosen], eps=options.eps, seed=draw)
            print(f"seed {seed}, {name}: {dict(one.checks)}", file=sys.stderr)
            yield said


def networks(images: data.ImageSet, options: argparse.Namespace, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Train the honest networks, one by one, and make of the one of standard training those that mask."""
    for name, make in tasks(options.eps, seed).items():
        net = trained(small_cnn(images, options.width, seed), make, images, options.epochs, seed)
        yield name, net
        if name == "standard":
            yield from ((mask, around(net)) for mask, (_, around) in MASKS.items())
    yield "ViT", trained(small_vit(images, seed), Standard, images, options.epochs, seed)


def tables(said: dict[str, Said], images: int) -> list[Table]:
    """What was flagged, with an example of each, and what it cost."""
    flagged = Table(
        "What the checks said",
        ["network", "clean accuracy", "samples", "with a finding of the right check", "all findings"],
    )
    examples = Table("Evidence, from the first sample in which it was found", ["network", "check", "evidence"])
    cost = Table(f"Cost for {images} images", ["network", "rows with a gradient", "rows without", "s of process time"])
    for name, one in said.items():
        right = str(one.checks[MASKS[name][0]]) if name in MASKS else ""
        found = ", ".join(f"{check} {count}" for check, count in one.checks.most_common()) or "none"
        flagged.rows.append([name, f"{100 * one.clean / one.samples / images:.1f} %", str(one.samples), right, found])
        examples.rows += [[name, check, finding.evidence] for check, finding in one.examples.items()]
        with_gradient, without = (f"{one.rows[kind] / one.samples:,.0f}" for kind in (True, False))
        cost.rows.append([name, with_gradient, without, f"{one.seconds / one.samples:.2f}"])
    return [flagged, examples, cost]


def main(argv: list[str] | None = None) -> None:
    """Train, check, and write the tables."""
    options = _parser().parse_args(argv)
    images = data.load(options.data_set, options.data)
    command = shlex.join(["python", "-m", "benchmarks.masking_checks", *(sys.argv[1:] if argv is None else argv)])
    head = (
        f"# Checks for masked gradients\n\n{describe()}\n\n```bash\n{command}\n```\n\n"
        f"{options.data_set}: networks trained on {options.limit:,} images {options.epochs} times, small_cnn of width "
        f"{options.width:g} and a ViT of three blocks; {options.seeds} seeds of training; eps = {options.eps:g}; "
        f"samples of {options.images} test images, drawn at random."
    )
    for said in measured(images, options):
        shown = tables(said, options.images)
        options.out.write_text("\n\n".join([head, *(table.markdown() for table in shown)]) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking_checks", description=__doc__)
    parser.add_argument("--data-set", default="fashion_mnist")
    parser.add_argument("--data", metavar="DIR", help="folder of the data set; not needed for digits")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the tables, in Markdown")
    parser.add_argument("--limit", type=int, default=10_000, help="number of training images, from the first")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=float, default=0.5, help="width of small_cnn")
    parser.add_argument("--eps", type=float, default=16, help="of training and of the checks, in pixel values")
    parser.add_argument("--seeds", type=int, default=2, help="networks of each kind")
    parser.add_argument("--images", type=int, default=100, help="in each sample")
    parser.add_argument("--draws", type=int, default=10, help="samples for each honest network")
    parser.add_argument("--draws-of-masks", type=int, default=5, help="samples for each network that masks")
    return parser


if __name__ == "__main__":
    main()
