"""Measures the list of sounds in a recording against what was mixed.

    python benchmarks/listing.py --mixtures FOLDER/validation_mixtures.csv --json listing.json

Each fixed mixture contains two or three labelled recordings that were not trained on. For the first entries, and for
the entries above each probability, precision (only the exact label counts, near-synonyms are wrong) and recall are
printed. The probability of one half of the rows is fitted on the other half.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from lists import list_parser, list_rows, write_json
from torch import Tensor

from separation import Separator
from separation.calibrate import fit_listing, score_row
from separation.evaluate.tables import markdown
from separation.listing import LIST_THRESHOLD, select_sounds

FIRST = (1, 3, 5)
FROM = (0.1, LIST_THRESHOLD, 0.2, 0.3, 0.4, 0.5)


def lists_of(separator: Separator, logits: Tensor, present: Tensor) -> list[list[tuple[int, float]]]:
    """Return (number of the sound, probability) down to probability 0 for every row, the most probable first."""
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
    """Return precision and recall for the first entries and for the entries above each probability."""
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
    """Format the figures."""
    rows = [
        (e["listed"], f"{e['precision']:.0%}", f"{e['recall']:.0%}", f"{e['entries']:.2f}", f"{e['empty']:.0%}")
        for e in lines
    ]
    return markdown(("listed", "precision", "recall", "entries a recording", "recordings without one"), rows)


def main() -> None:
    """Print the table."""
    options = list_parser("Measure the list of sounds in a recording.").parse_args()
    separator = Separator.from_pretrained(options.model)
    rows, root = list_rows(options)
    logits, present = (torch.stack(each) for each in zip(*(score_row(separator, r, root) for r in rows), strict=True))
    lines = figures(lists_of(separator, logits, present), present)
    print(f"{len(rows)} mixtures, {len(separator.listing.sounds)} sounds to choose from\n\n{table(lines)}")
    write_json(options.json, lines)


if __name__ == "__main__":
    main()
