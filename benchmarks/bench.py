"""Measures a model: scores, speed, memory and cost (`make bench`), or parts of it.

    python benchmarks/bench.py --data FOLDER --json bench.json
    python benchmarks/bench.py --only speed,cost

Prints Markdown tables; progress goes to standard error. Parts:

scores   SDRi on FOLDER/validation_mixtures.csv, asked by label and by phrase, beside oracle masks
speed    wall time of the command and of the separation alone
memory   peak memory of the command on files of 10 and 60 minutes
cost     multiply-adds, parameters, bytes
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import MINUTES, measure_memory, memory_table
from oracle import masks, oracle_sdri
from speed import cost_table, measure_cost, measure_speed, speed_table

from separation import ModelError, Separator, __version__
from separation.data.fixed_mixtures import CLIPS, locate_files, read_rows, render
from separation.data.manifest import MANIFEST, DataError, add_recording_ids, read_manifest, read_recording_ids
from separation.evaluate import Plan, Score, score_mixture, summarize
from separation.evaluate.tables import class_means, markdown, resampling_unit
from separation.pretrained import find_model

PARTS = ("scores", "speed", "memory", "cost")
LIST = "validation_mixtures.csv"
NOTHING, LABEL, PHRASE = "mixture (nothing done)", "model, asked by label", "model, asked by phrase"
PRESENT = 0.5
Say = Callable[[str], None]
Scores = dict[str, list[Score]]


class Skipped(Exception):
    """A part cannot be measured here; the text says why."""


def say(sentence: str) -> None:
    """Report progress on standard error."""
    print(sentence, file=sys.stderr, flush=True)


# Scores


def measure_scores(separator: Separator, root: Path | None, every: int = 1, say: Say = say) -> dict[str, Any]:
    """Score every `every`-th row of the validation list.

    Raises:
        Skipped: the list or its recordings do not exist.
    """
    if root is None or not (root / LIST).is_file() or not (root / MANIFEST).is_file():
        raise Skipped(f"no {LIST} and {MANIFEST} (--data FOLDER or SEPARATION_DATA names their folder)")
    listed = read_rows(root / LIST)[::every]
    rows = [row for row in listed if locate_files(row, root) == root]
    if not rows:
        raise Skipped(f"none of the recordings of {len(listed)} mixtures exists")
    clips = Counter(clip.label for clip in read_manifest(root / MANIFEST, "train"))
    scores = score_all(separator, rows, root, say)
    phrases = {name: value for name, _, value in class_means(scores[PHRASE])}
    return {
        "mixtures": len(rows),
        "left_out": len(listed) - len(rows),
        "in_training": in_training(rows, root),
        "resampled_by": resampling_unit(scores[LABEL]),
        "lines": {name: summarize(entries, clips) for name, entries in scores.items()},
        "heard_at": PRESENT,
        "heard": {name: presence_shares(scores[name]) for name in (LABEL, PHRASE)},
        "classes": [
            {"class": name, "train_clips": clips[name], "rows": count, "label": value, "phrase": phrases[name]}
            for name, count, value in class_means(scores[LABEL])
        ],
    }


def score_all(separator: Separator, rows: list[dict[str, str]], root: Path, say: Say = say) -> Scores:
    """Score the mixture itself, the model asked by label and by phrase, and oracle masks, on every row."""
    scores: Scores = defaultdict(list)
    model: Any = separator.model
    for number, row in enumerate(add_recording_ids(rows, read_recording_ids(root / MANIFEST)), 1):
        rendered = render(row, root)
        label, phrase = (score_mixture(separator, rendered, Plan(column)) for column in ("query", "phrase"))
        found = {NOTHING: replace(label, value=0.0), LABEL: label, PHRASE: phrase}
        if row["kind"] != "absent" and hasattr(model, "to_bands"):
            kinds = masks(model.to_bins, model.to_bands)
            values = oracle_sdri(rendered.target, rendered.mixture, model.stft, kinds)
            found |= {name: replace(label, value=value) for name, value in values.items()}
        for name, score in found.items():
            scores[name].append(score)
        if number % 20 == 0 or number == len(rows):
            say(f"scores: {number} of {len(rows)} mixtures")
    return scores


def in_training(rows: list[dict[str, str]], root: Path) -> int:
    """Count the rows that contain a recording of the training data; there should be none."""
    ids, clips = read_recording_ids(root / MANIFEST), read_manifest(root / MANIFEST, "train")
    trained = {name for clip in clips for name in (clip.recording, clip.path)}
    return sum(any(ids.get(row[name], row[name]) in trained for name in CLIPS if row[name]) for row in rows)


def presence_shares(scores: list[Score]) -> dict[str, float]:
    """Return the share of rows with presence from 0.5 on, where the query sounds and where it does not."""
    groups = {
        name: [s for s in scores if (s.kind == "absent") == (name == "absent")] for name in ("sounding", "absent")
    }
    return {name: float(np.mean([s.presence >= PRESENT for s in group])) for name, group in groups.items() if group}


def scores_table(scores: dict[str, Any]) -> str:
    """Format a row for each system, columns for each group of mixtures, and sentences about presence."""
    groups = {line["rows"]: line["n"] for line in scores["lines"][LABEL]}
    heads = [""]
    for group, count in groups.items():
        heads += [f"{group}, n = {count}, median"] if is_absent(group) else [f"{group}, n = {count}", "median"]
    rows = []
    for name, lines in scores["lines"].items():
        cells, found = [name], {line["rows"]: line for line in lines}
        for group in groups:
            line = found.get(group)
            if line and not is_absent(group):
                interval = f" ({line['low']:.1f} to {line['high']:.1f})" if line["high"] > line["low"] else ""
                cells.append(f"{line['mean']:.2f}{interval}")
            cells.append(f"{line['median']:.2f}" if line else "")  # oracles have no absent queries
        rows.append(cells)
    left_out = f", {scores['left_out']} left out because their recordings are missing" if scores["left_out"] else ""
    how = f"mean with 95 % interval by {scores['resampled_by']}, and median"
    sentences = []
    for name, shares in scores["heard"].items():
        parts = [
            f"{100 * share:.0f} % of the rows where the query {'sounds' if kind == 'sounding' else 'is absent'}"
            for kind, share in shares.items()
        ]
        sentences.append(f"Presence is at least {PRESENT} ({name}): {', '.join(parts)}.")
    return "\n".join(
        [f"SDRi in dB, {how}; {scores['mixtures']} mixtures{left_out}.", "", markdown(heads, rows), "", *sentences]
    )


def is_absent(group: str) -> bool:
    """Return whether a group contains absent queries, whose mean says little."""
    return group.startswith("absent")


def class_table(rows: list[dict[str, Any]]) -> str:
    """Format the scores by class."""
    cells = [(r["class"], r["train_clips"], r["rows"], f"{r['label']:.1f}", f"{r['phrase']:.1f}") for r in rows]
    return markdown(("class", "train clips", "mixtures", "by label, dB", "by phrase, dB"), cells)


# The command


def machine() -> dict[str, Any]:
    """Describe the machine."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def identity(directory: Path) -> dict[str, str]:
    """Return the name of the model and the checksum of its weights."""
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    return {"name": directory.resolve().name, "weights_sha256": digest}


