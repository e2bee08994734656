"""Results of the page: what was found, names as the command chooses them, pictures, and an archive."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from page.limits import Refusal, require_disk_space
from page.queries import Asked
from separation.audio import Reader
from separation.inference.changes import Span
from separation.outputs.names import REMIX, Namer, Request, blend_of
from separation.outputs.planning import OutputOptions, OutputPlan
from separation.plot import RANGE, TICKS, Spectrogram, draw
from separation.presence import presence_word
from separation.storage.download import replace_when_complete

FAINT_DB = -60.0  # an output this far below the recording counts as silence
HEARD = 0.5  # presence from which a sound counts as heard
MAX_GAIN = 4.0  # of the remix, 12 dB


@dataclass
class Sound:
    """A query and its result."""

    query: str
    presence: float | None = None  # None: the model does not estimate it
    parts: dict[str, float] = field(default_factory=dict)  # presence of each sound that a sentence names
    level: float | None = None  # dB relative to the mixture; None if it is removed together with others

    @property
    def silent(self) -> bool:
        """Whether the output is too faint to be heard."""
        return self.level is not None and self.level <= FAINT_DB

    @property
    def verdict(self) -> str | None:
        """The presence in a word: present, uncertain or absent; an output that is silent counts as absent."""
        if self.silent:
            return "absent"
        return None if self.presence is None else presence_word(self.presence)

    @property
    def heard(self) -> bool:
        """Whether the sound occurs in the recording, as far as the model can tell."""
        return (self.presence is None or self.presence >= HEARD) and not self.silent

    def summary(self) -> dict[str, Any]:
        """The result as plain data."""
        presence = None if self.presence is None else round(self.presence, 4)
        facts = {"query": self.query, "presence": presence, "parts": self.parts, "verdict": self.verdict}
        return facts | {"heard": self.heard, "level_db": None if self.level is None else round(self.level, 1)}


@dataclass
class Result:
    """A separated recording. Its files are in `folder`: mixture.wav, 0.target.wav, 0.residual.wav, ...

    There is a pair of files for each sound, or one pair for all sounds together if they are `removed`: what was removed
    (the target), and the recording without it (the residual).
    """

    folder: Path
    stem: str  # of the recording's name
    sample_rate: int
    channels: int
    frames: int
    model: str
    asked: list[Asked]
    removed: bool = False
    span: Span | None = None
    sounds: list[Sound] = field(default_factory=list)
    sounding: list[str] = field(default_factory=list)  # what occurs, if a sound is absent
    work_seconds: float = 0.0
    warning: str | None = None
    hints: list[str] = field(default_factory=list)  # about queries that the model may not know
    view: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sounds = [Sound(each.name) for each in self.asked]

    @property
    def mixture(self) -> Path:
        """The recording as float32 wav."""
        return self.folder / "mixture.wav"

    def target(self, number: int) -> Path:
        """The extracted sound of a query, or all that was removed."""
        return self.folder / f"{number}.target.wav"

    def residual(self, number: int) -> Path:
        """The rest of the recording."""
        return self.folder / f"{number}.residual.wav"

    @property
    def names(self) -> list[dict[str, str]]:
        """File names for users, as the command chooses them: target, residual and picture of each pair of files."""
        requests = [Request(each.name, each.query, True, True) for each in self.asked]
        if self.removed:
            requests = blend(self.asked, [-math.inf] * len(self.asked))
        return self.plan(requests)

    def mix_name(self, gains: Sequence[float]) -> str:
        """File name of a remix with gains in dB, as the command chooses it."""
        requests = blend(self.asked, gains) or [Request(REMIX, "", False, True, rest=REMIX)]
        return self.plan(requests)[0]["residual"]

    def plan(self, requests: Sequence[Request]) -> list[dict[str, str]]:
        """Return the command's file names for requests: target, residual and picture, as far as they are written."""
        options = OutputOptions("wav", "FLOAT", plot=True)
        plan = OutputPlan(self.stem, Reader(self.mixture), requests, options, Namer())
        plan.claim_paths(self.folder, self.stem, None)
        return [{kind: path.name for kind, path in paths.items()} for paths in plan.paths]

    def summary(self) -> dict[str, Any]:
        """Queries and results as plain data."""
        sounds = [sound.summary() for sound in self.sounds]
        if self.removed:
            least = min(self.sounds, key=lambda sound: math.inf if sound.presence is None else sound.presence)
            sounds = [least.summary() | {"query": ", ".join(each.name for each in self.asked), "removed": sounds}]
        facts = {"model": self.model, "sample_rate": self.sample_rate, "channels": self.channels}
        facts |= {"seconds": round(self.frames / self.sample_rate, 3), "sounding": self.sounding}
        return facts | {"sounds": sounds}


