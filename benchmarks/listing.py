"""How good a list of what sounds in a recording is: its first entries against what was mixed.

    python benchmarks/listing.py --mixtures FOLDER/validation_mixtures.csv --json listing.json

Each fixed mixture holds two or three labelled recordings. Printed are, over all rows: how often the first entry, the
first three and the first five are right (precision; an entry counts as wrong unless it is the very label), how many of
the sounds are among them (recall), and the same of what is listed from each probability on. Near-synonyms count as
wrong, so the ear is kinder than the table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from separation import Separator
from separation.data.protocol import read_rows, render

FIRST = (1, 3, 5)
FROM = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def rows_of(separator: Separator, mixtures: Path, root: Path, every: int) -> list[dict[str, Any]]:
    """Truth and list (label, probability) of every row."""
    found = []
    for row in read_rows(mixtures)[::every]:
        truth = {row[name] for name in ("target_label", "interference1_label", "interference2_label")} - {""}
        rendered = render(row, root)
        heard = separator.hear(torch.from_numpy(rendered.mixture), rendered.sample_rate, at_least=0.0, most=20)
        listed = [(sound.label, round(sound.probability, 4)) for sound in heard]
        found.append({"id": row["id"], "truth": sorted(truth), "listed": listed})
    return found


def figures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line of the table for each cut of the lists."""
    cuts = [(f"first {n}", [row["listed"][:n] for row in rows]) for n in FIRST]
    cuts += [(f"from {p:g}", [[entry for entry in row["listed"] if entry[1] >= p] for row in rows]) for p in FROM]
    lines = []
    for name, lists in cuts:
        right = [sum(label in row["truth"] for label, _ in listed) for row, listed in zip(rows, lists, strict=True)]
        entries, sounds = sum(map(len, lists)), sum(len(row["truth"]) for row in rows)
        line = {"cut": name, "precision": sum(right) / max(1, entries), "recall": sum(right) / sounds}
        lines.append(line | {"entries": entries / len(rows), "none": float(np.mean([not listed for listed in lists]))})
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = (
        "| listed | precision | recall | entries a recording | recordings without an entry |\n|---|---|---|---|---|\n"
    )
    return head + "\n".join(
        f"| {e['cut']} | {e['precision']:.0%} | {e['recall']:.0%} | {e['entries']:.1f} | {e['none']:.0%} |"
        for e in lines
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How good a list of what sounds in a recording is.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--mixtures", type=Path, required=True, help="CSV, one mixture a row")
    parser.add_argument("--root", type=Path, help="folder the list's paths start from (default: the list's own)")
    parser.add_argument("--every", type=int, default=1, help="every N-th row only")
    parser.add_argument("--json", type=Path, help="write rows and figures here")
    options = parser.parse_args()
    separator = Separator.from_pretrained(options.model)
    rows = rows_of(separator, options.mixtures, options.root or options.mixtures.parent, options.every)
    lines = figures(rows)
    print(f"{len(rows)} mixtures, {len(separator.listing.labels)} sounds\n\n{table(lines)}")
    if options.json:
        options.json.write_text(json.dumps({"figures": lines, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
