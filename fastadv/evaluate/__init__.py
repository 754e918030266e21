"""Evaluation: records of what was measured, and the tables and figures made from them."""

from fastadv.evaluate.figures import robustness_figure, save_figure
from fastadv.evaluate.records import Evaluation, Record, RecordFile, read_records
from fastadv.evaluate.robustness import Counts, evaluate
from fastadv.evaluate.statistics import Proportion, proportion
from fastadv.evaluate.sweep import Subject, Sweep, run
from fastadv.evaluate.tables import Table, robustness_tables, save_table

__all__ = [
    "Counts",
    "Evaluation",
    "Proportion",
    "Record",
    "RecordFile",
    "Subject",
    "Sweep",
    "Table",
    "evaluate",
    "proportion",
    "read_records",
    "robustness_figure",
    "robustness_tables",
    "run",
    "save_figure",
    "save_table",
]
