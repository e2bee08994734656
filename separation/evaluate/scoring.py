"""Scores of mixtures: those of the model, of the unprocessed mixture, and of an oracle mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from separation.data.fixed_mixtures import VALIDATION, LeftOut, Mixing, Rendered, Row, try_render
from separation.errors import NotFiniteError
from separation.evaluate.metrics import METRICS, PUBLISHED_FLOOR, SUPPRESSION, Array, Signals, energy, sdri, suppression
from separation.models.spectra import STFT

if TYPE_CHECKING:
    from separation.separator import Separator

ESC_SOURCES = ("esc10", "esc50_cc0_by")
TINY = 1e-12


class EvaluationError(ValueError):
    """A row cannot be scored and must not be skipped; the text is one sentence for the user."""


@dataclass(frozen=True)
class Plan:
    """What to measure for each row.

    Args:
        column: the text of a row that is the query.
        metrics: names from `METRICS`; empty: SDRi alone.
        oracle: also score an oracle mask.
        mixing: how rows become audio.
        window: seconds of BSS Eval's windows; None: one window.
        faithful: also score the model with the inference of its published evaluation.
    """

    column: str = "query"
    metrics: tuple[str, ...] = ()
    oracle: bool = False
    mixing: Mixing = VALIDATION
    window: float | None = None
    faithful: bool = False


@dataclass(frozen=True)
class Score:
    """Result of one row.

    Attributes:
        recording: the original that the target was cut from; the target's path where that is unknown.
        esc: whether the target comes from ESC-50.
        value: SDRi in dB; for absent queries how far the output lies below the mixture.
        metrics, mixture, oracle: the plan's metrics of the model, the unprocessed mixture and the oracle mask.
        faithful: those of the model with its published inference.
        file: path of the target.
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
    faithful: dict[str, float] = field(default_factory=dict)
    file: str = ""


@dataclass
class Outcome:
    """Scores of a list, and for every row without a score the reason."""

    scores: list[Score] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.scores) + len(self.missing) + len(self.broken) + len(self.silent)

    def add(self, item: Rendered | LeftOut, score: Callable[[Rendered], Score]) -> None:
        """Score a row, or record why it has no score: signals below -100 dB of full scale are silent."""
        if isinstance(item, LeftOut):
            (self.missing if item.missing else self.broken).append(item.why)
            return
        signals = {"mixture": item.mixture}
        if item.row["kind"] != "absent":
            signals = {"target": item.target, "interference": item.mixture - item.target} | signals
        silent = [name for name, wave in signals.items() if energy(wave) <= PUBLISHED_FLOOR * wave.size]
        if silent:
            self.silent.append(f"{item.row['id']}: the {silent[0]} is silent")
        else:
            self.scores.append(score(item))


def merge_outcomes(outcomes: Iterable[Outcome]) -> Outcome:
    """Concatenate outcomes, such as those of several devices."""
    whole = Outcome()
    for part in outcomes:
        for one in fields(Outcome):
            getattr(whole, one.name).extend(getattr(part, one.name))
    return whole


def score_mixture(separator: Separator, rendered: Rendered, plan: Plan = Plan()) -> Score:
    """Separate one mixture and score the result.

    Raises:
        EvaluationError: the output of the model contains NaN or infinity, or the row has no query.
    """
    row, mixture, target = rendered.row, rendered.mixture, rendered.target
    query = row.get(plan.column)
    if not query:
        raise EvaluationError(f"Row {row['id']} has no {plan.column}.")
    try:
        result = separator(torch.from_numpy(mixture), query, rendered.sample_rate)
        estimate = result.target[0].numpy()
        outputs = {"metrics": estimate, "mixture": mixture}
        if plan.faithful:
            published = separator.as_scored()(torch.from_numpy(mixture), query, rendered.sample_rate)
            outputs["faithful"] = published.target[0].numpy()
        if not all(np.isfinite(output).all() for output in outputs.values()):
            raise NotFiniteError("output")
    except NotFiniteError:
        fault = "the output of the model contains NaN or infinity"
        raise EvaluationError(f"Row {row['id']}, {query!r}: {fault}.") from None
    absent = row["kind"] == "absent"
    if plan.oracle:
        outputs["oracle"] = oracle_estimate(target, mixture, rendered.sample_rate)
    window = None if plan.window is None else round(plan.window * rendered.sample_rate)
    found: dict[str, dict[str, float]] = {}
    for system, output in outputs.items() if plan.metrics else ():
        if absent:
            found[system] = {SUPPRESSION: suppression(mixture, output)}
            continue
        rest = mixture if system == "mixture" else mixture - output
        signals = Signals(target, mixture, output, rest, rendered.sample_rate, window)
        found[system] = {name: METRICS[name].compute(signals) for name in plan.metrics}
    return Score(
        id=row["id"],
        kind=row["kind"],
        query=query,
        label=row.get("label") or row["query"],
        recording=row.get("recording") or row["target"],
        file=row["target"],
        esc=any(part in ESC_SOURCES for part in Path(row["target"]).parts[1:2]),
        value=suppression(mixture, estimate) if absent else sdri(target, estimate, mixture),
        presence=result.presence,
        **found,
    )


def score_rows(separator: Separator, rows: Iterable[Row], locate: Callable[[Row], Path | str], plan: Plan) -> Outcome:
    """Score the rows whose recordings exist and can be read; list the others.

    `locate` returns a row's folder, or the path of a missing recording. Raises EvaluationError as `score_mixture`.
    """
    outcome = Outcome()
    for row in rows:
        item = try_render(row, locate(row), plan.mixing)
        outcome.add(item, lambda rendered: score_mixture(separator, rendered, plan))
    return outcome


# Oracle mask: an upper bound for masking, computed from the true target


def wiener(target: Tensor, interference: Tensor) -> Tensor:
    """Return the gain between 0 and 1 of two powers."""
    return target / (target + interference + TINY)


def power(spectrum: Tensor) -> Tensor:
    """Sum the power of a spectrum (channels, bins, frames) over channels, which share a mask: (bins, frames)."""
    return spectrum.abs().square().sum(0)


@cache
def transform(sample_rate: int) -> STFT:
    """50-ms windows, 64 frames a second, as in the default model at 32 kHz."""
    return STFT(2 * round(sample_rate / 40), round(sample_rate / 64))


@torch.inference_mode()
def oracle_estimate(target: Array, mixture: Array, sample_rate: int) -> Array:
    """Filter a mixture (time,) by |T|^2 / (|T|^2 + |N|^2) in each bin, with the spectra of target and interference."""
    stft = transform(sample_rate)
    clean, spectrum = (stft(torch.from_numpy(wave).float()[None]) for wave in (target, mixture))
    mask = wiener(power(clean), power(spectrum - clean))
    return stft.inverse(mask * spectrum, len(mixture))[0].numpy()
