"""Measures how often a query gets a hint, for texts that the model knows and for texts that it does not know.

    python benchmarks/typed_queries.py --data FOLDER

Known are everyday queries, the phrases of FOLDER/validation_mixtures.csv, and 400 captions each of AudioCaps and of
Clotho; unknown are the other lists of `typed_queries.json`; the class names of VGGSound are of both kinds. The weights
of the observations are fitted on every second text and printed; the hints are counted on the others. Names of AudioSet
classes and wordings are known by definition.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
from common import make_parser, run_benchmark, write_json

from separation import Separator
from separation.evaluate.tables import markdown
from separation.fitting import fit_logistic
from separation.inference.suggestions import BIAS, WEIGHTS, observe

CAPTIONS = 400
COLUMNS = ("number", "hints", "with a correction", "as meant")


def read_lists(data: Path) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, str]]:
    """Read known and unknown texts by kind, and what was meant by each typing error."""

    def column(file: str, name: str) -> list[str]:
        with (data / file).open(newline="", encoding="utf-8") as rows:
            return sorted({row[name] for row in csv.DictReader(rows)})

    unknown = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    known = {"everyday queries": unknown.pop("everyday")}
    known["validation phrases"] = column("validation_mixtures.csv", "phrase")
    for name, file in (("AudioCaps", "audiocaps/test.csv"), ("Clotho", "audiosep_eval/clotho_eval.csv")):
        known[f"{name} captions"] = random.Random(0).sample(column(f"text/{file}", "caption"), CAPTIONS)
    return known, {kind: list(texts) for kind, texts in unknown.items()}, unknown["typing errors"]


def main(argv: list[str] | None = None) -> None:
    """Print the fitted weights and the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="of the validation list and texts")
    parser.add_argument("--model", default="default", help="name or directory of a model")
    options = parser.parse_args(argv)
    separator = Separator.from_pretrained(options.model, device="cpu")
    known, unknown, meant = read_lists(options.data)
    observed, truth, weight = [], [], []  # the lists of a side have equal weights
    for is_known, side in ((True, known), (False, unknown)):
        for texts in side.values():
            observed.append(np.pad(observe(texts[::2], separator.encoder).numpy(), ((0, 0), (0, 1)), constant_values=1))
            truth += len(observed[-1]) * [is_known]
            weight += len(observed[-1]) * [1 / len(observed[-1]) / len(side)]
    share = np.array(weight) * len(weight) / 2
    *weights, bias = fit_logistic(np.concatenate(observed), np.array(truth), share)
    print(f"fitted: {weights}, {bias}; in use: {list(WEIGHTS)}, {BIAS}\n")
    figures = {}
    with (options.data / "text/vggsound/stat.csv").open(newline="", encoding="utf-8") as rows:
        both = {"VGGSound class names": [name for name, *_ in csv.reader(rows)]}
    for title, side in (("all known", known), ("all unknown", unknown), ("known and unknown", both)):
        total = []
        for kind, texts in side.items():
            hints = [hint for text in texts[1::2] for hint in separator.suggest(text) if not hint.parts]
            corrected = [hint for hint in hints if hint.correction]
            as_meant = sum(meant.get(hint.query) == hint.correction for hint in corrected)
            total.append([len(texts[1::2]), len(hints), len(corrected), as_meant])
            figures[kind] = dict(zip(COLUMNS, total[-1], strict=True))
        figures[title] = dict(zip(COLUMNS, map(sum, zip(*total, strict=True)), strict=True))
    cells = [(kind, *map(str, row.values()), f"{row['hints'] / row['number']:.1%}") for kind, row in figures.items()]
    print(markdown(("texts", *COLUMNS, "share with a hint"), cells))
    write_json(options.json, figures)


if __name__ == "__main__":
    run_benchmark(main)
