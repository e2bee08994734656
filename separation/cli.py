"""`separate`: takes the sound that a text describes out of recordings.

    separate --query "dog barking" mix.wav        writes mix.dog_barking.wav
    separate --remove "dog barking" mix.wav       writes mix.not_dog_barking.wav
    separate --query-audio bark.wav mix.wav       writes mix.bark.wav
    separate --list mix.wav                       says what is probably in it

This module is what holds the command together: options, inputs, the model, one `Job` per file, and
what is said about it. Results go to standard output (one line a file written, or JSON), everything
else to standard error. A file that fails costs one plain sentence and the exit status 1; the others
are still done.

Importing it loads neither torch nor numpy nor soundfile; they come with the first file that is
there to be separated.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from separation.errors import AudioError
from separation.hearing import Listening
from separation.inputs import Finder, Source, Unusable, spool
from separation.interrupts import INTERRUPTED, exit_on_signals
from separation.job import Job, Settings
from separation.naming import Namer, slug
from separation.options import UsageError, parse
from separation.progress import Progress
from separation.query import Query
from separation.terminal import (
    StandardOutputError,
    drop_standard_output,
    is_terminal,
    print_json,
    put,
    say,
    standard_output,
)
from separation.tracks import Item, Record

DONE, FAILED, USAGE = 0, 1, 2
NOT_HEARD = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `separate`; returns its exit status (0 done, 1 a file failed, 2 wrong usage, 130
    interrupted).
    """
    try:
        options = parse(argv)
        if options.list_models:
            return list_models(options.json)
        with exit_on_signals():
            return Command(options).run()
    except UsageError as error:
        say(f"{error}\n(separate --help shows how.)" if is_terminal(sys.stderr) else str(error))
        return USAGE
    except KeyboardInterrupt:
        say("interrupted; nothing half-written is left behind.")
        return INTERRUPTED
    except BrokenPipeError:
        drop_standard_output()  # whoever read it has left
        return FAILED
    except StandardOutputError as error:
        drop_standard_output()
        say(str(error))
        return FAILED


def check_model(model: str, device: str) -> None:
    """Says early, before any file is opened, that a model or device is not there; nothing is fetched or loaded.

    Raises:
        UsageError: so it is.
    """
    from separation.hub import ModelError, check_name

    try:
        check_name(model)
    except ModelError as error:
        raise UsageError(str(error)) from None
    if device not in ("auto", "cpu"):
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("--device cuda: there is no CUDA device that this PyTorch can use.")
        if device == "mps" and not torch.backends.mps.is_available():
            raise UsageError("--device mps: there is no Apple GPU that this PyTorch can use.")


def load_separator(model: str, device: str, threads: int | None, **how: bool) -> Any:
    """The Separator that the options ask for; the one place where the command gets it.

    `how` goes to `Separator.from_pretrained`: faithful, offline.

    Raises:
        UsageError: for a model that cannot be fetched or loaded.
    """
    import torch

    from separation.separator import ModelError, Separator

    if threads:
        torch.set_num_threads(threads)
    try:
        return Separator.from_pretrained(model, device=None if device == "auto" else device, **how)
    except ModelError as error:
        raise UsageError(str(error)) from None


def list_models(as_json: bool) -> int:
    """Prints the table of models."""
    from separation.hub import list_models as cards

    rows = [("name", "queries", "rate", "size", "licence", "on disk", "scores")]
    for card in cards():
        if as_json:
            print_json({name: getattr(card, name) for name in CARD_FIELDS})
        else:
            here = ("yes" if card.verified else "yes, unverified") if card.on_disk else "no"
            queries = ", ".join(card.queries)
            rows.append(
                (
                    card.name,
                    queries,
                    f"{card.sample_rate} Hz",
                    card.size,
                    card.licence,
                    here,
                    card.scores,
                )
            )
    if not as_json:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE


