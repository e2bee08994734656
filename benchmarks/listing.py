"""How good a list of what sounds in a recording is: what it names against what was mixed.

    python benchmarks/listing.py --mixtures FOLDER/validation_mixtures.csv --json listing.json

Each fixed mixture holds two or three labelled recordings that were not trained on. Printed is, for the first entries
and for what is listed from each probability on, how much of it is right (precision; only the very label counts,
near-synonyms are wrong) and how much of what sounds is named (recall). The probability of one half of the rows is
fitted on the other half, so that no row tells its own.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separation import Separator
from separation.calibrate import fit_listing, score_row
from separation.data.fixed_mixtures import read_rows
from separation.listing import LIST_THRESHOLD, select_sounds

FIRST = (1, 3, 5)
FROM = (0.1, LIST_THRESHOLD, 0.2, 0.3, 0.4, 0.5)


def lists_of(separator: Separator, logits: Tensor, present: Tensor) -> list[list[tuple[int, float]]]:
    """What is listed for every row, down to probability 0: (sound's number, probability), the surest first."""
    sounds, known = separator.listing.sounds, separator.known
    lists: list[list[tuple[int, float]]] = [[] for _ in logits]
    for half in (0, 1):
        slope, bias = fit_listing(logits[1 - half :: 2], present[1 - half :: 2])
        rule = replace(separator.listing, slope=slope, bias=bias)
        for row in range(half, len(logits), 2):
            found = select_sounds(logits[row : row + 1], known, rule, 0.0, 20)
            lists[row] = [(sounds.index(sound.label), sound.probability) for sound in found]
    return lists


def figures(lists: list[list[tuple[int, float]]], present: Tensor) -> list[dict[str, Any]]:
    """A line of the table for each cut of the lists."""
    cuts = [(f"first {n}", [listed[:n] for listed in lists]) for n in FIRST]
    cuts += [(f"from {p:g}", [[entry for entry in listed if entry[1] >= p] for listed in lists]) for p in FROM]
    lines = []
    for name, cut in cuts:
        right = sum(bool(present[row, sound]) for row, listed in enumerate(cut) for sound, _ in listed)
        entries = sum(map(len, cut))
        line = {"listed": name, "precision": right / max(1, entries), "recall": right / int(present.sum())}
        lines.append(line | {"entries": entries / len(cut), "empty": sum(not listed for listed in cut) / len(cut)})
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = "| listed | precision | recall | entries a recording | recordings without one |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {e['listed']} | {e['precision']:.0%} | {e['recall']:.0%} | {e['entries']:.2f} | {e['empty']:.0%} |"
        for e in lines
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="How good a list of what sounds in a recording is.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--mixtures", type=Path, required=True, help="CSV, one mixture a row")
    parser.add_argument("--root", type=Path, help="folder the list's paths start from (default: the list's own)")
    parser.add_argument("--every", type=int, default=1, help="every N-th row only")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    separator = Separator.from_pretrained(options.model)
    rows, root = read_rows(options.mixtures)[:: options.every], options.root or options.mixtures.parent
    observed = [score_row(separator, row, root) for row in rows]
    logits, present = (torch.stack(column) for column in zip(*observed, strict=True))
    lines = figures(lists_of(separator, logits, present), present)
    print(f"{len(rows)} mixtures, {len(separator.listing.sounds)} sounds to choose from\n\n{table(lines)}")
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
