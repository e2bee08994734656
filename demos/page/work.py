"""What is done to a recording: separate it, mix it anew, put it into a zip. Block by block, in constant memory."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from page import pictures
from page.asking import Asked, reason
from page.engine import Engine
from page.jobs import Ticket
from page.limits import Limits, Refusal, refuse_full_disk, refuse_lists
from separation.audio import AudioError, Reader, Writer
from separation.cli import NOT_HEARD
from separation.cli_files import slug
from separation.pretrained import ModelError
from separation.query import Query

if TYPE_CHECKING:
    from torch import Tensor

FAINT = -60.0
"""dB: an output this far below the recording is next to nothing."""

LOUDEST = 4.0
"""Most that the mixer turns a sound up, 12 dB."""

DETAILS = re.compile(r" \((?:ffmpeg: )?.*\)(?=\.$)", re.DOTALL)
"""A decoder's own words at the end of a sentence."""


@dataclass
class Sound:
    """One query and what came of it."""

    query: str
    presence: float | None = None  # None: the model does not say
    level: float = -math.inf  # dB relative to the mixture

    @property
    def heard(self) -> bool:
        """Whether the sound is in the recording as far as the model can tell."""
        return (self.presence is None or self.presence >= NOT_HEARD) and self.level > FAINT


@dataclass
class Result:
    """A separated recording: files of fixed names in `folder`."""

    folder: Path
    sample_rate: int
    channels: int
    frames: int
    model: str
    sounds: list[Sound]
    work_seconds: float = 0.0
    warning: str | None = None
    view: dict[str, Any] = field(default_factory=dict)

    @property
    def mixture(self) -> Path:
        """The recording as float32 wav."""
        return self.folder / "mixture.wav"

    def target(self, number: int) -> Path:
        """What was taken out for the query of this number."""
        return self.folder / f"{number}.target.wav"

    def residual(self, number: int) -> Path:
        """What was left."""
        return self.folder / f"{number}.residual.wav"


def inspect(path: Path, limits: Limits) -> Reader:
    """Opens a recording and looks at its header.

    Raises:
        Refusal: it is outside the limits or no recording.
    """
    refuse_lists(path)
    try:
        reader = Reader(path)
    except AudioError as error:
        raise Refusal(plain(error, path)) from None
    limits.check(reader)
    return reader


def plain(error: AudioError, path: Path) -> str:
    """The error's sentence without the server's path and without the decoder's own words."""
    sentence = DETAILS.sub("", str(error))
    return sentence.replace(str(path), "This file")


def example_of(query: Any, limits: Limits) -> Any:
    """The query with its example recording in the place of the file.

    Raises:
        Refusal: it is outside the limits or no recording.
    """
    if not isinstance(query, Query) or not query.audio:
        return query
    path, short = Path(str(query.audio)), replace(limits, minutes=limits.example_minutes)
    reader = inspect(path, short)
    import torch

    pieces, left = [], short.frames(reader.sample_rate)
    try:
        for block in reader.blocks():
            pieces.append(block)
            left -= block.shape[-1]
            if left < 0:
                raise Refusal(short.too_long)
    except AudioError as error:
        raise Refusal(plain(error, path)) from None
    return replace(query, audio=(torch.cat(pieces, dim=-1), reader.sample_rate))


