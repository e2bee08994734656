"""The command line of `separate`: its options, its help, and what may not be combined."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from separation.audio.formats import FORMATS, find_format, find_subtype
from separation.errors import AudioError
from separation.inputs import STANDARD
from separation.query import Query, has_word
from separation.terminal import put

DESCRIPTION = """\
Takes the sound that you describe out of a recording.

Each query gives one file beside the input: mix.wav becomes mix.dog_barking.wav.
Sample rate, channels and length stay the same, files may be hours long, and
nothing that exists is replaced unless you say --overwrite.
"""

EXAMPLES = """\
examples:
  separate --query "dog barking" mix.wav
      writes mix.dog_barking.wav
  separate --query "dog barking" --query rain *.wav -o out/
      writes out/<name>.dog_barking.wav and out/<name>.rain.wav, one pass over each file
  separate --query "dog barking" --residual mix.flac
      also writes mix.not_dog_barking.flac; the two add up to the input
  separate --remove "dog barking" mix.wav
      writes only mix.not_dog_barking.wav
  separate --query speech -r recordings/ -o speech/ --json > report.jsonl
      every recording in a folder and its subfolders, with one line of JSON each
  separate --query-audio bark.wav mix.wav
      what sounds like this recording (or like those in a folder); writes mix.bark.wav
  separate --query speech --not music mix.wav
      leaves out what music shares with it; writes mix.speech_without_music.wav
  separate --list mix.wav
      what is probably in it, of the sounds that the model knows, and when
  ffmpeg -i film.mkv -f wav - | separate --query siren - > siren.wav
      through a pipe

formats:
  wav gives float32 wav, flac gives 24-bit flac, ogg / opus / mp3 give the same;
  other containers (m4a, mp4, ...) give wav. --format and --subtype choose.

queries:
  The built-in model takes texts, example recordings and embeddings; what others take,
  such as pictures (CLIPSep) or AudioSet classes (USS), is listed by --list-models.
  Each query, of whatever form, gives a result of its own.

presence is how likely the sound is in the recording at all, from 0 to 1.
exit status: 0 all done, 1 a file failed (the others are done), 2 wrong usage, 130 interrupted.
"""


class UsageError(Exception):
    """The command line asks for something that cannot be; the text is one sentence."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are exceptions."""

    def print_help(self, file: Any = None) -> None:
        """Prints the help to standard output, whose errors are sentences."""
        put(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        """Raises UsageError instead of leaving the program."""
        raise UsageError(message[:1].upper() + message[1:].rstrip(".") + ".")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: object, **more: object) -> NoReturn:
        from separation import __version__

        put(f"separate {__version__}")
        parser.exit()


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
    _add_what(parser.add_argument_group("what to separate"))
    _add_output(parser.add_argument_group("what to write"))
    _add_model(parser.add_argument_group("how"))
    _add_reports(parser.add_argument_group("what to hear about it"))
    return parser


def _existing(form: str, suffixes: tuple[str, ...], name: str) -> tuple[str, str]:
    """A query by a file that is there.

    Raises:
        ArgumentTypeError: it is not, or of another kind.
    """
    path = Path(name).expanduser()
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{name} does not exist")
    if path.is_dir() and form != "audio":
        raise argparse.ArgumentTypeError(f"{name} is a folder, not a file")
    if suffixes and path.suffix.lower() not in suffixes:
        raise argparse.ArgumentTypeError(f"{name} must end in {' or '.join(suffixes)}")
    return form, str(path)


def _given(form: str, value: str) -> tuple[str, str]:
    """A query by a text or a class."""
    return form, value


# option, what becomes of its value, how the help calls that, and what it says
ASKING = (
    ("--query", partial(_given, "text"), "TEXT", "the sound to take out; this and the next four are repeatable"),
    ("--query-audio", partial(_existing, "audio", ()), "PATH", "a recording that shows the sound, or a folder of them"),
    ("--query-class", partial(_given, "label"), "NAME", "a class's name, id or number, such as Dog or /m/0bt9lr"),
    ("--query-image", partial(_existing, "image", ()), "FILE", "a picture of what sounds"),
    (
        "--query-embedding",
        partial(_existing, "embedding", (".npy", ".safetensors")),
        "FILE",
        "a condition vector, .npy or .safetensors",
    ),
)


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="audio files, patterns such as '*.wav', folders with -r, or - for standard input",
    )
    for option, kind, metavar, text in ASKING:
        group.add_argument(option, action="append", default=[], dest="query", type=kind, metavar=metavar, help=text)
    group.add_argument(
        "--not",
        action="append",
        default=[],
        dest="negative",
        metavar="TEXT",
        help="a sound to keep out of every result; repeatable",
    )
    group.add_argument(
        "--subclasses",
        action="store_true",
        help="--query-class also means the classes below it (needs AudioSet's ontology.json)",
    )
    group.add_argument(
        "--remove",
        action="append",
        default=[],
        metavar="TEXT",
        help="a sound to take away, writing only the rest; repeatable",
    )
    group.add_argument(
        "--list", action="store_true", help="separate nothing: list the known sounds that are probably in each file"
    )
    group.add_argument("-r", "--recursive", action="store_true", help="go through folders and their subfolders")


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="write here, not beside each input (made if needed); - is standard output",
    )
    group.add_argument("--residual", action="store_true", help="also write what is left: input minus target")
    group.add_argument("--format", metavar="NAME", help=f"one of {', '.join(FORMATS)}")
    group.add_argument("--subtype", metavar="NAME", help="sample type: FLOAT, PCM_16, PCM_24, ... (or 16, 24)")
    group.add_argument("--plot", action="store_true", help="a PNG with spectrograms for each query")
    group.add_argument("--overwrite", action="store_true", help="replace outputs that exist")


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        default="default",
        metavar="NAME",
        help="a model's name, its directory or a released checkpoint (default: the built-in one)",
    )
    group.add_argument(
        "--faithful",
        action="store_true",
        help="a released model's published inference instead of ours: its segments, level, masks",
    )
    group.add_argument("--offline", action="store_true", help="never use the network, not even to fetch a model")
    group.add_argument("--list-models", action="store_true", help="show which models there are")
    group.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="default: auto")
    group.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")


