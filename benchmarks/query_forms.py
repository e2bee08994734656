"""What a query's form is worth: SDRi of the default model asked by label, by examples, by both, and with a negative.

    python benchmarks/query_forms.py FOLDER                    FOLDER holds manifest.csv and validation_mixtures.csv
    python benchmarks/query_forms.py FOLDER --every 4 --json forms.json

Examples are train recordings of the target's label; none is in a mixture. A negative is the label of what else sounds.
Ways to leave it out that were tried and are not the package's are measured beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from separation import Separator
from separation.data.fixed_mixtures import read_rows, render
from separation.data.manifest import read_manifest
from separation.evaluate.metrics import bootstrap, sdri
from separation.query import Query

MOST = 8  # examples of a label


class Forms:
    """The queries that are compared, by what the table calls them.

    Args:
        separator: encodes them.
        root: folder with the manifest.
    """

    def __init__(self, separator: Separator, root: Path) -> None:
        self.separator = separator
        self.files: dict[str, list[Path]] = defaultdict(list)
        for clip in read_manifest(root / "manifest.csv", "train"):
            self.files[clip.label].append(root / clip.path)
        self.text = cache(lambda text: separator.conditions([text])[0])
        self.example = cache(lambda path: separator.conditions([Query(audio=path)])[0])

    def shown(self, label: str) -> list[Tensor]:
        """Embeddings of a label's first train recordings, in an order without meaning."""
        files = sorted(self.files[label])
        order = np.random.default_rng(0).permutation(len(files))[:MOST]
        return [self.example(files[number]) for number in order]

    def mean(self, *vectors: Tensor, weights: tuple[float, ...] | None = None) -> Query:
        """A query by the weighted mean of embeddings."""
        given = None if weights is None else torch.tensor(weights)
        return Query(embedding=self.separator.encoder.mean(torch.stack(vectors), given)[0])

    def of(self, label: str, others: list[str]) -> dict[str, Query]:
        """All forms for a target of one label beside others."""
        asked, examples, unwanted = self.text(label), self.shown(label), [self.text(other) for other in others]
        half = tuple(-0.5 / len(unwanted) for _ in unwanted)
        return {
            "label": Query(embedding=asked),
            "1 example": self.mean(examples[0]),
            "3 examples": self.mean(*examples[:3]),
            f"up to {MOST} examples": self.mean(*examples),
            "label and 3 examples": self.mean(asked, self.mean(*examples[:3]).embedding),
            "label without the others": Query(embedding=asked, negative=unwanted),
            "3 examples without the others": Query(embedding=self.mean(*examples[:3]).embedding, negative=unwanted),
            "not used: label minus half the others' conditions": self.mean(asked, *unwanted, weights=(1.0, *half)),
        }


def score(separator: Separator, forms: Forms, row: dict[str, str], root: Path) -> dict[str, float]:
    """SDRi of every form on one row, dB."""
    rendered = render(row, root)
    mixture = torch.from_numpy(rendered.mixture)
    others = [row[f"interference{n}_label"] for n in (1, 2) if row[f"interference{n}"]]
    queries = forms.of(row["query"], others)
    results = dict(zip(queries, separator(mixture, list(queries.values()), rendered.sample_rate), strict=True))
    estimates = {name: result.target[0] for name, result in results.items()}
    unwanted = separator(mixture, [Query(embedding=forms.text(other)) for other in others], rendered.sample_rate)
    rest = mixture - sum(result.target[0] for result in unwanted)
    again = separator(rest, queries["label"], rendered.sample_rate).target[0]
    estimates["not used: label, in the mixture less the others' targets"] = again
    return {name: sdri(rendered.target, wave.numpy(), rendered.mixture) for name, wave in estimates.items()}


def summary(scores: list[dict[str, float]], rows: list[dict[str, str]], kind: str) -> list[dict[str, Any]]:
    """Mean, interval and median of every form over the rows of one kind, and its mean gain over the label."""
    chosen = [number for number, row in enumerate(rows) if row["kind"] == kind]
    lines = []
    for name in scores[0] if chosen else ():
        values = np.array([scores[number][name] for number in chosen])
        base = np.array([scores[number]["label"] for number in chosen])
        low, high = bootstrap(values - base, [rows[number]["target"] for number in chosen])
        figures = {"mean": values.mean(), "median": np.median(values), "gain": (values - base).mean()}
        lines.append({"rows": kind, "asked by": name, "n": len(chosen), "low": low, "high": high, **figures})
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = "| rows | asked by | n | mean dB | median | over the label (95 % interval) |\n|---|---|---|---|---|---|\n"
    shape: Callable[[dict[str, Any]], str] = (
        "| {rows} | {asked by} | {n} | {mean:.2f} | {median:.2f} | {gain:+.2f} ({low:+.2f} to {high:+.2f}) |".format_map
    )
    return head + "\n".join(map(shape, lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare forms of queries on fixed mixtures.")
    parser.add_argument("folder", type=Path, help="with manifest.csv and validation_mixtures.csv")
    parser.add_argument("--model", default="default")
    parser.add_argument("--every", type=int, default=1, help="score every N-th row only")
    parser.add_argument("--json", type=Path, help="also write the lines here")
    options = parser.parse_args()
    separator = Separator.from_pretrained(options.model)
    forms = Forms(separator, options.folder)
    rows = [row for row in read_rows(options.folder / "validation_mixtures.csv") if row["kind"] != "absent"]
    rows = [row for row in rows if forms.files[row["query"]]][:: options.every]
    scores = [score(separator, forms, row, options.folder) for row in rows]
    lines = [line for kind in ("pair", "three") for line in summary(scores, rows, kind)]
    print(table(lines))
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
