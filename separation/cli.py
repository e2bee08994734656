"""`separate`: extract the sound that a text describes from recordings.

    separate --query "dog barking" mix.wav        writes mix.dog_barking.wav
    separate --remove "dog barking" mix.wav       writes mix.not_dog_barking.wav
    separate --query-audio bark.wav mix.wav       writes mix.bark.wav
    separate --list mix.wav                       lists the sounds that are probably in it

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
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from separation.audio import Reader
from separation.audio.formats import FORMATS, find_format, find_subtype
from separation.audio.writing import commit
from separation.cli_inputs import STANDARD, Input, InputFinder, copy_pipe
from separation.cli_outputs import Namer, QueryOutputs, Record, Request, choose_format, plan_paths
from separation.errors import AudioError, ModelError, reason
from separation.query import Query, has_word

if TYPE_CHECKING:
    from torch import Tensor

    from separation.separator import Separator, Watch

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
NOT_HEARD = 0.5  # a presence below it is reported as "not heard"
CARD_FIELDS = ("name", "queries", "sample_rate", "size", "licence", "scores", "on_disk", "verified", "description")
PATIENCE = 1.0  # seconds before a progress bar appears
PROGRESS = "{percentage:3.0f}% |{bar:24}| {remaining} left  {desc}"
PROGRESS_WITHOUT_TOTAL = "{elapsed}  {desc}"

DESCRIPTION = """\
Extract the sound that you describe from a recording.

Each query writes one file beside the input: mix.wav becomes mix.dog_barking.wav.
Sample rate, channels and length stay the same. Files may be hours long. Existing
files are never replaced unless you add --overwrite.
"""

EXAMPLES = """\
examples:
  separate --query "dog barking" mix.wav
      writes mix.dog_barking.wav
  separate --query "dog barking" --query rain *.wav -o out/
      writes out/<name>.dog_barking.wav and out/<name>.rain.wav in one pass over each file
  separate --query "dog barking" --residual mix.flac
      also writes mix.not_dog_barking.flac; the two add up to the input
  separate --remove "dog barking" mix.wav
      writes only mix.not_dog_barking.wav
  separate --query speech -r recordings/ -o speech/ --json > report.jsonl
      every recording in a folder and its subfolders, with one line of JSON for each
  separate --query-audio bark.wav mix.wav
      extracts what sounds like bark.wav (or like the files in a folder); writes mix.bark.wav
  separate --query speech --not music mix.wav
      keeps music out of the result; writes mix.speech_without_music.wav
  separate --list mix.wav
      lists the sounds that are probably in it, of those that the model knows, and when
  ffmpeg -i film.mkv -f wav - | separate --query siren - > siren.wav
      reads from a pipe and writes to one

formats:
  wav gives float32 wav, flac gives 24-bit flac, ogg, opus and mp3 give the same format;
  other files and videos (m4a, mp4, ...) give wav. Choose with --format and --subtype.

queries:
  The built-in model takes texts, example recordings and embeddings. Other models take
  pictures (CLIPSep) or AudioSet classes (USS); see --list-models. Each query, of any
  form, gives its own result.