class Work:
    """One recording with its queries, from upload to files.

    Args:
        engine, limits: see there.
        ticket: is asked between two steps whether to go on, and told how far it is.
        source: the upload.
        folder: an empty one, for everything that comes of it.
    """

    def __init__(self, engine: Engine, limits: Limits, ticket: Ticket, source: Path, folder: Path) -> None:
        self.engine, self.limits, self.ticket = engine, limits, ticket
        self.source, self.folder = source, folder

    def run(self, asked: list[Asked], model: str) -> Result:
        """Does all of it.

        Raises:
            Refusal, AudioError, ModelError: one sentence each.
            Cancelled: by the ticket.
        """
        reader = inspect(self.source, self.limits)
        separator = self.engine.separator(model, self.ticket.check)
        try:
            frames, level = self._read(reader, separator, len(asked))
        except AudioError as error:
            raise Refusal(plain(error, self.source)) from None
        sounds = [Sound(each.name) for each in asked]
        result = Result(self.folder, reader.sample_rate, reader.channels, frames, model, sounds)
        result.warning = reader.warning and reader.warning.replace(str(self.source), "This file")
        began = time.monotonic()
        self.ticket.progress.begin(frames / reader.sample_rate)
        spectra = self._separate(separator, result, [each.query for each in asked], level)
        self.ticket.progress.stage = "finishing"
        result.work_seconds = time.monotonic() - began
        self._draw(result, spectra)
        return result

    def _read(self, reader: Reader, separator: Any, queries: int) -> tuple[int, float]:
        """Keeps the recording as wav and measures it: (samples a channel, level)."""
        most = self.limits.frames(reader.sample_rate)
        frames = 0

        def kept(writer: Writer) -> Iterator[Tensor]:
            nonlocal frames
            for block in reader.blocks():
                self.ticket.check()
                frames += block.shape[-1]
                if frames > most:
                    raise Refusal(self.limits.too_long)
                refuse_full_disk(self.folder, block.numel() * 4)
                writer.write(block)
                yield block

        with Writer(self.folder / "mixture.wav", reader.sample_rate, reader.channels, "wav") as writer:
            blocks = kept(writer)
            level = float(separator.level(blocks))
            for _ in blocks:  # the level may be known before the end, the length is not
                pass
        refuse_full_disk(self.folder, 2 * queries * frames * reader.channels * 4)
        return frames, level

    def _separate(self, separator: Any, result: Result, queries: list[Any], level: float) -> dict[str, Any]:
        """Writes targets and residuals; returns the spectrogram of every file."""
        from separation.plot import Spectrogram

        numbers = range(len(result.sounds))
        names = ["mixture", *(f"{n}.{kind}" for n in numbers for kind in ("target", "residual"))]
        spectra = {name: Spectrogram(result.sample_rate, result.frames) for name in names}
        energy = [0.0] * (1 + len(result.sounds))
        with self.engine.turn:
            stream = self._stream(separator, result, queries, level)
        with ExitStack() as stack, Reader(result.mixture) as reader:
            writers = {
                name: stack.enter_context(Writer(self.folder / f"{name}.wav", result.sample_rate, result.channels))
                for name in names[1:]
            }

            def write(mixture: Tensor, targets: Tensor) -> None:
                spectra["mixture"].push(mixture)
                energy[0] += float(mixture.double().square().sum())
                for number, target in enumerate(targets):
                    energy[number + 1] += float(target.double().square().sum())
                    for kind, wave in (("target", target), ("residual", mixture - target)):
                        writers[f"{number}.{kind}"].write(wave)
                        spectra[f"{number}.{kind}"].push(wave)
                self.ticket.progress.done += targets.shape[-1] / result.sample_rate

            busy = 0.0
            pieces = stream.separate(self._blocks(reader))
            while True:
                with self.engine.turn:
                    self.ticket.check()
                    began = time.monotonic()
                    piece = next(pieces, None)
                    busy += time.monotonic() - began
                if piece is None:
                    break
                write(*piece)
        self.ticket.check()
        self.engine.learn(result.model, len(result.sounds), result.frames / result.sample_rate, busy)
        for sound, presence, power in zip(result.sounds, stream.presence, energy[1:], strict=True):
            sound.presence = None if math.isnan(presence) else float(presence)
            sound.level = 10 * math.log10(max(power, 1e-30) / max(energy[0], 1e-30))
        return spectra

    def _stream(self, separator: Any, result: Result, queries: list[Any], level: float) -> Any:
        """The run over this recording."""
        try:
            asked = [example_of(query, self.limits) for query in queries]
            return separator.stream(asked, result.sample_rate, result.channels, level)
        except (ModelError, ValueError, OSError) as error:  # of a picture, or of a query that says nothing
            raise Refusal(reason(error, self.folder.parent)) from None

    def _blocks(self, reader: Reader) -> Iterator[Tensor]:
        """The recording's blocks, with a chance to stop before each."""
        for block in reader.blocks():
            self.ticket.check()
            yield block

    def _draw(self, result: Result, spectra: dict[str, Any]) -> None:
        """A strip for every file, all on one scale, and what the axes around them say."""
        import numpy as np

        levels = {name: spectrum.decibels() for name, spectrum in spectra.items()}
        top = pictures.top_of(list(levels.values()))
        for name, level in levels.items():
            (self.folder / f"{name}.png").write_bytes(pictures.strip(level, top))
        edges = spectra["mixture"].edges
        np.savez(self.folder / "levels.npz", edges=edges, **levels)
        result.view = {"top": top, "range": pictures.RANGE, "ticks": pictures.axis(edges)}


