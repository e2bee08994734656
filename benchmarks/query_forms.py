"""Compares forms of queries: label, examples, both, and with a negative.

    python benchmarks/query_forms.py --data FOLDER --every 4 --json forms.json

Examples are train recordings of the target's label; none is in a mixture. A negative is the label of another source.
Two alternatives that the package does not use are measured too.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from common import LIST, find_data, interval, make_parser, run_benchmark, write_json

from separation import Separator
from separation.data.fixed_mixtures import Row, read_rows, render
from separation.data.manifest import MANIFEST, read_manifest
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.query import Query

MAX_EXAMPLES = 8  # of a label


def score_row(separator: Separator, row: Row, root: Path, files: list[Path]) -> dict[str, float]:
    """Return the SDRi of every form of query on one row, dB; examples are drawn from `files`."""

    @cache
    def encode(query: str | Path) -> torch.Tensor:
        return separator.conditions([Query(audio=query) if isinstance(query, Path) else query])[0]

    def mean(*vectors: torch.Tensor, weights: list[float] | None = None) -> torch.Tensor:
        return separator.encoder.mean(torch.stack(vectors), None if weights is None else torch.tensor(weights))[0]

    order = np.random.default_rng(0).permutation(len(files))[:MAX_EXAMPLES]
    examples, text = [encode(sorted(files)[number]) for number in order], encode(row["query"])
    unwanted = [encode(row[f"interference{n}_label"]) for n in (1, 2) if row[f"interference{n}"]]
    three, half = mean(*examples[:3]), [-0.5 / len(unwanted)] * len(unwanted)
    queries = {
        "label": Query(embedding=text),
        "1 example": Query(embedding=mean(examples[0])),
        "3 examples": Query(embedding=three),
        f"up to {MAX_EXAMPLES} examples": Query(embedding=mean(*examples)),
        "label and 3 examples": Query(embedding=mean(text, three)),
        "label without the others": Query(embedding=text, negative=unwanted),
        "3 examples without the others": Query(embedding=three, negative=unwanted),
        "not used: label minus half the others' conditions": Query(
            embedding=mean(text, *unwanted, weights=[1.0, *half])
        ),
    }
    rendered = render(row, root)
    mixture, rate = torch.from_numpy(rendered.mixture), rendered.sample_rate
    results = separator(mixture, list(queries.values()), rate)
    estimates = {name: result.target[0] for name, result in zip(queries, results, strict=True)}
    others = separator(mixture, [Query(embedding=other) for other in unwanted], rate)
    rest = mixture - sum(other.target[0] for other in others)
    estimates["not used: label, in the mixture less the others' targets"] = separator(
        rest, queries["label"], rate
    ).target[0]
    return {name: sdri(rendered.target, wave.numpy(), rendered.mixture) for name, wave in estimates.items()}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    options = make_parser(__doc__, mixtures=True).parse_args(argv)
    root, files = find_data(options), defaultdict(list)
    separator = Separator.from_pretrained(options.model)
    for clip in read_manifest(root / MANIFEST, "train"):
        files[clip.label].append(root / clip.path)
    rows = [row for row in read_rows(root / LIST) if row["kind"] != "absent"]
    rows = [row for row in rows if files[row["query"]]][:: options.every]
    scores = [score_row(separator, row, root, files[row["query"]]) for row in rows]
    lines, cells = [], []
    for kind in ("pair", "three"):
        chosen = [number for number, row in enumerate(rows) if row["kind"] == kind]
        for name in scores[0] if chosen else ():
            values = np.array([scores[number][name] for number in chosen])
            gains = values - np.array([scores[number]["label"] for number in chosen])
            low, high = bootstrap(gains, [rows[number]["target"] for number in chosen])
            mean, median, gain = values.mean(), np.median(values), gains.mean()
            line = {"rows": kind, "asked by": name, "n": len(chosen), "low": low, "high": high}
            lines.append(line | {"mean": mean, "median": median, "gain": gain})
            cells.append((kind, name, len(chosen), f"{mean:.2f}", f"{median:.2f}", interval(gain, low, high)))
    print(markdown(("rows", "asked by", "n", "mean dB", "median", "over the label (95 % interval)"), cells))
    write_json(options.json, lines)


if __name__ == "__main__":
    run_benchmark(main)
