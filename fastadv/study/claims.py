"""What the paper claims, each as checks on records.

Bounds come from the paper: its numbers where it gives any ("less than 1 %"), otherwise the nearest round number beyond
what its tables show. A claim's text says where a bound, or the sizes and widths that are judged, were chosen by us. The
bounds were written before any study had been run, but after two networks had been trained and attacked on Fashion-MNIST
(benchmarks/results/2026-11-fashion-mnist.md), and have not been changed since. :mod:`fastadv.study.verdicts` has the
rule that turns them into verdicts.

Some changes came later, from reviewing the code and not from looking at a verdict: accuracies on the same images are
compared image by image, claims can have premises, verdicts are corrected for the number of figures, and leak_is_small
counts the errors that the attack adds. The same goes for the claims never_near_one, order_of_error, fgsm_fools_least,
error_grows, numerator_grows, rises_with_eps, slightly_lossy_activations and short_delay_is_harmless.

Claims marked ``added_later`` were written after the first results, which docs/results reproduces. Their bounds come
from the paper too, but the records were already there to be read. docs/results lists the paper's statements that no
claim judges, with the reasons.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastadv.study.experiments import EXPERIMENTS
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Claim, Finding, judge

CLAIMS: tuple[Claim, ...] = tuple(claim for experiment in EXPERIMENTS for claim in experiment.CLAIMS)


def findings(scale: Scale, results: Results, studies: Iterable[str]) -> list[Finding]:
    """Judge the claims of these studies."""
    chosen = set(studies)
    return [judge(claim, scale, results) for claim in CLAIMS if claim.study in chosen]
