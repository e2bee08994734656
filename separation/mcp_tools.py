"""The tools of `separate-mcp`, with the official SDK of the Model Context Protocol (extra `mcp`)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.types import ToolAnnotations
from pydantic import Field, ValidationError

from separation import __version__
from separation.audio import Reader
from separation.errors import AudioError, Cancelled, ModelError, one_sentence, reason
from separation.inference.changes import Span
from separation.inference.results import FileSeparation, FractionWatch
from separation.mcp_server import Folders
from separation.outputs.records import rounded
from separation.presence import presence_word
from separation.query import Query, find_excluded, has_word

MAX_HOURS, MAX_SOUNDS, MAX_LETTERS = 4, 20, 300  # of a recording, of a request, of a sound's description
PROGRESS_SECONDS = 0.2
SILENT_DB = -100.0  # JSON has no -inf

INSTRUCTIONS = """\
Tools for recordings (audio files and the sound of videos) in these folders: {folders}. Name files by absolute path or
relative to a folder. Each sound is described in a few English words for what is heard: "dog barking", "rain on a tin
roof", "a woman speaking", "electric guitar"; not by a sentence about the recording, a time, a position or "everything
but". Use list_sounds first if you do not know what a recording contains, and its labels as descriptions.
Several sounds: give them as separate entries of one call, which is quicker than several calls. To keep a sound out of
the result, name it in `without`. To clean a recording (remove noise, wind, coughs), use `remove` with what disturbs; to
keep one sound, `separate` it. To change levels, use `remix`. Presence says how probably a sound occurs: "absent" means
that the result is of little use, and another wording may be better. Nothing is ever uploaded.
"""

File = Annotated[str, Field(description="The recording: absolute path, or relative to a served folder.")]
Sounds = Annotated[list[str], Field(description="Sounds in a few words each, for example ['dog barking', 'rain'].")]
Without = Annotated[list[str], Field(description="Sounds to keep out of every result.")]
Rest = Annotated[bool, Field(description="Also write, for each sound, the recording without it.")]
Gains = Annotated[dict[str, float], Field(description="dB by sound, e.g. {'speech': 3, 'traffic': -12}.")]
Directions = Annotated[bool, Field(description="Also tell where sounds are in a stereo recording.")]
Start = Annotated[float, Field(description="Start of the part to process, in seconds.")]
End = Annotated[float | None, Field(description="End of the part to process, in seconds; null: the end.")]
Output = Annotated[str | None, Field(description="Folder for the results, in a served folder; null: the recording's.")]
Overwrite = Annotated[bool, Field(description="Whether existing files may be replaced; ask the user first.")]
Format = Annotated[str | None, Field(description="wav, flac, mp3, ogg, ...; null: as the recording.")]


@dataclass
class FoundSound:
    """A sound: presence 0 to 1, the word for it (present, uncertain, absent), spans (from, to) in seconds."""

    sound: str
    presence: float | None
    word: str | None
    spans: list[tuple[float, float]] | None
    direction: dict[str, Any] | None = None


@dataclass
class WrittenFile:
    """A file that was written; `relative` to the served folder that contains it."""

    content: str
    relative: str
    absolute: str


@dataclass
class Result:
    """What was found in a recording of `seconds`, what was written, and notes on how queries were understood."""

    file: str
    seconds: float
    sounds: list[FoundSound]
    outputs: list[WrittenFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Watch(FractionWatch):
    """Shows progress, stops when asked to, and refuses recordings that are too long."""

    def __call__(self, blocks: Iterable[Any], stage: str, frames: int | None) -> Iterator[Any]:
        done = 0
        for block in super().__call__(blocks, stage, frames):
            done += block.shape[-1]
            if done > MAX_HOURS * 3600 * self.step:
                raise AudioError(f"The recording is longer than {MAX_HOURS} hours.")
            yield block


class Tools:
    """What the server does, one request at a time. The model is loaded for the first one and kept.

    Args:
        folders: where recordings are.
        model, device: as of `Separator.from_pretrained`.
    """

    def __init__(self, folders: Folders, model: str, device: str) -> None:
        self.folders, self.model, self.device = folders, model, device
        self.one_at_a_time = anyio.Lock()

    @cached_property
    def separator(self) -> Any:
        """The model."""
        from separation.separator import Separator

        return Separator.from_pretrained(self.model, device=None if self.device == "auto" else self.device)

    async def list_sounds(
        self, file: File, start: Start = 0.0, end: End = None, directions: Directions = False,
        ctx: Context | None = None,
    ) -> Result:  # fmt: skip
        """List the sounds that are probably in a recording, and when, the most certain first. Writes nothing."""

        def work(watch: Watch, path: Path, reader: Reader) -> Result:
            separator = self.separator
            frames, level = separator.measure(reader, watch)
            blocks = watch(reader.blocks(), "separating", frames)
            sounds = separator.list_sounds_in_blocks(blocks, reader.sample_rate, level, span=as_span(start, end))
            if directions and sounds:
                if reader.channels != 2:
                    raise AudioError(f"{file} has {reader.channels} channels; directions need two.")
                blocks = watch(reader.blocks(), "separated", frames)
                sounds = separator.locate_sounds(sounds, blocks, reader.sample_rate, level)
            found = [describe(each.label, each.probability, each.times, each.as_json()["direction"]) for each in sounds]
            return Result(str(path), frames / reader.sample_rate, found)

        return await self.run(ctx, file, work)

    async def separate(
        self, file: File, sounds: Sounds, without: Without = [], rest: Rest = False, output: Output = None,  # noqa: B006
        format: Format = None, start: Start = 0.0, end: End = None, overwrite: Overwrite = False,
        ctx: Context | None = None,
    ) -> Result:  # fmt: skip
        """Extract sounds from a recording: writes one file for each, as long as the recording, and tells whether and
        when each occurs.
        """
        names = check_sounds(sounds)
        unwanted = check_sounds(without) if without else []
        if both := find_excluded(names, unwanted):
            raise ToolError(f"“{both[0].casefold()}” cannot be in both sounds and without.")
        queries = [Query(name, negative=unwanted) for name in names] if without else names
        contents = [part for name in names for part in (name, f"without {name}")[: 1 + rest]]
        options = {"queries": queries, "residual": rest, "format": format, "overwrite": overwrite}
        return await self.write(ctx, file, names, contents, output, as_span(start, end), **options)

    async def remove(
        self, file: File, sounds: Sounds, output: Output = None, format: Format = None, start: Start = 0.0,
        end: End = None, overwrite: Overwrite = False, ctx: Context | None = None,
    ) -> Result:  # fmt: skip
        """Remove sounds from a recording: writes one file without any of them; a video keeps its pictures."""
        names = check_sounds(sounds)
        contents, options = [f"without {', '.join(names)}"], {"remove": names, "format": format, "overwrite": overwrite}
        return await self.write(ctx, file, names, contents, output, as_span(start, end), **options)

    async def remix(
        self, file: File, gains: Gains, output: Output = None, format: Format = None, start: Start = 0.0,
        end: End = None, overwrite: Overwrite = False, ctx: Context | None = None,
    ) -> Result:  # fmt: skip
        """Make sounds in a recording louder or softer (up to +60 dB; -100 is silence); all else stays as it is. Writes
        one file; a video keeps its pictures.
        """
        names = check_sounds(list(gains))
        levels = [gain if gain > SILENT_DB else -math.inf for gain in gains.values()]
        pairs = list(zip(names, levels, strict=True))
        contents = [", ".join(f"{name} {gain:+g} dB" for name, gain in pairs)]
        options = {"gains": pairs, "format": format, "overwrite": overwrite}
        return await self.write(ctx, file, names, contents, output, as_span(start, end), **options)

    async def write(
        self, ctx: Context | None, file: str, names: list[str], contents: list[str], output: str | None, span: Span,
        **options: Any,
    ) -> Result:  # fmt: skip
        """Separate a recording, with options of `Separator.separate_file`, into files with the given contents."""

        def work(watch: Watch, path: Path, reader: Reader) -> Result:
            folder, separator = self.folders.output(output, path), self.separator
            measured = separator.measure(reader, watch)
            spans: list[Any] = [None] * len(names)
            if separator.model.lists_sounds:  # before anything is written, so that a request can be cancelled
                blocks = watch(reader.blocks(), "separating", measured[0])
                found = separator.when_in_blocks(blocks, reader.sample_rate, measured[1], names)
                inside = [[(max(a, span.begin), min(b, span.end)) for a, b in each] for each in found]
                spans = [[pair for pair in each if pair[0] < pair[1]] for each in inside]
            done: FileSeparation = separator.separate_file(
                reader, watch=watch, span=span, measured=measured, output=folder, **options
            )
            sounds = [describe(*each) for each in zip(names, done.presence, spans, strict=True)]
            notes = [str(hint) for name in names for hint in separator.suggest(name)]
            roots = [self.folders.root_of(each.resolve()) or folder for each in done.outputs]
            written = [
                WrittenFile(content, str(each.relative_to(root)), str(each))
                for content, each, root in zip(contents, done.outputs, roots, strict=True)
            ]
            return Result(str(path), done.frames / reader.sample_rate, sounds, written, notes)

        return await self.run(ctx, file, work)

    async def run(self, ctx: Context | None, file: str, work: Callable[[Watch, Path, Reader], Result]) -> Result:
        """Do the work in a thread; report progress meanwhile, and stop it if the request is cancelled.

        Raises:
            ToolError: for every error, with one sentence.
        """
        stop, completed, results = threading.Event(), [0.0], []

        def note(fraction: float) -> bool:
            completed[0] = fraction
            return not stop.is_set()

        def call() -> None:
            path = self.folders.recording(file)
            reader = Reader(path)
            results.append(work(Watch(note, reader.sample_rate), path, reader))

        async def tell() -> None:
            told = 0.0
            try:
                while True:
                    await anyio.sleep(PROGRESS_SECONDS)
                    if ctx and completed[0] > told:
                        told = completed[0]
                        await ctx.report_progress(told, 1.0)
            finally:
                stop.set()

        problem: Exception | None = None
        async with self.one_at_a_time, anyio.create_task_group() as group:
            group.start_soon(tell)
            try:
                await anyio.to_thread.run_sync(call)  # returns soon after `stop` is set
            except Exception as error:
                problem = error
            group.cancel_scope.cancel()
        await anyio.sleep(0)  # a request that is cancelled ends here
        if problem is not None:
            raise ToolError(explain(file, problem)) from problem
        if ctx:
            await ctx.report_progress(1.0, 1.0)
        return results[0]


class Server(MCPServer):
    """Answers every error with one sentence."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                wrong = cause.errors()[0]
                where = ".".join(map(str, wrong["loc"]))
                raise ToolError(one_sentence(f"{name}: {where}: {wrong['msg']}.")) from None
            raise ToolError(one_sentence(cause if isinstance(cause, ToolError) else error)) from None


