"""Writes a model's card (README.md) and attribution list (ATTRIBUTION.md) from the files that know.

    python benchmarks/model_card.py default --manifest FOLDER/manifest.csv --scores bench.json \
        --recipe conf/recipe/sound.yaml --recipe conf/recipe/default.yaml

Data, authors and licences come from the manifest's train rows, figures from the benchmark's JSON, settings from the
training's recipes (a run's own config.yaml has every default filled in). Figures measured with other weights are
refused. No path ends up in either file.
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
from separation.evaluate.tables import FEW
from separation.pretrained import ModelError, find_model, read_config

NEEDED = ("path", "split", "recording_id", "source", "seconds", "licence")
WEAKEST = 10
CEILING = "oracle mask, bands, complex"


@dataclass(frozen=True)
class Clip:
    """A train row of the manifest. `passable`: whether the recording may be passed on as it is, where that is said."""

    title: str
    source: str
    recording: str
    label: str
    seconds: float
    licence: str
    passable: str


def read_clips(manifest: Path) -> list[Clip]:
    """The train rows.

    Raises:
        DataError: a column is missing or there are none.
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
    """Clips by source, in the order of the names."""
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.source].append(clip)
    return dict(sorted(groups.items()))


def recordings(clips: Iterable[Clip]) -> list[list[Clip]]:
    """The clips of one source by the recording they were cut from; one whose number is unknown goes by its author."""
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.recording, clip.licence].append(clip)
    return list(groups.values())


# --- Attribution -----------------------------------------------------------------------------


def attribution_line(clips: list[Clip]) -> str:
    """One recording: what it holds, its titles, where it comes from, author and licence as the manifest has them."""
    labels = ", ".join(sorted({clip.label for clip in clips}))
    titles = ", ".join(f"`{clip.title}`" for clip in clips)
    return f"- {labels}: {titles} ({clips[0].recording}): {clips[0].licence}"


def attribution(name: str, clips: list[Clip], licence: str) -> str:
    """ATTRIBUTION.md."""
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
        lines += sorted((attribution_line(clips) for clips in members), key=str.lower)
    return "\n".join(lines) + "\n"


# --- Card ------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Markdown."""
    titles = list(head)
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def licence_names(clips: list[Clip]) -> str:
    """The different licences of some clips without their authors, most frequent first."""
    names = Counter(re.sub(r"\s*\((?:by|freesound)\b[^;]*\)", "", clip.licence).strip() for clip in clips)
    return " / ".join(name for name, _ in names.most_common())


def source_row(name: str, clips: list[Clip]) -> list[object]:
    """A line of the data table."""
    hours = f"{sum(clip.seconds for clip in clips) / 3600:.2f}"
    labels = len({clip.label for clip in clips})
    passable = ", ".join(sorted({clip.passable for clip in clips})) or "not said"
    return [name, len(recordings(clips)), len(clips), hours, labels, licence_names(clips), passable]


def data_section(clips: list[Clip], recipes: list[dict[str, Any]]) -> str:
    """What it was trained on."""
    groups = by_source(clips)
    rows = [source_row(name, members) for name, members in groups.items()]
    count, hours = sum(len(recordings(members)) for members in groups.values()), sum(c.seconds for c in clips) / 3600
    total = ["all", count, len(clips), f"{hours:.2f}", len({c.label for c in clips}), "", ""]
    head = ("source", "recordings", "clips", "hours", "classes", "licences", "may be passed on as they are")
    text = (
        f"{count} recordings, {hours:.1f} hours, of {total[4]} classes. `ATTRIBUTION.md` names each one with its author"
        " and licence. The recordings are not part of the package.\n\n" + table(head, [*rows, total])
    )
    text += f"\n\nThe classes: {', '.join(sorted({clip.label for clip in clips}))}."
    procedural = max((recipe.get("data", {}).get("init_args", {}).get("foley", 0) for recipe in recipes), default=0)
    if procedural:
        from separation.data.foley import SOUNDS

        text += (
            f"\n\nBesides, {procedural} clips of each of the {len(SOUNDS)} procedural sounds of"
            " `separation/data/foley`; those of the demo and the benchmarks have other seeds."
        )
    return text


