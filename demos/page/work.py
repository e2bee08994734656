"""Separates, lists, remixes and packs recordings, block by block and in constant memory."""

from __future__ import annotations

import io
import json
import math
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from page.engine import Engine
from page.jobs import Ticket
from page.limits import Limits, Refusal, require_disk_space, without_path
from page.queries import Asked, explain, read_example
from page.store import GONE
from separation.audio import AudioError, Reader, Writer
from separation.download import replace_when_complete
from separation.errors import NotFiniteError
from separation.outputs import slug
from separation.plot import RANGE, TICKS, Spectrogram, draw
from separation.presence import presence_word
from separation.pretrained import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from separation.separator import FileSeparation

FAINT_DB = -60.0  # an output this far below the recording counts as silence
HEARD = 0.5  # presence from which a sound counts as heard
MAX_GAIN = 4.0  # of the remix, 12 dB
MAX_LISTED = 6  # sounds suggested for a recording


@dataclass
class Sound:
    """A query and its result."""

    query: str
    presence: float | None = None  # None: the model does not estimate it
    level: float = -math.inf  # dB relative to the mixture

    @property
    def verdict(self) -> str | None:
        """The presence in a word: present, uncertain or absent; an output that is silent counts as absent."""
        if self.level <= FAINT_DB:
            return "absent"
        return None if self.presence is None else presence_word(self.presence)

    @property
    def heard(self) -> bool:
        """Whether the sound occurs in the recording, as far as the model can tell."""
        return (self.presence is None or self.presence >= HEARD) and self.level > FAINT_DB


@dataclass
class Result:
    """A separated recording. Its files are in `folder`: mixture.wav, 0.target.wav, 0.residual.wav, ..."""

    folder: Path
    sample_rate: int
    channels: int
    frames: int
    model: str
    sounds: list[Sound]
    work_seconds: float = 0.0
    warning: str | None = None
    hints: list[str] = field(default_factory=list)  # about queries that the model may not know
    view: dict[str, Any] = field(default_factory=dict)

    @property
    def mixture(self) -> Path:
        """The recording as float32 wav."""
        return self.folder / "mixture.wav"

    def target(self, number: int) -> Path:
        """The extracted sound of a query."""
        return self.folder / f"{number}.target.wav"

    def residual(self, number: int) -> Path:
        """The rest of the recording."""
        return self.folder / f"{number}.residual.wav"

    @property
    def names(self) -> list[str]:
        """File names of the sounds for users, all different: letters, digits and underscores."""
        names: list[str] = []
        for sound in self.sounds:
            name = slug(sound.query)
            numbered = (name if n == 1 else f"{name}_{n}" for n in count(1))
            names.append(next(each for each in numbered if each not in (*names, "mixture")))
        return names

    def summary(self) -> dict[str, Any]:
        """Queries and results as plain data."""
        sounds = [
            {
                "query": sound.query,
                "presence": None if sound.presence is None else round(sound.presence, 4),
                "verdict": sound.verdict,
                "heard": sound.heard,
                "level_db": round(sound.level, 1),
            }
            for sound in self.sounds
        ]
        seconds = round(self.frames / self.sample_rate, 3)
        facts = {"model": self.model, "sample_rate": self.sample_rate, "channels": self.channels, "seconds": seconds}
        return facts | {"sounds": sounds}


