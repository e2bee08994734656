"""Work on one recording, block by block in constant memory: separate it, remix it, archive it."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
import zipfile
from collections.abc import Iterable, Iterator
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

    from separation import Separator

FAINT = -60.0
"""Level in dB relative to the recording below which an output counts as silent."""

LOUDEST = 4.0
"""Largest gain of the mixer, 12 dB."""

DETAILS = re.compile(r" \((?:ffmpeg: )?.*\)(?=\.$)", re.DOTALL)
"""The decoder's details at the end of an error message."""


@dataclass
class Sound:
    """One query and its result."""

    query: str
    presence: float | None = None  # None: the model does not say
    level: float = -math.inf  # dB relative to the mixture

    @property
    def heard(self) -> bool:
        """Whether the sound is in the recording, as estimated by the model."""
        return (self.presence is None or self.presence >= NOT_HEARD) and self.level > FAINT


@dataclass
class Result:
    """A separated recording: files with fixed names in `folder`."""

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
        """The target of a query, by its number."""
        return self.folder / f"{number}.target.wav"

    def residual(self, number: int) -> Path:
        """The residual of a query, by its number."""
        return self.folder / f"{number}.residual.wav"


def inspect(path: Path, limits: Limits) -> Reader:
    """Open a recording and check its header.

    Raises:
        Refusal: if it is not a recording or exceeds the limits.
    """
    refuse_lists(path)
    try:
        reader = Reader(path)
    except AudioError as error:
        raise Refusal(plain(error, path)) from None
    limits.check(reader)
    return reader


def plain(error: AudioError, path: Path) -> str:
    """The error message without the server's path and the decoder's details."""
    sentence = DETAILS.sub("", str(error))
    return sentence.replace(str(path), "This file")


