"""Section 4: dropout, label smoothing and weight decay, on and off."""

from __future__ import annotations

from fastadv.study.layout import table_and_curves
from fastadv.study.plan import Network, Robustness, Shown, Study
from fastadv.study.results import Results
from fastadv.study.scales import Scale

_NO_DROPOUT = {"model.options.dropout": 0.0}
_NO_SMOOTHING = {"label_smoothing": 0.0}


def networks(scale: Scale) -> dict[str, Network]:
    """By what is switched off; "none" is the base network, with all three."""
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


def show(scale: Scale, results: Results) -> Shown:
    """A table, of which the paper has words alone, and its curves."""
    base = scale.base
    note = (
        f"All three: dropout {base.model.options['dropout']:g}, label smoothing {base.label_smoothing:g}, weight decay "
        f"{base.optimizer.weight_decay:g}. The paper gives no table of this, and speaks of reduced weight decay."
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
        against="none",
    )


STUDY = Study("regularizers", "Other regularisers", "Section 4", evaluations, show)
