"""What scores say together: means with intervals by group, by class, and beside mixture and oracle mask."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from separation.evaluate.measures import MEASURES, SUPPRESSION, Array
from separation.evaluate.scoring import Outcome, Score
from separation.metrics import bootstrap

FEW = 4  # classes with fewer train clips are reported apart
SYSTEMS = {"mixture": "mixture (nothing done)", "oracle": "oracle mask", "metrics": "model"}
SHOWN = 5  # names of what was left out that are printed
AGGREGATES = {
    "mean": "mean over rows; 95 % interval by {unit}",
    "class mean": "mean over each class, then over classes; 95 % interval by class",
    "class median": "median of each class, then mean over classes; 95 % interval by class",
}


def resampling_unit(scores: Iterable[Score]) -> str:
    """What is resampled for intervals of means over rows: recordings, files where no recording is known, or either."""
    known = {score.recording != score.file for score in scores}
    return "recording (by file where that is unknown)" if len(known) == 2 else "recording" if True in known else "file"


def line(name: str, scores: list[Score]) -> dict[str, Any]:
    """Mean, median and interval of some scores."""
    values = np.array([score.value for score in scores])
    low, high = bootstrap(values, [score.recording for score in scores])
    return {
        "rows": name,
        "n": len(scores),
        "mean": float(values.mean()),
        "low": low,
        "high": high,
        "median": float(np.median(values)),
        "presence": float(np.mean([score.presence for score in scores])),
    }


def summarize(scores: list[Score], clips: Counter[str] | None = None) -> list[dict[str, Any]]:
    """The table: all pairs, those of ESC-50, those of rare classes apart, three sources, absent queries."""
    pairs = [s for s in scores if s.kind == "pair"]
    groups = {"pair": pairs, "pair, target from ESC-50": [s for s in pairs if s.esc]}
    if clips:
        groups[f"pair, class with {FEW}+ train clips"] = [s for s in pairs if clips[s.label] >= FEW]
        groups[f"pair, class with < {FEW} train clips"] = [s for s in pairs if clips[s.label] < FEW]
    groups["three"] = [s for s in scores if s.kind == "three"]
    groups["absent (dB under the mixture)"] = [s for s in scores if s.kind == "absent"]
    return [line(name, group) for name, group in groups.items() if group]


def by_class(scores: Iterable[Score], kind: str = "pair") -> list[tuple[str, int, float]]:
    """Class, rows, mean SDRi over the pairs (or rows of another kind), worst first."""
    values: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.kind == kind:
            values[score.label].append(score.value)
    return sorted(((c, len(v), float(np.mean(v))) for c, v in values.items()), key=lambda entry: entry[2])


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = "| rows | n | mean dB | 95 % interval | median | presence |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {e['rows']} | {e['n']} | {e['mean']:.2f} | {e['low']:.2f} to {e['high']:.2f} | {e['median']:.2f} "
        f"| {e['presence']:.2f} |"
        for e in lines
    )


def class_table(scores: list[Score], kind: str) -> str:
    """Markdown: each class's rows, mean and median SDRi, and the oracle mask's mean; worst first."""
    groups: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        if score.kind == kind:
            groups[score.label].append(score)
    rows = ["| class | rows | mean dB | median dB | oracle mask, mean dB |", "|---|---|---|---|---|"]
    for name, count, mean in by_class(scores, kind):
        median = np.median([score.value for score in groups[name]])
        best = [score.oracle["sdri"] for score in groups[name] if "sdri" in score.oracle]
        rows.append(f"| {name} | {count} | {mean:.2f} | {median:.2f} | {f'{np.mean(best):.2f}' if best else ''} |")
    return "\n".join(rows)


def figure(values: Array, labels: list[str], recordings: list[str], aggregate: str) -> tuple[float, float, float]:
    """One figure of a group's values, with the ends of its interval.

    Raises:
        ValueError: there is no such aggregate.
    """
    if aggregate == "mean":
        return float(values.mean()), *bootstrap(values, recordings)
    if aggregate not in AGGREGATES:
        raise ValueError(f"{aggregate} is no aggregate; these are: {', '.join(AGGREGATES)}")
    centre = np.median if aggregate == "class median" else np.mean
    groups: dict[str, list[float]] = defaultdict(list)
    for label, value in zip(labels, values, strict=True):
        groups[label].append(value)
    classes = np.array([centre(group) for group in groups.values()])
    return float(classes.mean()), *bootstrap(classes, list(groups))


def entry(scores: list[Score], system: str, metric: str, aggregate: str) -> dict[str, Any]:
    """One system's figure in one metric; rows that have none (NaN) are left out of `n`."""
    found = [(s, value) for s in scores if np.isfinite(value := getattr(s, system).get(metric, np.nan))]
    cell: dict[str, Any] = {"system": SYSTEMS[system], "metric": metric, "n": len(found)}
    if found:
        values = np.array([value for _, value in found])
        labels, recordings = [s.label for s, _ in found], [s.recording for s, _ in found]
        value, low, high = figure(values, labels, recordings, aggregate)
        cell |= {"value": value, "low": low, "high": high, "median": float(np.median(values))}
    return cell


