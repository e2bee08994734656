"""Compares forms of queries: label, examples, both, and with a negative; SDRi of the default model.

    python benchmarks/query_forms.py FOLDER                    FOLDER holds manifest.csv and validation_mixtures.csv
    python benchmarks/query_forms.py FOLDER --every 4 --json forms.json

Examples are train recordings of the target's label; none is in a mixture. A negative is the label of another source.
Two alternatives that the package does not use are measured too.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lists import write_json
from torch import Tensor

from separation import Separator
from separation.data.fixed_mixtures import read_rows, render
from separation.data.manifest import read_manifest
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.query import Query

MOST = 8  # examples of a label


class Forms:
    """Builds the compared queries, by their names in the table.

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

    def examples(self, label: str) -> list[Tensor]:
        """Return embeddings of up to 8 train recordings of a label, in a fixed random order."""
        files = sorted(self.files[label])
        order = np.random.default_rng(0).permutation(len(files))[:MOST]
        return [self.example(files[number]) for number in order]

    def mean(self, *vectors: Tensor, weights: tuple[float, ...] | None = None) -> Query:
        """Return a query by the weighted mean of embeddings."""
        given = None if weights is None else torch.tensor(weights)
        return Query(embedding=self.separator.encoder.mean(torch.stack(vectors), given)[0])

    def of(self, label: str, others: list[str]) -> dict[str, Query]:
        """Return all forms for a target of one label in a mixture with others."""
        asked, examples, unwanted = self.text(label), self.examples(label), [self.text(other) for other in others]
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
    """Return the SDRi of every form on one row, dB."""
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
    """Return mean and median of every form over the rows of one kind, and its gain over the label with interval."""
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
    """Format the figures."""
    rows = [
        (e["rows"], e["asked by"], e["n"], f"{e['mean']:.2f}", f"{e['median']:.2f}",
         f"{e['gain']:+.2f} ({e['low']:+.2f} to {e['high']:+.2f})")
        for e in lines
    ]  # fmt: skip
    return markdown(("rows", "asked by", "n", "mean dB", "median", "over the label (95 % interval)"), rows)


def main() -> None:
    """Print the table."""
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
    write_json(options.json, lines)


if __name__ == "__main__":
    main()
