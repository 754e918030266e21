"""The robustness card: the worst case per image over a suite of attacks, on one page, with what puts it in doubt."""

from fastadv.evaluate.card.card import Card
from fastadv.evaluate.card.in_python import robustness_card
from fastadv.evaluate.card.suites import SUITES

__all__ = ["SUITES", "Card", "robustness_card"]
