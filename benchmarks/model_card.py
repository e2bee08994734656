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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from separation.data.fixed_mixtures import SECONDS
from separation.data.manifest import DataError
from separation.evaluate.tables import FEW, markdown
from separation.pretrained import ModelError, find_model, read_config

NEEDED = ("path", "split", "recording_id", "source", "seconds", "licence")
WEAKEST = 10
CEILING = "oracle mask, bands, complex"


@dataclass(frozen=True)
class Clip:
    """A train row of the manifest; `passable`: whether the recording may be passed on as it is, if that is known."""

    title: str
    source: str
    recording: str
    label: str
    seconds: float
    licence: str
    passable: str


def read_clips(manifest: Path) -> list[Clip]:
    """Read the train rows.

    Raises:
        DataError: a column is missing or there are no train rows.
    """
    with manifest.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if missing := [column for column in NEEDED if column not in (reader.fieldnames or [])]:
            raise DataError(f"{manifest}: the manifest lacks the column {missing[0]}.")
        rows = [row for row in reader if row["split"] == "train"]
    if not rows:
        raise DataError(f"{manifest}: the manifest has no rows with split train.")
    return [
        Clip(
            title=Path(row["path"]).stem,
            source=row["source"],
            recording=row["recording_id"],
            label=row.get("label") or row.get("labels", "").split(";")[0],
            seconds=float(row["seconds"]),
            licence=row["licence"],
            passable=row.get("redistributable") or "",
        )
        for row in rows
    ]


def by_source(clips: Iterable[Clip]) -> dict[str, list[Clip]]:
    """Group clips by source, sorted by name."""
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.source].append(clip)
    return dict(sorted(groups.items()))


