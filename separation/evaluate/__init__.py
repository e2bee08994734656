"""A model on fixed mixtures: `python -m separation.evaluate --protocol NAME --root RECORDINGS`.

`scoring` scores rows, `measures` says by what, `tables` sums up, `command` is the command line.
"""

from separation.evaluate.command import main
from separation.evaluate.scoring import (
    EvaluationError,
    Outcome,
    Plan,
    Score,
    evaluate,
    merge_outcomes,
    score,
    score_mixture,
    score_row,
    score_rows,
)
from separation.evaluate.tables import (
    FEW,
    by_class,
    compare_systems,
    describe_skipped,
    format_tables,
    line,
    resampling_unit,
    summarize,
    table,
)
from separation.separator import Separator

__all__ = [
    "FEW",
    "EvaluationError",
    "Outcome",
    "Plan",
    "Score",
    "Separator",
    "by_class",
    "compare_systems",
    "describe_skipped",
    "evaluate",
    "format_tables",
    "line",
    "main",
    "merge_outcomes",
    "resampling_unit",
    "score",
    "score_mixture",
    "score_row",
    "score_rows",
    "summarize",
    "table",
]