TABLES: dict[str, Callable[[Any], str]] = {
    "scores": scores_table, "speed": speed_table, "memory": memory_table, "cost": cost_table,
}  # fmt: skip


def measure(report: dict[str, Any], parts: dict[str, Callable[[], Any]], classes: bool = False) -> None:
    """Run the parts, print their tables and fill the report; a part that fails is reported in a sentence."""
    for name, part in parts.items():
        try:
            report[name] = part()
        except Skipped as reason:
            report["skipped"][name] = str(reason)
            continue
        except (DataError, OSError, RuntimeError) as error:
            report["failed"][name] = str(error)
            say(f"{name} failed: {error}")
            continue
        print(f"\n## {name.capitalize()}\n\n{TABLES[name](report[name])}", flush=True)
        if name == "scores" and classes:
            print(f"\n{class_table(report[name]['classes'])}", flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""

    def part_names(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if not names or set(names) - set(PARTS):
            raise argparse.ArgumentTypeError(f"names of parts with commas between: {', '.join(PARTS)}")
        return names

    parser = argparse.ArgumentParser(description="Measure a model: SDRi, speed, memory, cost.")
    add, data = parser.add_argument, os.environ.get("SEPARATION_DATA")
    where = f"holds {LIST}, {MANIFEST} and the recordings (default: $SEPARATION_DATA)"
    add("--model", default="default", help="a model's name or its directory")
    add("--only", type=part_names, default=list(PARTS), metavar="PART,...", help=", ".join(PARTS))
    add("--data", type=Path, default=Path(data) if data else None, metavar="FOLDER", help=where)
    add("--every", type=int, default=1, metavar="N", help="score every N-th mixture only")
    add("--classes", action="store_true", help="print a table by class too")
    add("--minutes", type=float, nargs="+", default=list(MINUTES), help="lengths for the memory part")
    add("--repeats", type=int, default=3, help="of every timing")
    add("--scratch", type=Path, metavar="FOLDER", help="where long files are written, and deleted")
    add("--threads", type=int, help="processor threads (default: all)")
    add("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status, 1 if a part failed."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        directory = find_model(options.model)
        separator = Separator.from_pretrained(directory, device="cpu")
    except ModelError as error:
        parser.exit(1, f"{error}\n")
    report: dict[str, Any] = {"model": identity(directory), "version": __version__, "machine": machine()}
    report |= {"date": time.strftime("%Y-%m-%d", time.gmtime()), "skipped": {}, "failed": {}}
    if options.every > 1:
        report["every"] = options.every
    print(f"# Benchmark of {report['model']['name']!r}, {report['date']}\n")
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in report["machine"].items()))
    model, threads = str(directory), options.threads
    possible: dict[str, Callable[[], Any]] = {
        "scores": lambda: measure_scores(separator, options.data, options.every),
        "speed": lambda: measure_speed(separator, model, say, threads, options.repeats),
        "memory": lambda: measure_memory(model, say, tuple(options.minutes), options.scratch, threads),
        "cost": lambda: measure_cost(separator, directory),
    }
    parts = {name: possible[name] for name in PARTS if name in options.only}
    measure(report, parts, options.classes)
    done = len(parts) - len(report["skipped"]) - len(report["failed"])
    print(f"\n{done} parts measured, {len(report['skipped'])} skipped, {len(report['failed'])} failed.")
    for name, reason in report["skipped"].items():
        print(f"Skipped: {name}: {reason}.")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return int(bool(report["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())
