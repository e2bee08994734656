"""Writes the card (README.md) and attribution list (ATTRIBUTION.md) of a model.

    python benchmarks/model_card.py default --manifest FOLDER/manifest.csv --scores bench.json \
        --recipe conf/recipe/sound.yaml --recipe conf/recipe/default.yaml

Data, authors and licences come from the train rows of the manifest, figures from the JSON of benchmarks/bench.py,
settings from the recipes of the training (the config.yaml of a run has every default filled in). Figures measured with
other weights are refused. Neither file contains paths.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from bench import CEILING, LABEL, PHRASE, class_table, cost_table

from separation.data.fixed_mixtures import SECONDS
from separation.data.foley import SOUNDS
from separation.data.manifest import DataError
from separation.evaluate.tables import FEW, markdown
from separation.moved import resolve
from separation.pretrained import ModelError, find_model, read_config

COLUMNS = ("path", "split", "recording_id", "source", "seconds", "licence")
WEAKEST = 10
AUTHOR = re.compile(r"\s*\((?:by|freesound)\b[^;]*\)")
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


def attribution(name: str, sources: Sources, licence: str) -> str:
    """Write ATTRIBUTION.md."""
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
    return "\n".join(lines) + "\n"


# Card


def data_section(sources: Sources, recipes: list[dict[str, Any]]) -> str:
    """Describe the training data."""

    def counts(recordings: list[Rows]) -> tuple[int, int, str, int]:
        clips = [row for rows in recordings for row in rows]
        hours = f"{sum(float(row['seconds']) for row in clips) / 3600:.2f}"
        return len(recordings), len(clips), hours, len({row["label"] for row in clips})

    cells: list[tuple[object, ...]] = []
    for source, recordings in sources.items():
        clips = [row for rows in recordings for row in rows]
        licences = Counter(AUTHOR.sub("", row["licence"]).strip() for row in clips)  # most frequent first
        passable = ", ".join(sorted({row.get("redistributable") or "" for row in clips})) or "not said"
        cells.append(
            (source, *counts(recordings), " / ".join(licence for licence, _ in licences.most_common()), passable)
        )
    whole = [rows for recordings in sources.values() for rows in recordings]
    total, clips, hours, classes = counts(whole)
    cells.append(("all", total, clips, hours, classes, "", ""))
    head = ("source", "recordings", "clips", "hours", "classes", "licences", "may be redistributed unchanged")
    seconds = sum(float(row["seconds"]) for rows in whole for row in rows)
    labels = sorted({row["label"] for rows in whole for row in rows})
    text = (
        f"{total} recordings, {seconds / 3600:.1f} hours, of {classes} classes. `ATTRIBUTION.md` names each one with"
        f" its author and licence. The recordings are not part of the package.\n\n{markdown(head, cells)}"
        f"\n\nThe classes: {', '.join(labels)}."
    )
    procedural = max((recipe.get("data", {}).get("init_args", {}).get("foley", 0) for recipe in recipes), default=0)
    if procedural:
        text += (
            f"\n\nThe training data also contain {procedural} clips of each of the {len(SOUNDS)} procedural sounds of"
            " `separation/data/foley`; those of the demo have other seeds."
        )
    return text


def list_settings(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield names and values of a recipe's arguments, nested ones with dots, without paths and unset ones."""
    for key, value in node.items():
        name = prefix if key == "init_args" else f"{prefix}{'.' if prefix else ''}{key.removesuffix('class_path')}"
        if isinstance(value, dict):
            yield from list_settings(value, name)
        elif value is not None and not (isinstance(value, str) and re.search(r"[/\\]|^[A-Za-z]:", value)):
            yield f"`{name.rstrip('.')}`", value.rsplit(".", 1)[-1] if key == "class_path" else value


def training_section(card: dict[str, Any], recipes: list[dict[str, Any]]) -> str:
    """Describe the training: the text of the config, if any, and the settings of the recipes."""
    parts = [str(card["training"])] if card.get("training") else []
    for recipe in recipes:
        trainer, model = recipe.get("trainer", {}), recipe.get("model", {})
        names = ("max_epochs", "max_steps", "precision", "gradient_clip_val")
        kept = {name: trainer[name] for name in names if trainer.get(name, -1) not in (None, -1)}
        cells = [*list_settings({"seed": recipe.get("seed_everything")} | kept)]
        cells += [*list_settings(model, "model"), *list_settings(recipe.get("data", {}), "data")]
        name = str(model.get("class_path", "training")).rsplit(".", 1)[-1]
        parts.append(f"### {name}\n\n{markdown(('setting', 'value'), cells)}")
    return "\n\n".join(parts) or "Not recorded."


