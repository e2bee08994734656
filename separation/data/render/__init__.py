"""Rendered recordings to train with: instruments and ensembles from a sound font, speech and singing by programs.

`write_recordings` makes a folder with recordings, manifest and wordings of what `instruments.plan` or `speech.plan`
returns: a list of steps, each of which renders some recordings. The seed fixes every sample, given the same programs.
Programs of the sound font and voices are in the split train or in validation, never in both.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from tqdm import tqdm

from separation.data.foley.parts import Array, log_uniform, room
from separation.data.manifest import MANIFEST, Clip, Entry, write_manifest
from separation.data.packing import folder_when_complete
from separation.data.texts import WORDINGS
from separation.errors import DataError
from separation.process import remove, temporary_folder
from separation.storage.download import write_json
from separation.vocabulary.sounds import wordings

RATE = 32000
PEAK = 0.9
AUDIO = "audio"  # folder of the recordings
SHORTEST = 0.2  # seconds; shorter ones and those without sound are left out
QUIET = 1e-3  # of the peak: what is quieter is cut off at both ends
SMALL, LARGE = "a small room", "a large hall"


@dataclass(frozen=True)
class Recording:
    """A rendered recording (time,) at 32 kHz, what it is, its split, and the programs that rendered it."""

    wave: Array
    name: str
    labels: tuple[str, ...]
    caption: str
    split: str
    programs: tuple[str, ...]
    peak: float = PEAK


Step = Callable[[Path], Iterable[Recording]]
"""Renders some recordings, with an empty folder for its files."""


@cache
def tables() -> dict[str, Any]:
    """The facts of `tables.yaml`."""
    found: dict[str, Any] = yaml.safe_load(files(__name__).joinpath("tables.yaml").read_text(encoding="utf-8"))
    return found


def make_rng(seed: int, name: str) -> np.random.Generator:
    """Return the random numbers of something by its name, so that nothing else changes them."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def add_room(rng: np.random.Generator, wave: Array) -> tuple[Array, str]:
    """Put 40 % of the waves into synthetic rooms; return the wave, and the room's name or an empty text."""
    if rng.random() >= 0.4:
        return wave, ""
    decay = log_uniform(rng, 0.03, 0.5)
    padded = np.append(wave, np.zeros(round(2 * decay * RATE)))
    return room(rng, padded, RATE, decay, rng.uniform(0.1, 0.5)), SMALL if decay < 0.12 else LARGE


def cut_tens(count: int) -> list[range]:
    """Return the numbers below `count` in tens, each for one step."""
    return [range(first, min(count, first + 10)) for first in range(0, count, 10)]


def check_plan(count: int, programs: Iterable[str]) -> None:
    """Raise DataError if `count` is not positive or one of the programs is not installed."""
    if count < 1:
        raise DataError(f"The number of recordings must be positive, not {count}.")
    for name in sorted(set(programs)):
        if shutil.which(name) is None:
            facts = tables()["programs"][name]
            missing = f"The program {name} is not installed; it {facts['purpose']}."
            raise DataError(f"{missing} On Debian and Ubuntu: apt-get install {facts['package']}.")


def run_program(*words: str, output: Path) -> Array:
    """Run a program that writes a file; return its samples (time,) at 32 kHz, or raise DataError if it fails."""
    import soxr

    done = subprocess.run(words, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode or not output.is_file():
        said = (done.stderr.strip() or done.stdout.strip() or "it gives no reason").splitlines()[-1]
        raise DataError(f"{words[0]} has not rendered a recording (status {done.returncode}): {said}")
    try:
        samples, rate = soundfile.read(output, dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise DataError(f"{words[0]} has written a file that is not audio: {error}") from None
    wave = samples.mean(1)
    return wave if rate == RATE else soxr.resample(wave, rate, RATE)


def collect_wordings(labels: Iterable[str]) -> dict[str, list[str]]:
    """Wordings of labels, the package's own or those of `tables.yaml`, without texts that are wordings of two."""
    named, known = set(labels), wordings()
    own: dict[str, list[str]] = tables()["wordings"]
    taken = {text.lower() for label in named & own.keys() for text in (label, *own[label])}
    return {
        label: own[label] if label in own else [text for text in known[label] if text.lower() not in taken]
        for label in sorted(named)
    }


def write_recordings(steps: Sequence[Step], out: Path, overwrite: bool = False) -> list[Entry]:
    """Render all steps into a folder, which appears when it is complete; return the entries of its manifest.

    Raises:
        DataError: `out` exists (with `overwrite`: and is something else than such a folder) or cannot be written, or a
            program fails or renders silence only.
    """
    entries: list[Entry] = []
    with (
        folder_when_complete(
            out, overwrite, lambda names: names == {MANIFEST, WORDINGS, AUDIO}, "folder of renderings"
        ) as partial,
        temporary_folder() as scratch,
    ):
        for number, step in enumerate(tqdm(steps, "rendered", leave=False, disable=None)):
            place = scratch / str(number)
            place.mkdir()
            for recording in step(place):
                entries += write_recording(recording, partial)
            remove(place)
        if not entries:
            raise DataError(f"{out} is not written: the programs have rendered silence only.")
        write_manifest(partial / MANIFEST, entries)
        write_json(partial / WORDINGS, collect_wordings(clip.label for _, clip in entries))
    return entries


def write_recording(recording: Recording, folder: Path) -> list[Entry]:
    """Write a recording without silence at its ends; return its entry, or nothing if it is too short or silent."""
    level = np.abs(recording.wave)
    sounding = np.flatnonzero(level > QUIET * max(level.max(initial=0), 1e-9))
    if not len(sounding) or sounding[-1] - sounding[0] < SHORTEST * RATE:
        return []
    wave = recording.wave[sounding[0] : sounding[-1] + 1] * (recording.peak / level.max())
    source, label = "+".join(recording.programs), recording.labels[0]
    path = Path(AUDIO, source, label.replace(" ", "_"), f"{recording.name}.flac")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    flac = io.BytesIO()  # libsndfile gives no reason if it cannot write a file
    soundfile.write(flac, wave, RATE, format="FLAC", subtype="PCM_16")
    (folder / path).write_bytes(flac.getvalue())
    facts = [tables()["programs"][program] for program in recording.programs]
    licence = "; ".join(f"{each['licence']} (by {each['author']})" for each in facts)
    number, seconds = f"{source}:{recording.name}", len(wave) / RATE
    clip = Clip(path.as_posix(), label, recording.caption, number, source, seconds, licence, labels=recording.labels)
    return [(recording.split, clip)]
