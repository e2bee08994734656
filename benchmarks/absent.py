"""How silent the output is when people ask for what is not there: many absent queries on each mixture.

    python benchmarks/absent.py --mixtures FOLDER/validation_mixtures.csv --every 5 --json absent.json

The list has one absent query on each of 100 mixtures, and its median hides the tail that people complain about. Here
every `pair` row is asked for `--queries` labels drawn from all that the list or the model knows; left out are those
that sound and those that mean nearly the same (cosine of sentence vectors). "Near" are the fifth of them that lie
nearest to the mixture in the model's joint space of sounds and texts, "far" are the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from separation import Separator
from separation.data.fixed_mixtures import read_rows, render
from separation.encoders.sentence import SentenceEncoder
from separation.evaluate.metrics import suppression

ALIKE = 0.6
NEAR = 0.2  # share of a row's queries
LOUD = 6.0  # dB under the mixture; what is louder than that is heard as an answer


def absent_labels(labels: list[str], alike: np.ndarray, row: dict[str, str], number: int, count: int) -> list[str]:
    """Labels drawn for one row, none of which sounds or means nearly what sounds."""
    sounding = [labels.index(row[name]) for name in ("target_label", "interference1_label") if row[name] in labels]
    free = np.flatnonzero(~alike[sounding].any(0))
    drawn = np.random.default_rng((0, number)).choice(free, min(count, len(free)), replace=False)
    return [labels[index] for index in drawn]


def asked(separator: Separator, row: dict[str, str], root: Path, queries: list[str]) -> list[dict[str, Any]]:
    """How far under the mixture each query's output lies, dB, its presence, and whether it is near."""
    rendered = render(row, root)
    mixture = torch.from_numpy(rendered.mixture).float()[None]
    results = separator(mixture, queries, sample_rate=rendered.sample_rate)
    sound = separator.encoder.encode_audio(mixture, rendered.sample_rate)
    nearness = (separator.encoder.encode_text(queries) @ sound[0]).tolist()
    nearest = sorted(nearness)[-max(1, round(NEAR * len(queries)))]
    return [
        {"row": row["id"], "query": query, "near": near >= nearest, "presence": result.presence,
         "under_db": suppression(rendered.mixture, result.target[0].numpy())}
        for query, result, near in zip(queries, results, nearness, strict=True)
    ]  # fmt: skip


def line(name: str, answers: list[dict[str, Any]]) -> str:
    """A line of the table."""
    under = np.array([answer["under_db"] for answer in answers])
    flagged = np.mean([answer["presence"] >= 0.5 for answer in answers])
    tenth, median = np.percentile(under, [10, 50])
    return f"| {name} | {len(answers)} | {median:.1f} | {tenth:.1f} | {np.mean(under < LOUD):.0%} | {flagged:.0%} |"


def table(answers: list[dict[str, Any]]) -> str:
    """Markdown."""
    columns = ["absent queries", "count", "median, dB under the mixture", "tenth percentile"]
    columns += [f"less than {LOUD:g} dB under", "presence from 0.5 on"]
    head = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    parts = ("all", answers), *((n, [a for a in answers if a["near"] == (n == "near")]) for n in ("near", "far"))
    return head + "\n".join(line(name, part) for name, part in parts)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How silent the output is for queries of what is not there.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--mixtures", type=Path, required=True, help="CSV, one mixture a row")
    parser.add_argument("--root", type=Path, help="folder the list's paths start from (default: the list's own)")
    parser.add_argument("--every", type=int, default=5, help="every N-th `pair` row only")
    parser.add_argument("--queries", type=int, default=20, help="absent queries a row")
    parser.add_argument("--json", type=Path, help="write every query's figures here")
    options = parser.parse_args()
    separator = Separator.from_pretrained(options.model)
    rows, root = read_rows(options.mixtures, "pair")[:: options.every], options.root or options.mixtures.parent
    labels = sorted({row["target_label"] for row in rows} | set(separator.listing.sounds))
    vectors = SentenceEncoder().encode_text(labels)
    alike = (vectors @ vectors.T).numpy() >= ALIKE
    answers = [
        answer
        for number, row in enumerate(rows)
        for answer in asked(separator, row, root, absent_labels(labels, alike, row, number, options.queries))
    ]
    print(table(answers))
    if options.json:
        options.json.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
