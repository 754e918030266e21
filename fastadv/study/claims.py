"""What the paper claims, each as checks on records.

The bounds are the paper's words where it gives numbers ("less than 1 %"), and otherwise the nearest round number beyond
what its own tables show; a text says where a bound, or the sizes and widths that are judged, are chosen and not the
paper's. They were written before any study had been run, but after two networks had been trained and attacked on
Fashion-MNIST (benchmarks/results/2026-11-fashion-mnist.md), and have not been changed since. A verdict follows from
them by the one rule of :mod:`fastadv.study.verdicts`.

What came later came from reading the code and not from a verdict: that accuracies on the same images are compared image
by image, that claims have premises, the correction for the number of figures, and that leak_is_small asks for the
errors that the attack adds. So did the claims never_near_one, order_of_error, fgsm_fools_least, error_grows,
numerator_grows, rises_with_eps, slightly_lossy_activations and short_delay_is_harmless.

Claims that say that they were added came after the first results, which those of docs/results repeat: their bounds come
from the paper's words, too, but the records could be read by then. What the paper says and no claim judges is listed
beside those results, with the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastadv.study.experiments import EXPERIMENTS
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Claim, Finding, judge

CLAIMS: tuple[Claim, ...] = tuple(claim for experiment in EXPERIMENTS for claim in experiment.CLAIMS)


def findings(scale: Scale, results: Results, studies: Iterable[str]) -> list[Finding]:
    """The verdicts on the claims of these studies."""
    chosen = set(studies)
    return [judge(claim, scale, results) for claim in CLAIMS if claim.study in chosen]