def compare_systems(scores: list[Score], metrics: tuple[str, ...], aggregate: str = "mean") -> list[dict[str, Any]]:
    """Every system's figures by kind of row: the mixture as it is, an oracle mask where there is one, the model."""
    cells = []
    for kind in dict.fromkeys(score.kind for score in scores):
        group = [score for score in scores if score.kind == kind]
        names = (SUPPRESSION,) if kind == "absent" else metrics
        for system in SYSTEMS:
            if any(getattr(score, system) for score in group):
                rows = (entry(group, system, name, "mean" if kind == "absent" else aggregate) for name in names)
                cells += [{"kind": kind, "rows": len(group), **cell} for cell in rows]
    return cells


def number(value: float) -> str:
    """Two digits, and no minus before nothing."""
    return f"{round(value, 2) + 0.0:.2f}"


def cell_text(cell: dict[str, Any]) -> str:
    """A figure with its interval, the median of the rows, and for how many rows where not for all."""
    if "value" not in cell:
        return "none"
    text = number(cell["value"])
    if cell["high"] > cell["low"]:
        text += f" ({number(cell['low'])} to {number(cell['high'])})"
    text += f"; {number(cell['median'])}"
    return text + (f", n = {cell['n']}" if cell["n"] < cell["rows"] else "")


def heading(metric: str) -> str:
    """A metric as tables call it."""
    return "dB under the mixture" if metric == SUPPRESSION else MEASURES[metric].heading


def compare_table(cells: list[dict[str, Any]]) -> str:
    """Markdown: for each kind of row a table of systems by metrics."""
    tables = []
    for kind in dict.fromkeys(cell["kind"] for cell in cells):
        group = [cell for cell in cells if cell["kind"] == kind]
        names = list(dict.fromkeys(cell["metric"] for cell in group))
        rows = [
            f"| {kind}, n = {group[0]['rows']} | " + " | ".join(map(heading, names)) + " |",
            "|---" * (len(names) + 1) + "|",
        ]
        for system in dict.fromkeys(cell["system"] for cell in group):
            texts = [cell_text(cell) for cell in group if cell["system"] == system]
            rows.append(f"| {system} | " + " | ".join(texts) + " |")
        tables.append("\n".join(rows))
    return "\n\n".join(tables)


def format_tables(
    scores: list[Score], cells: list[dict[str, Any]], clips: Counter[str] | None = None, aggregate: str = "mean"
) -> str:
    """Markdown: the model alone, then beside the mixture and an oracle mask."""
    resampled = resampling_unit(scores)
    how = AGGREGATES[aggregate].format(unit=resampled)
    return (
        f"\nSDRi of the model (suppression of absent queries), mean over rows, 95 % interval by {resampled}:\n\n"
        f"{table(summarize(scores, clips))}\n"
        f"\nAll systems, {how}; behind the semicolon the median of the rows:\n\n"
        f"{compare_table(cells)}"
    )


def describe_skipped(outcome: Outcome) -> list[str]:
    """What was not scored and why, in a few sentences."""
    said = []
    for reasons, what in (
        (outcome.missing, "whose recordings are missing"),
        (outcome.broken, "whose recordings cannot be read"),
        (outcome.silent, "with a silent signal"),
    ):
        if reasons:
            names = list(dict.fromkeys(reasons))
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            said.append(f"Left out, {len(reasons)} rows {what}: {'; '.join(names[:SHOWN])}{more}.")
    return said
