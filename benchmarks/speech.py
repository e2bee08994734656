"""Scores speech in noise, vocals, music and instruments: kept by a query, or freed of the other sound by `--remove`.

    python benchmarks/speech.py --data FOLDER --speech SPEECH --music MUSIC --json speech.json
    python benchmarks/speech.py --data FOLDER --speech SPEECH --music MUSIC --task vocals music

The speech is that of split validation of FOLDER/manifest.csv and of SPEECH, in turn; SPEECH and MUSIC are folders that
`separation-data render` has written. Each of the mixtures (60 by default) has a target and one other sound, 0, 5 and
10 dB softer in turn: speech asked as "speech" with any other sound; vocals asked as "singing" with music or any other
sound; music asked as "music" with vocals or any other sound. Beside the target and what is left when the other sound is
removed by its label stand the mixture itself and `noisereduce` (spectral gating), which is left out if it is not
installed. Intervals are of the mean, by recording of the target.
"""

from __future__ import annotations

from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from common import find_data, interval, make_parser, run_benchmark, weights_checksum, write_json
from tqdm import tqdm

from separation import Separator
from separation.data.fixed_mixtures import Row, render
from separation.data.manifest import MANIFEST, Clip, absolute_entries, read_entries
from separation.data.render.instruments import instruments
from separation.data.validation import draw_place
from separation.evaluate.metrics import MissingPackage, bootstrap, pesq, si_sdr, stoi
from separation.evaluate.tables import markdown

TITLE = "Speech in noise, vocals, music and instruments"
LEVELS = (0, 5, 10)
SPEECH = {"speech", "man speaking", "woman speaking", "child speaking", "conversation"}
VOCALS, MUSIC = {"singing voice"}, {"music", "background music"}
INSTRUMENTS = {each.label for each in instruments()}
HUMAN = {*SPEECH, *VOCALS, *MUSIC, "choir", "whisper", "shouting", "laughter", "crowd", "scream", "restaurant", "cafe"}
TASKS = {"speech": ("speech", SPEECH), "vocals": ("singing", VOCALS), "music": ("music", MUSIC)}
TASKS |= {"instruments": ("", INSTRUMENTS)}  # asked by the label of the target
RIVALS = {"vocals": MUSIC, "music": VOCALS, "instruments": INSTRUMENTS}
UNTOUCHED, ASKED, REMOVED, GATED = "mixture", "asked for", "other sound removed", "noisereduce"


Groups = list[dict[str, list[Clip]]]
"""Held-out clips by label, of each folder."""


def read_held_out(manifests: list[Path]) -> Groups:
    """Read the clips of split validation that last a second or longer, with absolute paths."""
    groups = []
    for manifest in manifests:
        clips: dict[str, list[Clip]] = defaultdict(list)
        for split, clip in absolute_entries(read_entries(manifest), manifest.parent):
            if split == "validation" and clip.seconds >= 1.0:
                clips[clip.label].append(clip)
        groups.append(dict(clips))
    return groups


def draw_rows(groups: Groups, task: str, count: int, seed: int) -> list[Row]:
    """Draw mixtures of a task; folders with such targets take turns, the other sound is of the first."""
    query, labels = TASKS[task]
    targets = [[clip for label in sorted(labels & group.keys()) for clip in group[label]] for group in groups]
    targets = [clips for clips in targets if clips]
    others = {label: clips for label, clips in groups[0].items() if label not in HUMAN}
    against = {label: [clip for group in groups for clip in group.get(label, ())] for label in RIVALS.get(task, ())}
    against = {label: clips for label, clips in against.items() if clips}
    rows: list[Row] = []
    for number in range(count if targets else 0):
        rng = np.random.default_rng((seed, number))
        group = targets[number % len(targets)]
        target = group[rng.integers(len(group))]
        rivals = against.keys() - {target.label} if number % 2 or not query else set()
        sounds, labels = (against, rivals) if rivals else (others, others.keys() - {target.label})
        label = str(rng.choice(sorted(labels)))
        other = sounds[label][rng.integers(len(sounds[label]))]
        row = {"id": f"{task}{number:03d}", "kind": "pair", "query": query or target.label, "other": other.label}
        row |= {"recording": target.recording, "snr_db": str(LEVELS[number % 3])}
        for name, clip in (("target", target), ("interference1", other)):
            row |= draw_place(name, clip, rng, lambda _: 0.0)
        rows.append(row)
    return rows


