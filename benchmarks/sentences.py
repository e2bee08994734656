"""Scores sentences that name two of three sounds: as one condition, understood as two, and asked singly and added.

    python benchmarks/sentences.py --data FOLDER --json sentences.json

The mixtures are drawn from the validation recordings of FOLDER/manifest.csv (`--seed`): three labels of which none
includes another, the third 5 dB softer, as loud or 5 dB louder than each of the two that are asked for. What is asked
for is their sum. The rows take turns with ten held-out phrasings, which were written before the rules of
`separation.inference.sentences` were last changed and measured after that, and with ten earlier ones, which the rules
know; they have come to know "it goes from {} to {}" as well.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, permutations
from pathlib import Path

import numpy as np
from common import find_data, interval, make_parser, run_benchmark, weights_checksum, write_json
from tqdm import tqdm

from separation import Query, Separator
from separation.data.fixed_mixtures import Row, render
from separation.data.manifest import read_manifest
from separation.data.validation import draw_usable_rows
from separation.evaluate.metrics import bootstrap, sdri
from separation.evaluate.tables import markdown
from separation.vocabulary.sounds import known_sounds

TITLE = "Two of three sounds in one sentence"
ASKED = ("interference1_label", "interference2_label")
PHRASINGS = {
    "held out": (
        "I can make out {} behind {}",
        "it goes from {} to {}",
        "{} against a backdrop of {}",
        "you can hardly hear {} because of {}",
        "whenever {} stops, {} begins",
        "half of it is {}, the other half is {}",
        "please get me {}, I need {} too",
        "{} mingles with {}",
        "{} keeps going even though {} has started",
        "there's {} going on somewhere near {}",
    ),
    "earlier": (
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
    ),
}
SINGLY, WHOLE, SENTENCE = "asked singly and added", "one condition (--as-one)", "sentence, {} phrasings"


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
    root, values, by_phrasing = find_data(options), defaultdict(list), defaultdict(list)
    rows = draw_rows(root, options.rows, options.seed)[:: options.every]
    separator = Separator.from_pretrained(options.model)
    for number, row in enumerate(tqdm(rows, "mixtures", disable=None)):
        rendered, labels = render(row, root), [row[name] for name in ASKED]
        wanted = rendered.mixture - rendered.target
        phrasings = {SENTENCE.format(name): each[number % len(each)] for name, each in PHRASINGS.items()}
        texts = [phrasing.format(*labels) for phrasing in phrasings.values()]
        singly = separator(rendered.mixture, labels, rendered.sample_rate)
        whole, *sentences = separator(rendered.mixture, [Query(texts[0], as_one=True), *texts], rendered.sample_rate)
        estimates = {SINGLY: sum(each.target for each in singly), WHOLE: whole.target}
        estimates |= {name: each.target for name, each in zip(phrasings, sentences, strict=True)}
        for name, estimate in estimates.items():
            values[name].append(sdri(wanted, estimate[0].numpy(), rendered.mixture))
        for (name, phrasing), sentence in zip(phrasings.items(), sentences, strict=True):
            understood = len(sentence.parts) == len(labels)
            by_phrasing[phrasing].append((understood, values[name][-1], values[SINGLY][-1]))
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
    table = [
        (phrasing, *(f"{value:.2f}" for value in np.mean(by_phrasing[phrasing], axis=0)))
        for phrasing in chain(*PHRASINGS.values())
        if phrasing in by_phrasing
    ]
    by_form = markdown(("phrasing, the held-out ones first", "understood as two", "sentence", SINGLY), table)
    print(by_form)
    report = {"weights": weights_checksum(options.model), "card": [TITLE, f"{lead}\n\n{by_form}"]}
    write_json(options.json, report | {"lines": lines, "phrasings": dict(by_phrasing)})


if __name__ == "__main__":
    run_benchmark(main)
