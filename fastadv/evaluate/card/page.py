"""A card as one page: HTML without other files, Markdown with pictures beside it, and JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from fastadv.evaluate.card.card import Card
from fastadv.evaluate.card.tables import accuracy_table, asked_for, card_figure, cost_table
from fastadv.evaluate.figures import save_figure
from fastadv.evaluate.pages import html_page, inline_svg, table_html
from fastadv.evaluate.records import CLEAN
from fastadv.evaluate.tables import escape_markdown, images_of, to_markdown
from fastadv.utils.text import counted, printable

_STYLE = """
.doubt { border-left: 4px solid #aa1144; padding: .1rem .8rem; margin: .8rem 0; background: #fbf3f5; }
img { max-width: 100%; height: auto; }
.examples { display: flex; flex-wrap: wrap; gap: 0 2rem; }
.examples figcaption { max-width: 28rem; }
"""


def write_card(card: Card, folder: str | Path) -> list[Path]:
    """Write card.html, card.md and card.json, with the figure and the examples' pictures; returns the paths.

    Raises:
        OSError: if a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("card-example-*.png"):
        stale.unlink()
    pictures = []
    for number, example in enumerate(card.examples, start=1):
        pictures.append(folder / f"card-example-{number}.png")
        pictures[-1].write_bytes(example.png())
    figure = save_figure(card_figure(card), folder / "card-figure")
    pages = {
        "card.html": html_page(_title(card), body(card), style=_STYLE),
        "card.md": _markdown(card),
        "card.json": json.dumps(content(card), indent=2) + "\n",
    }
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    return [*(folder / name for name in pages), *figure, *pictures]


def content(card: Card) -> dict[str, Any]:
    """The card for programs to read: numbers are objects with the fields of :class:`Proportion`."""
    first = card.records[0]
    networks = {
        model: {
            "sha256": card.record(model, CLEAN, 0.0).checkpoint,
            "space": card.record(model, CLEAN, 0.0).space,
            "clean": asdict(card.accuracy(model, CLEAN, 0.0)),
            "attacks": {
                attack: {f"{eps:g}": asdict(card.accuracy(model, attack, eps)) for eps in card.sizes}
                for attack in card.attacks
            },
            "worst case": {f"{eps:g}": asdict(card.worst_case(model, eps)) for eps in card.sizes},
            "asked": {attack: _asked(card, model, attack) for attack in (CLEAN, *card.attacks)},
            "warnings": [asdict(finding) for finding in card.findings[model]],
        }
        for model in card.models
    }
    return {
        "suite": card.suite,
        "images": {"n": first.n, "total": first.total, "data set": first.folder or first.dataset, "seed": first.seed},
        "until": card.until,
        "device": first.device,
        "versions": dict(first.versions),
        "networks": networks,
        "checks": {"images": card.checked, "seconds": round(card.check_seconds, 3)},
        "examples": [
            {name: getattr(one, name) for name in ("model", "index", "attack", "eps", "label", "predicted")}
            for one in card.examples
        ],
    }


def _asked(card: Card, model: str, attack: str) -> dict[str, Any]:
    """What an attack asked of a network at all sizes; a count is None if it was not made."""
    asked = asked_for([r for r in card.records if (r.model, r.attack) == (model, attack)])
    return {"gradients": asked.gradients, "forward passes": asked.forwards, "seconds": round(asked.seconds, 3)}


def warning_lines(card: Card) -> list[str]:
    """The warnings, a line each; or one that says that there are none."""
    found = [
        f"{model}: {one.check}: {one.evidence}; {one.advice}" for model in card.models for one in card.findings[model]
    ]
    return found or [_no_warning(card)]


def body(card: Card) -> list[str]:
    """The parts of the page, as HTML."""
    parts = [f"<h1>{escape(_title(card))}</h1>", f"<p>{escape(_summary(card))}</p>", "<h2>Warnings</h2>"]
    if not any(card.findings.values()):
        parts.append(f"<p>{escape(_no_warning(card))}</p>")
    for model in card.models:
        parts += [
            f'<div class="doubt"><p><b>{escape(printable(model))}: {escape(one.check)}</b><br>'
            f"{escape(one.evidence)}<br>{escape(one.advice)}</p></div>"
            for one in card.findings[model]
        ]
    parts.append("<h2>Accuracy</h2>")
    parts += [table_html(accuracy_table(card, model)) for model in card.models]
    parts.append(f"<figure>{inline_svg(card_figure(card), 'card-figure')}</figure>")
    if card.examples:
        parts += [
            "<h2>Images that are easiest to fool</h2>",
            f"<p>{escape(_ABOUT_EXAMPLES)}</p>",
            '<div class="examples">',
        ]
    for example in card.examples:
        shown = base64.b64encode(example.png()).decode()
        caption = escape(printable(example.caption))
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{shown}"><figcaption class="note">{caption}'
            "</figcaption></figure>"
        )
    if card.examples:
        parts.append("</div>")
    parts.append("<h2>What was asked of the networks</h2>")
    parts += [table_html(cost_table(card, model)) for model in card.models]
    return parts


def _markdown(card: Card) -> str:
    parts = [f"# {_title(card)}", escape_markdown(_summary(card)), "## Warnings"]
    if not any(card.findings.values()):
        parts.append(_no_warning(card))
    parts += [
        f"- **{escape_markdown(model)}: {one.check}.** {escape_markdown(one.evidence)}; {escape_markdown(one.advice)}"
        for model in card.models
        for one in card.findings[model]
    ]
    parts.append("## Accuracy")
    parts += [to_markdown(accuracy_table(card, model)).rstrip() for model in card.models]
    parts.append("![Accuracy against eps](card-figure.svg)")
    if card.examples:
        parts += ["## Images that are easiest to fool", _ABOUT_EXAMPLES]
    parts += [
        f"![Example {number}](card-example-{number}.png)\n\n{escape_markdown(example.caption)}"
        for number, example in enumerate(card.examples, start=1)
    ]
    parts.append("## What was asked of the networks")
    parts += [to_markdown(cost_table(card, model)).rstrip() for model in card.models]
    return "\n\n".join(parts) + "\n"


_ABOUT_EXAMPLES = "Each image, its adversarial version, and the difference between them, magnified."


def _title(card: Card) -> str:
    return f"Robustness card: {', '.join(map(printable, card.models))}"


def _summary(card: Card) -> str:
    cases: Sequence[str] = [
        f"{printable(model)} classifies {100 * card.worst_case(model, eps).value:.1f} % correctly in the worst case at "
        f"eps {eps:g}{_doubt(card, model)}"
        for model in card.models
        for eps in card.sizes[-1:]
    ]
    return f"Suite {card.suite} ({', '.join(card.attacks)}) on {images_of(card.records[0])}. {'; '.join(cases)}."


def _doubt(card: Card, model: str) -> str:
    """What puts the numbers of a network in doubt, beside them: the summary is what people quote."""
    count = len(card.findings[model])
    return f" (in doubt: {counted(count, 'warning')})" if count else ""


def _no_warning(card: Card) -> str:
    images = counted(card.checked, "image")
    return f"No warning: the checks for masked gradients found nothing on {images}, which is no proof."
