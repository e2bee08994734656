"""Measures how quiet the output is for queries that are absent from the mixture.

    python benchmarks/absent.py --data FOLDER --every 5 --json absent.json

The list has one absent query for each of 100 mixtures, and their median hides the tail. Here every `pair` row is asked
for 20 labels out of all that the list or the model knows, without those that sound or mean nearly the same (cosine of
sentence vectors). "Near" is the fifth of them closest to the mixture in the model's joint space of sounds and texts,
"far" are the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import list_rows, make_parser, run_benchmark, write_json

from separation import Separator
from separation.data.fixed_mixtures import Row, render
from separation.encoders.sentence import SentenceEncoder
from separation.evaluate.metrics import suppression
from separation.evaluate.tables import markdown

QUERIES = 20  # of a row
SAME_MEANING = 0.6
NEAR = 0.2  # share of the queries of a row
LOUD = 6.0  # dB below the mixture; louder output is heard as an answer


def measure_row(separator: Separator, row: Row, root: Path, queries: list[str]) -> list[dict[str, Any]]:
    """Return the level below the mixture in dB, the presence and the nearness of each query."""
    rendered = render(row, root)
    mixture = torch.from_numpy(rendered.mixture).float()[None]
    results = separator(mixture, queries, sample_rate=rendered.sample_rate)
    sound = separator.encoder.encode_audio(mixture, rendered.sample_rate)
    nearness = separator.encoder.encode_text(queries) @ sound[0]
    nearest = nearness.topk(max(1, round(NEAR * len(queries)))).values.min()
    return [
        {
            "row": row["id"],
            "query": query,
            "near": bool(near >= nearest),
            "presence": result.presence,
            "under_db": suppression(rendered.mixture, result.target[0].numpy()),
        }
        for query, result, near in zip(queries, results, nearness, strict=True)
    ]


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


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    options = make_parser(__doc__, mixtures=True, every=5).parse_args(argv)
    rows, root = list_rows(options, "pair")
    separator = Separator.from_pretrained(options.model)
    labels = sorted({row["target_label"] for row in rows} | set(separator.listing.sounds))
    vectors = SentenceEncoder().encode_text(labels)
    similar = (vectors @ vectors.T).numpy() >= SAME_MEANING
    answers = []
    for number, row in enumerate(rows):
        present = [labels.index(row[name]) for name in ("target_label", "interference1_label") if row[name] in labels]
        absent = np.flatnonzero(~similar[present].any(0))
        drawn = np.random.default_rng((0, number)).choice(absent, min(QUERIES, len(absent)), replace=False)
        answers += measure_row(separator, row, root, [labels[i] for i in drawn])
    print(table(answers))
    write_json(options.json, answers)


if __name__ == "__main__":
    run_benchmark(main)
