"""Scores of rows: the model's, and beside it those of the mixture as it is and of an oracle mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch

from separation.data.fixed_mixtures import VALIDATION, LeftOut, Mixing, Rendered, Row, read_rows, render, try_render
from separation.data.manifest import MANIFEST, recordings_of, with_recordings
from separation.evaluate.measures import SUPPRESSION, Array, Signals, measure
from separation.metrics import PUBLISHED_FLOOR, energy, sdri, suppression
from separation.metrics.oracle import oracle_estimate
from separation.separator import Separator

ESC = ("esc10", "esc50_cc0_by")


class EvaluationError(ValueError):
    """A row cannot be scored and must not be left out; the message is one plain sentence."""


@dataclass(frozen=True)
class Plan:
    """What is measured of each row.

    Args:
        column: which of a row's texts is the query.
        metrics: names from `measures.MEASURES`; none: SDRi alone.
        oracle: score an oracle mask too.
        mixing: how rows become audio.
        window: seconds of BSS Eval's windows; None: one window.
    """

    column: str = "query"
    metrics: tuple[str, ...] = ()
    oracle: bool = False
    mixing: Mixing = VALIDATION
    window: float | None = None


@dataclass(frozen=True)
class Score:
    """One row's result: `value` in dB is SDRi, or suppression where the query is absent; then the plan's metrics.

    `recording` is the original that the target was cut from, or `file`, the target's path, where that is not known.
    """

    id: str
    kind: str
    query: str
    label: str
    recording: str
    esc: bool
    value: float
    presence: float
    metrics: dict[str, float] = field(default_factory=dict)
    mixture: dict[str, float] = field(default_factory=dict)
    oracle: dict[str, float] = field(default_factory=dict)
    file: str = ""


@dataclass
class Outcome:
    """What became of a list's rows: scores, and for the others what was the matter."""

    scores: list[Score] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many there were."""
        return len(self.scores) + len(self.missing) + len(self.broken) + len(self.silent)

    def add(self, item: Rendered | LeftOut, score: Callable[[Rendered], Score]) -> None:
        """Scores a row, or counts it where it has no score."""
        if isinstance(item, LeftOut):
            (self.missing if item.missing else self.broken).append(item.why)
        elif name := silence(item):
            self.silent.append(f"{item.row['id']}: the {name} is silent")
        else:
            self.scores.append(score(item))


def merge_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """What became of all rows, of which each outcome has a part."""
    whole = Outcome()
    for part in outcomes:
        for one in fields(Outcome):
            getattr(whole, one.name).extend(getattr(part, one.name))
    return whole


def query_of(row: Row, column: str) -> str:
    """What is asked for.

    Raises:
        EvaluationError: the row has no such text.
    """
    if not row.get(column):
        raise EvaluationError(f"Row {row['id']} has no {column}.")
    return row[column]


def score_row(separator: Separator, row: Row, root: Path, column: str = "query") -> Score:
    """Renders, separates and scores one row of a list; `column` says which of its texts is the query."""
    return score(separator, render(row, root), column)


def score(separator: Separator, rendered: Rendered, column: str = "query") -> Score:
    """Separates and scores one mixture; `column` says which of its row's texts is the query."""
    return score_mixture(separator, rendered, Plan(column))


def score_mixture(separator: Separator, rendered: Rendered, plan: Plan) -> Score:
    """Separates one mixture and scores it as planned.

    Raises:
        EvaluationError: the output holds NaN or infinity, or the row has no query.
    """
    row, mixture, target = rendered.row, rendered.mixture, rendered.target
    query = query_of(row, plan.column)
    result = separator(torch.from_numpy(mixture), query, rendered.sample_rate)
    estimate = result.target[0].numpy()
    if not np.isfinite(estimate).all():
        raise EvaluationError(f"Row {row['id']}, {query!r}: the model's output holds NaN or infinity.")
    absent = row["kind"] == "absent"
    return Score(
        id=row["id"],
        kind=row["kind"],
        query=query,
        label=row.get("label") or row["query"],
        recording=row.get("recording") or row["target"],
        file=row["target"],
        esc=any(part in ESC for part in Path(row["target"]).parts[1:2]),
        value=suppression(mixture, estimate) if absent else sdri(target, estimate, mixture),
        presence=result.presence,
        **by_system(rendered, estimate, plan),
    )


def by_system(rendered: Rendered, estimate: Array, plan: Plan) -> dict[str, dict[str, float]]:
    """The plan's metrics of the model's estimate, of the mixture as it is, and of an oracle mask."""
    mixture, target = rendered.mixture, rendered.target
    pairs = {"metrics": (estimate, mixture - estimate), "mixture": (mixture, mixture)}
    if plan.oracle:
        best = oracle_estimate(target, mixture, rendered.sample_rate)
        pairs["oracle"] = best, mixture - best
    if not plan.metrics:
        return {}
    if rendered.row["kind"] == "absent":
        return {name: {SUPPRESSION: suppression(mixture, output)} for name, (output, _) in pairs.items()}
    window = None if plan.window is None else round(plan.window * rendered.sample_rate)
    return {
        name: measure(plan.metrics, Signals(target, mixture, output, rest, rendered.sample_rate, window))
        for name, (output, rest) in pairs.items()
    }


def silence(rendered: Rendered) -> str:
    """Which of a row's signals is silent (under -100 dB of full scale), so that it has no score; empty: none."""
    signals = {}
    if rendered.row["kind"] != "absent":
        signals = {"target": rendered.target, "interference": rendered.mixture - rendered.target}
    signals["mixture"] = rendered.mixture
    for name, wave in signals.items():
        if energy(wave) <= PUBLISHED_FLOOR * wave.size:
            return name
    return ""


def score_rows(
    separator: Separator,
    rows: Iterable[Row],
    locate: Callable[[Row], Path | str],
    plan: Plan,
    tell: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Scores the rows whose recordings are there and sound; the others are listed.

    Args:
        separator: the model.
        rows: of a protocol or a list.
        locate: a row's folder, or the path of a recording that is missing.
        plan: what is measured.
        tell: is told how many rows are done.

    Raises:
        EvaluationError: the model's output holds NaN or infinity, or a row has no query.
    """
    outcome = Outcome()
    for done, row in enumerate(rows):
        tell(done)
        outcome.add(
            try_render(row, locate(row), plan.mixing), lambda rendered: score_mixture(separator, rendered, plan)
        )
    return outcome


def evaluate(separator: Separator, mixtures: Path, root: Path, column: str = "query", every: int = 1) -> list[Score]:
    """Scores of a list's rows, or of every `every`-th; a manifest beside the recordings says which are of one."""
    rows = with_recordings(read_rows(mixtures)[::every], recordings_of(root / MANIFEST))
    return [score_row(separator, row, root, column) for row in rows]
