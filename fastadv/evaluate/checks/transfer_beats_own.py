"""Adversarial images of other networks that fool more images than the network's own."""

from __future__ import annotations

from fastadv.evaluate.checks.finding import Finding
from fastadv.evaluate.checks.sample import STEPS, Sample
from fastadv.evaluate.checks.sign_test import beats, only
from fastadv.utils.module_modes import isolated


def transfer_beats_own(sample: Sample) -> Finding | None:
    """Speaks if adversarial images of a source fool the model more often than those along its own gradient.

    Costs 10 gradients an image of each source, and an answer of the model; nothing without sources.
    """
    for number, source in enumerate(sample.sources, 1):
        with isolated(source, "eval"):
            moved = sample.attacked(sample.create("pgd", model=source, eps=sample.eps, steps=STEPS))
        fooled = sample.wrong | sample.fooled_by(moved)  # [m]
        if beats(fooled, sample.by_gradient, comparisons=len(sample.sources)):
            return Finding(
                "transfer_beats_own",
                f"at eps {sample.eps:g}, images of source {number} ({type(source).__name__}) fool "
                f"{only(fooled, sample.by_gradient)} of {len(sample)} images that the model's own gradient does not, "
                f"which fools {only(sample.by_gradient, fooled)} that they do not",
                "the model's own gradient is masked: count images from these sources in the worst case",
            )
    return None
