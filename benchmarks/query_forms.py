"""Compares forms of queries: label, examples, both, and with a negative; SDRi of the default model.

    python benchmarks/query_forms.py FOLDER                    FOLDER holds manifest.csv and validation_mixtures.csv
    python benchmarks/query_forms.py FOLDER --every 4 --json forms.json

Examples are train recordings of the target's label; none is in a mixture. A negative is the label of another source.
Two alternatives that the package does not use are measured too.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
from common import make_parser, write_json
from torch import Tensor

from separation import Separator
from separation.data.fixed_mixtures import Row, read_rows, render
from separation.data.manifest import read_manifest
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.query import Query

MAX_EXAMPLES = 8  # of a label


class Forms:
    """Scores mixtures for every form of query.

    Args:
        separator: the model.
        root: folder with the manifest and the list.
    """

    def __init__(self, separator: Separator, root: Path) -> None:
        self.separator, self.root = separator, root
        self.files: dict[str, list[Path]] = defaultdict(list)
        for clip in read_manifest(root / "manifest.csv", "train"):
            self.files[clip.label].append(root / clip.path)
        self.encode_text = cache(lambda text: separator.conditions([text])[0])
        self.encode_example = cache(lambda path: separator.conditions([Query(audio=path)])[0])

    def mean(self, *vectors: Tensor, weights: tuple[float, ...] | None = None) -> Tensor:
        """Return the weighted mean of embeddings."""
        return self.separator.encoder.mean(torch.stack(vectors), None if weights is None else torch.tensor(weights))[0]

    def queries(self, label: str, others: list[str]) -> dict[str, Query]:
        """Return all forms for a target of one label in a mixture with others, by their names in the table."""
        files = sorted(self.files[label])
        order = np.random.default_rng(0).permutation(len(files))[:MAX_EXAMPLES]
        examples = [self.encode_example(files[number]) for number in order]
        text, unwanted, three = self.encode_text(label), list(map(self.encode_text, others)), self.mean(*examples[:3])
        half = tuple(-0.5 / len(unwanted) for _ in unwanted)
        return {
            "label": Query(embedding=text),
            "1 example": Query(embedding=self.mean(examples[0])),
            "3 examples": Query(embedding=three),
            f"up to {MAX_EXAMPLES} examples": Query(embedding=self.mean(*examples)),
            "label and 3 examples": Query(embedding=self.mean(text, three)),
            "label without the others": Query(embedding=text, negative=unwanted),
            "3 examples without the others": Query(embedding=three, negative=unwanted),
            "not used: label minus half the others' conditions": Query(
                embedding=self.mean(text, *unwanted, weights=(1.0, *half))
            ),
        }

    def score(self, row: Row) -> dict[str, float]:
        """Return the SDRi of every form on one row, dB."""
        rendered = render(row, self.root)
        mixture, rate = torch.from_numpy(rendered.mixture), rendered.sample_rate
        others = [row[f"interference{n}_label"] for n in (1, 2) if row[f"interference{n}"]]
        queries = self.queries(row["query"], others)
        results = self.separator(mixture, list(queries.values()), rate)
        estimates = {name: result.target[0] for name, result in zip(queries, results, strict=True)}
        unwanted = self.separator(mixture, [Query(embedding=self.encode_text(other)) for other in others], rate)
        rest = mixture - sum(result.target[0] for result in unwanted)
        again = self.separator(rest, queries["label"], rate).target[0]
        estimates["not used: label, in the mixture less the others' targets"] = again
        return {name: sdri(rendered.target, wave.numpy(), rendered.mixture) for name, wave in estimates.items()}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, help="contains manifest.csv and validation_mixtures.csv")
    parser.add_argument("--model", default="default")
    parser.add_argument("--every", type=int, default=1, help="score every N-th row only")
    options = parser.parse_args(argv)
    forms = Forms(Separator.from_pretrained(options.model), options.folder)
    rows = [row for row in read_rows(options.folder / "validation_mixtures.csv") if row["kind"] != "absent"]
    rows = [row for row in rows if forms.files[row["query"]]][:: options.every]
    scores = [forms.score(row) for row in rows]
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
            interval = f"{gain:+.2f} ({low:+.2f} to {high:+.2f})"
            cells.append((kind, name, len(chosen), f"{mean:.2f}", f"{median:.2f}", interval))
    print(markdown(("rows", "asked by", "n", "mean dB", "median", "over the label (95 % interval)"), cells))
    write_json(options.json, lines)


if __name__ == "__main__":
    main()
