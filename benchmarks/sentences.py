"""Scores sentences that name two of three sounds: as one condition, understood as two, and asked singly and added.

    python benchmarks/sentences.py --data FOLDER --json sentences.json

The mixtures are drawn from the validation recordings of FOLDER/manifest.csv (`--seed`): three labels of which none
includes another, the third 5 dB softer, as loud or 5 dB louder than each of the two that are asked for. What is asked
for is their sum. The rows take turns with ten phrasings, which were written after `separation.sentences` was finished.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from pathlib import Path

import numpy as np
from common import interval, make_parser, weights_checksum, write_json
from tqdm import tqdm

from separation import Query, Separator
from separation.data.fixed_mixtures import Row, render
from separation.data.manifest import read_manifest
from separation.data.validation import draw_usable_rows
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.sounds import known_sounds

TITLE = "Two of three sounds in one sentence"
ASKED = ("interference1_label", "interference2_label")
PHRASINGS = (
    "a mixture of {} and {}",
    "{} next to {}",
    "not only {} but also {}",
    "{} at the start and {} near the end",
    "the recording has {} in it, {} too",
    "{} gives way to {}",
    "{} until {} sets in",
    "{} and at the same time {}",
    "{} combined with some {}",
    "someone recorded {} while there was {}",
)
SINGLY, WHOLE, SENTENCE = "asked singly and added", "one condition (--as-one)", "sentence"


def draw_rows(data: Path, count: int, seed: int) -> list[Row]:
    """Draw mixtures of three sounds as rows of a list; the two asked for are the interferences of the third."""
    clips = read_manifest(data / "manifest.csv", "validation")
    pairs, sounds = draw_usable_rows(clips, data, 3 * count, seed, absent=0.0), known_sounds()
    rows: list[Row] = []
    for first, second in zip(pairs[::2], pairs[1::2], strict=False):
        third = {name.replace("target", "interference2"): cell for name, cell in second.items() if "target" in name}
        row = first | third | {"id": f"sentence{len(rows):03d}", "kind": "three"}
        labels = [row["query"], *(row[name] for name in ASKED)]
        if not any(one in sounds and sounds[one].is_named_by(other) for one, other in permutations(labels, 2)):
            rows.append(row)
    return rows[:count]


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = make_parser(__doc__, mixtures=True)
    parser.add_argument("--rows", type=int, default=100, help="number of mixtures")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    options = parser.parse_args(argv)
    separator, values, by_phrasing = Separator.from_pretrained(options.model), defaultdict(list), defaultdict(list)
    rows = draw_rows(options.data, options.rows, options.seed)[:: options.every]
    for number, row in enumerate(tqdm(rows, "mixtures", disable=None)):
        rendered, labels = render(row, options.data), [row[name] for name in ASKED]
        wanted, phrasing = rendered.mixture - rendered.target, PHRASINGS[number % len(PHRASINGS)]
        text = phrasing.format(*labels)
        singly = [each.target for each in separator(rendered.mixture, labels, rendered.sample_rate)]
        whole, sentence = separator(rendered.mixture, [Query(text, as_one=True), text], rendered.sample_rate)
        for name, estimate in ((SINGLY, sum(singly)), (WHOLE, whole.target), (SENTENCE, sentence.target)):
            values[name].append(sdri(wanted, estimate[0].numpy(), rendered.mixture))
        by_phrasing[phrasing].append((len(sentence.parts) == len(labels), values[SENTENCE][-1], values[SINGLY][-1]))
    recordings, lines = [row["target"] for row in rows], []
    for name, each in values.items():
        difference = np.array(each) - values[SINGLY]
        line = {
            "asked by": name,
            "n": len(each),
            "mean": np.mean(each),
            "interval": bootstrap(np.array(each), recordings),
        }
        lines.append(line | {"gain": difference.mean(), "gain_interval": bootstrap(difference, recordings)})
    cells = [
        (line["asked by"], interval(line["mean"], *line["interval"]), interval(line["gain"], *line["gain_interval"]))
        for line in lines
    ]
    lead = markdown((f"two of three sounds, n = {len(rows)}", "SDRi, dB", "over singly"), cells)
    print(lead)
    table = [(name, *(f"{value:.2f}" for value in np.mean(each, axis=0))) for name, each in by_phrasing.items()]
    by_form = markdown(("phrasing", "understood as two", SENTENCE, SINGLY), table)
    print(by_form)
    report = {"weights": weights_checksum(options.model), "card": [TITLE, f"{lead}\n\n{by_form}"]}
    write_json(options.json, report | {"lines": lines, "phrasings": dict(by_phrasing)})


if __name__ == "__main__":
    main()