def _add_reports(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--json", action="store_true", help="one line of JSON for each file on standard output")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="say more, with tracebacks of unforeseen errors",
    )
    group.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked against each other.

    `query` and `remove` hold the queries' names, which are the texts where they are texts alone, and `forms` the
    `Query` of every other name.

    Raises:
        UsageError: for what cannot be.
    """
    options = build_parser().parse_intermixed_args(argv)
    if options.list_models:
        return options
    options.negative = [_tidy(text, "--not") for text in options.negative]
    options.forms, options.named = {}, {}
    options.query = _named(options, options.query, {"text": "--query", "label": "--query-class"})
    options.remove = _named(options, [("text", text) for text in options.remove], {"text": "--remove"})
    if options.subclasses and not any(query.label for query in options.forms.values()):
        raise UsageError("--subclasses goes with --query-class.")
    if options.list:
        _check_listing(options)
    elif not options.query and not options.remove:
        raise UsageError('Say what to separate, for example --query "dog barking".')
    if not options.files:
        raise UsageError("Name at least one file, or - for standard input.")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads must be 1 or more, not {options.threads}.")
    _check_format(options)
    _check_output(options)
    return options


def _check_listing(options: argparse.Namespace) -> None:
    for option in ("query", "remove", "negative", "output", "residual", "plot", "format", "subtype"):
        if getattr(options, option):
            name = {"negative": "not"}.get(option, option)
            raise UsageError(f"--list separates nothing, so --{name} does not go with it.")


def _named(options: argparse.Namespace, asked: list[tuple[str, str]], option: dict[str, str]) -> list[str]:
    """The names of some queries, no two queries' alike; those that are more than a text are kept in `options.forms`."""
    tidy = [(form, _tidy(value, option[form]) if form in option else value) for form, value in asked]
    names = []
    for form, value in dict.fromkeys(tidy):
        given: dict[str, Any] = {form: value, "negative": options.negative}
        query = Query(**given, subclasses=form == "label" and options.subclasses)
        name, number = query.name, 1
        while options.named.setdefault(name, (form, value)) != (form, value):
            number += 1
            name = f"{query.name} {number}"
        names.append(name)
        if form != "text" or options.negative or name != value:
            options.forms[name] = query
    return names


def _tidy(text: str, option: str) -> str:
    tidied = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    if not tidied:
        raise UsageError(f'{option} is empty: say what to listen for, for example {option} "dog barking".')
    if not has_word(tidied):
        raise UsageError(
            f'{option} "{tidied}" holds no word: say what to listen for, for example {option} "dog barking".'
        )
    return tidied


def _check_format(options: argparse.Namespace) -> None:
    try:
        if options.format:
            find_subtype(find_format(options.format), options.subtype)
        elif options.subtype:
            _check_subtype_exists(options.subtype)
    except AudioError as error:
        raise UsageError(str(error)) from None


def _check_subtype_exists(name: str) -> None:
    for entry in FORMATS.values():
        try:
            find_subtype(entry, name)
        except AudioError:
            continue
        return
    known = sorted({subtype for entry in FORMATS.values() for subtype in entry.subtypes})
    raise UsageError(f"There is no sample type {name!r}; there are {', '.join(known)}.")


def _check_output(options: argparse.Namespace) -> None:
    output, files = options.output, options.files
    options.to_stdout = not options.list and (output == STANDARD or (output is None and files == [STANDARD]))
    if options.to_stdout:
        _check_stdout(options)
    elif output is None and STANDARD in files and not options.list:
        raise UsageError("Standard input together with files needs -o FOLDER.")
    elif output is not None and not Path(output).is_dir():
        if Path(output).exists():
            raise UsageError(f"-o names a folder, but {output} is a file.")
        if Path(output).suffix.lower().lstrip(".") in FORMATS:
            raise UsageError(f"-o names a folder, and {output} looks like a file.")


def _check_stdout(options: argparse.Namespace) -> None:
    texts = {*options.query, *options.remove}
    if len(options.files) != 1 or len(texts) != 1 or len(options.query) + len(options.remove) != 1 or options.residual:
        raise UsageError("Standard output takes one result of one file; -o FOLDER takes as many as you like.")
    if options.json or options.plot:
        raise UsageError("--json and --plot need -o FOLDER when the audio goes to standard output.")
