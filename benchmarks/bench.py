"""What the model achieves and costs: `make bench`, or parts of it.

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
from separation.data.fixed_mixtures import read_rows, render
from separation.data.manifest import MANIFEST, DataError, read_manifest, recordings_of, with_recordings
from separation.evaluate import Plan, Score, score_mixture, summarize
from separation.evaluate.tables import class_means, resampling_unit
from separation.pretrained import find_model

PARTS = ("scores", "speed", "memory", "cost")
LIST = "validation_mixtures.csv"
NOTHING, LABEL, PHRASE = "mixture (nothing done)", "model, asked by label", "model, asked by phrase"
HEARD = 0.5
Say = Callable[[str], None]
Scores = dict[str, list[Score]]


class Skipped(Exception):
    """A part cannot be measured here; the text says why."""


def say(sentence: str) -> None:
    """Progress, on standard error."""
    print(sentence, file=sys.stderr, flush=True)


def sounds(row: dict[str, str]) -> list[str]:
    """The paths of a row's clips."""
    return [row[name] for name in ("target", "interference1", "interference2") if row[name]]


def in_training(rows: list[dict[str, str]], root: Path) -> int:
    """How many rows hold a recording that is also in the training data; there should be none."""
    ids, clips = recordings_of(root / MANIFEST), read_manifest(root / MANIFEST, "train")
    trained = {name for clip in clips for name in (clip.recording, clip.path)}
    return sum(any(ids.get(path, path) in trained for path in sounds(row)) for row in rows)


def readable(rows: list[dict[str, str]], root: Path) -> list[dict[str, str]]:
    """The rows whose recordings are all there."""
    return [row for row in rows if all((root / path).is_file() for path in sounds(row))]


def oracle_scores(separator: Separator, row: dict[str, str], root: Path, like: Score) -> dict[str, Score]:
    """Scores of the oracle masks on one row, in the form of the model's score; empty for a model without bands."""
    model: Any = separator.model
    if row["kind"] == "absent" or not hasattr(model, "to_bands"):
        return {}
    rendered, kinds = render(row, root), masks(model.to_bins, model.to_bands)
    values = oracle_sdri(rendered.target, rendered.mixture, model.stft, kinds)
    return {name: replace(like, value=value) for name, value in values.items()}


def score_all(separator: Separator, rows: list[dict[str, str]], root: Path, say: Say = say) -> Scores:
    """Every row's score by what is done to the mixture: nothing, the model by label and by phrase, oracle masks."""
    scores: Scores = defaultdict(list)
    for number, row in enumerate(with_recordings(rows, recordings_of(root / MANIFEST)), 1):
        label, phrase = (score_mixture(separator, render(row, root), Plan(column)) for column in ("query", "phrase"))
        of_row = {NOTHING: replace(label, value=0.0), LABEL: label, PHRASE: phrase}
        for name, score in (of_row | oracle_scores(separator, row, root, label)).items():
            scores[name].append(score)
        if number % 20 == 0 or number == len(rows):
            say(f"scores: {number} of {len(rows)} mixtures")
    return scores


def class_rows(scores: Scores, clips: Counter[str]) -> list[dict[str, Any]]:
    """Per class: train clips, rows, mean SDRi over its pairs by label and by phrase; worst first."""
    phrases = {name: value for name, _, value in class_means(scores[PHRASE])}
    return [
        {"class": name, "train_clips": clips[name], "rows": rows, "label": value, "phrase": phrases[name]}
        for name, rows, value in class_means(scores[LABEL])
    ]


def heard(scores: list[Score]) -> dict[str, float]:
    """Share of the rows where presence says that the query sounds: where it does, and where it does not."""
    groups = {
        "sounding": [s for s in scores if s.kind != "absent"],
        "absent": [s for s in scores if s.kind == "absent"],
    }
    return {name: float(np.mean([s.presence >= HEARD for s in group])) for name, group in groups.items() if group}


def measure_scores(separator: Separator, root: Path | None, every: int = 1, say: Say = say) -> dict[str, Any]:
    """All scores of the validation list.

    Raises:
        Skipped: the list or its recordings are not there.
    """
    if root is None or not (root / LIST).is_file() or not (root / MANIFEST).is_file():
        raise Skipped(f"no {LIST} and {MANIFEST} (--data FOLDER or SEPARATION_DATA names where they lie)")
    listed = read_rows(root / LIST)[::every]
    rows = readable(listed, root)
    if not rows:
        raise Skipped(f"none of the recordings of {len(listed)} mixtures is there")
    clips = Counter(clip.label for clip in read_manifest(root / MANIFEST, "train"))
    scores = score_all(separator, rows, root, say)
    return {
        "mixtures": len(rows),
        "left_out": len(listed) - len(rows),
        "in_training": in_training(rows, root),
        "resampled_by": resampling_unit(scores[LABEL]),
        "lines": {name: summarize(entries, clips) for name, entries in scores.items()},
        "heard_at": HEARD,
        "heard": {name: heard(scores[name]) for name in (LABEL, PHRASE)},
        "classes": class_rows(scores, clips),
    }


