"""Section 4: dropout, label smoothing and weight decay, on and off."""

from __future__ import annotations

from fastadv.study.checks import POINT, accuracy_gains, clean_gain
from fastadv.study.evaluations import Robustness
from fastadv.study.layout import table_and_curves
from fastadv.study.networks import Network
from fastadv.study.plan import Study, StudyOutput
from fastadv.study.results import Results
from fastadv.study.scales import Scale
from fastadv.study.verdicts import Check, Claim

_NO_DROPOUT = {"model.options.dropout": 0.0}
_NO_SMOOTHING = {"label_smoothing": 0.0, "attack.label_smoothing": 0.0}


def networks(scale: Scale) -> dict[str, Network]:
    """Networks keyed by what is switched off; "none" is the base network, with all three."""
    return {
        "none": scale.adversarial("All three"),
        "dropout": scale.adversarial("No dropout", _NO_DROPOUT),
        "smoothing": scale.adversarial("No label smoothing", _NO_SMOOTHING),
        "both": scale.adversarial("No dropout or smoothing", {**_NO_DROPOUT, **_NO_SMOOTHING}),
        "decay": scale.adversarial("No weight decay", {"optimizer.weight_decay": 0.0}),
    }


def evaluations(scale: Scale) -> list[Robustness]:
    """One sweep."""
    return scale.sweep(networks(scale).values(), ["step_ll"])


def show(scale: Scale, results: Results) -> StudyOutput:
    """A table, which the paper does not have, and its curves."""
    base = scale.base
    note = (
        f"All three: dropout {base.model.options['dropout']:g}, label smoothing {base.label_smoothing:g}, weight decay "
        f"{base.optimizer.weight_decay:g}. The paper has no table of this, and speaks of reduced weight decay."
    )
    return table_and_curves(
        scale,
        results,
        networks(scale),
        ["step_ll"],
        name="regularizers",
        caption="Regularisers, step l.l.",
        label="Training",
        notes=[note],
        reference="none",
    )


STUDY = Study("regularizers", "Other regularisers", "Section 4", evaluations, show)


# --- what the paper claims --------------------------------------------------------------------------------------------


def _without_two(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        clean_gain(results, found["none"], found[off], f"all three over without {off}", above=0, below=POINT)
        for off in ("dropout", "smoothing", "both")
    ]


def _without_two_robust(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    return [
        check
        for off in ("dropout", "smoothing", "both")
        for check in accuracy_gains(
            scale,
            results,
            f"without {off} over all three",
            (found[off], "step_ll"),
            (found["none"], "step_ll"),
            above=0,
            sizes=scale.eps[-1:],
        )
    ]


def _without_decay(scale: Scale, results: Results) -> list[Check]:
    found = networks(scale)
    one, other = (found["none"], "step_ll"), (found["decay"], "step_ll")
    clean = clean_gain(results, found["none"], found["decay"], "all three over without weight decay", above=0)
    what = "all three over without weight decay"
    return [clean, *accuracy_gains(scale, results, what, one, other, above=0, sizes=scale.eps[-1:])]


CLAIMS = (
    Claim(
        "without_two",
        "regularizers",
        "Section 4",
        "Without dropout, label smoothing or both, clean accuracy falls, by less than 1 point (0.1 to 0.5).",
        _without_two,
    ),
    Claim(
        "without_two_robust",
        "regularizers",
        "Section 4",
        "Without dropout, label smoothing or both, accuracy under step l.l. rises (by 1 to 1.5 points); judged at the "
        "largest eps.",
        _without_two_robust,
    ),
    Claim(
        "without_decay",
        "regularizers",
        "Section 4",
        "Less weight decay reduces accuracy on clean and on adversarial images; judged without any weight decay, under "
        "step l.l. at the largest eps.",
        _without_decay,
    ),
)
