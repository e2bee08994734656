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
import os
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import make_parser, say, write_json
from numpy.typing import NDArray
from performance import MINUTES, cost_table, measure_cost, measure_memory, measure_speed, memory_table, speed_table

from separation import ModelError, Separator, __version__
from separation.data.fixed_mixtures import CLIPS, locate_files, read_rows, render
from separation.data.manifest import MANIFEST, DataError, add_recording_ids, read_manifest, read_recording_ids
from separation.evaluate import Plan, Score, score_mixture, summarize
from separation.evaluate.metrics import sdri
from separation.evaluate.oracle import TINY, bin_mask, power, wiener
from separation.evaluate.tables import class_means, markdown, resampling_unit
from separation.pretrained import find_model

PARTS = ("scores", "speed", "memory", "cost")
LIST = "validation_mixtures.csv"
NOTHING, LABEL, PHRASE = "mixture (nothing done)", "model, asked by label", "model, asked by phrase"
CEILING = "oracle mask, bands, complex"
PRESENT = 0.5


class Skipped(Exception):
    """A part cannot be measured here; the text says why."""


# Scores


@torch.inference_mode()
def oracle_scores(model: Any, target: NDArray[Any], mixture: NDArray[Any]) -> dict[str, float]:
    """Return the SDRi in dB of masks that are computed from the true target.

    With T the spectrum of the target and N that of all interference, the mask of bins is the Wiener gain
    |T|^2 / (|T|^2 + |N|^2). Masks of bands have one value per band and frame and are interpolated to bins as in the
    model: the Wiener gain of the band's powers, and the complex gain of least squared error in the band, at most 1,
    which is the ceiling of a model that estimates magnitude and phase.

    Args:
        model: has `stft`, `to_bins` (bins, bands) and `to_bands` (bands, bins).
        target: (time,) or (channels, time).
        mixture: likewise.
    """
    target, mixture = np.atleast_2d(target), np.atleast_2d(mixture)
    clean, spectrum = (model.stft(torch.from_numpy(wave).float()) for wave in (target, mixture))
    to_bins, to_bands = model.to_bins, model.to_bands
    gain = wiener(to_bands @ power(clean), to_bands @ power(spectrum - clean))
    cross = (clean * spectrum.conj()).sum(0)
    phased = (to_bands.to(cross.dtype) @ cross) / (to_bands @ power(spectrum) + TINY)
    masks = {
        "oracle mask, bins": bin_mask(clean, spectrum),
        "oracle mask, bands": to_bins @ gain,
        CEILING: to_bins.to(cross.dtype) @ (phased / phased.abs().clamp(min=1)),
    }
    estimates = {name: model.stft.inverse(mask * spectrum, mixture.shape[-1]) for name, mask in masks.items()}
    return {name: sdri(target, estimate.numpy(), mixture) for name, estimate in estimates.items()}


def measure_scores(separator: Separator, root: Path | None, every: int = 1) -> dict[str, Any]:
    """Score the mixture itself, the model by label and by phrase, and oracle masks on every `every`-th row of the list.

    Raises:
        Skipped: the list or its recordings do not exist.
    """
    if root is None or not (root / LIST).is_file() or not (root / MANIFEST).is_file():
        raise Skipped(f"no {LIST} and {MANIFEST} (--data FOLDER or SEPARATION_DATA names their folder)")
    listed = read_rows(root / LIST)[::every]
    rows = [row for row in listed if locate_files(row, root) == root]
    if not rows:
        raise Skipped(f"none of the recordings of {len(listed)} mixtures exists")
    train, recordings = read_manifest(root / MANIFEST, "train"), read_recording_ids(root / MANIFEST)
    clips = Counter(clip.label for clip in train)
    trained = {name for clip in train for name in (clip.recording, clip.path)}
    model: Any = separator.model
    scores: dict[str, list[Score]] = defaultdict(list)
    for number, row in enumerate(add_recording_ids(rows, recordings), 1):
        rendered = render(row, root)
        label, phrase = (score_mixture(separator, rendered, Plan(column)) for column in ("query", "phrase"))
        found = {NOTHING: replace(label, value=0.0), LABEL: label, PHRASE: phrase}
        if row["kind"] != "absent" and hasattr(model, "to_bands"):
            values = oracle_scores(model, rendered.target, rendered.mixture)
            found |= {name: replace(label, value=value) for name, value in values.items()}
        for name, score in found.items():
            scores[name].append(score)
        if number % 20 == 0 or number == len(rows):
            say(f"scores: {number} of {len(rows)} mixtures")
    phrases = {name: value for name, _, value in class_means(scores[PHRASE])}
    return {
        "mixtures": len(rows),
        "left_out": len(listed) - len(rows),
        "in_training": sum(
            any(recordings.get(row[name], row[name]) in trained for name in CLIPS if row[name]) for row in rows
        ),
        "resampled_by": resampling_unit(scores[LABEL]),
        "lines": {name: summarize(entries, clips) for name, entries in scores.items()},
        "heard_at": PRESENT,
        "heard": {name: presence_shares(scores[name]) for name in (LABEL, PHRASE)},
        "classes": [
            {"class": name, "train_clips": clips[name], "rows": count, "label": value, "phrase": phrases[name]}
            for name, count, value in class_means(scores[LABEL])
        ],
    }