def score_cells(line: dict[str, Any] | None) -> list[str]:
    """A group's cells: mean with its interval and median; for absent queries the median alone."""
    if line is None:  # only the oracles have none, and only for absent queries
        return [""]
    median = f"{line['median']:.2f}"
    if line["rows"].startswith("absent"):
        return [median]
    interval = f" ({line['low']:.1f} to {line['high']:.1f})" if line["high"] > line["low"] else ""
    return [f"{line['mean']:.2f}{interval}", median]


def scores_table(scores: dict[str, Any]) -> str:
    """Markdown: a row for what is done to the mixture, columns for each group of mixtures."""
    groups = {line["rows"]: line["n"] for line in scores["lines"][LABEL]}
    heads = [
        f"{group}, n = {count} | median" if not group.startswith("absent") else f"{group}, n = {count}, median"
        for group, count in groups.items()
    ]
    left_out = f", {scores['left_out']} left out because their recordings are missing" if scores["left_out"] else ""
    heading = "| | " + " | ".join(heads) + " |"
    lines = [
        f"SDRi in dB, mean with 95 % interval by {scores['resampled_by']}, and median; "
        f"{scores['mixtures']} mixtures{left_out}.",
        "",
        heading,
        "|---" * (heading.count("|") - 1) + "|",
    ]
    for name, entries in scores["lines"].items():
        found = {entry["rows"]: entry for entry in entries}
        cells = [cell for group in groups for cell in score_cells(found.get(group))]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    lines += ["", *(presence_line(name, shares) for name, shares in scores["heard"].items())]
    return "\n".join(lines)


def presence_line(name: str, shares: dict[str, float]) -> str:
    """One sentence."""
    parts = [
        f"{100 * share:.0f} % of the rows where the query " + ("sounds" if kind == "sounding" else "is absent")
        for kind, share in shares.items()
    ]
    return f"Presence is at least {HEARD} ({name}): " + ", ".join(parts) + "."


def class_table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    head = "| class | train clips | mixtures | by label, dB | by phrase, dB |\n|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {r['class']} | {r['train_clips']} | {r['rows']} | {r['label']:.1f} | {r['phrase']:.1f} |" for r in rows
    )


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []  # fmt: skip
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "processor": processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def identity(directory: Path) -> dict[str, str]:
    """Which model was measured: its name and its weights' checksum."""
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    return {"name": directory.resolve().name, "weights_sha256": digest}


TABLES: dict[str, Callable[[Any], str]] = {
    "scores": scores_table,
    "speed": speed_table,
    "memory": memory_table,
    "cost": cost_table,
}


def parts_of(options: argparse.Namespace, separator: Separator, directory: Path) -> dict[str, Callable[[], Any]]:
    """The wanted parts, each a function that measures it."""
    model = str(directory)
    possible: dict[str, Callable[[], Any]] = {
        "scores": lambda: measure_scores(separator, options.data, options.every),
        "speed": lambda: measure_speed(separator, model, say, options.threads, options.repeats),
        "memory": lambda: measure_memory(model, say, tuple(options.minutes), options.scratch, options.threads),
        "cost": lambda: measure_cost(separator, directory),
    }
    return {name: possible[name] for name in PARTS if name in options.only}


def measure(report: dict[str, Any], parts: dict[str, Callable[[], Any]], classes: bool = False) -> None:
    """Runs the parts, prints each one's table and fills the report; a part that fails costs a sentence."""
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


def wanted(text: str) -> list[str]:
    """`--only`'s value as names of parts."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"names of parts with commas between: {', '.join(PARTS)}")
    return names


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Measure a model: SDRi, speed, memory, cost.")
    parser.add_argument("--model", default="default", help="a model's name or its directory")
    parser.add_argument("--only", type=wanted, default=list(PARTS), metavar="PART,...", help=", ".join(PARTS))
    data = os.environ.get("SEPARATION_DATA")
    parser.add_argument(
        "--data", type=Path, default=Path(data) if data else None, metavar="FOLDER",
        help=f"holds {LIST}, {MANIFEST} and the recordings (default: $SEPARATION_DATA)",
    )  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N", help="score every N-th mixture only")
    parser.add_argument("--classes", action="store_true", help="print a table by class too")
    parser.add_argument("--minutes", type=float, nargs="+", default=list(MINUTES), help="lengths for the memory part")
    parser.add_argument("--repeats", type=int, default=3, help="of every timing")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where long files are made, and deleted")
    parser.add_argument("--threads", type=int, help="processor threads (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status, 1 if a part failed."""
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
    parts = parts_of(options, separator, directory)
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
