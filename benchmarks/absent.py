"""Measures how quiet the output is for queries that are absent from the mixture.

    python benchmarks/absent.py --mixtures FOLDER/validation_mixtures.csv --every 5 --json absent.json

The list has one absent query for each of 100 mixtures, and their median hides the tail. Here every `pair` row is asked
for `--queries` labels out of all that the list or the model knows, without those that sound or mean nearly the same
(cosine of sentence vectors). "Near" is the fifth of them closest to the mixture in the model's joint space of sounds
and texts, "far" are the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lists import list_parser, list_rows, write_json

from separation import Separator
from separation.data.fixed_mixtures import render
from separation.encoders.sentence import SentenceEncoder
from separation.evaluate.metrics import suppression
from separation.evaluate.tables import markdown

SAME_MEANING = 0.6
NEAR = 0.2  # share of the queries of a row
LOUD = 6.0  # dB below the mixture; louder output is heard as an answer


def absent_labels(labels: list[str], alike: np.ndarray, row: dict[str, str], number: int, count: int) -> list[str]:
    """Draw labels for one row; none of them sounds or means nearly what sounds."""
    sounding = [labels.index(row[name]) for name in ("target_label", "interference1_label") if row[name] in labels]
    free = np.flatnonzero(~alike[sounding].any(0))
    chosen = np.random.default_rng((0, number)).choice(free, min(count, len(free)), replace=False)
    return [labels[index] for index in chosen]


def measure_row(separator: Separator, row: dict[str, str], root: Path, queries: list[str]) -> list[dict[str, Any]]:
    """Return the level below the mixture in dB, the presence and the nearness of each query."""
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


def table(answers: list[dict[str, Any]]) -> str:
    """Format the figures of all, near and far queries."""
    rows = []
    for name, wanted in (("all", (True, False)), ("near", (True,)), ("far", (False,))):
        part = [answer for answer in answers if answer["near"] in wanted]
        under = np.array([answer["under_db"] for answer in part])
        present = np.mean([answer["presence"] >= 0.5 for answer in part])
        tenth, median = np.percentile(under, [10, 50])
        rows.append(
            (name, len(part), f"{median:.1f}", f"{tenth:.1f}", f"{np.mean(under < LOUD):.0%}", f"{present:.0%}")
        )
    head = ["absent queries", "count", "median, dB under the mixture", "tenth percentile"]
    return markdown([*head, f"less than {LOUD:g} dB under", "presence from 0.5 on"], rows)


def main() -> None:
    """Print the table."""
    parser = list_parser("Measure how quiet the output is for absent queries.", every=5)
    parser.add_argument("--queries", type=int, default=20, help="absent queries a row")
    options = parser.parse_args()
    separator = Separator.from_pretrained(options.model)
    rows, root = list_rows(options, "pair")
    labels = sorted({row["target_label"] for row in rows} | set(separator.listing.sounds))
    vectors = SentenceEncoder().encode_text(labels)
    alike = (vectors @ vectors.T).numpy() >= SAME_MEANING
    answers = [
        answer
        for number, row in enumerate(rows)
        for answer in measure_row(separator, row, root, absent_labels(labels, alike, row, number, options.queries))
    ]
    print(table(answers))
    write_json(options.json, answers)


if __name__ == "__main__":
    main()