def settings(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Names and values of a recipe's arguments, nested ones with dots; paths and what is not set are left out."""
    for key, value in node.items():
        name = prefix if key == "init_args" else f"{prefix}{'.' if prefix else ''}{key.removesuffix('class_path')}"
        if isinstance(value, dict):
            yield from settings(value, name)
        elif value is not None and not (isinstance(value, str) and re.search(r"[/\\]|^[A-Za-z]:", value)):
            yield name.rstrip("."), value.rsplit(".", 1)[-1] if key == "class_path" else value


def recipe_section(recipe: dict[str, Any]) -> str:
    """One training's settings."""
    trainer = recipe.get("trainer", {})
    kept = {
        key: trainer[key]
        for key in ("max_epochs", "max_steps", "precision", "gradient_clip_val")
        if trainer.get(key, -1) not in (None, -1)
    }
    wanted = {"seed": recipe.get("seed_everything"), **kept}
    rows = [*settings(wanted), *settings(recipe.get("model", {}), "model"), *settings(recipe.get("data", {}), "data")]
    return table(("setting", "value"), [(f"`{name}`", value) for name, value in rows])


def training_section(card: dict[str, Any], recipes: list[dict[str, Any]]) -> str:
    """How it was trained: the config's own words, if it has any, and the recipes."""
    parts = [str(card["training"])] if card.get("training") else []
    for recipe in recipes:
        name = str(recipe.get("model", {}).get("class_path", "training")).rsplit(".", 1)[-1]
        parts.append(f"### {name}\n\n{recipe_section(recipe)}")
    return "\n\n".join(parts) or "Not recorded."


def figures(scores: dict[str, Any], ending: str) -> dict[str, dict[str, Any]]:
    """Group of mixtures -> its figures, for the system whose name ends so; empty when there is none."""
    found = (lines for name, lines in scores["lines"].items() if name.endswith(ending))
    return {line["rows"]: line for line in next(found, [])}


def group_rows(scores: dict[str, Any]) -> Iterator[list[object]]:
    """The table of groups: number, by label and by phrase with intervals, the best that this kind of mask can do."""
    phrases, best = figures(scores, "asked by phrase"), figures(scores, CEILING)
    for group, line in figures(scores, "asked by label").items():
        name = group + (", median" if group.startswith("absent") else "")
        yield [name, line["n"], figure(line), figure(phrases[group]), figure(best[group]) if group in best else ""]


def figure(line: dict[str, Any]) -> str:
    """A mean with its interval; the median for absent queries."""
    if line["rows"].startswith("absent"):
        return f"{line['median']:.1f}"
    return f"{line['mean']:.2f} ({line['low']:.2f} to {line['high']:.2f})"


def scores_section(report: dict[str, Any]) -> str:
    """What it achieves."""
    scores = report["scores"]
    head = ("mixtures", "n", "asked by label", "asked by a phrase not trained on", CEILING)
    classes = [
        (row["class"], row["train_clips"], row["rows"], f"{row['label']:.1f}", f"{row['phrase']:.1f}")
        for row in scores["classes"]
    ]
    known = f"{scores['in_training']} of them hold" if scores["in_training"] else "none holds"
    return (
        f"SDRi in dB, mean and 95 % interval by {scores.get('resampled_by', 'recording')}, on"
        f" {scores['mixtures']} fixed mixtures of {SECONDS} s;"
        f" {known} a recording of the training data. For absent queries: how far the output lies under the mixture, dB."
        f" Measured {report['date']}.\n\n{table(head, group_rows(scores))}\n\n"
        "By class, mixtures of two sounds, worst first:\n\n"
        + table(("class", "train clips", "mixtures", "by label, dB", "by phrase, dB"), classes)
    )


def cost_section(report: dict[str, Any]) -> str:
    """What it costs."""
    cost = report["cost"]
    rows = [
        (f"multiply-adds per second of audio, queries: {queries}", f"{count / 1e9:.2f} G")
        for queries, count in cost["multiply_adds"].items()
    ]
    rows.append(("parameters of the separator", f"{cost['separator_parameters'] / 1e6:.2f} M"))
    rows.append(
        ("parameters of the query encoder (sentence encoder apart)", f"{cost['encoder_parameters'] / 1e6:.2f} M")
    )
    rows.append(("size of the weights", f"{cost['weights_bytes'] / 1e6:.1f} MB"))
    return table(("", ""), rows)


def limits_section(card: dict[str, Any], clips: list[Clip], report: dict[str, Any]) -> str:
    """What it cannot do."""
    counts = Counter(clip.label for clip in clips)
    rare = sorted(label for label, count in counts.items() if count < FEW)
    band = int(card.get("sample_rate", 0)) / 2000
    points = [
        f"It hears up to {band:g} kHz; what lies above stays in the residual.",
        "It tells kinds of sound apart, not two sounds of one kind: of two speakers it takes both.",
        f"It was trained on {len(counts)} classes, listed below, and English words. What is unlike all of them it has"
        " never heard, whatever the query says.",
        "It only weakens and keeps what is in the mixture; it does not restore what is buried or missing.",
    ]
    if rare:
        points.append(f"Classes with fewer than {FEW} clips to learn from ({len(rare)}): {', '.join(rare)}.")
    if "scores" in report:
        points += measured_limits(report["scores"])
    return "\n".join(f"- {point}" for point in points)


def measured_limits(scores: dict[str, Any]) -> Iterator[str]:
    """Limits that the figures show."""
    weakest = scores["classes"][:WEAKEST]
    named = ", ".join(f"{row['class']} ({row['label']:.1f} dB)" for row in weakest)
    yield f"The classes it separates least well: {named}."
    harmed = sum(row["label"] < 0 for row in scores["classes"])
    if harmed:
        yield f"In {harmed} of {len(scores['classes'])} classes the result is on average worse than the mixture itself."
    shares = next(shares for name, shares in scores["heard"].items() if name.endswith("label"))
    if "absent" in shares:
        yield (
            f"Presence is at least {scores['heard_at']} for {100 * shares['absent']:.0f} % of the queries that are not"
            f" in the mixture, and for {100 * shares['sounding']:.0f} % of those that are."
        )


def card_text(name: str, config: dict[str, Any], clips: list[Clip], report: dict[str, Any], recipes: list[Any]) -> str:
    """README.md of the model directory."""
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
        "Cost": cost_section(report) if "cost" in report else "",
        "Limits": limits_section(card, clips, report),
        "Data": data_section(clips, recipes),
        "Training": training_section(card, recipes),
        "Licence": f"The weights in this directory are under {card['licence']}; name the authors of the recordings by"
        " passing on `ATTRIBUTION.md` with them. Queries go through the frozen all-MiniLM-L6-v2, which is not part of"
        " these weights and has its own licence.",
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    return f"# The model `{name}`\n\n{card.get('description', '')}\n\n{table(('', ''), facts)}\n\n{body}\n"


def read_report(files: Iterable[Path], weights: Path) -> dict[str, Any]:
    """The benchmark's JSON files put together, the later ones over the earlier ones.

    Raises:
        DataError: one cannot be read, was measured with other weights, or on a part of the list only.
    """
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    report: dict[str, Any] = {}
    for file in files:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            measured = found["model"]["weights_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no report of benchmarks/bench.py: {type(error).__name__}.") from None
        if measured != digest:
            raise DataError(f"{file} was measured with other weights than {weights}.")
        if found.get("every", 1) > 1:
            raise DataError(f"{file} was measured on a part of the mixtures only (--every {found['every']}).")
        report |= found
    return report


def read_recipe(file: Path) -> dict[str, Any]:
    """A training's YAML."""
    import yaml

    try:
        recipe = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {type(error).__name__}.") from None
    if not isinstance(recipe, dict):
        raise DataError(f"{file} is no recipe.")
    return recipe


def write_card(directory: Path, manifest: Path, scores: Iterable[Path] = (), recipes: Iterable[Path] = ()) -> None:
    """Writes README.md and ATTRIBUTION.md into a model directory; neither when an input is not usable.

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
    """Command line; returns the exit status."""
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
