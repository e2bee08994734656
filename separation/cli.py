"""`separate`: extract the sound that a text describes from recordings.

    separate --query "dog barking" mix.wav        writes mix.dog_barking.wav
    separate --remove "dog barking" mix.wav       writes mix.not_dog_barking.wav
    separate --gain speech=+3 mix.wav             writes mix.remix.wav
    separate --query-audio bark.wav mix.wav       writes mix.bark.wav
    separate --list mix.wav                       lists the sounds that are probably in it
    separate --all mix.wav                        writes each of them, and mix.rest.wav

Results go to standard output (one line per file written, or JSON), everything else to standard error. A file that
fails costs one sentence and exit status 1; the other files are still processed.

Importing this module loads neither torch nor numpy nor soundfile; they are loaded for the first readable file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation.audio import Reader
from separation.audio.remux import plan_films
from separation.audio.writing import PendingFile, commit
from separation.cli_files import Input, InputFinder, copy_pipe
from separation.cli_options import QUERY_OPTIONS, UsageError, check_model, parse, writes_to_stdout
from separation.cli_print import (
    presence_text,
    print_error,
    print_line,
    print_models,
    print_sounds,
    result_lines,
    track_note,
)
from separation.errors import AudioError, ModelError, NotFiniteError
from separation.outputs import (
    Namer,
    QueryOutputs,
    Record,
    Request,
    blend_of,
    choose_format,
    plan_paths,
    slug,
    write_outputs,
)
from separation.process import (
    DONE,
    FAILED,
    StandardOutputError,
    call,
    printable,
    standard_output,
    temporary_folder,
)
from separation.sounds import known_sounds

if TYPE_CHECKING:
    from torch import Tensor

    from separation.audio.remux import Film
    from separation.separator import Separator, Watch

USAGE = 2
REST = "rest"  # name of the residual of --all
MAX_NAMED = 3  # sounds named when a query is absent
PROGRESS_DELAY = 1.0  # seconds before a progress bar appears
PROGRESS = "{percentage:3.0f}% |{bar:24}| {remaining} left  {desc}"
PROGRESS_WITHOUT_TOTAL = "{elapsed}  {desc}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `separate`; return its exit status (0 success, 1 a file failed, 2 wrong usage, 130 interrupted)."""
    return call("separate", lambda: run(argv))


def run(argv: Sequence[str] | None) -> int:
    """Parse the options and run what they ask for."""
    try:
        options, requests = parse(argv)
        if options.list_models:
            print_models(options.json)
        elif options.sounds is not None:
            print_sounds(options.sounds, options.json, options.model)
        else:
            with ExitStack() as stack:
                return Command(options, requests, stack).run()
        return DONE
    except UsageError as error:
        print_error(str(error), *["(See separate --help.)"] * sys.stderr.isatty())
        return USAGE
    except AudioError as error:  # no temporary folder
        print_error(str(error))
        return FAILED