class Work:
    """The separation of one recording.

    Args:
        engine: the models.
        limits: of the page.
        ticket: of the job; it is asked between two steps whether to continue, and receives the progress.
        source: the uploaded recording.
        folder: an empty folder for the results.
    """

    def __init__(self, engine: Engine, limits: Limits, ticket: Ticket, source: Path, folder: Path) -> None:
        self.engine, self.limits, self.ticket = engine, limits, ticket
        self.source, self.folder = source, folder

    def run(self, asked: list[Asked], model: str) -> Result:
        """Separate the recording.

        Raises:
            Refusal, ModelError: with a sentence for the user.
            Cancelled: the job was stopped.
        """
        reader = self.limits.open(self.source)
        separator = self.engine.separator(model, self.ticket.check)
        try:
            frames = self.copy(reader, len(asked))
        except AudioError as error:
            if isinstance(error.__cause__, OSError):  # of writing
                raise
            raise Refusal(without_path(error, self.source)) from None
        sounds = [Sound(each.name) for each in asked]
        result = Result(self.folder, reader.sample_rate, reader.channels, frames, model, sounds)
        result.warning = reader.warning and without_path(reader.warning, self.source)
        began = time.monotonic()
        self.ticket.progress.begin(frames / reader.sample_rate)
        try:
            with self.engine.turn:
                queries = [read_example(each.query, self.limits) for each in asked]
                hints = [str(hint) for query in queries for hint in separator.suggest(query)]
                result.hints = list(dict.fromkeys(hints))
                file = separator.separate_file(Reader(result.mixture), queries, self.watch)
        except (ModelError, ValueError, OSError) as error:  # of a picture, or of a query without words
            raise Refusal(explain(error, self.folder.parent)) from None
        spectra = self.separate(file, result)
        self.ticket.progress.stage = "finishing"
        result.work_seconds = time.monotonic() - began
        result.view = draw_strips(result, spectra)
        return result

    def watch(self, blocks: Iterable[Tensor], *_: object) -> Iterator[Tensor]:
        """Pass on blocks while the job is wanted; a `Watch` of `Separator.separate_file`."""
        for block in blocks:
            self.ticket.check()
            yield block

    def copy(self, reader: Reader, queries: int) -> int:
        """Copy the recording to mixture.wav; return its samples per channel."""
        frames = 0
        with Writer(self.folder / "mixture.wav", reader.sample_rate, reader.channels, "wav") as writer:
            for block in self.watch(reader.blocks()):
                frames += block.shape[-1]
                if frames > self.limits.frames(reader.sample_rate):
                    raise Refusal(self.limits.too_long)
                require_disk_space(self.folder, block.numel() * 4)
                writer.write(block)
        require_disk_space(self.folder, 2 * queries * frames * reader.channels * 4)
        return frames

    def separate(self, file: FileSeparation, result: Result) -> dict[str, Spectrogram]:
        """Write targets and residuals; return the spectrogram of every file by name."""
        numbers = range(len(result.sounds))
        names = ["mixture", *(f"{n}.{kind}" for n in numbers for kind in ("target", "residual"))]
        spectra = {name: Spectrogram(result.sample_rate, result.frames) for name in names}
        energy, busy = np.zeros(1 + len(result.sounds)), 0.0
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
                energy += [float(wave.double().square().sum()) for wave in (mixture, *targets)]
                for number, target in enumerate(targets):
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


# Pictures


def strip(levels: np.ndarray, top: float) -> bytes:
    """Return a PNG without axes, time to the right and frequency upwards.

    Args:
        levels: (rows, columns) in dB, see `separation.plot.Spectrogram`.
        top: level of the brightest colour; the darkest is RANGE below.
    """
    from matplotlib import image

    file = io.BytesIO()
    image.imsave(file, levels, vmin=top - RANGE, vmax=top, cmap="magma", format="png", origin="lower")
    return file.getvalue()


def draw_strips(result: Result, spectra: dict[str, Spectrogram]) -> dict[str, Any]:
    """Draw a strip for every file on one colour scale; return what the page needs for the axes.

    Returns:
        top and range: of the colour scale, dB; ticks: frequencies in kHz and their place on the axis, 0 to 1.
    """
    levels = {name: spectrum.decibels() for name, spectrum in spectra.items()}
    top = 10.0 * math.ceil(max(float(level.max()) for level in levels.values()) / 10.0)
    for name, level in levels.items():
        (result.folder / f"{name}.png").write_bytes(strip(level, top))
    edges = spectra["mixture"].edges
    np.savez(result.folder / "levels.npz", edges=edges, **levels)  # type: ignore[arg-type]
    low, high = np.log2(edges[[0, -1]])
    ticks = [
        {"label": f"{tick / 1000:g}", "at": round((math.log2(tick) - low) / (high - low), 4)}
        for tick in TICKS
        if edges[0] <= tick <= edges[-1]
    ]
    return {"top": top, "range": RANGE, "ticks": ticks}