def example_of(query: Any, limits: Limits) -> Any:
    """Replace the file of an example query by its waveform.

    Raises:
        Refusal: if it is not a recording or exceeds the limits.
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
    """Separates one recording, from the upload to the files on the page.

    Args:
        engine: loads models and lets jobs take turns.
        limits: of recordings and examples.
        ticket: asked before every block whether the job is still wanted; told about the progress.
        source: the upload.
        folder: an empty folder for all files.
    """

    def __init__(self, engine: Engine, limits: Limits, ticket: Ticket, source: Path, folder: Path) -> None:
        self.engine, self.limits, self.ticket = engine, limits, ticket
        self.source, self.folder = source, folder

    def run(self, asked: list[Asked], model: str) -> Result:
        """Separate the recording by all queries.

        Raises:
            Refusal, AudioError, ModelError: one sentence each.
            Cancelled: if the ticket is no longer valid.
        """
        reader = inspect(self.source, self.limits)
        separator = self.engine.separator(model, self.ticket.check)
        try:
            frames = self.copy(reader, len(asked))
        except AudioError as error:
            raise Refusal(plain(error, self.source)) from None
        sounds = [Sound(each.name) for each in asked]
        result = Result(self.folder, reader.sample_rate, reader.channels, frames, model, sounds)
        result.warning = reader.warning and reader.warning.replace(str(self.source), "This file")
        began = time.monotonic()
        self.ticket.progress.begin(frames / reader.sample_rate)
        spectra = self._separate(separator, result, [each.query for each in asked])
        self.ticket.progress.stage = "finishing"
        result.work_seconds = time.monotonic() - began
        self._draw(result, spectra)
        return result

    def copy(self, reader: Reader, queries: int) -> int:
        """Copy the recording to mixture.wav and return its length in samples per channel.

        Raises:
            Refusal: if the recording is too long, or the disk too full for it and its outputs.
        """
        frames, most = 0, self.limits.frames(reader.sample_rate)
        with Writer(self.folder / "mixture.wav", reader.sample_rate, reader.channels, "wav") as writer:
            for block in self.checked(reader.blocks()):
                frames += block.shape[-1]
                if frames > most:
                    raise Refusal(self.limits.too_long)
                refuse_full_disk(self.folder, block.numel() * 4)
                writer.write(block)
        refuse_full_disk(self.folder, 2 * queries * frames * reader.channels * 4)
        return frames

    def checked(self, blocks: Iterable[Tensor], *_: object) -> Iterator[Tensor]:
        """Pass on blocks as long as the job is wanted; a `Watch` of `Separator.separate_file`."""
        for block in blocks:
            self.ticket.check()
            yield block

    def _separate(self, separator: Separator, result: Result, queries: list[Any]) -> dict[str, Any]:
        """Write targets and residuals; return the spectrogram of every file."""
        from separation.plot import Spectrogram

        numbers = range(len(result.sounds))
        names = ["mixture", *(f"{n}.{kind}" for n in numbers for kind in ("target", "residual"))]
        spectra = {name: Spectrogram(result.sample_rate, result.frames) for name in names}
        energy, busy = [0.0] * (1 + len(result.sounds)), 0.0
        with self.engine.turn:
            try:
                asked = [example_of(query, self.limits) for query in queries]
                file = separator.separate_file(Reader(result.mixture), asked, self.checked)
            except (ModelError, ValueError, OSError) as error:  # of a picture, or of a query without words
                raise Refusal(reason(error, self.folder.parent)) from None
        pieces = iter(file)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(Writer(self.folder / f"{name}.wav", result.sample_rate, result.channels))
                for name in names[1:]
            }
            while True:
                with self.engine.turn:
                    self.ticket.check()
                    began = time.monotonic()
                    piece = next(pieces, None)
                    busy += time.monotonic() - began
                if piece is None:
                    break
                mixture, targets = piece
                spectra["mixture"].push(mixture)
                energy[0] += float(mixture.double().square().sum())
                for number, target in enumerate(targets):
                    energy[number + 1] += float(target.double().square().sum())
                    for kind, wave in (("target", target), ("residual", mixture - target)):
                        writers[f"{number}.{kind}"].write(wave)
                        spectra[f"{number}.{kind}"].push(wave)
                self.ticket.progress.done += targets.shape[-1] / result.sample_rate
            self.ticket.check()
        self.engine.learn(result.model, len(result.sounds), result.frames / result.sample_rate, busy)
        for sound, presence, power in zip(result.sounds, file.presence, energy[1:], strict=True):
            sound.presence = None if math.isnan(presence) else float(presence)
            sound.level = 10 * math.log10(max(power, 1e-30) / max(energy[0], 1e-30))
        return spectra

    def _draw(self, result: Result, spectra: dict[str, Any]) -> None:
        """Draw a strip for every file on one colour scale, and describe their axes."""
        import numpy as np

        levels = {name: spectrum.decibels() for name, spectrum in spectra.items()}
        top = pictures.top_of(list(levels.values()))
        for name, level in levels.items():
            (self.folder / f"{name}.png").write_bytes(pictures.strip(level, top))
        edges = spectra["mixture"].edges
        np.savez(self.folder / "levels.npz", edges=edges, **levels)
        result.view = {"top": top, "range": pictures.RANGE, "ticks": pictures.axis(edges)}


def remix(result: Result, gains: list[float], path: Path) -> None:
    """Write the recording with a gain for each sound: 1 as it was, 0 off, up to LOUDEST.

    Raises:
        Refusal: if there is not one valid gain for every sound.
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
    """Return a zip of the recording, all targets and all residuals; it is created on first use."""
    path = result.folder / "stems.zip"
    if not path.exists():
        refuse_full_disk(result.folder, sum(file.stat().st_size for file in result.folder.glob("*.wav")))
        partial = result.folder / f"{secrets.token_hex(8)}.partial"  # two requests may arrive at once
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as file:
            for source, name in stems(result):
                file.write(source, name)
            file.writestr("separation.json", json.dumps(summary(result), indent=2, ensure_ascii=False))
        partial.rename(path)
    return path


def stems(result: Result) -> list[tuple[Path, str]]:
    """(file, name in the archive) of the recording, targets and residuals."""
    named = [(result.mixture, "mixture.wav")]
    for number, name in enumerate(file_names(result)):
        named += [(result.target(number), f"{name}.wav"), (result.residual(number), f"not_{name}.wav")]
    return named


def file_names(result: Result) -> list[str]:
    """A unique short name for every sound: letters, digits and underscores only."""
    names: list[str] = []
    for sound in result.sounds:
        name, number = slug(sound.query), 1
        while (full := name if number == 1 else f"{name}_{number}") in {*names, "mixture"}:
            number += 1
        names.append(full)
    return names


def summary(result: Result) -> dict[str, Any]:
    """Queries and results as plain data."""
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
    """Return the labelled picture of one sound; it is drawn on first use.

    Raises:
        Refusal: if there is no sound with this number.
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
