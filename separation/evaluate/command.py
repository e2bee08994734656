"""The command line: a protocol or a list, a model, tables."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from separation.data.fixed_mixtures import VALIDATION, Row, read_rows
from separation.data.manifest import MANIFEST, DataError, read_manifest, recordings_of, with_recordings
from separation.errors import reason
from separation.evaluate.measures import DEFAULT, possible, wanted
from separation.evaluate.protocols.base import Protocol, ProtocolError, Sources, fingerprint
from separation.evaluate.protocols.registry import all_protocols, find
from separation.evaluate.scoring import EvaluationError, Outcome, Plan, Score, score_rows
from separation.evaluate.tables import (
    by_class,
    class_table,
    compare_systems,
    describe_skipped,
    format_tables,
    resampling_unit,
)
from separation.metrics.speech import MissingPackage, installed, package
from separation.pretrained import ModelError, find_model
from separation.progress import Progress
from separation.separator import Separator


def metric_names(text: str) -> tuple[str, ...]:
    """`--metrics`' value."""
    try:
        return wanted(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """`--every`'s value."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        prog="python -m separation.evaluate", description="Score a model on fixed mixtures, beside an oracle mask."
    )
    parser.add_argument("--model", default="default", help="a model's name, its directory or a checkpoint")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--mixtures", type=Path, metavar="FILE", help="CSV, one mixture a row")
    what.add_argument("--protocol", metavar="NAME", help="a published list of mixtures")
    what.add_argument("--list-protocols", action="store_true", help="say which there are")
    parser.add_argument(
        "--root", type=Path, metavar="FOLDER",
        help="where the recordings' paths start (default: the list's folder, or what the protocol's variable says)",
    )  # fmt: skip
    parser.add_argument(
        "--lists", type=Path, metavar="FOLDER", help="holds the published lists (default: $SEPARATION_LISTS)"
    )
    parser.add_argument("--query", choices=["query", "phrase"], default="query", help="ask by label or by phrase")
    parser.add_argument("--metrics", type=metric_names, metavar="NAME,...", help="what to measure")
    parser.add_argument("--no-oracle", dest="oracle", action="store_false", help="leave the oracle mask out")
    parser.add_argument("--every", type=positive, default=1, metavar="N", help="score every N-th row only")
    parser.add_argument("--classes", action="store_true", help="print a table by class too")
    parser.add_argument("--device", help="where to compute (default: the best there is)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows' scores here")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="write what was measured and the tables' figures here"
    )
    return parser


def protocol_table() -> str:
    """Markdown: all protocols."""
    lines = ["| protocol | version | rows | sha256 of the rows | recordings | what |", "|---|---|---|---|---|---|"]
    for each in all_protocols().values():
        count = each.count or "as the recordings are"
        lines.append(
            f"| {each.name} | {each.version} | {count} | {(each.sha256 or '')[:12]} | {each.root} | {each.about} |"
        )
    return "\n".join(lines)


def of_file(path: Path) -> Protocol:
    """A list of mixtures as a protocol: the one whose rows it has, or one of its own."""

    def build(_: Sources) -> list[Row]:
        return read_rows(path)

    known = find("validation")
    if fingerprint(build(Sources(path.parent)), VALIDATION) == known.sha256:
        return known
    about = "mixtures as this package's validation list has them"
    return Protocol(path.name, 1, about, "", "SEPARATION_DATA", build, VALIDATION)


def weights_sha256(name: str) -> str:
    """Checksum of a model's weights, `unknown` where they are not one file."""
    path = find_model(name)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        return "unknown"
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def train_clips(root: Path) -> Counter[str] | None:
    """How many train clips each class has; None where no manifest with a train split lies with the recordings."""
    try:
        return Counter(clip.label for clip in read_manifest(root / MANIFEST, "train"))
    except DataError:  # it only serves rows of the table that can be done without
        return None


def facts(protocol: Protocol, rows: list[Row], outcome: Outcome, options: argparse.Namespace) -> dict[str, Any]:
    """What was measured, on what, and how much of it."""
    return {
        "protocol": protocol.name,
        "version": protocol.version,
        "rows_sha256": fingerprint(rows, protocol.mixing),
        "model": Path(options.model).name,
        "weights_sha256": weights_sha256(options.model) if outcome.scores else "unknown",
        "asked_by": options.query,
        "every": options.every,
        "rows": len(rows),
        "scored": len(outcome.scores),
        "missing": len(outcome.missing),
        "broken": len(outcome.broken),
        "silent": len(outcome.silent),
    }


def facts_text(known: dict[str, Any]) -> str:
    """The same as lines."""
    chosen = f", 1 in {known['every']} taken" if known["every"] > 1 else ""
    skipped = known["missing"] + known["broken"]
    return (
        f"Protocol {known['protocol']}, version {known['version']}, rows' sha256 {known['rows_sha256']}.\n"
        f"Model {known['model']}, weights' sha256 {known['weights_sha256']}.\n"
        f"{known['rows']} rows{chosen}: {known['scored']} scored, {skipped} skipped, {known['silent']} silent."
    )


def plain(value: Any) -> Any:
    """What is no number becomes null in JSON."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Writes a file."""
    path.write_text(json.dumps(plain(value), indent=1) + "\n", encoding="utf-8")


def metrics_for(protocol: Protocol, options: argparse.Namespace) -> tuple[str, ...]:
    """What is measured: what was asked for, or the protocol's own metrics as far as their packages are installed.

    Raises:
        MissingPackage: what was asked for needs a package.
    """
    if options.metrics:
        for name in options.metrics:
            if not installed(name):
                package(name)
        return tuple(options.metrics)
    names, missing = possible(protocol.metrics if options.protocol else DEFAULT)
    print("\n".join(missing), end="\n" if missing else "", file=sys.stderr)
    return names


def main_kind(scores: list[Score]) -> str:
    """The kind of row that tables by class are of: the first that has a target."""
    return next((score.kind for score in scores if score.kind != "absent"), "pair")


def score_chosen(protocol: Protocol, root: Path, rows: list[Row], plan: Plan, load: Callable[[], Any]) -> Outcome:
    """Scores rows with a bar; the model is loaded only if some row's recordings are there."""
    separator: Any = load() if any(isinstance(protocol.locate(row, root), Path) for row in rows) else None
    progress = Progress("mixtures", len(rows), sys.stderr)
    try:
        return score_rows(separator, rows, lambda row: protocol.locate(row, root), plan, progress.update)
    finally:
        progress.close()


def run(protocol: Protocol, root: Path, rows: list[Row], options: argparse.Namespace) -> int:
    """Scores, writes and prints; the exit status is 1 if nothing could be scored."""
    clips = train_clips(root) if options.mixtures or protocol.name == "validation" else None
    plan = Plan(options.query, metrics_for(protocol, options), options.oracle, protocol.mixing, protocol.window)
    began = time.perf_counter()
    device = {"device": options.device} if options.device else {}
    load = cache(lambda: Separator.from_pretrained(options.model, **device))
    chosen = with_recordings(rows[:: options.every], recordings_of(root / MANIFEST), protocol.folders)
    outcome = score_chosen(protocol, root, chosen, plan, load)
    known = facts(protocol, rows, outcome, options)
    cells = compare_systems(outcome.scores, plan.metrics, protocol.aggregate)
    measured = {"aggregate": protocol.aggregate, "rows_resampled_by": resampling_unit(outcome.scores), "figures": cells}
    write_files(outcome.scores, known | measured, options)
    if outcome.scores:
        print(f"{load()!r}, asked by {options.query}, {time.perf_counter() - began:.0f} s\n")
    print("\n".join([facts_text(known), *describe_skipped(outcome)]))
    if outcome.scores:
        print_tables(outcome.scores, cells, clips, protocol.aggregate, options.classes)
    return 0 if outcome.scores else 1


def write_files(scores: list[Score], measured: dict[str, Any], options: argparse.Namespace) -> None:
    """What `--json` and `--report` ask for."""
    if options.json:
        write_json(options.json, [asdict(score) for score in scores])
    if options.report:
        classes = by_class(scores, main_kind(scores))
        listed = [{"class": name, "rows": count, "sdri": mean} for name, count, mean in classes]
        write_json(options.report, measured | {"classes": listed})


def print_tables(
    scores: list[Score], cells: list[dict[str, Any]], clips: Counter[str] | None, aggregate: str, classes: bool
) -> None:
    """The model alone, all systems, and classes on request."""
    print(format_tables(scores, cells, clips, aggregate))
    if classes:
        print(f"\n{class_table(scores, main_kind(scores))}")


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.list_protocols:
        print(protocol_table())
        return 0
    try:
        protocol = find(options.protocol) if options.protocol else of_file(options.mixtures)
        root = options.root or options.mixtures.parent if options.mixtures else protocol.recordings(options.root)
        rows = read_rows(options.mixtures) if options.mixtures else protocol.rows(root, options.lists)
        return run(protocol, root, rows, options)
    except (ProtocolError, EvaluationError, ModelError, MissingPackage, DataError) as error:
        parser.exit(1, f"{error}\n")
    except OSError as error:
        parser.exit(1, f"{error.filename or 'a file'}: {reason(error)}.\n")
