"""Measures example recordings as queries: as they are, with silence on both sides, and with another sound 10 dB below.

    python benchmarks/example_recordings.py --data FOLDER --rows 60

Each mixture of two of the validation list is asked for by another validation recording of its target's label. Mean
SDRi in dB with 95 % intervals by recording, presence, and the mean and largest loss against the example as it is.
"""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import torch
from common import interval, list_rows, make_parser, run_benchmark, write_json

from separation import Query, Separator
from separation.data.fixed_mixtures import read_clip, render
from separation.data.manifest import MANIFEST, read_manifest
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown

SILENCE_SECONDS, OTHER_DB = 2, -10


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__, mixtures=True)
    parser.add_argument("--rows", type=int, default=60, metavar="N", help="number of mixtures")
    options = parser.parse_args(argv)
    (rows, root), draw, clips = list_rows(options, "pair"), random.Random(0), defaultdict(list)
    separator, everything = Separator.from_pretrained(options.model), read_manifest(root / MANIFEST, "validation")
    for clip in everything:
        clips[clip.label].append(clip)
    source = {clip.path: clip.recording for clip in everything}
    chosen = []
    for row in rows:
        others = [
            c for c in clips[row["query"]] if c.recording != source[row["target"]] and c.path != row["interference1"]
        ]
        if others:
            chosen.append((row, draw.choice(others)))
    draw.shuffle(chosen)
    found = defaultdict(list)
    for row, clip in chosen[: options.rows]:
        rendered, rate = render(row, root), separator.sample_rate
        example = read_clip(root / clip.path, rate)
        labels = (row["query"], row["interference1_label"])
        other = read_clip(root / draw.choice([c for c in everything if c.label not in labels]).path, rate)
        other = np.resize(other, len(example))
        other = other * np.sqrt(10 ** (OTHER_DB / 10) * np.square(example).sum() / np.square(other).sum())
        examples = {
            "as it is": example,
            "2 s of silence on both sides": np.pad(example, SILENCE_SECONDS * rate),
            "another sound 10 dB below": example + other,
        }
        queries = {"label": row["query"], **{n: Query(audio=(torch.from_numpy(x), rate)) for n, x in examples.items()}}
        results = separator(rendered.mixture, list(queries.values()), rendered.sample_rate)
        for name, result in zip(queries, results, strict=True):
            gain = sdri(rendered.target, result.target[0].numpy(), rendered.mixture)
            found[name].append((gain, result.presence))
    figures, cells, base = {}, [], np.array(found["as it is"])
    for name, values in found.items():
        table = np.array(values)
        low, high = bootstrap(table[:, 0], [row["target"] for row, _ in chosen[: options.rows]])
        loss = base - table
        figures[name] = {"sdri": table[:, 0].mean(), "low": low, "high": high, "presence": table[:, 1].mean(),
                         "sdri_loss": loss[:, 0].mean(), "presence_loss": loss[:, 1].mean()}  # fmt: skip
        cells.append((name, interval(table[:, 0].mean(), low, high), f"{table[:, 1].mean():.3f}",
                      f"{loss[:, 0].mean():.2f}", f"{loss[:, 1].mean():.3f}", f"{loss[:, 1].max():.3f}"))  # fmt: skip
    print(f"{len(base)} mixtures\n")
    print(markdown(("example", "SDRi dB", "presence", "loss dB", "loss of presence", "largest"), cells))
    write_json(options.json, figures)


if __name__ == "__main__":
    run_benchmark(main)