def presence_shares(scores: list[Score]) -> dict[str, float]:
    """Return the share of rows with presence from 0.5 on, where the query sounds and where it does not."""
    presences: dict[str, list[float]] = {"sounding": [], "absent": []}
    for score in scores:
        presences["absent" if score.kind == "absent" else "sounding"].append(score.presence)
    return {name: float(np.mean(np.array(group) >= PRESENT)) for name, group in presences.items() if group}


def scores_table(scores: dict[str, Any]) -> str:
    """Format a row for each system, columns for each group of mixtures, and sentences about presence."""
    groups = {line["rows"]: line["n"] for line in scores["lines"][LABEL]}
    heads = [""]
    for group, count in groups.items():  # the mean over absent queries says little
        absent = group.startswith("absent")
        heads += [f"{group}, n = {count}, median"] if absent else [f"{group}, n = {count}", "median"]
    rows = []
    for name, lines in scores["lines"].items():
        cells, found = [name], {line["rows"]: line for line in lines}
        for group in groups:
            line = found.get(group)
            if line and not group.startswith("absent"):
                interval = f" ({line['low']:.1f} to {line['high']:.1f})" if line["high"] > line["low"] else ""
                cells.append(f"{line['mean']:.2f}{interval}")
            cells.append(f"{line['median']:.2f}" if line else "")  # oracles have no absent queries
        rows.append(cells)
    left_out = f", {scores['left_out']} left out because their recordings are missing" if scores["left_out"] else ""
    how = f"mean with 95 % interval by {scores['resampled_by']}, and median"
    text = f"SDRi in dB, {how}; {scores['mixtures']} mixtures{left_out}.\n\n{markdown(heads, rows)}\n"
    for name, shares in scores["heard"].items():
        parts = [
            f"{100 * share:.0f} % of the rows where the query {'sounds' if kind == 'sounding' else 'is absent'}"
            for kind, share in shares.items()
        ]
        text += f"\nPresence is at least {PRESENT} ({name}): {', '.join(parts)}."
    return text


def class_table(rows: list[dict[str, Any]]) -> str:
    """Format the scores by class."""
    cells = [(r["class"], r["train_clips"], r["rows"], f"{r['label']:.1f}", f"{r['phrase']:.1f}") for r in rows]
    return markdown(("class", "train clips", "mixtures", "by label, dB", "by phrase, dB"), cells)


# The command


def describe_machine() -> dict[str, Any]:
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


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""

    def part_names(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        if not names or set(names) - set(PARTS):
            raise argparse.ArgumentTypeError(f"names of parts with commas between: {', '.join(PARTS)}")
        return names

    parser = make_parser(__doc__)
    add, data = parser.add_argument, os.environ.get("SEPARATION_DATA")
    where = f"contains {LIST}, {MANIFEST} and the recordings (default: $SEPARATION_DATA)"
    add("--model", default="default", help="a model's name or its directory")
    add("--only", type=part_names, default=list(PARTS), metavar="PART,...", help=", ".join(PARTS))
    add("--data", type=Path, default=Path(data) if data else None, metavar="FOLDER", help=where)
    add("--every", type=int, default=1, metavar="N", help="score every N-th mixture only")
    add("--classes", action="store_true", help="print a table by class too")
    add("--minutes", type=float, nargs="+", default=list(MINUTES), help="lengths for the memory part")
    add("--repeats", type=int, default=3, help="of every timing")
    add("--scratch", type=Path, metavar="FOLDER", help="where long files are written, and deleted")
    add("--threads", type=int, help="processor threads (default: all)")
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
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    report: dict[str, Any] = {
        "model": {"name": directory.resolve().name, "weights_sha256": digest},
        "version": __version__,
        "machine": describe_machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "skipped": {},
        "failed": {},
    }
    if options.every > 1:
        report["every"] = options.every
    print(f"# Benchmark of {report['model']['name']!r}, {report['date']}\n")
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in report["machine"].items()))
    model, threads, minutes = str(directory), options.threads, tuple(options.minutes)
    parts: dict[str, tuple[Callable[[], Any], Callable[[Any], str]]] = {
        "scores": (lambda: measure_scores(separator, options.data, options.every), scores_table),
        "speed": (lambda: measure_speed(separator, model, threads, options.repeats), speed_table),
        "memory": (lambda: measure_memory(model, minutes, options.scratch, threads), memory_table),
        "cost": (lambda: measure_cost(separator, directory), cost_table),
    }
    chosen = [name for name in PARTS if name in options.only]
    for name in chosen:
        measure, table = parts[name]
        try:
            report[name] = measure()
        except Skipped as why:
            report["skipped"][name] = str(why)
        except (DataError, OSError, RuntimeError) as error:
            report["failed"][name] = str(error)
            say(f"{name} failed: {error}")
        else:
            print(f"\n## {name.capitalize()}\n\n{table(report[name])}", flush=True)
            if name == "scores" and options.classes:
                print(f"\n{class_table(report[name]['classes'])}", flush=True)
    done = len(chosen) - len(report["skipped"]) - len(report["failed"])
    print(f"\n{done} parts measured, {len(report['skipped'])} skipped, {len(report['failed'])} failed.")
    for name, why in report["skipped"].items():
        print(f"Skipped: {name}: {why}.")
    write_json(options.json, report)
    return int(bool(report["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())
