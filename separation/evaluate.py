"""A model on a list of fixed mixtures: `python -m separation.evaluate --mixtures LIST.csv --root RECORDINGS`.

Prints SDRi of the rows with a target, suppression of those whose query is absent, and their intervals; writes every
row's score to JSON when asked.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from separation.data.protocol import Rendered, read_rows, render
from separation.metrics import bootstrap, sdri, suppression
from separation.separator import Separator

FEW = 4  # classes with fewer train clips are reported apart


@dataclass(frozen=True)
class Score:
    """One row's result, dB: SDRi, or suppression where the query is absent."""

    id: str
    kind: str
    query: str
    label: str
    recording: str
    esc: bool
    value: float
    presence: float


def score(separator: Separator, rendered: Rendered, column: str = "query") -> Score:
    """Separates and scores one mixture; `column` says which of its row's texts is the query."""
    row = rendered.row
    result = separator(torch.from_numpy(rendered.mixture), row[column], rendered.sample_rate)
    estimate = result.target[0].numpy()
    absent = row["kind"] == "absent"
    value = suppression(rendered.mixture, estimate) if absent else sdri(rendered.target, estimate, rendered.mixture)
    esc = len(Path(row["target"]).parts) > 1 and Path(row["target"]).parts[1] in ("esc10", "esc50_cc0_by")
    return Score(row["id"], row["kind"], row[column], row["query"], row["target"], esc, value, result.presence)


def score_row(separator: Separator, row: dict[str, str], root: Path, column: str = "query") -> Score:
    """Renders, separates and scores one row of a list."""
    return score(separator, render(row, root), column)


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


def summary(scores: list[Score], clips: Counter[str] | None = None) -> list[dict[str, Any]]:
    """The table: all pairs, those of ESC-50, those of rare classes apart, three sources, absent queries."""
    pairs = [s for s in scores if s.kind == "pair"]
    groups = {"pair": pairs, "pair, target from ESC-50": [s for s in pairs if s.esc]}
    if clips:
        groups[f"pair, class with {FEW}+ train clips"] = [s for s in pairs if clips[s.label] >= FEW]
        groups[f"pair, class with < {FEW} train clips"] = [s for s in pairs if clips[s.label] < FEW]
    groups["three"] = [s for s in scores if s.kind == "three"]
    groups["absent (dB under the mixture)"] = [s for s in scores if s.kind == "absent"]
    return [line(name, group) for name, group in groups.items() if group]


def by_class(scores: Iterable[Score]) -> list[tuple[str, int, float]]:
    """Class, rows, mean SDRi over the pairs, worst first."""
    values: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.kind == "pair":
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


def evaluate(separator: Separator, mixtures: Path, root: Path, column: str = "query", every: int = 1) -> list[Score]:
    """Scores of a list's rows, or of every `every`-th."""
    return [score_row(separator, row, root, column) for row in read_rows(mixtures)[::every]]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Score a model on a list of fixed mixtures.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--mixtures", type=Path, required=True, help="CSV, one mixture a row")
    parser.add_argument("--root", type=Path, help="folder the list's paths start from (default: the list's own)")
    parser.add_argument("--query", choices=["query", "phrase"], default="query", help="ask by label or by phrase")
    parser.add_argument("--every", type=int, default=1, help="score every N-th row only")
    parser.add_argument("--classes", action="store_true", help="print a table by class too")
    parser.add_argument("--json", type=Path, help="write all rows' scores here")
    arguments = parser.parse_args()
    root = arguments.root or arguments.mixtures.parent
    started = time.perf_counter()
    separator = Separator.from_pretrained(arguments.model)
    scores = evaluate(separator, arguments.mixtures, root, arguments.query, arguments.every)
    manifest = root / "manifest.csv"
    clips = None
    if manifest.is_file():
        from separation.data.manifest import read_manifest

        clips = Counter(clip.label for clip in read_manifest(manifest, "train"))
    print(f"{separator!r}, asked by {arguments.query}, {time.perf_counter() - started:.0f} s\n")
    print(table(summary(scores, clips)))
    if arguments.classes:
        print("\n| class | rows | mean dB |\n|---|---|---|")
        print("\n".join(f"| {name} | {count} | {mean:.2f} |" for name, count, mean in by_class(scores)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(score) for score in scores], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
