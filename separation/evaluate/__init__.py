"""Evaluation on fixed mixtures: `python -m separation.evaluate --protocol NAME --root RECORDINGS`."""

from separation.evaluate.metrics import DEFAULT_METRICS as DEFAULT_METRICS
from separation.evaluate.scoring import EvaluationError as EvaluationError
from separation.evaluate.scoring import Outcome as Outcome
from separation.evaluate.scoring import Plan as Plan
from separation.evaluate.scoring import Score as Score
from separation.evaluate.scoring import merge_outcomes as merge_outcomes
from separation.evaluate.scoring import score_mixture as score_mixture
from separation.evaluate.scoring import score_rows as score_rows
from separation.evaluate.tables import compare_systems as compare_systems
from separation.evaluate.tables import describe_skipped as describe_skipped
from separation.evaluate.tables import format_tables as format_tables
from separation.evaluate.tables import summarize as summarize