presence is the probability that the sound is in the recording at all, from 0 to 1.
exit status: 0 success, 1 a file failed (the others are done), 2 wrong usage, 130 interrupted.
"""

# Options


class UsageError(Exception):
    """Options that are wrong or do not go together; the text is one sentence."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError and reports a full disk under standard output."""

    def print_help(self, file: Any = None) -> None:
        """Print the help to standard output."""
        put(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of exiting."""
        raise UsageError(message[:1].upper() + message[1:].rstrip(".") + ".")


def build_parser() -> Parser:
    """The parser of `separate`."""
    parser = Parser(
        prog="separate",
        usage='separate --query "dog barking" [options] FILE ...',
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    group = parser.add_argument_group("what to separate")
    add = group.add_argument
    add("files", nargs="*", metavar="FILE", help="audio or video files, patterns ('*.wav'), folders (-r), - for stdin")

    def add_query(option: str, metavar: str, form: str, text: str, suffixes: tuple[str, ...] = ()) -> None:
        def read(value: str) -> tuple[str, str]:
            return form, value if form in ("text", "label") else check_query_file(form, value, suffixes)

        add(option, action="append", default=[], dest="query", metavar=metavar, type=read, help=text)

    add_query("--query", "TEXT", "text", "the sound to extract; repeat this and the next four for more sounds")
    add_query("--query-audio", "PATH", "audio", "an example recording of the sound, or a folder of them")
    add_query("--query-class", "NAME", "label", "a class by name, id or number, such as Dog or /m/0bt9lr")
    add_query("--query-image", "FILE", "image", "a picture of what makes the sound")
    add_query(
        "--query-embedding", "FILE", "embedding", "a condition vector, .npy or .safetensors", (".npy", ".safetensors")
    )
    more: Any = {"action": "append", "default": [], "metavar": "TEXT"}
    add("--not", dest="negative", help="a sound to keep out of every result; repeatable", **more)
    add(
        "--subclasses",
        action="store_true",
        help="let --query-class include subclasses (needs AudioSet's ontology.json)",
    )
    add("--remove", help="a sound to remove: write only the rest; repeatable", **more)
    add("--list", action="store_true", help="list the sounds that are probably in each file instead of separating")
    add("-r", "--recursive", action="store_true", help="search folders and their subfolders")

    add = parser.add_argument_group("what to write").add_argument
    add("-o", "--output", metavar="FOLDER", help="write here (created if needed); - is standard output")
    add("--residual", action="store_true", help="also write the rest: input minus target")
    add("--format", metavar="NAME", help=f"one of {', '.join(FORMATS)}")
    add("--subtype", metavar="NAME", help="sample type: FLOAT, PCM_16, PCM_24, ... (or 16, 24)")
    add("--plot", action="store_true", help="draw spectrograms (PNG) for each query")
    add("--overwrite", action="store_true", help="replace existing files")

    add = parser.add_argument_group("how").add_argument
    add("--model", default="default", metavar="NAME", help="a name, model directory or checkpoint (default: built-in)")
    add("--faithful", action="store_true", help="use a released model's published segments, level and masks")
    add("--offline", action="store_true", help="never use the network, not even to download a model")
    add("--list-models", action="store_true", help="show the available models")
    add("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    add("--threads", type=int, metavar="N", help="processor threads (default: all)")

    add = parser.add_argument_group("what to print").add_argument
    add("--json", action="store_true", help="print one line of JSON for each file")
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("-v", "--verbose", action="store_true", help="print more, and tracebacks of unexpected errors")
    add("--version", action="store_true", help="show the version and exit")
    return parser


def check_query_file(form: str, name: str, suffixes: tuple[str, ...]) -> str:
    """Return the path of a file to use as a query; raise ArgumentTypeError if it is missing or of another kind."""
    path = Path(name).expanduser()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{name} does not exist")
    if path.is_dir() and form != "audio":
        raise argparse.ArgumentTypeError(f"{name} is a folder, not a file")
    if suffixes and path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"{name} must end in {' or '.join(suffixes)}")
    return str(path)


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[Request]]:
    """Return options and requests; raise UsageError if they are wrong or do not go together."""
    options = build_parser().parse_intermixed_args(argv)
    if options.list_models or options.version:
        return options, []
    requests = build_requests(options)
    if options.subclasses and not any(form == "label" for form, _ in options.query):
        raise UsageError("--subclasses needs --query-class.")
    if options.list:
        for name in ("query", "remove", "negative", "output", "residual", "plot", "format", "subtype"):
            if getattr(options, name):
                option = "not" if name == "negative" else name
                raise UsageError(f"--list does not separate, so it cannot be combined with --{option}.")
    elif not requests:
        raise UsageError('Say what to separate, for example --query "dog barking".')
    if not options.files:
        raise UsageError("Name at least one file, or - for standard input.")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads must be at least 1, not {options.threads}.")
    check_format(options.format, options.subtype)
    check_output(options, requests)
    return options, requests


def build_requests(options: argparse.Namespace) -> list[Request]:
    """Make one request for each different query. A sound that is both extracted and removed is separated once."""
    negative = [tidy_text(text, "--not") for text in options.negative]
    wanted: dict[tuple[str, str], list[bool]] = {}  # (form, value) -> [target, residual]
    for form, value in options.query:
        option = {"text": "--query", "label": "--query-class"}.get(form)
        wanted[form, tidy_text(value, option) if option else value] = [True, options.residual]
    for text in options.remove:
        wanted.setdefault(("text", tidy_text(text, "--remove")), [False, True])[1] = True
    requests: list[Request] = []
    for (form, value), (target, residual) in wanted.items():
        given: dict[str, Any] = {form: value}
        query = Query(**given, negative=negative, subclasses=form == "label" and options.subclasses)
        name, number = query.name, 1
        while any(name == other.name for other in requests):
            number += 1
            name = f"{query.name} {number}"
        requests.append(Request(name, value if form == "text" and not negative else query, target, residual))
    return requests


def tidy_text(text: str, option: str) -> str:
    """Return the text on one line, with single spaces; raise UsageError if it has no letter or digit."""
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not has_word(text):
        problem = f'{option} "{text}" contains no word' if text else f"{option} is empty"
        raise UsageError(f'{problem}. Describe the sound, for example {option} "dog barking".')
    return text


def check_format(name: str | None, subtype: str | None) -> None:
    """Raise UsageError if there is no such format or sample type."""
    try:
        if name:
            find_subtype(find_format(name), subtype)
            return
    except AudioError as error:
        raise UsageError(str(error)) from None
    for entry in FORMATS.values():
        with contextlib.suppress(AudioError):
            find_subtype(entry, subtype)
            return
    known = sorted({known for entry in FORMATS.values() for known in entry.subtypes})
    raise UsageError(f"Unknown sample type {subtype!r}. Use one of {', '.join(known)}.")


def writes_to_stdout(options: argparse.Namespace) -> bool:
    """Whether the audio goes to standard output: on demand, and by default for standard input alone."""
    to_stdout: bool = options.output == STANDARD or (options.output is None and options.files == [STANDARD])
    return to_stdout and not options.list


def check_output(options: argparse.Namespace, requests: list[Request]) -> None:
    """Raise UsageError if the results cannot go where the options say."""
    output, files = options.output, options.files
    if writes_to_stdout(options):
        if len(files) != 1 or len(requests) != 1 or (requests[0].target and requests[0].residual):
            raise UsageError("Standard output takes one result of one file. Use -o FOLDER for more.")
        if options.json or options.plot:
            raise UsageError("--json and --plot need -o FOLDER when the audio goes to standard output.")
    elif output is None:
        if STANDARD in files and not options.list:
            raise UsageError("Standard input together with files needs -o FOLDER.")
    elif not Path(output).is_dir():
        if Path(output).exists():
            raise UsageError(f"-o needs a folder, but {output} is a file.")
        if Path(output).suffix.lower().lstrip(".") in FORMATS:
            raise UsageError(f"-o needs a folder, but {output} looks like a file name.")


# Printing


class StandardOutputError(Exception):
    """Standard output cannot be written; the text says why."""


@contextlib.contextmanager
def standard_output() -> Iterator[None]:
    """Turn an OSError into StandardOutputError; a reader that has left (BrokenPipeError) is not an error to report."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StandardOutputError(f"standard output cannot be written: {reason(error)}.") from None


def put(line: str) -> None:
    """Print to standard output. Characters that its encoding lacks are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    with standard_output():
        print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def say(sentence: str) -> None:
    """Print to standard error."""
    encoding = sys.stderr.encoding or "utf-8"
    line = f"separate: {sentence}".encode(encoding, "backslashreplace").decode(encoding)
    print(line, file=sys.stderr, flush=True)


def presence_text(presence: float) -> str:
    """For example "presence 0.93"."""
    # The rounded number decides, so that "presence 0.50" is never followed by "not heard".
    return f"presence {presence:.2f}" + (" - not heard in this recording" if round(presence, 2) < NOT_HEARD else "")


def result_lines(record: Record) -> list[str]:
    """The result for one input: a line for each file written or each sound in it."""
    if record.heard is not None:
        width = max((len(sound["label"]) for sound in record.heard), default=0)
        lines = []
        for sound in record.heard:
            times = ", ".join(f"{begin:g}-{end:g} s" for begin, end in sound["times"])
            lines.append(f"{record.input}  {sound['probability']:.2f}  {sound['label']:<{width}}  {times}")
        return lines or [f"{record.input}  none of the known sounds stands out"]
    lines = []
    for name, presence in record.presence.items():
        written = [paths[name] for paths in (record.targets, record.residuals) if name in paths]
        if presence is not None:
            written[0] += f"  {presence_text(presence)}"
        lines += written
    return lines + record.plots


def print_models(as_json: bool) -> None:
    """Print the table of models."""
    from separation.pretrained import list_models

    rows = [("name", "queries", "rate", "size", "licence", "on disk", "scores")]
    for card in list_models():
        if as_json:
            put(json.dumps({name: getattr(card, name) for name in CARD_FIELDS}))
        on_disk = ("yes" if card.verified else "yes, unverified") if card.on_disk else "no"
        queries, rate = ", ".join(card.queries), f"{card.sample_rate} Hz"
        rows.append((card.name, queries, rate, card.size, card.licence, on_disk, card.scores))
    if not as_json:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


# Running


def main(argv: Sequence[str] | None = None) -> int:
    """Run `separate`; return its exit status (0 success, 1 a file failed, 2 wrong usage, 130 interrupted)."""
    try:
        options, requests = parse(argv)
        if options.version:
            from separation import __version__

            put(f"separate {__version__}")
        elif options.list_models:
            print_models(options.json)
        else:
            with exit_on_signals(), tempfile.TemporaryDirectory(prefix="separate-") as scratch:
                return Command(options, requests, Path(scratch)).run()
        return DONE
    except UsageError as error:
        say(f"{error}\n(See separate --help.)" if sys.stderr.isatty() else str(error))
        return USAGE
    except KeyboardInterrupt:
        say("interrupted; no incomplete files are left.")
        return INTERRUPTED
    except (BrokenPipeError, StandardOutputError) as error:
        if isinstance(error, StandardOutputError):
            say(str(error))
        with contextlib.suppress(OSError, ValueError):  # otherwise Python complains at exit about unwritten output
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise SystemExit(128 + number) on SIGTERM and SIGHUP, so that temporary files are removed as after Ctrl-C.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Does nothing outside the main thread.
    """

    def stop(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def check_model(model: str, device: str) -> None:
    """Raise UsageError, before any file is opened, if a model or device does not exist. Nothing is downloaded."""
    from separation.pretrained import check_name

    try:
        check_name(model)
    except ModelError as error:
        raise UsageError(str(error)) from None
    if device in ("cuda", "mps"):
        import torch

        if device == "cuda" and not torch.cuda.is_available():
            raise UsageError("--device cuda: PyTorch finds no CUDA device.")
        if device == "mps" and not torch.backends.mps.is_available():
            raise UsageError("--device mps: PyTorch finds no Apple GPU.")


class Command:
    """One run of `separate`.

    Args:
        options, requests: see `parse`.
        scratch: a temporary folder.
    """

    def __init__(self, options: argparse.Namespace, requests: list[Request], scratch: Path) -> None:
        self.options, self.requests, self.scratch = options, requests, scratch
        self.to_stdout = writes_to_stdout(options)
        folder = Path(options.output) if options.output else None
        self.folder = scratch / "out" if self.to_stdout else folder

    def run(self) -> int:
        """Process every input; return the exit status."""
        options = self.options
        if options.plot and importlib.util.find_spec("matplotlib") is None:
            raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib.")
        if self.to_stdout and sys.stdout.isatty():
            raise UsageError("Audio cannot go to a terminal. Redirect standard output, or name a folder with -o.")
        check_model(options.model, options.device)
        parts = {part for request in self.requests for part in (request.slug, f"not_{request.slug}")}
        sources = InputFinder(options.recursive, parts, self.folder, self.notice).find(options.files)
        examples = [Path(value) for form, value in options.query if form in ("audio", "image", "embedding")]
        inputs = [source.path for source in sources if not source.piped]
        namer = Namer(inputs + examples, options.overwrite, self.notice)
        status = DONE
        for source in sources:
            record = self.process(source, namer)
            self.report(record)
            status = FAILED if record.error else status
        return status

    def process(self, source: Input, namer: Namer) -> Record:
        """Separate one input, or list its sounds. Its errors go into the record."""
        record, path, began = Record(source.label), source.path, time.monotonic()
        try:
            if source.error:
                raise AudioError(source.error)
            if source.piped:
                path = copy_pipe(source, self.scratch)
            with Reader(path) as reader:
                if self.options.list:
                    self.list_sounds(source, reader, record)
                else:
                    self.separate(source, reader, record, namer)
                if reader.warning:
                    record.warnings.append(reader.warning)
        except (UsageError, BrokenPipeError):
            raise
        except (AudioError, ModelError) as error:
            record.error = str(error)
        except MemoryError:
            record.error = f"{source.label} could not be separated: there is not enough memory."
        except Exception as error:
            if self.options.verbose:
                traceback.print_exc()
            text = " ".join([f"{type(error).__name__}:", *str(error).split()])[:300].rstrip(".:")
            record.error = f"{source.label} could not be separated: {text} (-v shows where)."
        if source.piped:  # messages name the input, not its temporary copy
            record.error = record.error and record.error.replace(str(path), source.label)
            record.warnings = [warning.replace(str(path), source.label) for warning in record.warnings]
            if path != source.path:
                path.unlink(missing_ok=True)
        record.seconds = round(time.monotonic() - began, 3)
        return record

    def separate(self, source: Input, reader: Reader, record: Record, namer: Namer) -> None:
        """Separate one file: all its outputs appear together at the end, or none."""
        options, rate = self.options, reader.sample_rate
        name = options.format or ("wav" if self.to_stdout else None)
        form = choose_format(source.label, reader, name, options.subtype, self.notice)
        folder = self.folder or (Path() if source.piped else source.path.parent)
        plans = plan_paths(self.requests, folder, source.stem, form[0].suffix, options.plot, namer)
        file = self.separator.separate_file(reader, self.queries, self.watch(source.label))
        record.duration, level = round(file.frames / rate, 6), 20 * math.log10(max(file.level, 1e-12))
        size = f"{rate} Hz, {reader.channels} channels, {record.duration:.3f} s"
        self.detail(f"{source.label}: {size}, level {level:.1f} dB.")
        with ExitStack() as stack:
            outputs = [
                QueryOutputs(request, paths, source.label, reader, file.frames, form, options.overwrite, stack)
                for request, paths in zip(self.requests, plans, strict=True)
            ]
            for mixture, targets in file:
                for output, target in zip(outputs, targets, strict=True):
                    output.write(mixture, target)
            commit([pending for output in outputs for pending in output.finish()])
        for output, presence in zip(outputs, file.presence, strict=True):
            output.report(record, presence)

    def list_sounds(self, source: Input, reader: Reader, record: Record) -> None:
        """List the sounds in one file."""
        watch = self.watch(source.label)
        frames, level = self.separator.measure(reader, watch)
        listener = self.separator.listener(reader.sample_rate, level)
        for block in watch(reader.blocks(), "listening to", frames):
            listener.push(block)
        record.duration = round(frames / reader.sample_rate, 6)
        sounds = self.separator.heard(listener)
        record.heard = [asdict(sound) | {"probability": round(sound.probability, 4)} for sound in sounds]

    @cached_property
    def separator(self) -> Separator:
        """The model, loaded for the first readable file."""
        import torch

        from separation.separator import Separator

        options = self.options
        if options.threads:
            torch.set_num_threads(options.threads)
        chosen = {name: True for name in ("faithful", "offline") if getattr(options, name)}
        try:
            separator = Separator.from_pretrained(
                options.model, device=None if options.device == "auto" else options.device, **chosen
            )
        except ModelError as error:
            raise UsageError(str(error)) from None
        self.detail(f"model {separator.name}, device {options.device}.")
        return separator

    @cached_property
    def queries(self) -> list[Any]:
        """The queries, read and encoded once for all files."""
        try:
            return [self.separator.encoded(request.query) for request in self.requests]
        except (AudioError, ModelError, ValueError) as error:
            raise UsageError(str(error)) from None

    def watch(self, label: str) -> Watch:
        """Shows a progress bar while a file is read, if standard error is a terminal and the work takes a second."""

        def show(blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterator[Tensor]:
            from tqdm import tqdm

            with tqdm(
                total=frames, desc=f"{stage} {label}", bar_format=PROGRESS if frames else PROGRESS_WITHOUT_TOTAL,
                leave=False, delay=PATIENCE, dynamic_ncols=True, disable=True if self.options.quiet else None,
            ) as bar:  # fmt: skip
                for block in blocks:
                    yield block
                    bar.update(block.shape[-1])

        return show

    def report(self, record: Record) -> None:
        """Print the result for one input."""
        if record.error:
            say(record.error)
        for sentence in record.warnings:
            self.notice(sentence, "warning")
        for name, factor in record.scale.items():
            change = -20 * math.log10(factor)
            self.notice(f"{record.input}: “{name}” exceeded full scale, so it was turned down by {change:.2f} dB.")
        if self.options.json:
            put(json.dumps(record.as_json()))
        elif self.to_stdout:
            for output in record.outputs:
                with open(output, "rb") as file, standard_output():
                    shutil.copyfileobj(file, sys.stdout.buffer)
                    sys.stdout.buffer.flush()
            for name, presence in record.presence.items():
                if presence is not None:
                    self.notice(f"“{name}”: {presence_text(presence)}.")
        elif not self.options.quiet:
            for line in result_lines(record):
                put(line)

    def notice(self, sentence: str, kind: str = "note") -> None:
        """Print a note to standard error, unless --quiet."""
        if not self.options.quiet:
            say(f"{kind}: {sentence}")

    def detail(self, sentence: str) -> None:
        """Print to standard error with --verbose."""
        if self.options.verbose:
            say(sentence)


if __name__ == "__main__":
    sys.exit(main())
