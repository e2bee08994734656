"""The command `python -m separation.evaluate`: scores a model on a protocol or a list and prints tables."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from separation.data.fixed_mixtures import VALIDATION, Row, read_rows
from separation.data.manifest import MANIFEST, add_recording_ids, read_manifest, read_recording_ids
from separation.encoders.base import EncoderError, UnsupportedQueryError
from separation.encoders.table import NamedEmbeddings
from separation.errors import DataError, ModelError, reason
from separation.evaluate import metrics, tables
from separation.evaluate.class_embeddings import list_class_examples, write_class_embeddings
from separation.evaluate.protocols.base import Protocol, ProtocolError, all_protocols, find_protocol, fingerprint
from separation.evaluate.scoring import EvaluationError, Plan, Score, score_rows
from separation.pretrained import find_model
from separation.separator import Separator
from separation.storage.download import sha256_of, write_json
from separation.vocabulary.ontology import OntologyError


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status, 1 if nothing could be scored."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.list_protocols:
        table = [
            (p.name, p.version, p.count or "as the recordings are", (p.sha256 or "")[:12], p.root, p.about)
            for p in all_protocols().values()
        ]
        print(tables.markdown(("protocol", "version", "rows", "sha256 of the rows", "recordings", "what"), table))
        return 0
    if options.embed_classes and not options.class_embeddings:
        parser.error("--embed-classes needs --class-embeddings FILE, which it writes")
    try:
        if options.embed_classes:
            return embed_classes(options)
        if options.mixtures:
            rows, root = read_rows(options.mixtures), options.root or options.mixtures.parent
            protocol = find_protocol("validation")
            if fingerprint(rows, VALIDATION) != protocol.sha256:
                about = "mixtures in the format of the validation list"
                protocol = Protocol(options.mixtures.name, 1, about, "", protocol.root, lambda root: rows, VALIDATION)
        else:
            protocol = find_protocol(options.protocol)
            root = protocol.recordings(options.root)
            rows = protocol.rows(root, options.lists)
        return run(protocol, root, rows, options)
    except (ProtocolError, EvaluationError, ModelError, metrics.MissingPackage, DataError) as error:
        parser.exit(1, f"{error}\n")
    except OSError as error:
        parser.exit(1, f"{error.filename or 'a file'}: {reason(error)}.\n")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""

    def metric_names(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if unknown := [name for name in names if name not in metrics.METRICS] or ([] if names else ["nothing"]):
            raise argparse.ArgumentTypeError(f"{unknown[0]} is not a metric; choose from {', '.join(metrics.METRICS)}")
        return names

    def positive(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
        return int(text)

    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < 3600:
            raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
        return value

    parser = argparse.ArgumentParser(
        prog="python -m separation.evaluate", description="Score a model on fixed mixtures, beside an oracle mask."
    )
    add = parser.add_argument
    add("--model", default="default", help="a model's name, its directory or a checkpoint")
    add("--trust", action="append", default=[], metavar="PACKAGE", help="run code of this package that a model names")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--mixtures", type=Path, metavar="FILE", help="CSV, one mixture a row")
    what.add_argument("--protocol", metavar="NAME", help="a published list of mixtures")
    what.add_argument("--list-protocols", action="store_true", help="list the protocols")
    examples = "compute --class-embeddings from a manifest's train rows or a folder with a folder per class"
    what.add_argument("--embed-classes", type=Path, metavar="SOURCE", help=examples)
    where = "where the recordings' paths start (default: the list's folder, or the protocol's environment variable)"
    add("--root", type=Path, metavar="FOLDER", help=where)
    add("--lists", type=Path, metavar="FOLDER", help="holds the published lists (default: $SEPARATION_LISTS)")
    add("--query", choices=["query", "phrase"], default="query", help="ask by label or by phrase")
    named = "safetensors with the condition of each class by name, which is the query (see --embed-classes)"
    add("--class-embeddings", type=Path, metavar="FILE", help=named)
    first = "--embed-classes: the first seconds of each recording only, silence included (USS: 2)"
    add("--example-seconds", type=seconds, default=0.0, metavar="S", help=first)
    add("--faithful", action="store_true", help="also score the inference of the system's published evaluation")
    add("--metrics", type=metric_names, metavar="NAME,...", help="what to measure")
    add("--no-oracle", dest="oracle", action="store_false", help="leave the oracle mask out")
    add("--every", type=positive, default=1, metavar="N", help="score every N-th row only")
    add("--classes", action="store_true", help="also print a table by class")
    add("--device", help="where to compute (default: the best available)")
    add("--json", type=Path, metavar="FILE", help="write the scores of all rows to this file")
    add("--report", type=Path, metavar="FILE", help="write what was measured and all figures to this file")
    return parser


def run(protocol: Protocol, root: Path, rows: list[Row], options: argparse.Namespace) -> int:
    """Score rows, write the files and print the tables; return the exit status."""
    clips = None
    if options.mixtures or protocol.name == "validation":
        with suppress(DataError):  # the train clips only serve optional rows of the table
            clips = Counter(clip.label for clip in read_manifest(root / MANIFEST, "train"))
    measured = choose_metrics(protocol, options)
    plan = Plan(options.query, measured, options.oracle, protocol.mixing, protocol.window, options.faithful)
    began = time.perf_counter()
    chosen = add_recording_ids(rows[:: options.every], read_recording_ids(root / MANIFEST), protocol.folders)
    if options.class_embeddings:
        chosen = [row | {plan.column: row.get("label") or row["query"]} for row in chosen]
    separator: Any = None
    if any(isinstance(protocol.locate(row, root), Path) for row in chosen):
        separator = load_separator(options)
        check_queries(separator, chosen, plan.column)
    bar = tqdm(chosen, "mixtures", leave=False, disable=None)
    outcome = score_rows(separator, bar, lambda row: protocol.locate(row, root), plan)
    scores, weights = outcome.scores, "unknown"
    if scores:
        path = find_model(options.model)
        weights = sha256_of(path / "model.safetensors" if path.is_dir() else path)
    facts = {
        "protocol": protocol.name,
        "version": protocol.version,
        "rows_sha256": fingerprint(rows, protocol.mixing),
        "model": Path(options.model).name,
        "weights_sha256": weights,
        "asked_by": "class embedding" if options.class_embeddings else options.query,
        "every": options.every,
        "rows": len(rows),
        "scored": len(scores),
        "missing": len(outcome.missing),
        "broken": len(outcome.broken),
        "silent": len(outcome.silent),
    }
    cells = tables.compare_systems(scores, plan.metrics, protocol.aggregate)
    kind = next((score.kind for score in scores if score.kind != "absent"), "pair")  # of the tables by class
    if options.json:
        names = [each.name for each in fields(Score) if each.name != "faithful" or options.faithful]
        write_finite(options.json, [{name: asdict(score)[name] for name in names} for score in scores])
    if options.report:
        unit, means = tables.resampling_unit(scores), tables.class_means(scores, kind)
        figures = {"aggregate": protocol.aggregate, "rows_resampled_by": unit, "figures": cells}
        classes = [{"class": name, "rows": count, "sdri": mean} for name, count, mean in means]
        write_finite(options.report, facts | figures | {"classes": classes})
    if scores:
        print(f"{separator!r}, asked by {facts['asked_by']}, {time.perf_counter() - began:.0f} s\n")
    selected = f", 1 in {options.every} taken" if options.every > 1 else ""
    skipped, silent = len(outcome.missing) + len(outcome.broken), len(outcome.silent)
    print(f"Protocol {facts['protocol']}, version {facts['version']}, rows' sha256 {facts['rows_sha256']}.")
    print(f"Model {facts['model']}, weights' sha256 {facts['weights_sha256']}.")
    print(f"{len(rows)} rows{selected}: {len(scores)} scored, {skipped} skipped, {silent} silent.")
    print(*tables.describe_skipped(outcome), sep="\n", end="\n" if outcome.rows > len(scores) else "")
    if scores:
        print(tables.format_tables(scores, cells, clips, protocol.aggregate))
    if scores and options.classes:
        print(f"\n{tables.format_classes(scores, kind)}")
    return 0 if scores else 1


def load_separator(options: argparse.Namespace) -> Separator:
    """Load the model, whose queries are the names in the file of --class-embeddings; raise ModelError if unusable."""
    device = {"device": options.device} if options.device else {}
    trust = {"trust": options.trust} if options.trust else {}
    separator = Separator.from_pretrained(options.model, **device, **trust)
    if options.faithful:
        separator.as_scored()
    if options.class_embeddings and not options.embed_classes:
        dim, unit = separator.model.condition_dim, separator.encoder.unit_length
        separator.encoder = NamedEmbeddings.from_file(options.class_embeddings, dim, unit)
    return separator


def check_queries(separator: Any, rows: list[Row], column: str) -> None:
    """Raise EvaluationError if the model is queried by name and does not know some of the names in the rows."""
    encoder: Any = getattr(separator, "encoder", None)
    by_file = isinstance(encoder, NamedEmbeddings)
    if not by_file and (encoder is None or "label" not in encoder.modalities or "text" in encoder.modalities):
        return
    names, unknown = list(dict.fromkeys(row[column] for row in rows if row.get(column))), []
    for name in names:
        try:
            separator.conditions([name])
        except (OntologyError, EncoderError) as error:
            if not by_file and isinstance(error, UnsupportedQueryError):
                raise
            unknown.append(name)
    if unknown:
        listed = ", ".join(unknown[:6]) + (f" and {len(unknown) - 6} more" if len(unknown) > 6 else "")
        hint = "" if by_file else "; --class-embeddings FILE gives it conditions of them"
        who = encoder.source if by_file else separator.name
        raise EvaluationError(f"{who} lacks {len(unknown)} of the {len(names)} classes: {listed}{hint}.")


def embed_classes(options: argparse.Namespace) -> int:
    """Compute the file of --class-embeddings; print what it is made of."""
    examples = list_class_examples(options.embed_classes, options.root)
    file, separator = options.class_embeddings, load_separator(options)
    if file.suffix != ".safetensors":
        raise EvaluationError(f"{file}: name a file that ends in .safetensors.")
    counts, reasons = write_class_embeddings(separator, examples, file, options.example_seconds)
    print(*(f"Left out, {each}" for each in reasons), sep="\n", end="\n" if reasons else "", file=sys.stderr)
    left = sorted(set(examples) - set(counts))
    print(f"{file}: {len(counts)} classes from {sum(counts.values())} recordings, {len(reasons)} left out.")
    if left:
        print(f"Classes without a usable recording: {', '.join(left)}.")
    return 0


def choose_metrics(protocol: Protocol, options: argparse.Namespace) -> tuple[str, ...]:
    """Return the metrics of --metrics, or those of the protocol whose packages are installed."""
    if options.metrics:
        for name in options.metrics:
            if not metrics.is_installed(name):
                metrics.import_package(metrics.PACKAGES[name], metrics.METRICS[name].heading)
        return tuple(options.metrics)
    names = protocol.metrics if options.protocol else metrics.DEFAULT_METRICS
    for name in names:
        if not metrics.is_installed(name):
            heading, package = metrics.METRICS[name].heading, metrics.PACKAGES[name]
            print(f"{heading} is left out: it needs the package {package}.", file=sys.stderr)
    return tuple(name for name in names if metrics.is_installed(name))


def write_finite(path: Path, value: Any) -> None:
    """Write a JSON file; NaN and infinity become null."""
    write_json(path, json.loads(json.dumps(value), parse_constant=lambda name: None))