class Command:
    """One run of `separate` with the options and requests of `parse`; closing `stack` removes temporary files."""

    def __init__(self, options: argparse.Namespace, requests: list[Request], stack: ExitStack) -> None:
        self.options, self.requests, self.stack = options, requests, stack
        self.to_stdout = writes_to_stdout(options)
        folder = Path(options.output) if options.output else None
        self.folder = self.scratch / "out" if self.to_stdout else folder

    def run(self) -> int:
        """Process every input; return the exit status."""
        options = self.options
        if options.plot and importlib.util.find_spec("matplotlib") is None:
            raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib.")
        if self.to_stdout and sys.stdout.isatty():
            raise UsageError("Audio cannot go to a terminal. Redirect standard output, or name a folder with -o.")
        check_model(options.model, options.device)
        parts = {part for request in self.requests for part in (slug(request.name), f"not_{slug(request.name)}")}
        parts |= {request.name for request in blend_of(self.requests)}
        if options.all:
            parts = {slug(name) for name in (REST, *known_sounds())}
        sources = InputFinder(options.recursive, parts, self.folder, self.notice).find(options.files)
        examples = [Path(value) for form, value in options.query if form in ("audio", "image", "embedding")]
        inputs = [source.path for source in sources if not source.piped]
        namer = Namer(inputs + examples, options.overwrite, self.notice)
        status, skipped = DONE, 0
        for source in sources:
            record = self.process(source, namer)
            self.report(record)
            status = FAILED if record.error else status
            skipped += record.skipped
        if skipped:
            self.notice(f"skipped {skipped} of {len(sources)} files, because their outputs exist.")
        return status

    def process(self, source: Input, namer: Namer) -> Record:
        """Separate one input, or list its sounds. Its errors go into the record."""
        record, path, began = Record(source.label), source.path, time.monotonic()
        try:
            if source.error:
                raise AudioError(source.error)
            if source.piped:
                path = copy_pipe(source, self.scratch)
            with Reader(path, self.options.track) as reader:
                if len(reader.tracks) > 1:
                    self.notice(track_note(source.label, reader))
                if self.options.all:
                    labels = self.list_sounds(source, reader, record)
                    requests = [Request(label, label, True, False) for label in (*labels, REST)]
                    if labels:
                        self.separate(source, reader, record, namer, requests)
                elif self.options.list:
                    self.list_sounds(source, reader, record, namer)
                else:
                    self.separate(source, reader, record, namer, self.requests)
                if reader.warning:
                    record.warnings.append(reader.warning)
        except (UsageError, StandardOutputError):
            raise
        except NotFiniteError as error:
            record.error = f"{source.label} could not be separated: {error}"
        except (AudioError, ModelError) as error:
            record.error = str(error)
        except MemoryError:
            record.error = f"{source.label} could not be separated: there is not enough memory."
        except Exception as error:
            if self.options.verbose:
                traceback.print_exc()
            text = " ".join([f"{type(error).__name__}:", *str(error).split()])[:300].rstrip(".:")
            record.error = f"{source.label} could not be separated: {text} (-v shows where)."
        if path != source.path:  # messages name the input, not its temporary copy
            path.unlink()
            record.error = record.error and record.error.replace(str(path), source.label)
            record.warnings = [warning.replace(str(path), source.label) for warning in record.warnings]
        record.seconds = round(time.monotonic() - began, 3)
        return record

    def separate(self, source: Input, reader: Reader, record: Record, namer: Namer, requests: list[Request]) -> None:
        """Separate one file. Either all its outputs appear at the end or none.

        With --all, the last request is the residual of all others.
        """
        options, rate = self.options, reader.sample_rate
        name = options.format or ("wav" if self.to_stdout else None)
        form = choose_format(source.label, reader, name, options.subtype, self.notice)
        written = [request for request in requests if request.gain is None] + blend_of(requests)
        films: list[Film | None] = [None] * len(written)
        if not (name or options.sound_only or source.piped):
            targets = [request.target for request in written]
            films = plan_films(source.label, reader, targets, options.bitrate, self.notice)
        suffixes = [(film.form if film else form)[0].suffix for film in films]
        plans = plan_paths(written, self.output_folder(source), source.stem, suffixes, options.plot, namer)
        paths = [path for plan in plans for path in plan.values()]
        if options.skip_existing and all(map(os.path.lexists, paths)):
            record.skipped = True
            return
        for path in paths:
            namer.check_destination(path)
        queries = [request.query for request in requests[:-1]] if options.all else self.queries
        pairs = list(zip(queries, requests, strict=False))
        file = self.separator.separate_file(
            reader,
            [query for query, request in pairs if request.gain is None],
            self.watch(source.label),
            share=options.all,
            gains=[(query, request.gain) for query, request in pairs if request.gain is not None],
            span=options.span,
        )
        record.duration, level = round(file.frames / rate, 6), 20 * math.log10(max(file.level, 1e-12))
        record.hints = self.hints
        size = f"{rate} Hz, {reader.channels} channels, {record.duration:.3f} s"
        self.detail(f"{source.label}: {size}, level {level:.1f} dB.")
        self.remark_span(source.label, record.duration)
        with ExitStack() as stack:
            common = (source.label, reader, file.frames, form, options.overwrite, stack, options.clip)
            outputs = [
                QueryOutputs(request, paths, *common, film)
                for request, paths, film in zip(written, plans, films, strict=True)
            ]
            write_outputs(file, outputs, options.all)
        presence = dict(enumerate(file.presence))
        for number, output in enumerate(outputs):
            rest = output.request.rest is not None or (options.all and output is outputs[-1])
            output.report(record, None if rest else presence[number])
        for number, request in enumerate(requests):
            if request.gain is not None:
                record.enter_presence(request.name, presence[number])
        if options.all:
            record.rest = record.targets.pop(REST)
        elif "absent" in record.verdict.values():
            blocks = self.watch(source.label)(reader.blocks(), "listening to", file.frames)
            with contextlib.suppress(ModelError):  # the model cannot list sounds
                sounds = self.separator.list_sounds_in_blocks(
                    blocks, rate, file.level, most=MAX_NAMED, span=options.span
                )
                record.sounding = [sound.label for sound in sounds]

    def remark_span(self, label: str, seconds: float) -> None:
        """Print a note if the recording is shorter than the span."""
        if self.options.span and (remark := self.options.span.remark(label, seconds)):
            self.notice(remark)

    def list_sounds(self, source: Input, reader: Reader, record: Record, namer: Namer | None = None) -> list[str]:
        """List the sounds in one file and return their labels. With a `namer`, --plot draws a timeline."""
        from separation import plot

        def record_spectrum(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
            for block in blocks:
                spectrum.push(block)
                yield block

        watch = self.watch(source.label)
        frames, level = self.separator.measure(reader, watch)
        record.duration = round(frames / reader.sample_rate, 6)
        if not self.options.all:
            self.remark_span(source.label, record.duration)
        picture = None
        blocks = watch(reader.blocks(), "listening to", frames)
        with ExitStack() as stack:
            if namer is not None and self.options.plot:
                path = namer.claim(self.output_folder(source), source.stem, "sounds", ".png")
                namer.check_destination(path)
                picture = PendingFile(path, self.options.overwrite)
                stack.callback(picture.discard)
                spectrum = plot.Spectrogram(reader.sample_rate, frames)
                blocks = record_spectrum(blocks)
            span = self.options.span
            sounds = self.separator.list_sounds_in_blocks(blocks, reader.sample_rate, level, span=span)
            if picture is not None:
                panels, title = {"recording": spectrum.decibels()}, f"Sounds in {printable(Path(source.label).name)}"
                with picture.explained(), open(picture.temporary, "wb") as file:
                    plot.draw(file, panels, title, record.duration, spectrum.edges, sounds)
                picture.finish()
                commit([picture])
                record.plots.append(str(path))
        record.heard = [
            asdict(sound)
            | {"probability": round(sound.probability, 4)}
            | {"spans": [{"from": begin, "to": end} for begin, end in sound.times]}
            for sound in sounds
        ]
        return [sound.label for sound in sounds]

    def output_folder(self, source: Input) -> Path:
        """Return the output folder of an input."""
        if self.folder:
            return self.folder / source.folder  # keeps the tree of the searched folder
        return Path() if source.piped else source.path.parent

    @cached_property
    def scratch(self) -> Path:
        """A temporary folder for piped input and for outputs that go to standard output."""
        return self.stack.enter_context(temporary_folder())

    @cached_property
    def separator(self) -> Separator:
        """The model, loaded for the first readable file."""
        import torch

        from separation.separator import Separator

        options = self.options
        if options.threads:
            torch.set_num_threads(options.threads)
        try:
            how = {name: getattr(options, name) for name in ("faithful", "precision", "trust")}
            device = None if options.device == "auto" else options.device
            separator = Separator.from_pretrained(options.model, device=device, offline=options.offline or None, **how)
        except ModelError as error:
            raise UsageError(str(error)) from None
        self.detail(f"model {separator.name}, device {options.device}.")
        return separator

    @cached_property
    def queries(self) -> list[Any]:
        """The queries, read and encoded once for all files."""
        try:
            return [self.separator.encode(request.query) for request in self.requests]
        except NotImplementedError as error:  # a form of query that the encoder does not take
            taken, asked = {"embedding", *self.separator.encoder.modalities}, {form for form, _ in self.options.query}
            known = ", ".join(option for option, _, form, _ in QUERY_OPTIONS if form in taken)
            refused = ", ".join(option for option, _, form, _ in QUERY_OPTIONS if form in asked - taken)
            general = refused and str(error).startswith(type(self.separator.encoder).__name__)
            text = f"The model {self.separator.name} takes no {refused}; it takes {known}." if general else str(error)
            raise UsageError(text) from None
        except (AudioError, ModelError, ValueError) as error:
            raise UsageError(str(error)) from None

    @cached_property
    def hints(self) -> list[dict[str, Any]]:
        """Hints for queries that the model may not know; each is printed once."""
        hints = {hint.query: hint for request in self.requests for hint in self.separator.suggest(request.query)}
        for hint in hints.values():
            self.notice(str(hint))
        return [asdict(hint) for hint in hints.values()]

    def watch(self, label: str) -> Watch:
        """Return a `Watch` that shows a progress bar after a second if standard error is a terminal."""

        def show(blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterator[Tensor]:
            from tqdm import tqdm

            with tqdm(
                total=frames, desc=printable(f"{stage} {label}"),
                bar_format=PROGRESS if frames else PROGRESS_WITHOUT_TOTAL,
                leave=False, delay=PROGRESS_DELAY, dynamic_ncols=True, disable=True if self.options.quiet else None,
            ) as bar:  # fmt: skip
                for block in blocks:
                    yield block
                    bar.update(block.shape[-1])

        return show

    def report(self, record: Record) -> None:
        """Print the result for one input."""
        if record.error:
            print_error(record.error)
        for sentence in record.warnings:
            self.notice(sentence, "warning")
        for name, factor in record.scale.items():
            change = -20 * math.log10(factor)
            self.notice(f"{record.input}: “{name}” exceeded full scale, so it was turned down by {change:.2f} dB.")
        if self.options.json:
            print_line(json.dumps(record.as_json()))
        elif self.to_stdout:
            for output in record.outputs:
                with open(output, "rb") as file, standard_output():
                    shutil.copyfileobj(file, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
            for name, presence in record.presence.items():
                if presence is not None:
                    self.notice(f"“{name}”: {presence_text(record, name)}.")
        elif not self.options.quiet:
            for line in result_lines(record):
                print_line(line)

    def notice(self, sentence: str, kind: str = "note") -> None:
        """Print a note to standard error, unless --quiet."""
        if not self.options.quiet:
            print_error(f"{kind}: {sentence}")

    def detail(self, sentence: str) -> None:
        """Print to standard error with --verbose."""
        if self.options.verbose:
            print_error(sentence)


if __name__ == "__main__":
    sys.exit(main())
