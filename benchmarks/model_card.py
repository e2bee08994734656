"""Writes the card (README.md) and attribution list (ATTRIBUTION.md) of a model.

    python benchmarks/model_card.py default --manifest FOLDER/manifest_all.csv --scores benchmarks/bench.json

Data, authors and licences come from the train rows of the manifest, figures from the JSON of benchmarks/bench.py, the
training from the model's config (`card: training:`). Figures measured with other weights are refused.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from bench import TABLES, scores_table
from common import run_benchmark, weights_checksum

from separation.errors import DataError
from separation.evaluate.tables import FEW, markdown
from separation.pretrained import ModelError, find_model, read_config
from separation.storage.moved import resolve

COLUMNS = ("path", "split", "recording_id", "source", "seconds", "licence")
AUTHOR = re.compile(r"\s*\((?:by|freesound)\b[^;]*\)|\s*\([^()]*\)$")
SECTION = re.compile(r"^## (\w+) \(.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
YAMNET = "LICENSE-YAMNET"
SIZES = ("band", "speed", "memory", "cost")  # parts of the benchmark
Rows = list[dict[str, Any]]
Sources = dict[str, list[Rows]]
"""By source, the rows of each recording."""


def read_sources(manifest: Path) -> Sources:
    """Read the train rows; recordings of unknown number are those of one author.

    Raises:
        DataError: a column is missing or there are no train rows.
    """
    with manifest.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [column for column in COLUMNS if column not in (reader.fieldnames or [])]:
            raise DataError(f"{manifest}: the manifest lacks the column {missing[0]}.")
        rows: Rows = [row for row in reader if row["split"] == "train"]
    if not rows:
        raise DataError(f"{manifest}: the manifest has no rows with split train.")
    sources: dict[str, dict[tuple[str, str], Rows]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        row["label"] = row.get("label") or row.get("labels", "").split(";")[0]
        sources[row["source"]][row["recording_id"], row["licence"]].append(row)
    return {source: list(recordings.values()) for source, recordings in sorted(sources.items())}


def attribution(name: str, sources: Sources, licence: str, more: dict[str, str]) -> str:
    """Write ATTRIBUTION.md; `more` holds finished sections of sources that are not in the manifest."""
    recordings = [rows for members in sources.values() for rows in members]
    lines = [
        f"# Recordings that the model `{name}` was trained on",
        "",
        f"{len(recordings)} recordings from {len(sources)} sources, cut into {sum(map(len, recordings))} clips. A line"
        " is one recording: kind of",
        "sound, the clips' file names, its number or name at its source, and its licence with its author where the",
        f"source names one. None of them is part of this package; the weights are under {licence}.",
    ]
    for source, members in sources.items():
        lines += ["", f"## {source} ({len(members)} recordings, {sum(map(len, members))} clips)", ""]
        entries = []
        for rows in members:
            labels = ", ".join(sorted({row["label"] for row in rows}))
            titles = ", ".join(f"`{Path(row['path']).stem}`" for row in rows)
            entries.append(f"- {labels}: {titles} ({rows[0]['recording_id']}): {rows[0]['licence']}")
        lines += sorted(entries, key=str.lower)
    for text in more.values():
        lines += ["", text.strip()]
    return "\n".join(lines) + "\n"


def data_section(sources: Sources, more: dict[str, str]) -> str:
    """Describe the training data."""

    def cells(source: str, recordings: list[Rows]) -> tuple[object, ...]:
        clips = [row for rows in recordings for row in rows]
        hours = f"{sum(float(row['seconds']) for row in clips) / 3600:.2f}"
        return source, len(recordings), len(clips), hours, len({row["label"] for row in clips})

    table: list[tuple[object, ...]] = []
    for source, recordings in sources.items():
        clips = [row for rows in recordings for row in rows]
        licences = Counter(AUTHOR.sub("", row["licence"]).strip() for row in clips)  # most frequent first
        passable = ", ".join(sorted({row.get("redistributable") or "" for row in clips})) or "not said"
        table.append((*cells(source, recordings), " / ".join(name for name, _ in licences.most_common()), passable))
    whole = [rows for recordings in sources.values() for rows in recordings]
    table.append((*(total := cells("all", whole)), "", ""))
    head = ("source", "recordings", "clips", "hours", "classes", "licences", "may be redistributed unchanged")
    rendered = "\n\n".join(section.split("\n\n", 1)[1].split(":")[0].strip() + "." for section in more.values())
    return (
        f"{total[1]} recordings, {total[3]} hours, of {total[4]} classes. `ATTRIBUTION.md` names each one with its"
        f" author and licence. The recordings are not part of the package.\n\n{markdown(head, table)}"
        f"{rendered and chr(10) * 2 + 'Besides: ' + rendered}\n\nThe classes:"
        f" {', '.join(sorted({row['label'] for rows in whole for row in rows}))}."
    )


def limits_section(config: dict[str, Any], sources: Sources, report: dict[str, Any]) -> str:
    """List what the model cannot do."""
    counts = Counter(row["label"] for recordings in sources.values() for rows in recordings for row in rows)
    carried, nyquist = config["model"].get("init_args", {}).get("carry_high"), config["card"]["sample_rate"] / 2000
    carried = carried or config["model"]["class_path"].endswith("LiveUNet")
    higher = "follow the mask of the highest band" if carried else "stay in the residual"
    points = [
        f"It analyses frequencies up to {nyquist:g} kHz; higher ones {higher}.",
        "It separates kinds of sound, not two sounds of one kind: if two people speak, the target contains both.",
        f"It was trained on {len(counts)} classes, listed below, and on English texts. Sounds unlike all of them"
        " were not trained, whatever the query.",
        "It only attenuates parts of the mixture; it does not restore sounds that are masked or missing.",
    ]
    if rare := sorted(label for label, count in counts.items() if count < FEW):
        points.append(f"Classes with fewer than {FEW} training clips ({len(rare)}): {', '.join(rare)}.")
    if "scores" in report and (worse := [row["class"] for row in report["scores"]["classes"] if row["label"] < 0]):
        of = f"{len(worse)} of {len(report['scores']['classes'])} classes"
        points.append(f"In {of} the target is on average worse than the mixture itself: {', '.join(worse)}.")
    return "\n".join(f"- {point}" for point in points)


def card_text(
    directory: Path,
    config: dict[str, Any],
    sources: Sources,
    report: dict[str, Any],
    more: Any,
    more_scores: dict[str, str] | None = None,
) -> str:
    """Write README.md of the model directory; `more_scores` are finished sections."""
    card, name = config["card"], directory.resolve().name
    classes = [resolve(str(config[part]["class_path"])).removeprefix("separation.") for part in ("model", "encoder")]
    facts = [
        ("queries", ", ".join(card.get("queries", ()))),
        ("sample rate", f"{card.get('sample_rate', 'unknown')} Hz inside; files of any rate"),
        ("network, query encoder", ", ".join(f"`{path}`" for path in classes)),
        ("licence of the weights", card["licence"]),
    ]
    use = (
        f'    separate --model {name} --query "dog barking" mix.wav\n\n'
        "    from separation import Separator\n\n"
        f'    result = Separator.from_pretrained("{name}")(mixture, "dog barking", sample_rate=44100)\n'
        "    result.target, result.residual"
    )
    yamnet = (
        " Architecture and start weights of the tagger are YAMNet (TensorFlow Models), under the Apache License 2.0,"
        f" whose text is in `{YAMNET}`."
        if (directory / YAMNET).exists()
        else ""
    )
    sections = {
        "Use": use,
        "Scores": f"Measured {report['date']}. {scores_table(report['scores'])}" if "scores" in report else "",
        **(more_scores or {}),
        "Speed and size": "\n\n".join(TABLES[part](report[part]) for part in SIZES if part in report),
        "Limits": limits_section(config, sources, report),
        "Data": data_section(sources, more),
        "Training": str(card.get("training", "Not recorded.")),
        "Licence": f"The weights in this directory are under {card['licence']}; distribute them together with"
        f" `ATTRIBUTION.md`, which names the authors of the recordings.{yamnet} Texts are encoded with the frozen"
        " all-MiniLM-L6-v2, which is not part of these weights and has its own licence.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# The model `{name}`\n\n{card.get('description', '')}\n\n{markdown(('', ''), facts)}\n\n{body}\n"


def read_report(file: Path, directory: Path, is_section: bool = False) -> dict[str, Any]:
    """Read the JSON of bench.py or, by its title, the section that another benchmark has for the card.

    Raises:
        DataError: it cannot be read, or was measured with other weights or on a part of the list.
    """
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        measured = report["weights"] if is_section else report["model"]["weights_sha256"]
        title, text = report["card"] if is_section else ("", "")
    except (OSError, ValueError, KeyError, TypeError) as error:
        wrong = "has no section for the card" if is_section else "is not a report of benchmarks/bench.py"
        raise DataError(f"{file} {wrong}: {type(error).__name__}.") from None
    if measured != weights_checksum(directory):
        raise DataError(f"{file} was measured with other weights than {directory / 'model.safetensors'}.")
    if report.get("every", 1) > 1:
        raise DataError(f"{file} was measured on a part of the mixtures only (--every {report['every']}).")
    return {title: text.strip()} if is_section else report


def main(argv: list[str] | None = None) -> int:
    """Write both files, or neither if an input is not usable; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the model's name or its directory")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest that the model was trained on")
    parser.add_argument("--scores", type=Path, help="JSON of benchmarks/bench.py")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="JSON of other benchmarks (sentences, speech)")
    options = parser.parse_args(argv)
    try:
        directory = find_model(options.model)
        config, listed = read_config(directory), directory / "ATTRIBUTION.md"
        if not (licence := config.get("card", {}).get("licence")):
            raise ModelError(f"{directory / 'config.yaml'} does not name the licence of the weights (card: licence:).")
        sources = read_sources(options.manifest)
        before = listed.read_text(encoding="utf-8") if listed.exists() else ""
        more = {part[1]: part[0] for part in SECTION.finditer(before) if part[1] not in sources}  # of other sources
        report = read_report(options.scores, directory) if options.scores else {}
        sections = {}
        for file in options.also:
            sections |= read_report(file, directory, is_section=True)
        card = card_text(directory, config, sources, report, more, sections)
        for file, text in (
            (directory / "README.md", card),
            (listed, attribution(directory.resolve().name, sources, licence, more)),
        ):
            file.write_text(text, encoding="utf-8")
            print(file)
    except (ModelError, DataError, OSError) as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    run_benchmark(main)