def blend(asked: Sequence[Asked], gains: Sequence[float]) -> list[Request]:
    """Return the command's request for the one file in which sounds are changed; none if all gains are 0 dB."""
    changed = [(each, gain) for each, gain in zip(asked, gains, strict=True) if gain]
    if len(changed) == 1 and changed[0][1] == -math.inf:
        return [Request(changed[0][0].name, changed[0][0].query, False, True)]
    return blend_of(Request(each.name, each.query, False, False, gain) for each, gain in changed)


# Pictures


def strip(levels: np.ndarray, top: float) -> bytes:
    """Return a PNG without axes, time to the right and frequency upwards.

    Args:
        levels: (rows, columns) in dB, see `separation.plot.Spectrogram`.
        top: level of the brightest colour; the darkest is RANGE below.
    """
    from matplotlib import image

    file = io.BytesIO()
    quick = {"compress_level": 1}  # of zlib: a third of the time, and no larger
    image.imsave(file, levels, vmin=top - RANGE, vmax=top, cmap="magma", format="png", origin="lower", pil_kwargs=quick)
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
    if not isinstance(number, int) or not 0 <= number < len(result.names):
        raise Refusal("There is no sound of this number.")
    path = result.folder / f"{number}.picture.png"
    if not path.exists():
        complete = replace_when_complete(path)  # two requests may come at the same time
        with np.load(result.folder / "levels.npz", allow_pickle=False) as levels, complete as part:
            names = {"mixture": "mixture", "target": f"{number}.target", "residual": f"{number}.residual"}
            panels = {kind: levels[name] for kind, name in names.items()}
            title = f"“{result.summary()['sounds'][number]['query']}”"
            with open(part, "wb") as file:
                draw(file, panels, title, result.frames / result.sample_rate, levels["edges"])
    return path


# Files made on request


def check_gains(result: Result, gains: Any) -> list[float]:
    """Convert factors, 1 to leave a sound unchanged and 0 to remove it, to gains in dB.

    Raises:
        Refusal: there is not one number from 0 to MAX_GAIN for every sound.
    """
    usable = isinstance(gains, list) and all(isinstance(g, (int, float)) and 0 <= g <= MAX_GAIN for g in gains)
    if not usable or len(gains) != len(result.sounds):
        raise Refusal(f"The mixer needs a number from 0 to {MAX_GAIN:g} for each of the {len(result.sounds)} sounds.")
    return [round(20 * math.log10(gain), 9) if gain else -math.inf for gain in gains]  # 3, not 3.0000000000000004


def archive(result: Result) -> Path:
    """Return a zip of the recording, all targets and all residuals, made on first use."""
    path = result.folder / "stems.zip"
    if not path.exists():
        require_disk_space(result.folder, sum(file.stat().st_size for file in result.folder.glob("*.wav")))
        with replace_when_complete(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as file:
            file.write(result.mixture, f"{result.stem}.wav")
            for number, names in enumerate(result.names):
                for kind, source in (("target", result.target(number)), ("residual", result.residual(number))):
                    if kind in names:
                        file.write(source, names[kind])
            file.writestr("separation.json", json.dumps(result.summary(), indent=2, ensure_ascii=False))
    return path
