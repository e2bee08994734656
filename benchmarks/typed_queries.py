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

import torch
from common import make_parser, write_json
from torch.nn import functional as F

from separation import Separator
from separation.evaluate.tables import markdown
from separation.suggestions import BIAS, WEIGHTS, observe

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


def fit(known: list[torch.Tensor], unknown: list[torch.Tensor]) -> tuple[list[float], float]:
    """Fit a logistic regression of known against unknown observations; the lists of a side have equal weights."""
    x = torch.cat([*known, *unknown])
    y = torch.cat([torch.ones(sum(map(len, known))), torch.zeros(sum(map(len, unknown)))])
    share = torch.cat([torch.full((len(x),), 1 / len(x) / len(side)) for side in (known, unknown) for x in side])
    parameters = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = x @ parameters[:-1] + parameters[-1]
        loss = F.binary_cross_entropy_with_logits(logits, y, weight=share, reduction="sum")
        loss = loss + 0.001 * parameters[:-1].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    *weights, bias = (round(each, 2) for each in parameters.tolist())
    return weights, bias


def main(argv: list[str] | None = None) -> None:
    """Print the fitted weights and the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="of the validation list and texts")
    parser.add_argument("--model", default="default", help="name or directory of a model")
    options = parser.parse_args(argv)
    separator = Separator.from_pretrained(options.model, device="cpu")
    known, unknown, meant = read_lists(options.data)
    observed = [[observe(texts[::2], separator.encoder) for texts in side.values()] for side in (known, unknown)]
    weights, bias = fit(*observed)
    print(f"fitted: {weights}, {bias}; in use: {list(WEIGHTS)}, {BIAS}\n")
    figures = {}
    with (options.data / "text/vggsound/stat.csv").open(newline="", encoding="utf-8") as rows:
        both = {"VGGSound class names": [name for name, *_ in csv.reader(rows)]}
    for title, side in (("all known", known), ("all unknown", unknown), ("known and unknown", both)):
        total = []
        for kind, texts in side.items():
            hints = [hint for text in texts[1::2] for hint in separator.suggest(text)]
            corrected = [hint for hint in hints if hint.correction]
            as_meant = sum(meant.get(hint.query) == hint.correction for hint in corrected)
            total.append([len(texts[1::2]), len(hints), len(corrected), as_meant])
            figures[kind] = dict(zip(COLUMNS, total[-1], strict=True))
        figures[title] = dict(zip(COLUMNS, map(sum, zip(*total, strict=True)), strict=True))
    cells = [(kind, *map(str, row.values()), f"{row['hints'] / row['number']:.1%}") for kind, row in figures.items()]
    print(markdown(("texts", *COLUMNS, "share with a hint"), cells))
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
