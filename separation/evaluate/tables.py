"""Summaries of scores: means with confidence intervals by group, by class, and for several systems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from separation.evaluate.metrics import METRICS, SUPPRESSION, Array, bootstrap
from separation.evaluate.scoring import Outcome, Score, score_mixture

if TYPE_CHECKING:
    from separation.data.fixed_mixtures import Rendered
    from separation.separator import Separator

FEW = 4  # classes with fewer train clips are reported separately
SYSTEMS = {
    "mixture": "mixture (nothing done)", "oracle": "oracle mask", "metrics": "model",
    "faithful": "model, published inference",
}  # fmt: skip
PRINTED_REASONS = 5
AGGREGATES = {
    "mean": "mean over rows; 95 % interval by {unit}",
    "class mean": "mean over each class, then over classes; 95 % interval by class",
    "class median": "median of each class, then mean over classes; 95 % interval by class",
}


def markdown(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Format a Markdown table."""
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def resampling_unit(scores: Iterable[Score]) -> str:
    """Name what the bootstrap resamples: recordings, files where no recording is known, or both."""
    known = {score.recording != score.file for score in scores}
    return "recording (by file where that is unknown)" if len(known) == 2 else "recording" if True in known else "file"


def mean_and_interval(values: Array, labels: list[str], recordings: list[str], how: str) -> tuple[float, float, float]:
    """Return one value for a group of rows, as `how` (a key of `AGGREGATES`) says, and its 95 % interval."""
    if how not in AGGREGATES:
        raise ValueError(f"Unknown aggregate {how}. Choose one of {', '.join(AGGREGATES)}.")
    if how == "mean":
        return float(values.mean()), *bootstrap(values, recordings)
    groups: dict[str, list[float]] = defaultdict(list)
    for label, value in zip(labels, values, strict=True):
        groups[label].append(value)
    centre = np.median if how == "class median" else np.mean
    classes = np.array([centre(group) for group in groups.values()])
    return float(classes.mean()), *bootstrap(classes, list(groups))


# The model alone


def summarize(scores: list[Score], clips: Counter[str] | None = None) -> list[dict[str, Any]]:
    """Summarize all pairs, pairs from ESC-50, pairs of rare and other classes, triples, and absent queries.

    `clips` counts the train clips of each class; without it rare classes are not reported separately. The dictionaries
    have rows (name of the group), n, mean, low, high, median and presence.
    """
    pairs = [s for s in scores if s.kind == "pair"]
    groups = {"pair": pairs, "pair, target from ESC-50": [s for s in pairs if s.esc]}
    if clips:
        groups[f"pair, class with {FEW}+ train clips"] = [s for s in pairs if clips[s.label] >= FEW]
        groups[f"pair, class with < {FEW} train clips"] = [s for s in pairs if clips[s.label] < FEW]
    groups |= {kind: [s for s in scores if s.kind == kind] for kind in ("three", "four", "five")}
    groups["absent (dB under the mixture)"] = [s for s in scores if s.kind == "absent"]
    lines = []
    for name, group in groups.items():
        if group:
            values = np.array([score.value for score in group])
            mean, low, high = mean_and_interval(values, [], [score.recording for score in group], "mean")
            line = {"rows": name, "n": len(group), "mean": mean, "low": low, "high": high}
            presence = float(np.mean([score.presence for score in group]))
            lines.append(line | {"median": float(np.median(values)), "presence": presence})
    return lines


def class_means(scores: Iterable[Score], kind: str = "pair") -> list[tuple[str, int, float]]:
    """Return (class, number of rows, mean SDRi) over the rows of one kind, worst first."""
    groups: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.kind == kind:
            groups[score.label].append(score.value)
    return sorted(((c, len(g), float(np.mean(g))) for c, g in groups.items()), key=lambda entry: entry[2])


def format_classes(scores: list[Score], kind: str) -> str:
    """Format rows, mean and median SDRi, and the mean of the oracle mask by class, worst first."""
    rows = []
    for name, count, mean in class_means(scores, kind):
        group = [score for score in scores if (score.kind, score.label) == (kind, name)]
        best = [score.oracle["sdri"] for score in group if "sdri" in score.oracle]
        median = np.median([score.value for score in group])
        rows.append((name, count, f"{mean:.2f}", f"{median:.2f}", f"{np.mean(best):.2f}" if best else ""))
    return markdown(("class", "rows", "mean dB", "median dB", "oracle mask, mean dB"), rows)


# Several systems