CARD_FIELDS = (
    "name",
    "queries",
    "sample_rate",
    "size",
    "licence",
    "scores",
    "on_disk",
    "verified",
    "description",
)


class Command:
    """One run of `separate`."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.failed = False
        self._separator: Any = None
        self._encoded: dict[str, Any] = {}

    def run(self) -> int:
        """Does every input; returns the exit status."""
        if self.options.plot:
            _need_matplotlib()
        if self.options.to_stdout and is_terminal(sys.stdout):
            raise UsageError("Audio is not for a terminal: redirect standard output, or name a folder with -o.")
        check_model(self.options.model, self.options.device)
        with tempfile.TemporaryDirectory(prefix="separate-") as scratch:
            self.scratch = Path(scratch)
            sources = self._find()
            inputs = [entry.path for entry in sources if isinstance(entry, Source) and not entry.piped]
            inputs += example_files(self.options.forms.values())
            namer = Namer(inputs, self.notice)
            job: Job | Listening = Job(self.separator, self._settings(), namer, self, self.query)
            if self.options.list:
                job = Listening(self.separator, self)
            for source in sources:
                self._do(job, source)
        return FAILED if self.failed else DONE

    def _find(self) -> list[Source | Unusable]:
        options = self.options
        queries = {slug(text) for text in (*options.query, *options.remove)}
        parts = queries | {f"not_{part}" for part in queries}
        output = Path(options.output) if options.output and not options.to_stdout else None
        return Finder(options.recursive, parts, output, self.notice).find(options.files)

    def _do(self, job: Job | Listening, source: Source | Unusable) -> None:
        """One input: an error of its own is said and kept, the next one is not concerned."""
        record = Record(source.label)
        try:
            self._try(job, source, record)
        except AudioError as error:
            record.error = str(error)
        except (UsageError, KeyboardInterrupt, SystemExit, BrokenPipeError):
            raise
        except MemoryError:
            record.error = f"{source.label} could not be separated: there is not enough memory."
        except Exception as error:
            if self.options.verbose:
                traceback.print_exc()
            unforeseen = f"{source.label} could not be separated: {_one_line(error)} (-v shows where)."
            record.error = str(error) if _is_model_error(error) else unforeseen
        self._report(record)

    def separator(self) -> Any:
        """The Separator, loaded for the first file that can be read and kept for the others."""
        if self._separator is None:
            options = self.options
            how = {name: True for name in ("faithful", "offline") if getattr(options, name, False)}
            self._separator = load_separator(options.model, options.device, options.threads, **how)
            self.detail(f"model {getattr(self._separator, 'name', options.model)}, device {options.device}.")
            self._encode()
        return self._separator

    def _encode(self) -> None:
        """Reads and encodes queries once, for all files.

        Raises:
            UsageError: one cannot be, or the model takes no such queries.
        """
        for name in (*self.options.query, *self.options.remove):
            try:
                encoded = self._separator.encoded(self.options.forms.get(name, name))
                if name in self.options.forms:  # a text's vector is remembered by its encoder
                    self._encoded[name] = encoded
            except (AudioError, ValueError) as error:
                raise UsageError(str(error)) from None
            except RuntimeError as error:
                if not _is_model_error(error):
                    raise
                raise UsageError(str(error)) from None

    def query(self, name: str) -> Any:
        """What the separator is asked for under a name."""
        return self._encoded.get(name, name)

    def _settings(self) -> Settings:
        options = self.options
        output = Path(options.output) if options.output else None
        form = options.format
        if options.to_stdout:
            output, form = self.scratch / "out", form or "wav"
        items = plan_items(options.query, options.remove, options.residual)
        return Settings(items, output, form, options.subtype, options.overwrite, options.plot)

    def _try(self, job: Job | Listening, source: Source | Unusable, record: Record) -> None:
        if isinstance(source, Unusable):
            raise AudioError(source.error)
        if not source.piped:
            job.run(source, source.path, record)
            return
        # The file is a copy of what came through a pipe, and nobody knows it by its name.
        path = spool(source, self.scratch)
        try:
            job.run(source, path, record)
        except AudioError as error:
            raise AudioError(str(error).replace(str(path), source.label)) from error
        finally:
            path.unlink(missing_ok=True)
        record.warnings = [text.replace(str(path), source.label) for text in record.warnings]

    def _report(self, record: Record) -> None:
        self.failed |= record.error is not None
        if record.error:
            say(record.error)
        for sentence in record.warnings:
            self.notice(sentence, "warning")
        for query, factor in record.scale.items():
            decibels = 20 * math.log10(factor)
            self.notice(
                f"{record.input}: “{query}” went beyond full scale, so it was turned down by {-decibels:.2f} dB."
            )
        if self.options.json:
            print_json(record.as_json())
        elif self.options.to_stdout:
            self._send(record)
        elif not self.options.quiet:
            for line in result_lines(record):
                put(line)

    def _send(self, record: Record) -> None:
        for output in record.outputs:
            with open(output, "rb") as file, standard_output():
                shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
        for query, value in record.presence.items():
            if value is not None:
                self.notice(f"“{query}”: {presence_text(value)}.")

    def notice(self, sentence: str, kind: str = "note") -> None:
        """Says something on standard error, unless --quiet."""
        if not self.options.quiet:
            say(f"{kind}: {sentence}")

    def detail(self, sentence: str) -> None:
        """Says something with --verbose."""
        if self.options.verbose:
            say(sentence)

    @contextlib.contextmanager
    def watch(self, label: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """A progress bar where somebody can see it."""
        bar = Progress(label, total, sys.stderr, enabled=not self.options.quiet)
        try:
            yield bar.update
        finally:
            bar.close()


def example_files(queries: Iterable[Query]) -> list[Path]:
    """The files that queries are read from, which must never be written over."""
    values = [value for query in queries for form in query.forms().values() for value in form]
    return [Path(value) for value in values if isinstance(value, str) and Path(value).is_file()]


def plan_items(queries: Sequence[str], removals: Sequence[str], residual: bool) -> tuple[Item, ...]:
    """What is written for each query; one that is both asked for and removed is separated once."""
    items = [Item(query, True, residual or query in removals) for query in queries]
    items += [Item(query, False, True) for query in removals if query not in queries]
    return tuple(items)


def result_lines(record: Record) -> list[str]:
    """What was written, a line each."""
    if record.heard is not None:
        return heard_lines(record.input, record.heard)
    lines = [
        path if presence is None else f"{path}  {presence_text(presence)}"
        for path, presence in zip(record.outputs, record.path_presence, strict=True)
    ]
    return lines + record.plots


def heard_lines(name: str, heard: Sequence[dict[str, Any]]) -> list[str]:
    """What was heard in a file, a line each: file, probability, sound, seconds."""
    if not heard:
        return [f"{name}  none of the known sounds stands out"]
    width = max(len(sound["label"]) for sound in heard)
    times = [", ".join(f"{begin:g}-{end:g} s" for begin, end in sound["times"]) for sound in heard]
    return [
        f"{name}  {sound['probability']:.2f}  {sound['label']:<{width}}  {when}"
        for sound, when in zip(heard, times, strict=True)
    ]


def presence_text(presence: float) -> str:
    """For example "presence 0.93"."""
    # Judged as it is shown, so that "presence 0.50" is never followed by "not heard".
    return f"presence {presence:.2f}" + (" - not heard in this recording" if round(presence, 2) < NOT_HEARD else "")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_model_error(error: Exception) -> bool:
    """Whether it is a ModelError, a sentence for people; the module of that name is not loaded just to ask."""
    return isinstance(error, getattr(sys.modules.get("separation.hub"), "ModelError", ()))


def _need_matplotlib() -> None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib.")


if __name__ == "__main__":
    sys.exit(main())
