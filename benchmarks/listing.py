"""Measures the list of sounds in a recording against what was mixed.

    python benchmarks/listing.py --data FOLDER --json listing.json

Each fixed mixture contains two or three labelled recordings that were not trained on. For the first entries, and for
the entries above each probability, precision (only the exact label counts, near-synonyms are wrong) and recall are
printed. The probability of one half of the rows is fitted on the other half.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from common import list_rows, make_parser, write_json

from separation import Separator
from separation.calibrate import fit_listing, score_row
from separation.evaluate.tables import markdown
from separation.listing import LIST_THRESHOLD, select_sounds

COUNTS = (1, 3, 5)
THRESHOLDS = (0.1, LIST_THRESHOLD, 0.2, 0.3, 0.4, 0.5)


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    options = make_parser(__doc__, mixtures=True).parse_args(argv)
    separator = Separator.from_pretrained(options.model)
    rows, root = list_rows(options)
    logits, present = (torch.stack(each) for each in zip(*(score_row(separator, r, root) for r in rows), strict=True))
    sounds = separator.listing.sounds
    lists: list[list[tuple[int, float]]] = [[] for _ in rows]  # number and probability of each sound, best first
    for half in (0, 1):
        slope, bias = fit_listing(logits[1 - half :: 2], present[1 - half :: 2])
        rule = replace(separator.listing, slope=slope, bias=bias)
        for row in range(half, len(rows), 2):
            found = select_sounds(logits[row : row + 1], separator.listing_conditions, rule, 0.0, 20)
            lists[row] = [(sounds.index(sound.label), sound.probability) for sound in found]
    cuts = {f"first {n}": [listed[:n] for listed in lists] for n in COUNTS}
    cuts |= {f"from {p:g}": [[entry for entry in listed if entry[1] >= p] for listed in lists] for p in THRESHOLDS}
    figures = []
    for name, cut in cuts.items():
        entries = sum(map(len, cut))
        right = sum(bool(present[row, sound]) for row, listed in enumerate(cut) for sound, _ in listed)
        figures.append(
            {
                "listed": name,
                "precision": right / max(1, entries),
                "recall": right / int(present.sum()),
                "entries": entries / len(cut),
                "empty": sum(not listed for listed in cut) / len(cut),
            }
        )
    cells = [
        (e["listed"], f"{e['precision']:.0%}", f"{e['recall']:.0%}", f"{e['entries']:.2f}", f"{e['empty']:.0%}")
        for e in figures
    ]
    print(f"{len(rows)} mixtures, {len(sounds)} sounds to choose from\n")
    print(markdown(("listed", "precision", "recall", "entries a recording", "recordings without one"), cells))
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
