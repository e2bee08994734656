"""Measures a model (`make bench`): scores, the band above 16 kHz, speed, memory and cost, or parts of it.

    python benchmarks/bench.py --data FOLDER --json bench.json
    python benchmarks/bench.py --only speed,cost

Prints Markdown tables; progress goes to standard error. Parts:

scores   SDRi on the validation list, asked by label and by phrase, beside oracle masks; presence; classes, worst first
remove   SDRi of what is left when both interferences are removed, beside asking for the third sound
band     what remains of a removed sound above 16 kHz
precision  what bfloat16 changes (only on request; slow on processors without it)
speed    wall time of the command to its first sample and its end, of the separation, and of the network alone
batch    the command on 100 short files, with one job and with two (only on request)
memory   peak memory of the command on files of 10 and 60 minutes
cost     multiply-adds, parameters, bytes
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from common import LIST, interval, list_rows, make_parser, weights_checksum, write_json
from numpy.typing import NDArray
from performance import (
    MINUTES,
    batch_table,
    cost_table,
    measure_batch,
    measure_cost,
    measure_memory,
    measure_speed,
    memory_table,
    speed_table,
)
from removal import measure_removal, removal_table
from tqdm import tqdm

from separation import ModelError, Query, Separator, __version__
from separation.data.fixed_mixtures import CLIPS, SECONDS, Row, locate_files, read_rows, render
from separation.data.manifest import MANIFEST, add_recording_ids, read_manifest, read_recording_ids
from separation.errors import DataError
from separation.evaluate.metrics import bootstrap, energy, sdr, sdri
from separation.evaluate.scoring import TINY, Plan, Score, power, score_mixture, wiener
from separation.evaluate.tables import class_means, markdown, resampling_unit, summarize
from separation.fitting import area_under_roc
from separation.pretrained import find_model

ON_REQUEST, ON_DATA = ("precision", "batch"), ("scores", "remove", "band", "precision")
NOTHING, LABEL, PHRASE = "mixture (nothing done)", "model, asked by label", "model, asked by phrase"
CEILING = "oracle mask, bands, complex"
PRESENT = 0.5
WORST = 10  # classes that are examined
REASONS = Path(__file__).with_name("weak_classes.yaml")  # written by hand, after looking at their rows
HIGH_RATE, HIGH = 48000, 16000  # of mixtures that reach beyond the models' highest frequency, Hz


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
    target_power, rest_power = power(clean), power(spectrum - clean)
    cross = (clean * spectrum.conj()).sum(0)
    phased = (to_bands.to(cross.dtype) @ cross) / (to_bands @ power(spectrum) + TINY)
    masks = {
        "oracle mask, bins": wiener(target_power, rest_power),
        "oracle mask, bands": to_bins @ wiener(to_bands @ target_power, to_bands @ rest_power),
        CEILING: to_bins.to(cross.dtype) @ (phased / phased.abs().clamp(min=1)),
    }
    estimates = {name: model.stft.inverse(mask * spectrum, mixture.shape[-1]) for name, mask in masks.items()}
    return {name: sdri(target, estimate.numpy(), mixture) for name, estimate in estimates.items()}


def measure_scores(separator: Separator, rows: list[Row], root: Path, manifest: Path) -> dict[str, Any]:
    """Score the mixture itself, the model by label and by phrase, and oracle masks.

    Args:
        separator: the model.
        rows: of the validation list; those whose recordings are missing are left out.
        root: where paths start; contains manifest.csv.
        manifest: of the recordings that the model was trained on.

    Raises:
        DataError: no recording exists.
    """
    found = [row for row in rows if locate_files(row, root) == root]
    if not found:
        raise DataError(f"none of the recordings of {len(rows)} mixtures exists")
    train, recordings = read_manifest(manifest, "train"), read_recording_ids(root / MANIFEST)
    clips = Counter(clip.label for clip in train)
    trained = {name for clip in train for name in (clip.recording, clip.path)}
    scores: dict[str, list[Score]] = defaultdict(list, {name: [] for name in (NOTHING, LABEL, PHRASE)})
    for row in tqdm(add_recording_ids(found, recordings), "mixtures", disable=None):
        rendered, columns = render(row, root), ("query", "phrase")
        results = separator(rendered.mixture, [row[column] for column in columns], rendered.sample_rate)  # one pass
        label, phrase = (
            score_mixture(lambda *_, result=result: result, rendered, Plan(column))
            for column, result in zip(columns, results, strict=True)
        )
        scores[LABEL].append(label)
        scores[PHRASE].append(phrase)
        values = {NOTHING: 0.0}
        if row["kind"] != "absent" and hasattr(separator.model, "to_bands"):
            values |= oracle_scores(separator.model, rendered.target, rendered.mixture)
        for name, value in values.items():
            scores[name].append(replace(label, value=value))
    return {
        "mixtures": len(found),
        "left_out": len(rows) - len(found),
        "in_training": sum(
            any(recordings.get(row[name], row[name]) in trained for name in CLIPS if row[name]) for row in found
        ),
        "resampled_by": resampling_unit(scores[LABEL]),
        "lines": {name: summarize(entries, clips) for name, entries in scores.items()},
        "heard_at": PRESENT,
        "heard": {name: presence_figures(scores[name]) for name in (LABEL, PHRASE)},
        "classes": class_rows(scores, clips, separator, root),
    }


def presence_figures(scores: list[Score]) -> dict[str, Any]:
    """Return the share of queries with presence from 0.5 on, where they sound and where not, and the area under ROC."""
    groups = {
        "sounding": [s for s in scores if s.kind != "absent"],
        "absent": [s for s in scores if s.kind == "absent"],
    }
    figures: dict[str, Any] = {}
    for name, group in groups.items():
        if group:
            present = np.array([score.presence >= PRESENT for score in group], float)
            bounds = bootstrap(present, [score.recording for score in group])
            figures[name] = dict(zip(("share", "low", "high"), (present.mean(), *bounds), strict=True))
    if len(figures) == len(groups):
        sounding, absent = (np.array([score.presence for score in group]) for group in groups.values())
        truth = np.arange(len(sounding) + len(absent)) < len(sounding)
        figures["auc"] = area_under_roc(np.concatenate([sounding, absent]), truth)
    return figures


def class_rows(scores: dict[str, list[Score]], clips: Counter[str], separator: Separator, root: Path) -> list[Any]:
    """Return the figures of every class over mixtures of two sounds, worst first.

    The worst ones are also asked for by the clean target as the example recording.
    """
    phrases, ceilings = ({c: value for c, _, value in class_means(scores[name])} for name in (PHRASE, CEILING))
    rows, reasons = {row["id"]: row for row in read_rows(root / LIST)}, yaml.safe_load(REASONS.read_text("utf-8"))
    classes = []
    for place, (name, count, value) in enumerate(class_means(scores[LABEL])):
        entry = {"class": name, "train_clips": clips[name], "rows": count, "label": value, "phrase": phrases[name]}
        if place < WORST and ceilings and "audio" in separator.encoder.modalities:
            pairs, gains = [s for s in scores[LABEL] if s.kind == "pair" and s.label == name], []
            for rendered in (render(rows[score.id], root) for score in pairs):
                target, rate = torch.from_numpy(rendered.target).float(), rendered.sample_rate
                example = Query(embedding=separator.encoder.encode_audio(target[None], rate)[0])
                estimate = separator(rendered.mixture, example, rate).target[0].numpy()
                gains.append(sdri(rendered.target, estimate, rendered.mixture))
            entry |= {"example": np.mean(gains), "ceiling": ceilings[name], "reason": reasons.get(name, "")}
            entry["presence"] = np.mean([score.presence for score in pairs])
        classes.append(entry)
    return classes


def scores_table(scores: dict[str, Any]) -> str:
    """Format a row for each group of mixtures, columns for each system, presence, and the classes."""
    found = {name: {line["rows"]: line for line in lines} for name, lines in scores["lines"].items()}
    cells = []
    for group, first in found[LABEL].items():
        absent, row = group.startswith("absent"), [group, first["n"]]  # the mean over absent queries says little
        for lines in found.values():  # oracles have no absent queries
            line = lines.get(group)
            mean = interval(line["mean"], line["low"], line["high"]) + "; " if line and not absent else ""
            row.append(f"{mean}{line['median']:.2f}" if line else "")
        cells.append(row)
    known = f"{scores['in_training']} of them contain" if scores["in_training"] else "none contains"
    left_out = (
        f" {scores['left_out']} were left out because their recordings are missing." if scores["left_out"] else ""
    )
    heard = [f"- {name}: {presence_sentence(figures)}." for name, figures in scores["heard"].items()]
    return "\n\n".join(
        (
            f"SDRi in dB, mean with 95 % interval by {scores['resampled_by']}, and median; {scores['mixtures']} fixed"
            f" mixtures of {SECONDS} s; {known} a recording of the training data.{left_out} Absent queries: level of"
            " the output below the mixture, median.",
            markdown(("mixtures", "n", *found), cells),
            f"Presence of at least {PRESENT}:",
            "\n".join(heard),
            "The classes with the lowest scores, also asked for by the clean target as the example (what that gains is"
            " lost in recognition), and with the oracle mask:",
            worst_table(scores["classes"]),
            "Mixtures of two sounds by class, worst first:",
            class_table(scores["classes"]),
        )
    )


def presence_sentence(figures: dict[str, Any]) -> str:
    """Describe the presence of queries that sound and of those that do not."""
    parts = []
    for name, what in (("sounding", "are in the mixture"), ("absent", "are not")):
        if name in figures:
            share, low, high = (100 * figures[name][key] for key in ("share", "low", "high"))
            parts.append(f"{interval(share, low, high, digits=0)} % of the queries that {what}")
    return ", ".join(parts) + (f"; area under the ROC curve {figures['auc']:.3f}" if "auc" in figures else "")


def class_table(rows: list[dict[str, Any]]) -> str:
    """Format the scores by class."""
    cells = [(r["class"], r["train_clips"], r["rows"], f"{r['label']:.1f}", f"{r['phrase']:.1f}") for r in rows]
    return markdown(("class", "train clips", "mixtures", "by label, dB", "by phrase, dB"), cells)


def worst_table(rows: list[dict[str, Any]]) -> str:
    """Format what is known about the worst classes."""
    cells = [
        (r["class"], *(f"{r[key]:.1f}" for key in ("label", "example", "ceiling")), f"{r['presence']:.2f}", r["reason"])
        for r in rows
        if "reason" in r
    ]
    return markdown(("class", "by label, dB", "by the clean target", "oracle mask", "presence", "why"), cells)


# The band above 16 kHz


def measure_band(separator: Separator, rows: list[Row], root: Path) -> dict[str, Any]:
    """Measure how much of a sound stays above 16 kHz when it is removed from a mixture of two sounds at 48 kHz.

    The recordings end at 16 kHz at most; played 1.5 times as fast, they reach 24 kHz. Rows count if at least a
    thousandth of the target's energy lies above 16 kHz.

    Returns:
        Number of rows, and the medians of the error above 16 kHz relative to the target (0 dB if nothing of it is
        removed) and of the SDRi below 16 kHz, dB.

    Raises:
        DataError: no row counts.
    """
    errors, gains = [], []
    for row in tqdm([row for row in rows if row["kind"] == "pair"], "band", disable=None):
        rendered = render(row, root)
        estimate = separator(rendered.mixture, row["query"], HIGH_RATE).target[0].numpy()
        waves = np.stack([rendered.target, estimate, rendered.mixture])
        spectra, hertz = np.fft.rfft(waves), np.fft.rfftfreq(waves.shape[1], 1 / HIGH_RATE)
        low = np.fft.irfft(spectra * (hertz < HIGH), waves.shape[1])
        high = waves - low
        if energy(high[0]) >= 1e-3 * energy(waves[0]):
            errors.append(-sdr(high[0], high[1]))
            gains.append(sdri(*low))
    if not errors:
        raise DataError("no target reaches above 16 kHz")
    return {"rows": len(errors), "error_db": np.median(errors), "sdri_below": np.median(gains)}


def band_table(band: dict[str, Any]) -> str:
    """Format the figures of the band above 16 kHz."""
    rows = [
        ("error above 16 kHz relative to the target (0: nothing is removed)", f"{band['error_db']:.1f}"),
        ("SDRi below 16 kHz", f"{band['sdri_below']:.1f}"),
    ]
    return markdown((f"mixtures of two sounds at 48 kHz, n = {band['rows']}", "median, dB"), rows)


# Precision


def measure_precision(model: str, rows: list[Row], root: Path) -> dict[str, Any]:
    """Measure what bfloat16 changes in presence and SDRi, asked by label and by phrase, against float32.

    Returns:
        Number of rows; mean, 99th percentile and largest absolute change of presence; mean and largest change of SDRi.
    """
    exact, rounded = (Separator.from_pretrained(model, "cpu", precision=name) for name in ("float32", "bfloat16"))
    presence, gains = [], []
    for row in tqdm(rows, "precision", disable=None):
        rendered, texts = render(row, root), [row["query"], row["phrase"]]
        pairs = zip(*(each(rendered.mixture, texts, rendered.sample_rate) for each in (exact, rounded)), strict=True)
        for before, after in pairs:
            presence.append(after.presence - before.presence)
            if row["kind"] != "absent":
                estimates = (result.target[0].numpy() for result in (after, before))
                after_db, before_db = (sdri(rendered.target, estimate, rendered.mixture) for estimate in estimates)
                gains.append(after_db - before_db)
    sizes = np.abs(presence)
    return {"rows": len(rows), "presence_mean": sizes.mean(), "presence_p99": np.quantile(sizes, 0.99),
            "presence_max": sizes.max(), "sdri_mean": np.mean(gains), "sdri_max": np.abs(gains).max()}  # fmt: skip


def precision_table(figures: dict[str, Any]) -> str:
    """Format what bfloat16 changes."""
    names = ("presence_mean", "presence_p99", "presence_max", "sdri_mean", "sdri_max")
    titles = ("presence: mean", "99 %", "largest", "SDRi, dB: mean", "largest")
    return markdown(("rows", *titles), [(figures["rows"], *(f"{figures[name]:.4f}" for name in names))])


# The command

TABLES: dict[str, Callable[[Any], str]] = {  # of the parts
    "scores": scores_table, "remove": removal_table, "band": band_table, "precision": precision_table,
    "speed": speed_table, "batch": batch_table, "memory": memory_table, "cost": cost_table,
}  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Describe the machine."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.+)", info.read_text() if info.is_file() else "", re.MULTILINE)
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""

    def part_names(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",")]
        if set(names) - set(TABLES):
            raise argparse.ArgumentTypeError(f"names of parts with commas between: {', '.join(TABLES)}")
        return names

    parser = make_parser(__doc__, mixtures=True)
    add = parser.add_argument
    add(
        "--only",
        type=part_names,
        default=[part for part in TABLES if part not in ON_REQUEST],
        metavar="PART,...",
        help=", ".join(TABLES),
    )
    add("--manifest", default="manifest_all.csv", metavar="NAME", help="what the model was trained on, in FOLDER")
    add("--minutes", type=float, nargs="+", default=list(MINUTES), help="lengths for the memory part")
    add("--repeats", type=int, default=3, help="of every timing")
    return parser


def measure_part(name: str, separator: Separator, directory: Path, options: argparse.Namespace) -> tuple[Any, str]:
    """Measure one part; return its figures and their table."""
    model, data = str(directory), list_rows(options) if name in ON_DATA else ()
    figures = {
        "scores": lambda: measure_scores(separator, *data, options.data / options.manifest),
        "remove": lambda: measure_removal(separator, *data),
        "band": lambda: measure_band(separator, *data),
        "precision": lambda: measure_precision(model, *data),
        "speed": lambda: measure_speed(separator, model, options.repeats),
        "batch": lambda: measure_batch(model),
        "memory": lambda: measure_memory(model, options.minutes),
        "cost": lambda: measure_cost(separator, directory),
    }[name]()
    return figures, TABLES[name](figures)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status, 1 if a part failed."""
    parser = build_parser()
    options = parser.parse_args(argv)
    try:
        directory = find_model(options.model)
        separator = Separator.from_pretrained(directory, device="cpu")
    except ModelError as error:
        parser.exit(1, f"{error}\n")
    report: dict[str, Any] = {
        "model": {"name": directory.resolve().name, "weights_sha256": weights_checksum(directory)},
        "version": __version__,
        "machine": describe_machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "every": options.every,
        "skipped": {},
        "failed": {},
    }
    print(f"# Benchmark of {report['model']['name']!r}, {report['date']}\n")
    print(", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in report["machine"].items()))
    for name in [part for part in TABLES if part in options.only]:
        if name in ON_DATA and not (options.data and (options.data / LIST).is_file()):
            report["skipped"][name] = f"no {LIST} (--data FOLDER or SEPARATION_DATA names its folder)"
            continue
        try:
            report[name], table = measure_part(name, separator, directory, options)
            print(f"\n## {name.capitalize()}\n\n{table}", flush=True)
        except (DataError, OSError, RuntimeError) as error:
            report["failed"][name] = str(error)
    for title in ("skipped", "failed"):
        for name, why in report[title].items():
            print(f"\n{title.capitalize()}: {name}: {why}.")
    if options.json and options.json.exists():  # parts that were measured before with these weights are kept
        before = json.loads(options.json.read_text(encoding="utf-8"))
        kept = {name: before[name] for name in TABLES if name in before and before["model"] == report["model"]}
        report = kept | report
    write_json(options.json, report)
    return int(bool(report["failed"]))


if __name__ == "__main__":
    raise SystemExit(main())
