"""Evaluation: accuracy under attack, transfer and label leaking; records, tables and figures."""

from fastadv.evaluate.accuracy import evaluate, evaluate_each
from fastadv.evaluate.card.card import Card
from fastadv.evaluate.card.in_python import robustness_card
from fastadv.evaluate.card.page import write_card
from fastadv.evaluate.counts import Counts, WorstCase
from fastadv.evaluate.figures import robustness_figure, save_figure
from fastadv.evaluate.intervals import Proportion, proportion
from fastadv.evaluate.label_leaking import LeakCounts, LeakRecord, run_leaking
from fastadv.evaluate.records import Evaluation, Record, RecordFile, read_records
from fastadv.evaluate.sweep import Subject, Sweep, run
from fastadv.evaluate.tables import Table, robustness_tables, save_table
from fastadv.evaluate.transfer import TransferCounts, TransferRecord, run_transfer

__all__ = [
    "Card",
    "Counts",
    "Evaluation",
    "LeakCounts",
    "LeakRecord",
    "Proportion",
    "Record",
    "RecordFile",
    "Subject",
    "Sweep",
    "Table",
    "TransferCounts",
    "TransferRecord",
    "WorstCase",
    "evaluate",
    "evaluate_each",
    "proportion",
    "read_records",
    "robustness_card",
    "robustness_figure",
    "robustness_tables",
    "run",
    "run_leaking",
    "run_transfer",
    "save_figure",
    "save_table",
    "write_card",
]


def __dir__() -> list[str]:
    return sorted(__all__)