def remix(result: Result, gains: list[float], path: Path) -> None:
    """Writes the recording with each sound at its gain: 1 as it was, 0 off, up to LOUDEST.

    Raises:
        Refusal: there is not one sensible gain for every sound.
    """
    sensible = isinstance(gains, list) and all(isinstance(g, (int, float)) and 0 <= g <= LOUDEST for g in gains)
    if not sensible or len(gains) != len(result.sounds):
        raise Refusal(f"The mixer needs a number from 0 to {LOUDEST:g} for each of the {len(result.sounds)} sounds.")
    changed = [(number, gain - 1.0) for number, gain in enumerate(gains) if gain != 1.0]
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(result.target(number))) for number, _ in changed]
        mixture = stack.enter_context(Reader(result.mixture))
        writer = stack.enter_context(Writer(path, result.sample_rate, result.channels))
        for block, *targets in zip(mixture.blocks(), *(reader.blocks() for reader in readers), strict=True):
            for (_, change), target in zip(changed, targets, strict=True):
                block += change * target
            writer.write(block)


def archive(result: Result) -> Path:
    """A zip of the recording, all targets and all residuals, made when it is first asked for."""
    path = result.folder / "stems.zip"
    if not path.exists():
        refuse_full_disk(result.folder, sum(file.stat().st_size for file in result.folder.glob("*.wav")))
        partial = result.folder / f"{secrets.token_hex(8)}.partial"  # it may be asked for twice at once
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
            for source, name in stems(result):
                file.write(source, name)
            file.writestr("separation.json", json.dumps(summary(result), indent=2, ensure_ascii=False))
        partial.rename(path)
    return path


def stems(result: Result) -> list[tuple[Path, str]]:
    """(file, what to call it) for the recording, targets and residuals."""
    named = [(result.mixture, "mixture.wav")]
    for number, name in enumerate(file_names(result)):
        named += [(result.target(number), f"{name}.wav"), (result.residual(number), f"not_{name}.wav")]
    return named


def file_names(result: Result) -> list[str]:
    """A short name for every sound, no two alike: letters, digits and underscores only."""
    names: list[str] = []
    for sound in result.sounds:
        name, number = slug(sound.query), 1
        while (full := name if number == 1 else f"{name}_{number}") in {*names, "mixture"}:
            number += 1
        names.append(full)
    return names


def summary(result: Result) -> dict[str, Any]:
    """What was asked and heard, as plain data."""
    return {
        "model": result.model,
        "sample_rate": result.sample_rate,
        "channels": result.channels,
        "seconds": round(result.frames / result.sample_rate, 3),
        "sounds": [
            {
                "query": sound.query,
                "presence": None if sound.presence is None else round(sound.presence, 4),
                "heard": sound.heard,
                "level_db": round(sound.level, 1),
            }
            for sound in result.sounds
        ],
    }


def draw_sound(result: Result, number: int) -> Path:
    """The labelled picture of one sound, drawn when it is first asked for.

    Raises:
        Refusal: there is no sound of this number.
    """
    import numpy as np

    if not isinstance(number, int) or not 0 <= number < len(result.sounds):
        raise Refusal("There is no sound of this number.")
    path = result.folder / f"{number}.picture.png"
    if not path.exists():
        with np.load(result.folder / "levels.npz", allow_pickle=False) as levels:
            kinds = {"mixture": "mixture", "target": f"{number}.target", "residual": f"{number}.residual"}
            panels = {kind: levels[name] for kind, name in kinds.items()}
            title = f"“{result.sounds[number].query}”"
            pictures.picture(path, panels, title, result.frames / result.sample_rate, levels["edges"])
    return path