def build_server(folders: Folders, model: str = "default", device: str = "auto") -> Server:
    """Return the server; nothing is loaded before a tool needs it."""
    tools = Tools(folders, model, device)
    instructions = INSTRUCTIONS.format(folders=", ".join(map(str, folders.roots)))
    served = []
    for work in (tools.list_sounds, tools.separate, tools.remove, tools.remix):
        hints = ToolAnnotations(read_only_hint=work == tools.list_sounds, open_world_hint=False)
        served.append(tool := Tool.from_function(work, annotations=hints))
        arguments = tool.fn_metadata.arg_model
        arguments.model_config["extra"] = "forbid"
        arguments.model_rebuild(force=True)
        tool.parameters = arguments.model_json_schema(by_alias=True)
    about: dict[str, Any] = {"title": "Sound separation", "version": __version__, "log_level": "WARNING"}
    return Server("separate", instructions=instructions, tools=served, **about)


def check_sounds(sounds: list[str]) -> list[str]:
    """Return descriptions on one line each, without repetitions; raise ToolError if one is empty or too long."""
    names = list(dict.fromkeys(" ".join(sound.split()) for sound in sounds))
    if not 1 <= len(names) <= MAX_SOUNDS or len(names) < len(sounds):
        raise ToolError(f"Name 1 to {MAX_SOUNDS} different sounds.")
    for name in names:
        if not has_word(name) or len(name) > MAX_LETTERS or not name.isprintable():
            raise ToolError(f"Describe each sound in a few words, at most {MAX_LETTERS} letters: not “{name[:40]}”.")
    return names


def as_span(start: float, end: float | None) -> Span:
    """Return a part of a recording; raise ToolError if it is empty."""
    try:
        return Span(start, math.inf if end is None else end)
    except ValueError as error:
        raise ToolError(str(error)) from None


def describe(sound: str, presence: float, spans: Any, direction: dict[str, Any] | None = None) -> FoundSound:
    """Return what is told about a sound; a model that does not estimate presence tells none."""
    return FoundSound(sound, rounded(presence), presence_word(presence), spans and list(spans), direction)


def explain(file: str, error: Exception) -> str:
    """Return an error as one sentence."""
    if isinstance(error, Cancelled):
        return "The request was cancelled; nothing was written."
    if isinstance(error, OSError):
        return f"{error.filename or file}: {reason(error)}."
    if isinstance(error, MemoryError):
        return f"There is not enough memory for {file}."
    if isinstance(error, (AudioError, ModelError, ValueError, ToolError)):
        return one_sentence(error)
    return one_sentence(f"{file} could not be processed: {type(error).__name__}: {error}")