def score(target: np.ndarray, estimate: np.ndarray, rate: int, is_speech: bool) -> dict[str, float]:
    """Return SI-SDR and, of speech, STOI and PESQ, as far as the packages are installed."""
    values = {"SI-SDR, dB": si_sdr(target, estimate)}
    for name, metric in (("STOI", stoi), ("PESQ", pesq)) if is_speech else ():
        try:
            values[name] = metric(target, estimate, rate)
        except MissingPackage as error:
            print(f"{name} is left out: {error}")
    return values


def measure(separator: Separator, rows: list[Row], task: str) -> dict[str, Any]:
    """Score the rows of a task: by system and metric, the values of all rows."""
    values: dict[str, Any] = defaultdict(lambda: defaultdict(list))
    for row in tqdm(rows, task, disable=None):
        rendered = render(row, Path())
        mixture, rate = rendered.mixture.astype(np.float32), rendered.sample_rate
        asked, other = separator(mixture, [row["query"], row["other"]], rate)
        estimates = {UNTOUCHED: mixture, ASKED: asked.target[0].numpy(), REMOVED: other.residual[0].numpy()}
        if find_spec("noisereduce"):
            from noisereduce import reduce_noise

            estimates[GATED] = reduce_noise(y=mixture, sr=rate)
        for name, estimate in estimates.items():
            for metric, value in score(rendered.target, estimate, rate, task == "speech").items():
                values[name][metric].append(value)
    return values


def summarize(values: dict[str, Any], rows: list[Row]) -> list[dict[str, Any]]:
    """Return means and intervals over all rows, and by level, of what could be computed."""
    lines = []
    for level in ("", *dict.fromkeys(row["snr_db"] for row in rows)):
        chosen = np.array([level in ("", row["snr_db"]) for row in rows])
        names = [row["recording"] for row, is_chosen in zip(rows, chosen, strict=True) if is_chosen]
        for system, metrics in values.items():
            line: dict[str, Any] = {"level": f"{level} dB" if level else "all", "system": system}
            for metric, each in metrics.items():
                numbers = np.array(each)[chosen]
                valid = np.isfinite(numbers)
                bounds = bootstrap(numbers[valid], [name for name, kept in zip(names, valid, strict=True) if kept])
                line[metric] = {"mean": numbers[valid].mean(), "interval": bounds, "n": int(valid.sum())}
            lines.append(line)
    return lines


def table(task: str, lines: list[dict[str, Any]]) -> str:
    """Format the lines of a task."""
    metrics = [name for name in lines[0] if name not in ("level", "system")]
    rows = [
        (line["level"], line["system"], *(interval(line[name]["mean"], *line[name]["interval"]) for name in metrics))
        for line in lines
    ]
    return markdown((f"{task}, n = {lines[0][metrics[0]]['n']}", "", *metrics), rows)


def main(argv: list[str] | None = None) -> None:
    """Print a table for each task."""
    parser = make_parser(__doc__, mixtures=True)
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="of `separation-data render speech`")
    parser.add_argument("--music", type=Path, metavar="FOLDER", help="of `separation-data render instruments`")
    parser.add_argument("--task", choices=TASKS, nargs="+", default=[*TASKS], help="which of them (default: all)")
    parser.add_argument("--rows", type=int, default=60, help="number of mixtures of each task")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--manifest", default=MANIFEST, metavar="NAME", help="of the recordings, in --data")
    options = parser.parse_args(argv)
    if not find_spec("noisereduce"):
        print("noisereduce is left out: it is not installed (pip install noisereduce).")
    rendered = [folder / MANIFEST for folder in (options.speech, options.music) if folder]
    groups = read_held_out([find_data(options) / options.manifest, *rendered])
    separator, report = Separator.from_pretrained(options.model), {}
    for task in options.task:
        rows = draw_rows(groups, task, options.rows, options.seed)[:: options.every]
        if not rows:
            print(f"{task} is left out: there are no held-out recordings of it.")
            continue
        used = {row["recording"] for row in rows}
        held = {clip.recording for group in groups for label in TASKS[task][1] for clip in group.get(label, ())}
        print(f"{task}: the targets are {len(used)} of {len(held)} held-out recordings.")
        report[task] = summarize(measure(separator, rows, task), rows)
        print(table(task, report[task]), flush=True)
    text = "\n\n".join(table(task, lines) for task, lines in report.items())
    write_json(options.json, {"weights": weights_checksum(options.model), "card": [TITLE, text], "tasks": report})


if __name__ == "__main__":
    run_benchmark(main)