def compare_systems(scores: list[Score], metrics: tuple[str, ...], aggregate: str = "mean") -> list[dict[str, Any]]:
    """Return a cell for every kind of row, system and metric; absent queries have a metric of their own.

    A cell has kind, rows, system, metric, n (rows whose value is finite) and, if n > 0, value, low, high and median, as
    `aggregate` (a key of `AGGREGATES`) says.
    """
    cells = []
    for kind in dict.fromkeys(score.kind for score in scores):
        group = [score for score in scores if score.kind == kind]
        names, how = ((SUPPRESSION,), "mean") if kind == "absent" else (metrics, aggregate)
        for system, title in SYSTEMS.items():
            for metric in names if any(getattr(score, system) for score in group) else ():
                found = [(s, v) for s in group if np.isfinite(v := getattr(s, system).get(metric, np.nan))]
                cell = {"kind": kind, "rows": len(group), "system": title, "metric": metric, "n": len(found)}
                if found:
                    values = np.array([value for _, value in found])
                    labels, recordings = [s.label for s, _ in found], [s.recording for s, _ in found]
                    value, low, high = mean_and_interval(values, labels, recordings, how)
                    cell |= {"value": value, "low": low, "high": high, "median": float(np.median(values))}
                cells.append(cell)
    return cells


def format_tables(
    scores: list[Score], cells: list[dict[str, Any]], clips: Counter[str] | None = None, aggregate: str = "mean"
) -> str:
    """Format the table of the model alone, and for each kind of row one of systems by metrics."""

    def format_cell(cell: dict[str, Any]) -> str:
        if "value" not in cell:
            return "none"
        value, low, high, median = (f"{round(cell[key], 2) + 0.0:.2f}" for key in ("value", "low", "high", "median"))
        interval = f" ({low} to {high})" if cell["high"] > cell["low"] else ""
        return f"{value}{interval}; {median}" + (f", n = {cell['n']}" if cell["n"] < cell["rows"] else "")

    unit, tables = resampling_unit(scores), []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        group = [cell for cell in cells if cell["kind"] == kind]
        names = dict.fromkeys(cell["metric"] for cell in group)
        heads = ["dB under the mixture" if name == SUPPRESSION else METRICS[name].heading for name in names]
        systems = dict.fromkeys(cell["system"] for cell in group)
        rows = [[system, *(format_cell(c) for c in group if c["system"] == system)] for system in systems]
        tables.append(markdown([f"{kind}, n = {group[0]['rows']}", *heads], rows))
    template = "{rows}|{n}|{mean:.2f}|{low:.2f} to {high:.2f}|{median:.2f}|{presence:.2f}"
    alone = [template.format(**line).split("|") for line in summarize(scores, clips)]
    return (
        f"\nSDRi of the model (suppression of absent queries), mean over rows, 95 % interval by {unit}:\n\n"
        f"{markdown(('rows', 'n', 'mean dB', '95 % interval', 'median', 'presence'), alone)}\n"
        f"\nAll systems, {AGGREGATES[aggregate].format(unit=unit)}; behind the semicolon the median of the rows:\n\n"
        + "\n\n".join(tables)
    )


def compare(before: Separator, after: Separator, groups: dict[str, Sequence[Rendered]]) -> str:
    """Table of the mean SDRi of two models on groups of mixtures and, of the first group, on each of its sounds.

    Intervals are of 95 %, by recording.
    """
    lines = [f"{'SDRi in dB':<28}{'n':>4}{'before':>8}{'after':>8}  difference (95 % interval)"]
    for title, mixtures in groups.items():
        pairs = [(score_mixture(before, each), score_mixture(after, each)) for each in mixtures]
        parts = {title: pairs}
        if title == next(iter(groups)):
            sounds = sorted({score.query for score, _ in pairs})
            parts |= {f"  {sound}": [pair for pair in pairs if pair[0].query == sound] for sound in sounds}
        for name, chosen in parts.items() if pairs else ():
            first, second = (np.array([score.value for score in column]) for column in zip(*chosen, strict=True))
            low, high = bootstrap(second - first, [score.recording for score, _ in chosen])
            means = f"{first.mean():>8.2f}{second.mean():>8.2f}  {(second - first).mean():+.2f}"
            lines.append(f"{name:<28}{len(chosen):>4}{means} ({low:+.2f} to {high:+.2f})")
    return "\n".join(lines)


def describe_skipped(outcome: Outcome) -> list[str]:
    """Describe the rows without a score in at most three sentences."""
    sentences = []
    for reasons, what in (
        (outcome.missing, "whose recordings are missing"),
        (outcome.broken, "whose recordings cannot be read"),
        (outcome.silent, "with a silent signal"),
    ):
        if reasons:
            names = list(dict.fromkeys(reasons))
            more = f", and {len(names) - PRINTED_REASONS} more" if len(names) > PRINTED_REASONS else ""
            sentences.append(f"Left out, {len(reasons)} rows {what}: {'; '.join(names[:PRINTED_REASONS])}{more}.")
    return sentences
