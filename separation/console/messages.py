"""Printing of `separate`: results, errors, progress, and tables of models and sounds."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from dataclasses import asdict
from functools import partial

from separation.console.progress import ProgressLine
from separation.outputs.records import Record
from separation.process import printable, say, standard_output

CARD_FIELDS = ("name", "queries", "sample_rate", "size", "licence", "scores", "on_disk", "verified", "description")


def print_line(line: str) -> None:
    """Print a line to standard output, with control and unencodable characters escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    with standard_output():
        print(printable(line).encode(encoding, "backslashreplace").decode(encoding), flush=True)


print_error = partial(say, "separate")


def presence_text(record: Record, name: str) -> str:
    """Return for example "presence 0.93 - present" or "presence 0.02 - absent; sounds found: rain, speech"."""
    text = f"presence {record.presence[name]:.2f} - {record.verdict[name]}"
    if name in record.parts:
        text += f" ({', '.join(f'{part} {presence:.2f}' for part, presence in record.parts[name].items())})"
    absent = record.verdict[name] == "absent" and record.sounding
    return f"{text}; sounds found: {', '.join(record.sounding)}" if absent else text


def result_lines(record: Record) -> list[str]:
    """Return a line for each file written or each sound listed."""
    if record.heard is not None and not record.rest:
        width = max((len(sound["label"]) for sound in record.heard), default=0)
        where = [f"{sound['direction']['text']}  " if sound["direction"] else "" for sound in record.heard]
        room = max(map(len, where), default=0)
        lines = []
        for sound, place in zip(record.heard, where, strict=True):
            times = ", ".join(f"{round(begin, 1):g}-{round(end, 1):g} s" for begin, end in sound["times"])
            lines.append(
                f"{record.input}  {sound['probability']:.2f}  {sound['label']:<{width}}  {place:<{room}}{times}"
            )
        return (lines or [f"{record.input}  no known sound found"]) + record.plots
    lines, together = [], []
    for name, presence in record.presence.items():
        written = [paths[name] for paths in (record.targets, record.residuals) if name in paths]
        if presence is not None and written:
            text = presence_text(record, name)
            written[0] += f"  {text}" if name in record.targets else f"  removed: {name} ({text})"
        elif presence is not None:
            together.append(f"{name} ({presence_text(record, name)})")
        lines += written
    shared = record.remix or record.rest
    if shared and shared not in record.residuals.values():
        kind = "changed" if record.remix else "removed"
        lines.append(f"{shared}  {kind}: {', '.join(together)}" if together else shared)
    return lines + record.plots


class Reporter:
    """Prints results, notes and progress of a run in the order of its inputs.

    Attributes:
        waiting: where notes are kept because results of earlier inputs come first; None: they are printed.
    """

    def __init__(self, options: argparse.Namespace, to_stdout: bool) -> None:
        self.quiet, self.verbose, self.as_json, self.to_stdout = options.quiet, options.verbose, options.json, to_stdout
        self.progress = ProgressLine(not options.quiet)
        self.waiting: list[str] | None = None

    def report(self, record: Record) -> None:
        """Print the result for one input."""
        self.progress.clear()
        notes = [f"warning: {sentence}" for sentence in record.warnings]
        for name, factor in record.scale.items():
            down = f"so it was turned down by {-20 * math.log10(factor):.2f} dB."
            notes.append(f"note: {record.input}: “{name}” exceeded full scale, {down}")
        for line in ([record.error] if record.error else []) + ([] if self.quiet else notes):
            print_error(line)
        if self.as_json:
            print_line(json.dumps(asdict(record)))
        elif self.to_stdout:
            for output in record.outputs:
                with open(output, "rb") as file, standard_output():
                    shutil.copyfileobj(file, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
            present = [name for name, presence in record.presence.items() if presence is not None]
            for name in present if not self.quiet else ():
                print_error(f"note: “{name}”: {presence_text(record, name)}.")
        elif not self.quiet:
            for line in result_lines(record):
                print_line(line)

    def notice(self, sentence: str, kind: str = "note: ") -> None:
        """Print a note to standard error, or keep it in `waiting` for later; do nothing with --quiet."""
        if self.waiting is not None and not self.quiet:
            self.waiting.append(f"{kind}{sentence}")
        elif not self.quiet:
            self.progress.clear()
            print_error(f"{kind}{sentence}")

    def print_notes(self, notes: list[str]) -> None:
        """Print notes that have waited, and forget them."""
        self.progress.clear()
        for line in notes:
            print_error(line)
        notes.clear()

    def detail(self, sentence: str) -> None:
        """Print to standard error with --verbose."""
        if self.verbose:
            self.progress.clear()
            print_error(sentence)


def print_models(as_json: bool) -> None:
    """Print the table of models."""
    from separation.pretrained import list_models

    rows = [("name", "queries", "rate", "size", "licence", "on disk", "scores")]
    for card in list_models():
        if as_json:
            print_line(json.dumps({name: getattr(card, name) for name in CARD_FIELDS}))
        on_disk = ("yes" if card.verified else "yes, unverified") if card.on_disk else "no"
        queries, rate = ", ".join(card.queries), f"{card.sample_rate} Hz"
        rows.append((card.name, queries, rate, card.size, card.licence, on_disk, card.scores))
    if not as_json:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_sounds(word: str, as_json: bool, model: str) -> None:
    """Print the sounds that the built-in models know, or those close to a word, with up to three wordings each.

    Those that `model` was taught besides come first.
    """
    from separation.inference.suggestions import describe_sounds, find_sounds
    from separation.pretrained import taught_sounds

    if word:
        from separation.encoders.sentence import SentenceEncoder

        sounds = find_sounds(word, SentenceEncoder(), own=taught_sounds(model))
    else:
        sounds = describe_sounds(taught_sounds(model))
    if not sounds:
        print_error(f"note: no known sound is near “{word}”; --sounds without a word shows all.")
    width = max(map(len, sounds), default=0)
    for name, texts in sounds.items():
        if as_json:
            print_line(json.dumps({"sound": name, "wordings": texts}))
        else:
            print_line(f"{name:<{width}}  {'; '.join(texts[:3])}".rstrip())
