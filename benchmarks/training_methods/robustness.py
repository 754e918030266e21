"""What a way of training is worth: accuracy on clean images and under attacks, counted once for each network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.training_methods.bench import Bench
from benchmarks.training_methods.ways import SPACE
from fastadv import data
from fastadv.evaluate import evaluate

CLEAN = "clean"
TEST_BATCH = 256


@dataclass(frozen=True)
class Spec:
    """An attack on the test images.

    Args:
        title: heading of its column.
        name: the attack's.
        options: the attack's.
        after: headings of columns whose attacks come first: it is left with the images that are still correct, and the
            column shows the worst case over all of them.
    """

    title: str
    name: str
    options: Mapping[str, int] = field(default_factory=dict)
    after: tuple[str, ...] = (CLEAN,)

    def key(self, eps: float) -> str:
        """Names what was run, in the file of results."""
        return json.dumps([self.name, dict(self.options), eps, self.after])


# The last one is the strongest, and the one that is drawn. To add another: a line here; trained networks are kept.
ATTACKS = (
    Spec("fgsm", "fgsm"),
    Spec("step_ll", "step_ll"),
    Spec("pgd-20", "pgd", {"steps": 20}),
    Spec("pgd-100", "pgd", {"steps": 100}, after=(CLEAN, "pgd-20")),
    # By its defaults, 100 steps and 5,000 queries, all networks would take an estimated 14 hours of CPU time.
    Spec("autoattack-20", "autoattack", {"steps": 20, "queries": 500}, after=(CLEAN, "pgd-20", "pgd-100")),
)


def counted(bench: Bench, model: nn.Module, kept: Path) -> None:
    """Attack a network as far as ``kept`` has no results yet: whether each test image is still correct, by attack."""
    results: dict[str, list[bool]] = json.loads(kept.read_text()) if kept.exists() else {}
    everything = torch.ones(len(bench.test), dtype=torch.bool)  # [N]
    if CLEAN not in results:
        results[CLEAN] = _still_correct(bench, model, None, everything).tolist()
    found = {CLEAN: torch.tensor(results[CLEAN])}
    for attack in ATTACKS:
        key = attack.key(bench.options.eps)
        if key not in results:
            left = torch.stack([found[title] for title in attack.after]).all(dim=0)  # [N]
            results[key] = _still_correct(bench, model, attack, left).tolist()
        found[attack.title] = torch.tensor(results[key])
    partial = kept.with_suffix(".partial")
    partial.write_text(json.dumps(results))
    partial.rename(kept)  # the main process reads it at any time


def read(kept: Path, eps: float) -> dict[str, int] | None:
    """How many test images were correct, clean and by the title of each attack; None if an attack is still missing."""
    results = json.loads(kept.read_text()) if kept.exists() else {}
    keys = {CLEAN: CLEAN} | {attack.title: attack.key(eps) for attack in ATTACKS}
    return {title: sum(results[key]) for title, key in keys.items()} if results.keys() >= set(keys.values()) else None


def _still_correct(bench: Bench, model: nn.Module, attack: Spec | None, of: Tensor) -> Tensor:  # [N] -> [N], bool
    """Which of the test images marked in ``of`` are correct, after the attack if there is one."""
    correct = of.clone()
    if not of.any():
        return correct
    images = data.ImageSet(bench.test.images[of], bench.test.labels[of], bench.test.classes)
    batches = data.TensorLoader(images, TEST_BATCH, space=SPACE, shuffle=False, drop_last=False, device=bench.device)
    if attack is None:
        counts = evaluate(model, batches, space=SPACE)
    else:
        common = {"eps": bench.options.eps, "space": SPACE, "early_stop": False}  # as the committed results were judged
        counts = evaluate(model, batches, attack=attack.name, **common, **attack.options)
    correct[of] = counts.correct
    return correct
