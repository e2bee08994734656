"""Separates, remixes and lists recordings, block by block and in constant memory."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from page.engine import Engine
from page.jobs import Ticket
from page.limits import Limits, Refusal, require_disk_space, without_path
from page.queries import Asked, explain, read_example
from page.results import Result, draw_strips
from page.store import GONE
from separation.audio import AudioError, Reader, Writer
from separation.errors import NotFiniteError
from separation.inference.changes import Span
from separation.inference.results import FileSeparation
from separation.plot import Spectrogram
from separation.pretrained import ModelError
from separation.storage.download import replace_when_complete

T = TypeVar("T")

MAX_LISTED = 8  # sounds listed for a recording
MAX_NAMED = 3  # sounds named when a query is absent, as in the command


class Work:
    """The separation of one recording.

    Args:
        engine: the models.
        limits: of the page.
        ticket: of the job; it is asked between two steps whether to continue, and receives the progress.
        source: the uploaded recording.
        folder: an empty folder for the results.
        name: of the recording, as its user knows it.
    """

    def __init__(
        self, engine: Engine, limits: Limits, ticket: Ticket, source: Path, folder: Path, name: str = "recording"
    ) -> None:
        self.engine, self.limits, self.ticket = engine, limits, ticket
        self.source, self.folder, self.name = source, folder, name
        self.busy = 0.0  # seconds of computing

    def run(self, asked: list[Asked], model: str, removed: bool = False, span: Span | None = None) -> Result:
        """Separate the recording: extract each sound, or remove all of them.

        Raises:
            Refusal, ModelError: with a sentence for the user.
            Cancelled: the job was stopped.
        """
        reader = self.limits.open(self.source)
        separator = self.engine.separator(model, self.ticket.check)
        try:
            frames = self.copy(reader, 1 if removed else len(asked))
        except AudioError as error:
            if isinstance(error.__cause__, OSError):  # of writing
                raise
            raise Refusal(without_path(error, self.source)) from None
        stem = Path("".join(char for char in re.split(r"[\\/]", self.name)[-1] if char.isprintable())).stem
        result = Result(
            self.folder, stem or "recording", reader.sample_rate, reader.channels, frames, model, asked, removed, span
        )
        result.warning = reader.warning and without_path(reader.warning, self.source)
        began = time.monotonic()
        file = self.begin(result, range(len(asked)), removed)
        spectra = self.separate(file, result)
        if any(sound.verdict == "absent" for sound in result.sounds):
            self.ticket.progress.stage = "listening"
            rate, blocks = result.sample_rate, in_turns(self.watch(file.reader.blocks()), self.engine.turn)
            with suppress(ModelError):  # it cannot list sounds
                found = separator.list_sounds_in_blocks(blocks, rate, file.level, most=MAX_NAMED, span=span)
                result.sounding = [sound.label for sound in found]
        if remark := reader.carried.warning:  # of tags that are damaged or too large
            result.hints.append(remark.replace(str(self.source), "This file"))
        if len(reader.tracks) > 1:
            result.hints.append(f"Audio track {reader.track + 1} of {len(reader.tracks)} was used.")
        if span and (remark := span.remark("The recording", round(frames / reader.sample_rate, 3))):
            result.hints.append(remark)
        self.ticket.progress.stage = "finishing"
        result.work_seconds = time.monotonic() - began
        result.view = draw_strips(result, spectra)
        return result

    def begin(
        self, result: Result, numbers: Sequence[int], removed: bool = False, share: bool = False
    ) -> FileSeparation:
        """Prepare the separation of some of the sounds that were asked for, as `Separator.separate_file` does it."""
        separator = self.engine.separator(result.model, self.ticket.check)
        self.ticket.progress.begin(result.frames / result.sample_rate)
        try:
            with self.engine.turn:
                queries = [read_example(result.asked[number].query, self.limits) for number in numbers]
                hints = [str(hint) for query in queries for hint in separator.suggest(query)]
                result.hints = result.hints or list(dict.fromkeys(hints))
                kept, gone = ([], queries) if removed else (queries, [])
                mixture = Reader(result.mixture)
                return separator.separate_file(mixture, kept, self.watch, share, remove=gone, span=result.span)
        except (ModelError, ValueError, OSError) as error:  # of a picture, or of a query without words
            raise Refusal(explain(error, self.folder.parent)) from None

    def watch(self, blocks: Iterable[Tensor], *_: object) -> Iterator[Tensor]:
        """Pass on blocks while the job is wanted; a `Watch` of `Separator.separate_file`."""
        for block in blocks:
            self.ticket.check()
            yield block

    def take_turns(self, pieces: Iterable[T]) -> Iterator[T]:
        """Compute each piece in turn with all other work, while the job is wanted."""
        waiting = iter(pieces)
        while True:
            with self.engine.turn:
                self.ticket.check()
                began = time.monotonic()
                piece = next(waiting, None)
                self.busy += time.monotonic() - began
            if piece is None:
                return
            yield piece

    def copy(self, reader: Reader, outputs: int) -> int:
        """Copy the recording to mixture.wav; return its samples per channel."""
        frames = 0
        form = reader.sample_rate, reader.channels, "wav"
        with Writer(self.folder / "mixture.wav", *form, carried=reader.carried) as writer:
            for block in self.watch(reader.blocks()):
                frames += block.shape[-1]
                if frames > self.limits.frames(reader.sample_rate):
                    raise Refusal(self.limits.too_long)
                require_disk_space(self.folder, block.numel() * 4)
                writer.write(block)
        require_disk_space(self.folder, 2 * outputs * (self.folder / "mixture.wav").stat().st_size)  # with its tags
        return frames

    def separate(self, file: FileSeparation, result: Result) -> dict[str, Spectrogram]:
        """Write targets and residuals; return the spectrogram of every file by name."""
        numbers = range(1 if result.removed else len(result.sounds))
        names = ["mixture", *(f"{n}.{kind}" for n in numbers for kind in ("target", "residual"))]
        spectra = {name: Spectrogram(result.sample_rate, result.frames) for name in names}
        energy = np.zeros(1 + len(numbers))
        form, carried = (result.sample_rate, result.channels), file.reader.carried
        titles = [sound["query"] for sound in result.summary()["sounds"]]
        titles = [title for query in titles for title in (query, f"without {query}")]
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(Writer(self.folder / f"{name}.wav", *form, carried=carried, title=title))
                for name, title in zip(names[1:], titles, strict=True)
            }
            for mixture, targets in self.take_turns(file):
                spectra["mixture"].push(mixture)
                energy += [float(wave.double().square().sum()) for wave in (mixture, *targets)]
                for number, target in enumerate(targets):
                    for kind, wave in (("target", target), ("residual", mixture - target)):
                        writers[f"{number}.{kind}"].write(wave)
                        spectra[f"{number}.{kind}"].push(wave)
                self.ticket.progress.done += targets.shape[-1] / result.sample_rate
            self.ticket.check()
        self.engine.learn(result.model, len(result.sounds), result.frames / result.sample_rate, self.busy)
        powers = [None] * len(result.sounds) if result.removed else energy[1:]
        for sound, presence, parts, power in zip(result.sounds, file.presence, file.parts, powers, strict=True):
            if not math.isnan(presence):
                sound.presence, sound.parts = float(presence), {name: round(part, 4) for name, part in parts.items()}
            if power is not None:
                sound.level = 10 * math.log10(max(power, 1e-30) / max(energy[0], 1e-30))
        return spectra

    def remix(self, result: Result, gains: Sequence[float], path: Path) -> None:
        """Write the recording with each sound at its own gain in dB, bit by bit as `separate --gain` does it.

        Several sounds that are changed share the energy that they claim together, so they are separated together first:
        once for each choice of sounds, not for each level.
        """
        numbers = [number for number, gain in enumerate(gains) if gain]
        removed = len(numbers) > 1 and all(gains[number] == -math.inf for number in numbers)
        weights = torch.tensor([1.0] if removed else [1.0 - 10 ** (gains[number] / 20) for number in numbers])
        carried = Reader(result.mixture).carried
        with Writer(path, result.sample_rate, result.channels, carried=carried, title="remix") as writer:
            for mixture, *targets in self.changes(result, numbers, removed):
                lost = torch.tensordot(weights, torch.stack(targets), 1) if targets else 0.0
                writer.write(mixture - lost)

    def changes(self, result: Result, numbers: Sequence[int], removed: bool) -> Iterator[Sequence[Tensor]]:
        """Yield pieces of the mixture and of what is changed: the targets of the sounds, or all that is removed."""
        path = result.folder / f"changes.{'.'.join(map(str, numbers))}.{'removed' if removed else 'changed'}.npy"
        ready: Sequence[int] | None = numbers if len(numbers) <= 1 and not result.removed else None
        if result.removed and len(numbers) == len(result.sounds) and (removed or len(numbers) == 1):
            ready = [0]
        if ready is not None or not numbers:
            paths = [result.mixture, *map(result.target, ready or ())]
            yield from self.watch(zip(*(Reader(path).blocks() for path in paths), strict=True))
        elif path.exists():
            with open(path, "rb") as file:
                while file.peek(1):
                    yield torch.from_numpy(np.load(file))
        else:
            for older in result.folder.glob("changes.*"):
                older.unlink(missing_ok=True)
            require_disk_space(result.folder, (1 + len(numbers)) * result.frames * result.channels * 4)
            pieces = self.take_turns(self.begin(result, numbers, removed, share=len(numbers) > 1 and not removed))
            with replace_when_complete(path) as part, open(part, "wb") as file:
                for mixture, targets in pieces:
                    np.save(file, torch.cat([mixture[None], targets]).numpy())
                    self.ticket.progress.done += mixture.shape[-1] / result.sample_rate
                    yield [mixture, *targets]


def in_turns(blocks: Iterable[Tensor], turn: AbstractContextManager[None]) -> Iterator[Tensor]:
    """Pass on blocks; each is processed in turn with all other work."""
    for block in blocks:
        with turn:
            yield block


def list_sounds(engine: Engine, limits: Limits, source: Path, model: str) -> dict[str, Any]:
    """List known sounds in the first minutes of a recording, in turns with all other work.

    Returns:
        sounds, the most probable first, and how many seconds were searched; no sounds if the model cannot list them.

    Raises:
        Refusal: the recording is outside the limits, or was removed.
    """
    reader, frames = limits.open(source), 0
    most = int(limits.listed_minutes * 60 * reader.sample_rate)

    def check() -> None:
        if not source.is_file():  # removed: nobody waits for the answer
            raise Refusal(GONE)

    def blocks() -> Iterator[Tensor]:
        nonlocal frames
        frames = 0
        for block in reader.blocks():
            check()
            block = block[:, : most - frames]
            frames += block.shape[-1]
            yield block
            if frames >= most:
                return

    separator = engine.separator(model, check)
    try:
        level = float(separator.level(blocks(), reader.sample_rate))
        taken = in_turns(blocks(), engine.turn)
        found = separator.list_sounds_in_blocks(taken, reader.sample_rate, level, most=MAX_LISTED)
    except NotFiniteError as error:
        raise Refusal(str(error)) from None
    except ModelError:
        return {"sounds": [], "seconds": 0.0}
    except AudioError as error:
        raise Refusal(without_path(error, source)) from None
    sounds = [{"label": each.label, "probability": round(each.probability, 3), "times": each.times} for each in found]
    return {"sounds": sounds, "seconds": round(frames / reader.sample_rate, 1)}
