"""The run of `separate` over its inputs.

One input is computed at a time. The one after it is measured and the one before it is encoded and committed meanwhile,
in other threads (`--jobs`). Results are reported in the order of the inputs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from separation import process
from separation.audio import Reader
from separation.audio.writing import PendingFile, commit
from separation.console.inputs import Input, InputFinder, copy_pipe
from separation.console.messages import Reporter, print_line
from separation.console.model import Model
from separation.console.options import ONE_RESULT, UsageError, check_model, parse_array, writes_to_stdout
from separation.console.progress import describe_run
from separation.errors import AudioError, ModelError, NotFiniteError
from separation.outputs.names import REMIX, REST, WITHOUT, Namer, Request, blend_of, slug
from separation.outputs.origins import Origin
from separation.outputs.planning import OutputOptions, OutputPlan, QueryOutputs, fill_outputs
from separation.outputs.records import Record, decibels, rounded
from separation.process import DONE, FAILED, StandardOutputError, printable, temporary_folder
from separation.vocabulary.sounds import known_sounds

if TYPE_CHECKING:
    from torch import Tensor

    from separation.separator import Watch

MAX_NAMED = 3  # sounds named when a query is absent


@dataclass
class Job:
    """The work for one input.

    Attributes:
        path: of the input, or of the copy of a pipe.
        notes: lines that wait until the results of earlier inputs are printed.
        measured: samples per channel and level.
        written: done when the outputs have appeared.
        stack: removes what was not finished.
    """

    source: Input
    record: Record
    path: Path
    requests: list[Request]
    reader: Reader = field(init=False)
    plan: OutputPlan = field(init=False)
    outputs: list[QueryOutputs] = field(default_factory=list)
    presence: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: Future[tuple[int, float]] | None = None
    written: Future[None] | None = None
    stack: ExitStack = field(default_factory=ExitStack)


class AtOnce(Executor):
    """Does all work when it is submitted."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Runner:
    """One run with the options and requests of `parse`; closing `stack` removes temporary files."""

    def __init__(self, options: argparse.Namespace, requests: list[Request], stack: ExitStack) -> None:
        self.options, self.requests, self.stack = options, requests, stack
        self.to_stdout = writes_to_stdout(options)
        folder = Path(options.output) if options.output else None
        self.folder = self.scratch / "out" if self.to_stdout else folder
        self.reporter = Reporter(options, self.to_stdout)
        self.model = Model(options, requests, self.reporter)
        self.behind: deque[Job] = deque()  # computed, but not reported
        self.counts: Counter[str] = Counter()

    def run(self) -> int:
        """Process every input; return the exit status."""
        options, began = self.options, time.monotonic()
        if self.to_stdout and sys.stdout.isatty():
            raise UsageError("Audio cannot go to a terminal. Redirect standard output, or name a folder with -o.")
        check_model(options.model, options.device)
        options.array = parse_array(options.array)
        parts = {part for request in self.requests for part in (slug(request.name), f"not_{slug(request.name)}")}
        if options.all:
            parts = {slug(name) for name in known_sounds()}
        finder = InputFinder(options.recursive, {WITHOUT, REMIX, REST, *parts}, self.folder, self.reporter.notice)
        sources = finder.find(options.files)
        if self.to_stdout and len(sources) > 1:
            raise UsageError(ONE_RESULT)
        for name, why in finder.passed.items():
            self.reporter.detail(f"passed over {name}: {why}.")
        examples = [Path(value) for form, value in options.query if form in ("audio", "image", "embedding")]
        inputs = [source.path for source in sources if not source.piped]
        self.namer = Namer(inputs + examples, options.overwrite, self.reporter.notice, skip=options.skip_existing)
        self.reporter.progress.start([source.path for source in sources if not (source.piped or source.error)])
        try:
            self.process(sources)
        finally:
            self.reporter.progress.close()
            for job in self.behind:
                job.stack.close()
            self.namer.remove_empty_folders()
        for name, why in finder.passed.items() if options.json else ():
            print_line(json.dumps(asdict(Record(name, passed_over=why))))
        if len(sources) + len(finder.passed) > 1:
            self.counts["passed over"] = len(finder.passed)
            self.reporter.notice(describe_run(self.counts, len(sources), time.monotonic() - began), "")
        return FAILED if self.counts["failed"] else DONE

    def process(self, sources: Iterable[Input]) -> None:
        """Prepare, compute and report the inputs."""
        self.beside = self.options.jobs - 1
        ahead, rest = deque[Job](), iter(sources)
        self.workers: Executor = ThreadPoolExecutor(self.beside) if self.beside else AtOnce()
        try:
            while True:
                while len(ahead) <= self.beside and (source := next(rest, None)):
                    ahead.append(self.prepare(source))
                if not ahead:
                    break
                job = ahead.popleft()
                with ExitStack() as stack:
                    stack.push(job.stack)  # closed if something ends the run
                    self.compute(job)
                    stack.pop_all()
                self.behind.append(job)
            self.settle(0)
        finally:
            self.workers.shutdown(cancel_futures=True)

    def settle(self, most: int) -> None:
        """Report computed inputs whose outputs have appeared; wait until at most `most` others are left."""
        while self.behind:
            job = self.behind[0]
            if len(self.behind) <= most and job.written and not job.written.done():
                return
            self.conclude(job)
            self.behind.popleft()
        if self.reporter.waiting is not None:
            self.reporter.print_notes(self.reporter.waiting)
        self.reporter.waiting = None

    @contextmanager
    def explained(self, job: Job) -> Iterator[None]:
        """Put errors of one input into its record."""
        record, label = job.record, job.source.label
        try:
            yield
        except (UsageError, StandardOutputError):
            raise
        except NotFiniteError as error:
            record.error = f"{label} could not be separated: {error}"
        except (AudioError, ModelError) as error:
            record.error = str(error)
        except MemoryError:
            record.error = f"{label} could not be separated: there is not enough memory."
        except Exception as error:
            if self.options.verbose:
                traceback.print_exc()
            text = " ".join([f"{type(error).__name__}:", *str(error).split()])[:300].rstrip(".:")
            record.error = f"{label} could not be separated: {text} (-v shows where)."

    def prepare(self, source: Input) -> Job:
        """Open an input and plan its outputs; begin to measure it beside the computation of others."""
        options, began = self.options, time.monotonic()
        job = Job(source, Record(source.label), source.path, self.requests)
        self.reporter.waiting = job.notes
        with self.explained(job):
            if source.error:
                raise AudioError(source.error)
            if source.piped:
                job.path = copy_pipe(source, self.scratch)
            job.reader = reader = Reader(job.path, options.track)
            if len(reader.tracks) > 1:
                languages = ", ".join(language or "unknown" for language in reader.tracks)
                chosen = f"{reader.track + 1} of {len(reader.tracks)} ({languages})"
                self.reporter.notice(f"{source.label}: used audio track {chosen}; --track chooses another.")
            if not (options.list or options.all):
                self.plan(job)
            if self.beside and not job.record.skipped and self.model.is_loaded:
                job.measured = self.workers.submit(self.model.separator.measure, reader)
        job.record.seconds = time.monotonic() - began
        return job

    def plan(self, job: Job) -> None:
        """Plan the outputs of one input; note in its record if they exist and are to be skipped."""
        options, source = self.options, job.source
        written = [request for request in job.requests if request.gain is None] + blend_of(job.requests)
        how = OutputOptions(
            options.format or ("wav" if self.to_stdout else None), options.subtype, options.bitrate, options.clip,
            options.sound_only or source.piped, options.plot,
        )  # fmt: skip
        job.plan = OutputPlan(source.label, job.reader, written, how, self.namer)
        names = ("model", "faithful", "track", "span", "all")
        origin = None if source.piped else source.path
        samples = [getattr(options, name) for name in names]
        job.plan.claim_paths(self.output_folder(source), source.stem, origin, samples)
        if options.skip_existing and job.plan.is_done():
            job.record.skipped = True
        else:
            job.plan.check()

    def compute(self, job: Job) -> None:
        """Separate a prepared input, or list its sounds."""
        self.reporter.waiting = job.notes
        self.settle(self.beside)
        record, began = job.record, time.monotonic()
        if not (record.error or record.skipped):
            self.reporter.progress.begin(job.path)
            with self.explained(job):
                if self.options.list or self.options.all:
                    labels = self.list_sounds(job)
                    job.requests = [Request(label, label, True, False) for label in (*labels, REST)]
                    if self.options.all and labels:
                        self.plan(job)
                if not (self.options.list or record.skipped or (self.options.all and len(job.requests) == 1)):
                    self.separate(job)
                if job.reader.warning:
                    record.warnings.append(job.reader.warning)
        self.reporter.progress.end(job.path, computed=not (record.error or record.skipped))
        record.seconds += time.monotonic() - began

    def measure(self, job: Job) -> tuple[int, float]:
        """Return samples per channel and level of an input, and note its length."""
        if job.measured is None:
            job.measured = AtOnce().submit(self.model.separator.measure, job.reader, self.watch(job.source.label))
        frames, level = job.measured.result()
        if job.record.duration is None:
            job.record.duration, job.record.level = round(frames / job.reader.sample_rate, 6), decibels(level)
            done = "listed" if self.options.list or self.options.all else "changed"
            if self.options.span and (remark := self.options.span.remark(job.source.label, job.record.duration, done)):
                if self.options.span.begin < job.record.duration:
                    self.reporter.notice(remark)
                else:
                    job.record.warnings.append(remark)
        return frames, level

    def separate(self, job: Job) -> None:
        """Separate one input and begin to complete its outputs, which appear all or not at all.

        With --all, the last request is the residual of all others.
        """
        options, record, reader, label = self.options, job.record, job.reader, job.source.label
        queries = [request.query for request in job.requests[:-1]] if options.all else self.model.queries
        pairs, measured = list(zip(queries, job.requests, strict=False)), self.measure(job)
        file = self.model.separator.separate_file(
            reader,
            [query for query, request in pairs if request.gain is None],
            self.watch(label),
            share=options.all,
            gains=[(query, request.gain) for query, request in pairs if request.gain is not None],
            span=options.span,
            measured=measured,
        )
        record.hints = self.model.hints
        size = f"{reader.sample_rate} Hz, {reader.channels} channels, {record.duration:.3f} s"
        self.reporter.detail(f"{label}: {size}, level {20 * math.log10(max(file.level, 1e-12)):.1f} dB.")
        outputs = job.outputs = job.plan.open(file.frames, job.stack)
        fill_outputs(file, outputs, options.all)
        job.presence = list(file.presence)
        for request, named in zip(job.requests, file.parts, strict=False):
            if named:  # a sentence that names several sounds
                record.parts[request.name] = {part: rounded(presence) for part, presence in named.items()}
        recorded = self.folder is not None and not self.to_stdout
        job.written = self.workers.submit(job.plan.finish, outputs, options.all, recorded)
        from separation.presence import presence_word

        if not options.all and "absent" in map(presence_word, job.presence):
            blocks = self.watch(label)(reader.blocks(), "listening to", file.frames)
            with contextlib.suppress(ModelError):  # the model cannot list sounds
                sounds = self.model.separator.list_sounds_in_blocks(
                    blocks, reader.sample_rate, file.level, most=MAX_NAMED, span=options.span
                )
                record.sounding = [sound.label for sound in sounds]

    def list_sounds(self, job: Job) -> list[str]:
        """List the sounds in one input and return their labels. --plot draws a timeline with --list."""
        from separation import plot

        def record_spectrum(blocks: Iterable[Tensor]) -> Iterator[Tensor]:
            for block in blocks:
                spectrum.push(block)
                yield block

        source, reader, record = job.source, job.reader, job.record
        if self.options.array:
            try:
                self.options.array.check(reader.channels)
            except ValueError as error:
                raise AudioError(f"{source.label}: {error}") from None
        frames, level = self.measure(job)
        picture = None
        blocks = self.watch(source.label)(reader.blocks(), "listening to", frames)
        if self.options.list and self.options.plot:
            origin = None if source.piped else Origin.find(source.path)
            path = self.namer.claim(self.output_folder(source), source.stem, "sounds", ".png", origin)
            self.namer.check_destination(path, origin)
            picture = PendingFile(path, self.options.overwrite)
            job.stack.callback(picture.discard)
            spectrum = plot.Spectrogram(reader.sample_rate, frames)
            blocks = record_spectrum(blocks)
        sounds = self.model.separator.list_sounds_in_blocks(blocks, reader.sample_rate, level, span=self.options.span)
        if picture is not None:
            panels, title = {"recording": spectrum.decibels()}, f"Sounds in {printable(Path(source.label).name)}"
            with picture.explained(), open(picture.temporary, "wb") as file:
                plot.draw(file, panels, title, frames / reader.sample_rate, spectrum.edges, sounds)
            picture.finish()
            commit([picture])
            if origin and self.folder:
                self.namer.origins.record([path], origin)
            record.plots.append(str(path))
        array = self.options.array or ("stereo" if reader.channels == 2 else None)
        if self.options.list and sounds and array:
            blocks = self.watch(source.label)(reader.blocks(), "locating in", frames)
            sounds = self.model.separator.locate_sounds(sounds, blocks, reader.sample_rate, level, array)
        record.heard = [sound.as_json() for sound in sounds]
        return [sound.label for sound in sounds]

    def conclude(self, job: Job) -> None:
        """Wait for the outputs of an input and print its result."""
        record, source = job.record, job.source
        with self.explained(job):
            if job.written:
                job.written.result()
            for number, output in enumerate(job.outputs if job.written else ()):
                rest = output.request.rest is not None or (self.options.all and output is job.outputs[-1])
                output.report(record, None if rest else job.presence[number])
            for request, presence in zip(job.requests, job.presence, strict=False):
                if request.gain is not None:
                    record.enter_presence(request.name, presence)
            if self.options.all and job.written:
                record.rest = record.targets.pop(REST)
        job.stack.close()
        if job.path != source.path:  # messages name the input, not its temporary copy
            job.path.unlink()
            record.error = record.error and record.error.replace(str(job.path), source.label)
            record.warnings = [warning.replace(str(job.path), source.label) for warning in record.warnings]
        record.seconds = round(record.seconds, 3)
        self.counts["failed" if record.error else "skipped" if record.skipped else "done"] += 1
        if job.outputs and not self.to_stdout:
            process.stop_note = f" {self.counts['done']} done; the same command with --skip-existing does the others."
        self.reporter.print_notes(job.notes)
        self.reporter.report(record)

    def output_folder(self, source: Input) -> Path:
        """Return the output folder of an input."""
        if self.folder:
            return self.folder / source.folder  # keeps the tree of the searched folder
        return Path() if source.piped else source.path.parent

    @cached_property
    def scratch(self) -> Path:
        """A temporary folder for piped input and for outputs that go to standard output."""
        return self.stack.enter_context(temporary_folder())

    def watch(self, label: str) -> Watch:
        """Return a `Watch` that moves the progress line on and reports inputs whose outputs have appeared."""

        def show(blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterator[Tensor]:
            done = 0
            for block in blocks:
                self.reporter.progress.move(stage, label, done / frames if frames else 0.0)
                self.settle(len(self.behind))
                yield block
                done += block.shape[-1]

        return show
