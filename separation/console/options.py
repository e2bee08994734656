"""The options of `separate`."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from separation import __version__
from separation.audio.formats import CLIPS, COMPRESSION, FORMATS, find_format, find_subtype, parse_bit_rate
from separation.console.help import DESCRIPTION, EXAMPLES, SHORT_HELP
from separation.errors import AudioError, ModelError, expand_home
from separation.inference.changes import Span, parse_gain, parse_time
from separation.outputs.names import Request, blend_of
from separation.query import Query, find_excluded, has_word

STANDARD = "-"
"""Standard input as an input, standard output as an output."""

QUERY_OPTIONS = (  # option, name of its value, form of the query, help
    ("--query", "TEXT", "text", "the sound to extract; repeat this and the next four for more sounds"),
    ("--query-audio", "PATH", "audio", "an example recording of the sound, or a folder of them"),
    ("--query-class", "NAME", "label", "a class by name, id or number, such as Dog or /m/0bt9lr"),
    ("--query-image", "FILE", "image", "a picture of what makes the sound"),
    ("--query-embedding", "FILE", "embedding", "a condition vector, .npy or .safetensors"),
)


RAW = ("s16le", "s32le", "f32le")  # types of samples of a pipe without header
JOBS = 2  # files at once
LIVE_OPTIONS = ("raw", "rate", "channels", "microphone", "speaker")


class UsageError(Exception):
    """Options that are wrong or do not go together; the text is one sentence."""


class ShortHelp(argparse.Action):
    """Prints SHORT_HELP and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        parser._print_message(parser.short_help if isinstance(parser, Parser) else SHORT_HELP)
        parser.exit()


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError for wrong options and OSError for a full standard output."""

    short_help = SHORT_HELP

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        names = message.partition("unrecognized arguments: ")[2]
        options = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(names.split("=")[0].partition(" ")[0], options, 1, cutoff=0.75)
        hint = f" Did you mean {close[0]}?" if close else ""
        if any(map(os.path.exists, names.split())):
            hint = " Write -- in front of names that begin with -."
        raise UsageError(f"{message[:1].upper()}{message[1:].rstrip('.')}.{hint}")

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file, flush=True)


def build_parser() -> Parser:
    """Return the parser of `separate`."""
    parser = Parser(
        prog="separate",
        usage='separate --query "dog barking" [options] FILE ...',
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    add_queries(parser)

    add = parser.add_argument_group("what to write").add_argument
    add("-o", "--output", metavar="FOLDER", help="output folder (created if needed); - is standard output")
    add("--residual", action="store_true", help="also write the rest: input minus target")
    add("--format", metavar="NAME", help=f"one of {', '.join(FORMATS)}")
    add("--subtype", metavar="NAME", help="sample type: FLOAT, PCM_16, PCM_24, ... (or 16, 24)")
    add("--clip", choices=CLIPS, help="samples beyond full scale: turn the file down, clip them, or keep them (float)")
    add("--sound-only", action="store_true", help="write only the sound of a film, also with --remove and --gain")
    add("--bitrate", metavar="N", type=explained(parse_bit_rate), help="kbit/s of mp3, ogg, opus, m4a and films")
    add("--plot", action="store_true", help="draw spectrograms (PNG) for each query; with --list, a timeline")
    add("--overwrite", action="store_true", help="replace existing files")
    add("--skip-existing", action="store_true", help="skip files whose outputs exist, to continue a run; with"
        " --overwrite, redo those whose recording or options have changed")  # fmt: skip

    add = parser.add_argument_group("live sound").add_argument
    add("--live", action="store_true", help="separate sound as it arrives: from standard input to standard output,"
        " or from microphone to speaker if no input is piped in")  # fmt: skip
    add("--raw", choices=RAW, help="standard input and output are samples of this type, without a wav header")
    add("--rate", type=int, metavar="HZ", help="of --raw, or of the sound card")
    add("--channels", type=int, metavar="N", help="of --raw or of the sound card (default: 1)")
    add("--microphone", metavar="NAME", help="number or a part of the name of a device (default: the system's)")
    add("--speaker", metavar="NAME", help="likewise")

    add = parser.add_argument_group("how").add_argument
    add("--model", metavar="NAME",
        help="a name, model directory, checkpoint or owner/name on the Hub (default: built-in)")  # fmt: skip
    add("--faithful", action="store_true", help="use a released model's published segments, level and masks")
    add("--trust", action="append", default=[], metavar="PACKAGE", help="allow models to run code of this package")
    add("--offline", action="store_true", help="never use the network, not even to download a model")
    add("--list-models", action="store_true", help="show the available models")
    add("--sounds", nargs="?", const="", metavar="WORD", help="show the known sounds, or those close to a word")
    add("--device", default="auto", choices=("auto", "cpu", "gpu", "cuda", "mps"), help="default: auto")
    add("--precision", default="auto", choices=("auto", "float32", "bfloat16"), help="for convolutions (default: auto)")
    add("--threads", type=int, metavar="N", help="processor threads (default: all)")
    add("--jobs", type=int, metavar="N", default=JOBS,
        help="files at once: one is computed, others are read and written beside it (default: 2)")  # fmt: skip

    add = parser.add_argument_group("what to print").add_argument
    add("-h", action=ShortHelp, nargs=0, help="show the most frequent uses and exit")
    add("--help", action="help", help="show all options and exit")
    add("--json", action="store_true", help="print one line of JSON for each file")
    add("-q", "--quiet", action="store_true", help="print errors only")
    add("-v", "--verbose", action="store_true", help="print more, and tracebacks of unexpected errors")
    add("--version", action="version", version=f"separate {__version__}", help="show the version and exit")
    return parser


def add_queries(parser: Parser) -> None:
    """Add the options that say what to separate."""
    add = parser.add_argument_group("what to separate").add_argument
    add("files", nargs="*", metavar="FILE", help="audio or video files, patterns ('*.wav'), folders (-r), - for stdin")
    for option, metavar, form, text in QUERY_OPTIONS:
        read = partial(parse_query, form)
        add(option, action="append", default=[], dest="query", metavar=metavar, type=read, help=text)
    more: Any = {"action": "append", "default": [], "metavar": "TEXT"}
    add("--not", dest="negative", help="a sound to exclude from every result; repeatable", **more)
    add("--as-one", action="store_true", help="take sentences that name several sounds as one sound")
    add("--subclasses", action="store_true", help="include subclasses of --query-class (needs AudioSet's ontology)")
    add("--remove", help="a sound to remove: write what is left; if repeated, one file without any of them", **more)
    add("--each", action="store_true", help="write one file for each --remove")
    add("--gain", help="change the level of a sound (speech=+3, wind=-inf) and write one remix; repeatable",
        action="append", default=[], metavar="SOUND=DB", type=explained(parse_gain))  # fmt: skip
    add("--from", dest="begin", metavar="TIME", type=explained(parse_time), help="start of the part to process")
    add("--to", dest="end", metavar="TIME", type=explained(parse_time), help="end of it: seconds, mm:ss or h:mm:ss")
    add("--list", action="store_true", help="list the sounds that are probably in each file instead of separating")
    add("--array", metavar="WHAT", help="with --list: tell where sounds are; the channels are stereo, ambix, fuma, or"
        " microphones (a JSON or YAML file of positions in metres, or the positions)")  # fmt: skip
    add("--all", action="store_true", help="separate all sounds that --list finds, and write the rest as well")
    add("--track", metavar="N", type=explained(parse_track), help="audio track of a film: number from 1, or language")
    add("-r", "--recursive", action="store_true", help="search folders and their subfolders")


def parse_track(text: str) -> int | str:
    """Convert "2" to 1, the index of the second track; a language such as "eng" stays."""
    if text.isdecimal() and int(text):
        return int(text) - 1
    if not text.isalpha():
        raise ValueError(f"“{text}” is neither a number from 1 nor a language such as eng")
    return text.lower()


def explained(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return an argument type that shows the message of a ValueError to the user."""

    def read(value: str) -> Any:
        try:
            return convert(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def parse_query(form: str, value: str) -> tuple[str, str]:
    """Return the form and value of a query; raise ArgumentTypeError if its file is missing or of another kind."""
    if form in ("text", "label"):
        return form, value
    if not value:
        raise argparse.ArgumentTypeError("it is empty")
    path = expand_home(value)  # also makes ./a.wav and a.wav one query
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{value} does not exist")
    if path.is_dir() and form != "audio":
        raise argparse.ArgumentTypeError(f"{value} is a folder, not a file")
    if form == "embedding" and path.suffix.lower() not in (".npy", ".safetensors"):
        raise argparse.ArgumentTypeError(f"{value} must end in .npy or .safetensors")
    return form, str(path)


def parse(argv: Sequence[str] | None, parser: Parser | None = None) -> tuple[argparse.Namespace, list[Request]]:
    """Return options and requests of `build_parser` or a `parser` with more; raise UsageError if they are wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    stop = arguments.index("--") if "--" in arguments else len(arguments)  # argparse mishandles it between options
    if empty := [each for each in arguments[:stop] if each.startswith("--") and each.endswith("=--")]:
        raise UsageError(f"{empty[0].removesuffix('=--')} needs a value, not --.")  # argparse would drop it
    options = (parser or build_parser()).parse_intermixed_args(arguments[:stop])
    options.files += arguments[stop + 1 :]
    if blank := [name for name in ("model", "format") if getattr(options, name) == ""]:
        raise UsageError(f"--{blank[0]} is empty.")
    options.model = options.model or ("live" if options.live else "default")
    if options.list_models:
        return options, []
    if options.sounds is not None:
        if options.query or options.remove or options.gain or options.files:
            raise UsageError("--sounds takes one text, of several words in quotes, and neither queries nor files.")
        return options, []
    requests = build_requests(options)
    if options.subclasses and not any(form == "label" for form, _ in options.query):
        raise UsageError("--subclasses needs --query-class.")
    if options.list or options.all:
        names = ["query", "remove", "gain", "negative", "residual", "each"]
        if options.list:
            names += ["all", "format", "subtype", "clip", "bitrate"] + ([] if options.plot else ["output"])
        reason = "--list does not separate" if options.list else "--all separates what it finds"
        for name in names:
            if getattr(options, name):
                option = "not" if name == "negative" else name
                raise UsageError(f"{reason}, so it cannot be combined with --{option}.")
    elif not requests:
        lonely = "--not needs --query. " if options.negative else ""
        raise UsageError(f'{lonely}Say what to separate, for example --query "dog barking".')
    if options.array is not None and not options.list:
        raise UsageError("--array needs --list.")
    if options.skip_existing and options.list:
        raise UsageError("--skip-existing cannot be combined with --list.")
    if options.each and not options.remove:
        raise UsageError("--each needs --remove: it writes one file for each sound to remove.")
    if options.each and options.gain:
        raise UsageError("--each cannot be combined with --gain.")
    begin, end = options.begin or 0.0, math.inf if options.end is None else options.end
    if not begin < end:
        raise UsageError(f"--from must lie before --to, but {begin:g} s is not before {end:g} s.")
    options.span = None if options.begin is None and options.end is None else Span(begin, end)
    check_live(options, requests)
    if "" in options.files:
        raise UsageError("The name of a file is empty.")
    if not options.files and not options.live:
        raise UsageError("Name at least one file, or - for standard input.")
    for name in ("threads", "jobs", "rate", "channels"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, not {getattr(options, name)}.")
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib, which is not installed: pip install matplotlib.")
    check_format(options.format, options.subtype, options.bitrate)
    if not options.live:
        check_output(options, requests)
    return options, requests


def check_live(options: argparse.Namespace, requests: Sequence[Request]) -> None:
    """Raise UsageError if options do not go together with --live, or need it."""
    if not options.live:
        if given := [name for name in LIVE_OPTIONS if getattr(options, name) is not None]:
            raise UsageError(f"--{given[0]} needs --live.")
        return
    names = ("list", "all", "residual", "each", "output", "format", "subtype", "clip", "bitrate", "plot", "json",
             "overwrite", "skip_existing", "recursive", "span", "track", "faithful", "sound_only")  # fmt: skip
    if given := [name for name in names if getattr(options, name)] or ["jobs"] * (options.jobs != JOBS):
        option = {"span": "from or --to"}.get(given[0], given[0].replace("_", "-"))
        raise UsageError(f"--live cannot be combined with --{option}.")
    if options.files not in ([], [STANDARD]):
        raise UsageError(f"--live takes no files: separate {options.files[0]} without it, or pipe its sound in.")
    if sum(request.target + request.residual for request in [*requests, *blend_of(requests)]) != 1:
        raise UsageError("--live has one result: give one --query, or sounds to change with --remove and --gain.")
    if options.raw and options.rate is None:
        raise UsageError("--raw needs --rate, and --channels unless it is mono.")


def build_requests(options: argparse.Namespace) -> list[Request]:
    """Make one request for each distinct query. A sound that is both extracted and removed is separated once.

    Sounds that are changed or, if there are several, removed are requests with a gain. They share one output file.
    """
    negative = [tidy_text(text, "--not") for text in options.negative]
    removed = [tidy_text(text, "--remove") for text in options.remove]
    gains = [(tidy_text(text, "--gain"), gain) for text, gain in options.gain]
    removed = list({text.casefold(): text for text in removed}.values())
    if gains or (len(removed) > 1 and not options.each):
        gains += [(text, -math.inf) for text in removed]
        removed = []
    changed, folded = dict(gains), [text.casefold() for text, _ in gains]
    if twice := [text for text in changed if folded.count(text.casefold()) > 1]:
        raise UsageError(f"“{twice[0]}” is changed twice; name each sound once.")
    wanted: dict[tuple[str, str], list[bool]] = {}  # (form, value) -> [target, residual]
    for form, value in options.query:
        option = {"text": "--query", "label": "--query-class"}.get(form)
        wanted[form, tidy_text(value, option) if option else value] = [True, options.residual]
    for text in removed:
        wanted.setdefault(("text", text), [False, True])[1] = True
    if both := find_excluded([*(value for form, value in wanted if form == "text"), *changed], negative):
        raise UsageError(f"“{both[0]}” is asked for, so --not cannot exclude it.")
    requests: list[Request] = []
    unwanted = [Query(text, as_one=True) if options.as_one else text for text in negative]
    rows = [(form, value, target, residual, None) for (form, value), (target, residual) in wanted.items()]
    for form, value, target, residual, gain in rows + [("text", text, False, False, changed[text]) for text in changed]:
        given: dict[str, Any] = {form: value}
        query = Query(
            **given, negative=unwanted, as_one=options.as_one, subclasses=form == "label" and options.subclasses
        )
        name, number = query.name, 1
        while any(name == other.name and (gain is None) == (other.gain is None) for other in requests):
            number += 1
            name = f"{query.name} {number}"
        plain = form == "text" and not (negative or options.as_one)
        requests.append(Request(name, value if plain else query, target, residual, gain))
    return requests


def tidy_text(text: str, option: str) -> str:
    """Return the text on one line, with single spaces; raise UsageError if it has no letter or digit."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise UsageError(f"{option} is not text in this locale; LC_ALL=C.UTF-8 may help.")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not has_word(text):
        problem = f'{option} "{text}" contains no word' if text else f"{option} is empty"
        raise UsageError(f'{problem}. Describe the sound, for example {option} "dog barking".')
    return text


def check_format(name: str | None, subtype: str | None, bit_rate: int | None = None) -> None:
    """Raise UsageError if the format or sample type is unknown or has no bit rate."""
    try:
        if name:
            if find_subtype(find_format(name), subtype) not in COMPRESSION and bit_rate:
                raise UsageError(f"--bitrate is for mp3, ogg, opus, m4a and films; {name} has no bit rate.")
            return
    except AudioError as error:
        raise UsageError(str(error)) from None
    for entry in FORMATS.values():
        with contextlib.suppress(AudioError):
            find_subtype(entry, subtype or None)
            return
    known = sorted({known for entry in FORMATS.values() for known in entry.subtypes})
    raise UsageError(f"Unknown sample type {subtype!r}. Use one of {', '.join(known)}.")


def check_model(model: str, device: str) -> None:
    """Raise UsageError, before any file is opened, if a model or device does not exist. Nothing is downloaded."""
    from separation.pretrained import check_name

    try:
        check_name(model)
    except ModelError as error:
        raise UsageError(str(error)) from None
    if device not in ("auto", "cpu"):
        from separation.devices import find_device

        try:
            find_device(device)
        except ValueError as error:
            raise UsageError(f"--device {device}: {error}") from None


def parse_array(text: str | None) -> Any:
    """Return the array that --array names; raise UsageError if it is none."""
    if text is None:
        return None
    from separation.inference.direction import Array

    try:
        return Array.parse(text)
    except ValueError as error:
        raise UsageError(f"--array {error}") from None


ONE_RESULT = "Standard output takes one result of one file. Use -o FOLDER for more."


def writes_to_stdout(options: argparse.Namespace) -> bool:
    """Whether audio goes to standard output: on request, and by default if standard input is the only input."""
    to_stdout: bool = options.output == STANDARD or (options.output is None and options.files == [STANDARD])
    return to_stdout and not options.list


def check_output(options: argparse.Namespace, requests: list[Request]) -> None:
    """Raise UsageError if the options for the destination contradict each other."""
    output, files = options.output, options.files
    if output == "":
        raise UsageError("-o is empty. Name a folder.")
    if options.list and output == STANDARD:
        raise UsageError("--list always prints to standard output; -o is the folder for its pictures.")
    if writes_to_stdout(options):
        results = sum(request.target + request.residual for request in [*requests, *blend_of(requests)])
        if len(files) != 1 or results != 1:
            raise UsageError(ONE_RESULT)
        if options.json or options.plot:
            raise UsageError("--json and --plot need -o FOLDER when the audio goes to standard output.")
    elif output is None:
        if STANDARD in files and not options.list:
            raise UsageError("Standard input together with files needs -o FOLDER.")
    elif not os.path.isdir(output):
        if os.path.exists(output):
            raise UsageError(f"-o needs a folder, but {output} is a file.")
        if Path(output).suffix.lower().lstrip(".") in FORMATS:
            raise UsageError(f"-o needs a folder, but {output} looks like a file name.")
