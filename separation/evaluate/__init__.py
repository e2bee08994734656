"""Evaluation on fixed mixtures: `python -m separation.evaluate --protocol NAME --root RECORDINGS`."""

from separation.evaluate.metrics import DEFAULT_METRICS
from separation.evaluate.scoring import (
    EvaluationError,
    Outcome,
    Plan,
    Score,
    merge_outcomes,
    score_mixture,
    score_rows,
)
from separation.evaluate.tables import compare_systems, describe_skipped, format_tables, summarize

__all__ = [
    "DEFAULT_METRICS",
    "EvaluationError",
    "Outcome",
    "Plan",
    "Score",
    "compare_systems",
    "describe_skipped",
    "format_tables",
    "merge_outcomes",
    "score_mixture",
    "score_rows",
    "summarize",
]
