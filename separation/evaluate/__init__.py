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
    joined,
    score,
    score_by,
    score_row,
    score_rows,
)
from separation.evaluate.tables import FEW, by_class, compare, left_out, line, summary, table, tables, unit
from separation.separator import Separator

__all__ = [
    "FEW",
    "EvaluationError",
    "Outcome",
    "Plan",
    "Score",
    "Separator",
    "by_class",
    "compare",
    "evaluate",
    "joined",
    "left_out",
    "line",
    "main",
    "score",
    "score_by",
    "score_row",
    "score_rows",
    "summary",
    "table",
    "tables",
    "unit",
]