def draw_sound(result: Result, number: int) -> Path:
    """Return the labelled picture of one sound, drawn on first use, as `separate --plot` draws it.

    Raises:
        Refusal: there is no sound of this number.
    """
    if not isinstance(number, int) or not 0 <= number < len(result.sounds):
        raise Refusal("There is no sound of this number.")
    path = result.folder / f"{number}.picture.png"
    if not path.exists():
        complete = replace_when_complete(path)  # two requests may come at the same time
        with np.load(result.folder / "levels.npz", allow_pickle=False) as levels, complete as part:
            names = {"mixture": "mixture", "target": f"{number}.target", "residual": f"{number}.residual"}
            panels = {kind: levels[name] for kind, name in names.items()}
            title = f"“{result.sounds[number].query}”"
            with open(part, "wb") as file:
                draw(file, panels, title, result.frames / result.sample_rate, levels["edges"])
    return path


# Other results


def remix(result: Result, gains: list[float], path: Path) -> None:
    """Write the recording with each sound at its gain: 1 leaves it unchanged, 0 removes it.

    Raises:
        Refusal: there is not one number from 0 to MAX_GAIN for every sound.
    """
    usable = isinstance(gains, list) and all(isinstance(g, (int, float)) and 0 <= g <= MAX_GAIN for g in gains)
    if not usable or len(gains) != len(result.sounds):
        raise Refusal(f"The mixer needs a number from 0 to {MAX_GAIN:g} for each of the {len(result.sounds)} sounds.")
    changes = [(number, gain - 1.0) for number, gain in enumerate(gains) if gain != 1.0]
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(result.target(number))) for number, _ in changes]
        mixture = stack.enter_context(Reader(result.mixture))
        writer = stack.enter_context(Writer(path, result.sample_rate, result.channels))
        for block, *targets in zip(mixture.blocks(), *(reader.blocks() for reader in readers), strict=True):
            for (_, change), target in zip(changes, targets, strict=True):
                block += change * target
            writer.write(block)


def archive(result: Result) -> Path:
    """Return a zip of the recording, all targets and all residuals, made on first use."""
    path = result.folder / "stems.zip"
    if not path.exists():
        require_disk_space(result.folder, sum(file.stat().st_size for file in result.folder.glob("*.wav")))
        with replace_when_complete(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
            file.write(result.mixture, "mixture.wav")
            for number, name in enumerate(result.names):
                file.write(result.target(number), f"{name}.wav")
                file.write(result.residual(number), f"not_{name}.wav")
            file.writestr("separation.json", json.dumps(result.summary(), indent=2, ensure_ascii=False))
    return path


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

    def blocks(turn: AbstractContextManager[None]) -> Iterator[Tensor]:
        nonlocal frames
        frames = 0
        for block in reader.blocks():
            check()
            block = block[:, : most - frames]
            frames += block.shape[-1]
            with turn:  # held while the block is processed
                yield block
            if frames >= most:
                return

    separator = engine.separator(model, check)
    try:
        level = float(separator.level(blocks(nullcontext()), reader.sample_rate))
        found = separator.list_sounds_in_blocks(blocks(engine.turn), reader.sample_rate, level, most=MAX_LISTED)
    except NotFiniteError as error:
        raise Refusal(str(error)) from None
    except ModelError:
        return {"sounds": [], "seconds": 0.0}
    except AudioError as error:
        raise Refusal(without_path(error, source)) from None
    sounds = [asdict(sound) | {"probability": round(sound.probability, 3)} for sound in found]
    return {"sounds": sounds, "seconds": round(frames / reader.sample_rate, 1)}