def scores_section(report: dict[str, Any]) -> str:
    """Format the scores by group of mixtures and by class."""

    def format_figure(line: dict[str, Any]) -> str:
        if line["rows"].startswith("absent"):
            return f"{line['median']:.1f}"
        return f"{line['mean']:.2f} ({line['low']:.2f} to {line['high']:.2f})"

    scores = report["scores"]
    labels, phrases, ceilings = (
        {line["rows"]: line for line in scores["lines"].get(name, ())} for name in (LABEL, PHRASE, CEILING)
    )
    cells = []
    for group, line in labels.items():
        name = group + (", median" if group.startswith("absent") else "")
        ceiling = format_figure(ceilings[group]) if group in ceilings else ""
        cells.append((name, line["n"], format_figure(line), format_figure(phrases[group]), ceiling))
    known = f"{scores['in_training']} of them contain" if scores["in_training"] else "none contains"
    return (
        f"SDRi in dB, mean and 95 % interval by {scores.get('resampled_by', 'recording')}, on"
        f" {scores['mixtures']} fixed mixtures of {SECONDS} s;"
        f" {known} a recording of the training data. For absent queries: level of the output below the mixture, dB."
        f" Measured {report['date']}.\n\n"
        + markdown(("mixtures", "n", "query is the label", "query is a phrase never trained on", CEILING), cells)
        + f"\n\nBy class, mixtures of two sounds, worst first:\n\n{class_table(scores['classes'])}"
    )


def limits_section(card: dict[str, Any], sources: Sources, scores: dict[str, Any] | None) -> str:
    """List what the model cannot do."""
    counts = Counter(row["label"] for recordings in sources.values() for rows in recordings for row in rows)
    limit = int(card.get("sample_rate", 0)) / 2000
    points = [
        f"It processes frequencies up to {limit:g} kHz; higher ones stay in the residual.",
        "It separates kinds of sound, not two sounds of one kind: if two people speak, the target contains both.",
        f"It was trained on {len(counts)} classes, listed below, and on English texts. Sounds unlike all of them"
        " were not trained, whatever the query.",
        "It only attenuates parts of the mixture; it does not restore sounds that are masked or missing.",
    ]
    if rare := sorted(label for label, count in counts.items() if count < FEW):
        points.append(f"Classes with fewer than {FEW} training clips ({len(rare)}): {', '.join(rare)}.")
    if scores:
        classes, shares = scores["classes"], scores["heard"][LABEL]
        weakest = ", ".join(f"{row['class']} ({row['label']:.1f} dB)" for row in classes[:WEAKEST])
        points.append(f"The classes with the lowest scores: {weakest}.")
        if worse := sum(row["label"] < 0 for row in classes):
            points.append(
                f"In {worse} of {len(classes)} classes the target is on average worse than the mixture itself."
            )
        if "absent" in shares:
            points.append(
                f"Presence is at least {scores['heard_at']} for {100 * shares['absent']:.0f} % of the queries that are"
                f" not in the mixture, and for {100 * shares['sounding']:.0f} % of those that are."
            )
    return "\n".join(f"- {point}" for point in points)


def card_text(
    name: str, config: dict[str, Any], sources: Sources, report: dict[str, Any], recipes: list[dict[str, Any]]
) -> str:
    """Write README.md of the model directory."""
    card = config.get("card", {})
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
    sections = {
        "Use": use,
        "Scores": scores_section(report) if "scores" in report else "",
        "Cost": cost_table(report["cost"]) if "cost" in report else "",
        "Limits": limits_section(card, sources, report.get("scores")),
        "Data": data_section(sources, recipes),
        "Training": training_section(card, recipes),
        "Licence": f"The weights in this directory are under {card['licence']}; distribute them together with"
        " `ATTRIBUTION.md`, which names the authors of the recordings. Texts are encoded with the frozen"
        " all-MiniLM-L6-v2, which is not part of"
        " these weights and has its own licence.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# The model `{name}`\n\n{card.get('description', '')}\n\n{markdown(('', ''), facts)}\n\n{body}\n"


# Command


def read_report(files: Iterable[Path], weights: Path) -> dict[str, Any]:
    """Merge JSON files of the benchmark, later ones over earlier ones.

    Raises:
        DataError: a file cannot be read, or was measured with other weights or on a part of the list.
    """
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    report: dict[str, Any] = {}
    for file in files:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            measured = found["model"]["weights_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is not a report of benchmarks/bench.py: {type(error).__name__}.") from None
        if measured != digest:
            raise DataError(f"{file} was measured with other weights than {weights}.")
        if found.get("every", 1) > 1:
            raise DataError(f"{file} was measured on a part of the mixtures only (--every {found['every']}).")
        report |= found
    return report


def read_recipe(file: Path) -> dict[str, Any]:
    """Read the YAML file of a training.

    Raises:
        DataError: the file is not valid.
    """
    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {type(error).__name__}.") from None
    if not isinstance(recipe, dict):
        raise DataError(f"{file} is not a recipe.")
    return recipe


def main(argv: list[str] | None = None) -> int:
    """Write both files, or neither if an input is not usable; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the model's name or its directory")
    parser.add_argument("--manifest", type=Path, required=True, help="manifest that the model was trained on")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="JSON of benchmarks/bench.py")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="YAML of a training; repeatable")
    options = parser.parse_args(argv)
    try:
        directory = find_model(options.model)
        config = read_config(directory)
        if not (licence := config.get("card", {}).get("licence")):
            raise ModelError(f"{directory / 'config.yaml'} does not name the licence of the weights (card: licence:).")
        name, sources = directory.resolve().name, read_sources(options.manifest)
        report = read_report(options.scores, directory / "model.safetensors")
        card = card_text(name, config, sources, report, [read_recipe(file) for file in options.recipe])
        for file, text in (("README.md", card), ("ATTRIBUTION.md", attribution(name, sources, licence))):
            (directory / file).write_text(text, encoding="utf-8")
            print(directory / file)
    except (ModelError, DataError, OSError) as error:
        parser.exit(1, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
