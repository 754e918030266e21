"""make demo: train one network on digits as usual and one by Algorithm 1, and attack both. CPU, under four minutes.

Sizes are in pixel values of [0, 255]. The digits are 8 x 8 pixels of 16 grey levels: one level is 16 pixel values, and
the strokes stay readable far beyond the eps of 16 that the paper uses on photographs. Training draws eps from
|N(0, 32)| truncated to [0, 64]; evaluation goes from 8, half a grey level, to 64, a quarter of the range.

The attacks: step_ll ("step l.l.") takes one step towards the class that the network finds least likely; the second
network trains on it. iter_basic takes many small steps away from the true class; it is stronger, and neither network
trains on it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastadv.cli import evaluate as evaluate
from fastadv.cli import train as train
from fastadv.evaluate import Record, proportion, read_records
from fastadv.evaluate.records import CLEAN
from fastadv.train import checkpoint
from fastadv.utils.terminals import escape_unencodable

OUT = Path("runs/demo")
STANDARD, ADVERSARIAL = "standard", "adversarial"
NETWORKS = {STANDARD: ["--attack.k", "0"], ADVERSARIAL: []}
TRAINED_WITH, HARDER, EPS = "step_ll", "iter_basic", 32.0


def main() -> int:
    """Train, evaluate, and print a summary; continues where an interrupted demo stopped."""
    print(__doc__)
    for name, options in NETWORKS.items():
        print(f"--- {name} training")
        code = train.main(["--recipe", "digits_step_ll", "--out", str(_run(name)), *options, *_resume(name)])
        if code:
            print("make demo continues from here", file=sys.stderr)
            return code
    print("--- evaluation")
    code = evaluate.main(
        [str(_run(name)) for name in NETWORKS]
        + ["--attacks", f"{TRAINED_WITH},{HARDER}", "--eps", "8,16,32,64", "--out", str(OUT)]
    )
    if code == 0:
        print(f"\n{summary(read_records(OUT / 'robustness.jsonl', Record))}")
        print(f"The figure: {OUT / 'figures' / 'robustness-top1.png'}")
    return code


def summary(records: list[Record]) -> str:
    """Summarise the measured accuracies in one sentence."""

    # If a model was trained and measured again, the last record counts.
    top1 = {(record.model, record.attack, record.eps): proportion(record.top1, record.n).value for record in records}

    def fall(model: str, attack: str) -> str:
        """The clean accuracy and that under attack."""
        clean, attacked = top1[model, CLEAN, 0.0], top1[model, attack, EPS]
        return f"{100 * clean:.1f} % to {100 * attacked:.1f} %"

    return (
        f"Under step l.l. examples of eps = {EPS:g}, the accuracy of the network trained as usual falls from "
        f"{fall(STANDARD, TRAINED_WITH)}, and that of the network trained on such examples from "
        f"{fall(ADVERSARIAL, TRAINED_WITH)}; under iterative examples of the same size, they fall from "
        f"{fall(STANDARD, HARDER)} and from {fall(ADVERSARIAL, HARDER)}."
    )


def _run(name: str) -> Path:
    return OUT / name


def _resume(name: str) -> list[str]:
    return ["--resume"] if checkpoint.latest(_run(name)) else []


if __name__ == "__main__":
    with escape_unencodable():
        code = main()
    sys.exit(code)
