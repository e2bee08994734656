"""Measures the list of sounds in a recording against what was mixed.

    python benchmarks/listing.py --data FOLDER --json listing.json

Each fixed mixture contains two or three labelled recordings that were not trained on. Printed are the mean average
precision of the labels of the list, and precision and recall of the entries from some certainties, among them the
command's. An entry is right in the strict sense if it is the label of a mixed recording, and by the table
(`separation/vocabulary/sounds.csv`) if it names that sound ("dog" for "dog bark"). Strict precision is also given for
the entries that are labels of the list; all others cannot be right. The listing rule is fitted on mixtures that share
no recording with the one it is used on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from common import list_rows, make_parser, run_benchmark, write_json

from separation import Separator
from separation.calibrate import detect_row
from separation.data.fixed_mixtures import CLIPS
from separation.evaluate.tables import markdown
from separation.fitting import fit_listing, recording_folds
from separation.listing import LIST_THRESHOLD, listing_terms, select_sounds
from separation.vocabulary.sounds import Sound, known_sounds

THRESHOLDS = (0.1, LIST_THRESHOLD, 0.3, 0.5)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Mean precision at the ranks of the true items."""
    ranked = truth[np.argsort(-scores, kind="stable")]
    return float((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())


def count_right(lists: list[list[str]], truth: list[set[str]]) -> dict[str, Any]:
    """Precision and recall of lists of labels, strict and by the table."""
    sounds = {label: known_sounds().get(label, Sound(label, (), frozenset())) for label in set().union(*truth)}
    entries = [(entry, right) for listed, right in zip(lists, truth, strict=True) for entry in listed]
    wanted = [(label, listed) for listed, right in zip(lists, truth, strict=True) for label in right]
    strict = sum(entry in right for entry, right in entries)
    named = sum(any(sounds[label].is_named_by(entry) for label in right) for entry, right in entries)
    found = sum(any(sounds[label].is_named_by(entry) for entry in listed) for label, listed in wanted)
    return {
        "entries": len(entries) / len(lists),
        "precision": strict / max(1, len(entries)),
        "recall": strict / len(wanted),
        "precision_of_labels": strict / max(1, sum(entry in sounds for entry, _ in entries)),
        "precision_by_table": named / max(1, len(entries)),
        "recall_by_table": found / len(wanted),
        "empty": sum(not listed for listed in lists) / len(lists),
    }


def main(argv: list[str] | None = None) -> None:
    """Print the figures."""
    options = make_parser(__doc__, mixtures=True).parse_args(argv)
    separator = Separator.from_pretrained(options.model)
    rows, root = list_rows(options)
    labels, sounds = separator.listing.sounds, separator.listed_sounds
    truth = [{row[f"{name}_label"] for name in CLIPS if row.get(f"{name}_label")} for row in rows]
    recordings = [{row[name] for name in CLIPS if row.get(name)} for row in rows]
    found = [detect_row(separator, row, root) for row in rows]
    present = np.array([[label in right for label in labels] for right in truth])
    rules, certainty = [separator.listing] * len(rows), np.zeros(present.shape)
    for train, held_out in recording_folds(recordings):
        rule = fit_listing([found[place] for place in np.flatnonzero(train)], sounds, present[train])
        for place in np.flatnonzero(held_out):
            terms = listing_terms(found[place], sounds)[: len(labels)]
            rules[place], certainty[place] = rule, rule.certainty(terms).numpy()
    known = [place for place, label in enumerate(labels) if present[:, place].any()]
    precisions = [average_precision(certainty[:, place], present[:, place]) for place in known]
    figures: dict[str, Any] = {"map": float(np.mean(precisions)), "labels": len(known), "thresholds": {}}
    for threshold in THRESHOLDS:
        lists = [select_sounds(each, sounds, rule, threshold) for each, rule in zip(found, rules, strict=True)]
        figures["thresholds"][threshold] = count_right([[entry.label for entry in listed] for listed in lists], truth)
    print(f"{len(rows)} mixtures, {len(sounds)} sounds to choose from, {len(known)} labels")
    print(f"mean average precision over the labels, strict: {figures['map']:.3f}\n")
    columns = tuple(next(iter(figures["thresholds"].values())))
    cells = [
        (f"{threshold:g}", f"{each['entries']:.2f}", *(f"{each[name]:.1%}" for name in columns[1:]))
        for threshold, each in figures["thresholds"].items()
    ]
    print(markdown(("from", *(name.replace("_", " ") for name in columns)), cells))
    write_json(options.json, figures)


if __name__ == "__main__":
    run_benchmark(main)