def recordings(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Group the clips of a source by recording; recordings of unknown number by author."""
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.recording, clip.licence].append(clip)
    return list(groups.values())


def attribution(name: str, clips: list[Clip], licence: str) -> str:
    """Write ATTRIBUTION.md."""
    groups = {source: recordings(members) for source, members in by_source(clips).items()}
    total = sum(map(len, groups.values()))
    lines = [
        f"# Recordings that the model `{name}` was trained on",
        "",
        f"{total} recordings from {len(groups)} sources, cut into {len(clips)} clips. A line is one recording: kind of",
        "sound, the clips' file names, its number or name at its source, and its licence with its author where the",
        f"source names one. None of them is part of this package; the weights are under {licence}.",
    ]
    for source, members in groups.items():
        lines += ["", f"## {source} ({len(members)} recordings, {sum(map(len, members))} clips)", ""]
        entries = []
        for cuts in members:
            labels, titles = sorted({clip.label for clip in cuts}), [f"`{clip.title}`" for clip in cuts]
            entries.append(f"- {', '.join(labels)}: {', '.join(titles)} ({cuts[0].recording}): {cuts[0].licence}")
        lines += sorted(entries, key=str.lower)
    return "\n".join(lines) + "\n"


# Card


def source_row(name: str, clips: list[Clip]) -> list[object]:
    """Return a line of the data table; licences without authors, most frequent first."""
    licences = Counter(re.sub(r"\s*\((?:by|freesound)\b[^;]*\)", "", clip.licence).strip() for clip in clips)
    passable = ", ".join(sorted({clip.passable for clip in clips})) or "not said"
    hours, labels = f"{sum(clip.seconds for clip in clips) / 3600:.2f}", len({clip.label for clip in clips})
    return [
        name,
        len(recordings(clips)),
        len(clips),
        hours,
        labels,
        " / ".join(n for n, _ in licences.most_common()),
        passable,
    ]


def data_section(clips: list[Clip], recipes: list[dict[str, Any]]) -> str:
    """Describe the training data."""
    groups = by_source(clips)
    labels, hours = sorted({clip.label for clip in clips}), sum(c.seconds for c in clips) / 3600
    count = sum(len(recordings(members)) for members in groups.values())
    rows = [source_row(name, members) for name, members in groups.items()]
    rows.append(["all", count, len(clips), f"{hours:.2f}", len(labels), "", ""])
    head = ("source", "recordings", "clips", "hours", "classes", "licences", "may be passed on as they are")
    text = (
        f"{count} recordings, {hours:.1f} hours, of {len(labels)} classes. `ATTRIBUTION.md` names each one with its"
        f" author and licence. The recordings are not part of the package.\n\n{markdown(head, rows)}"
        f"\n\nThe classes: {', '.join(labels)}."
    )
    procedural = max((recipe.get("data", {}).get("init_args", {}).get("foley", 0) for recipe in recipes), default=0)
    if procedural:
        from separation.data.foley import SOUNDS

        text += (
            f"\n\nBesides, {procedural} clips of each of the {len(SOUNDS)} procedural sounds of"
            " `separation/data/foley`; those of the demo and the benchmarks have other seeds."
        )
    return text


def settings(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield names and values of a recipe's arguments, nested ones with dots, without paths and unset ones."""
    for key, value in node.items():
        name = prefix if key == "init_args" else f"{prefix}{'.' if prefix else ''}{key.removesuffix('class_path')}"
        if isinstance(value, dict):
            yield from settings(value, name)
        elif value is not None and not (isinstance(value, str) and re.search(r"[/\\]|^[A-Za-z]:", value)):
            yield name.rstrip("."), value.rsplit(".", 1)[-1] if key == "class_path" else value


def training_section(card: dict[str, Any], recipes: list[dict[str, Any]]) -> str:
    """Describe the training: the text of the config, if any, and the settings of the recipes."""
    parts = [str(card["training"])] if card.get("training") else []
    for recipe in recipes:
        trainer = recipe.get("trainer", {})
        names = ("max_epochs", "max_steps", "precision", "gradient_clip_val")
        kept = {name: trainer[name] for name in names if trainer.get(name, -1) not in (None, -1)}
        rows = [*settings({"seed": recipe.get("seed_everything")} | kept)]
        rows += [*settings(recipe.get("model", {}), "model"), *settings(recipe.get("data", {}), "data")]
        name = str(recipe.get("model", {}).get("class_path", "training")).rsplit(".", 1)[-1]
        parts.append(f"### {name}\n\n{markdown(('setting', 'value'), [(f'`{key}`', value) for key, value in rows])}")
    return "\n\n".join(parts) or "Not recorded."


def scores_section(report: dict[str, Any]) -> str:
    """Format the scores by group of mixtures and by class."""

    def lines(ending: str) -> dict[str, dict[str, Any]]:
        found = (entries for name, entries in scores["lines"].items() if name.endswith(ending))
        return {line["rows"]: line for line in next(found, [])}

    def figure(line: dict[str, Any]) -> str:
        if line["rows"].startswith("absent"):
            return f"{line['median']:.1f}"
        return f"{line['mean']:.2f} ({line['low']:.2f} to {line['high']:.2f})"

    scores = report["scores"]
    phrases, best, rows = lines("asked by phrase"), lines(CEILING), []
    for group, line in lines("asked by label").items():
        name = group + (", median" if group.startswith("absent") else "")
        ceiling = figure(best[group]) if group in best else ""
        rows.append((name, line["n"], figure(line), figure(phrases[group]), ceiling))
    classes = [
        (row["class"], row["train_clips"], row["rows"], f"{row['label']:.1f}", f"{row['phrase']:.1f}")
        for row in scores["classes"]
    ]
    known = f"{scores['in_training']} of them hold" if scores["in_training"] else "none holds"
    return (
        f"SDRi in dB, mean and 95 % interval by {scores.get('resampled_by', 'recording')}, on"
        f" {scores['mixtures']} fixed mixtures of {SECONDS} s;"
        f" {known} a recording of the training data. For absent queries: how far the output lies under the mixture, dB."
        f" Measured {report['date']}.\n\n"
        + markdown(("mixtures", "n", "asked by label", "asked by a phrase not trained on", CEILING), rows)
        + "\n\nBy class, mixtures of two sounds, worst first:\n\n"
        + markdown(("class", "train clips", "mixtures", "by label, dB", "by phrase, dB"), classes)
    )


def cost_section(cost: dict[str, Any]) -> str:
    """Format the cost."""
    rows = [
        (f"multiply-adds per second of audio, queries: {queries}", f"{count / 1e9:.2f} G")
        for queries, count in cost["multiply_adds"].items()
    ]
    rows += [
        ("parameters of the separator", f"{cost['separator_parameters'] / 1e6:.2f} M"),
        ("parameters of the query encoder (sentence encoder apart)", f"{cost['encoder_parameters'] / 1e6:.2f} M"),
        ("size of the weights", f"{cost['weights_bytes'] / 1e6:.1f} MB"),
    ]
    return markdown(("", ""), rows)


def limits_section(card: dict[str, Any], clips: list[Clip], scores: dict[str, Any] | None) -> str:
    """List what the model cannot do."""
    counts = Counter(clip.label for clip in clips)
    points = [
        f"It hears up to {int(card.get('sample_rate', 0)) / 2000:g} kHz; what lies above stays in the residual.",
        "It tells kinds of sound apart, not two sounds of one kind: of two speakers it takes both.",
        f"It was trained on {len(counts)} classes, listed below, and English words. What is unlike all of them it has"
        " never heard, whatever the query says.",
        "It only weakens and keeps what is in the mixture; it does not restore what is buried or missing.",
    ]
    if rare := sorted(label for label, count in counts.items() if count < FEW):
        points.append(f"Classes with fewer than {FEW} clips to learn from ({len(rare)}): {', '.join(rare)}.")
    if scores:
        weakest = ", ".join(f"{row['class']} ({row['label']:.1f} dB)" for row in scores["classes"][:WEAKEST])
        points.append(f"The classes it separates least well: {weakest}.")
        if worse := sum(row["label"] < 0 for row in scores["classes"]):
            count = len(scores["classes"])
            points.append(f"In {worse} of {count} classes the result is on average worse than the mixture itself.")
        shares = next(shares for name, shares in scores["heard"].items() if name.endswith("label"))
        if "absent" in shares:
            points.append(
                f"Presence is at least {scores['heard_at']} for {100 * shares['absent']:.0f} % of the queries that are"
                f" not in the mixture, and for {100 * shares['sounding']:.0f} % of those that are."
            )
    return "\n".join(f"- {point}" for point in points)


def card_text(name: str, config: dict[str, Any], clips: list[Clip], report: dict[str, Any], recipes: list[Any]) -> str:
    """Write README.md of the model directory."""
    card = config.get("card", {})
    classes = [str(config[part]["class_path"]).removeprefix("separation.") for part in ("model", "encoder")]
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
        "Cost": cost_section(report["cost"]) if "cost" in report else "",
        "Limits": limits_section(card, clips, report.get("scores")),
        "Data": data_section(clips, recipes),
        "Training": training_section(card, recipes),
        "Licence": f"The weights in this directory are under {card['licence']}; name the authors of the recordings by"
        " passing on `ATTRIBUTION.md` with them. Queries go through the frozen all-MiniLM-L6-v2, which is not part of"
        " these weights and has its own licence.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# The model `{name}`\n\n{card.get('description', '')}\n\n{markdown(('', ''), facts)}\n\n{body}\n"


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
    import yaml

    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {type(error).__name__}.") from None
    if not isinstance(recipe, dict):
        raise DataError(f"{file} is not a recipe.")
    return recipe


def write_card(directory: Path, manifest: Path, scores: Iterable[Path] = (), recipes: Iterable[Path] = ()) -> None:
    """Write README.md and ATTRIBUTION.md into a model directory; neither if an input is not usable.

    Raises:
        ModelError, DataError, OSError: the model, the manifest, a report or a recipe is not usable.
    """
    config = read_config(directory)
    if not config.get("card", {}).get("licence"):
        raise ModelError(f"{directory / 'config.yaml'} does not say the weights' licence (card: licence:).")
    name, clips = directory.resolve().name, read_clips(manifest)
    report = read_report(scores, directory / "model.safetensors")
    texts = {
        "README.md": card_text(name, config, clips, report, [read_recipe(file) for file in recipes]),
        "ATTRIBUTION.md": attribution(name, clips, config["card"]["licence"]),
    }
    for file, text in texts.items():
        (directory / file).write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description="Write a model's README.md and ATTRIBUTION.md.")
    parser.add_argument("model", help="the model's name or its directory")
    parser.add_argument("--manifest", type=Path, required=True, help="what it was trained on")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], help="JSON of benchmarks/bench.py")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="YAML of a training; repeatable")
    options = parser.parse_args(argv)
    try:
        directory = find_model(options.model)
        write_card(directory, options.manifest, options.scores, options.recipe)
    except (ModelError, DataError, OSError) as error:
        parser.exit(1, f"{error}\n")
    print(f"{directory / 'README.md'}\n{directory / 'ATTRIBUTION.md'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
