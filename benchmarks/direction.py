"""Measures the error of the directions of sounds in simulated recordings of several channels.

    python benchmarks/direction.py --data FOLDER --every 4 --json direction.json

Each validation mixture of two or three labelled recordings is built anew with every recording at a random place:
panned by the constant-power law, or in front of spaced microphones (delays of any fraction of a sample) or of a
microphone of first-order ambisonics, in the open or in a room of 6 x 5 x 3 m (image sources, reverberation time 0.3 s,
1.5 m away). Each recording is asked for by its label, and its direction is estimated from the separated covariance.
Printed per kind are the mean and median absolute error over the directions that are given, the share that is given,
and the same for the mixture, as if nothing were separated.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import list_rows, make_parser, run_benchmark, write_json
from tqdm import tqdm

from separation import Separator
from separation.data.fixed_mixtures import CLIPS, SAMPLE_RATE, Row, read_row_clip
from separation.evaluate.tables import markdown
from separation.inference.direction import SPEED_OF_SOUND, Direction
from separation.inference.results import Separation
from separation.listing import LIST_PRESENCE

ROOM, PLACE, REFLECTION, ORDER = np.array([6.0, 5.0, 3.0]), np.array([2.7, 2.3, 1.4]), 0.8, 5
DISTANCE, RESPONSE = 1.5, 16384  # metres, samples
PAIR = ((0.0, 0.1, 0.0), (0.0, -0.1, 0.0))
SQUARE = ((0.05, 0.05, 0.0), (0.05, -0.05, 0.0), (-0.05, -0.05, 0.0), (-0.05, 0.05, 0.0))
KINDS: dict[str, Any] = {"stereo pan": "stereo", "two microphones, 20 cm": PAIR, "four microphones, 10 cm": SQUARE,
    "ambisonics": "ambix"}  # fmt: skip


def image_sources(azimuth: float, room: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors (images, 3), distances in metres and gains of a source and its reflections, the source first."""
    source = PLACE + DISTANCE * np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    steps = np.array(list(product(range(-ORDER, ORDER + 1), repeat=3))) if room else np.zeros((1, 3), int)
    steps = steps[np.abs(steps).sum(1).argsort(kind="stable")]
    steps = steps[np.abs(steps).sum(1) <= ORDER]
    places = np.where(steps % 2 == 0, steps * ROOM + source, (steps + 1) * ROOM - source) - PLACE
    distances = np.linalg.norm(places, axis=1)
    return places / distances[:, None], distances, REFLECTION ** np.abs(steps).sum(1) / distances


def place(wave: np.ndarray, azimuth: float, array: Any, room: bool) -> np.ndarray:
    """Record a source (time,) at an azimuth in radians with an array: (channels, time)."""
    directions, distances, gains = image_sources(azimuth, room)
    omega = 2 * np.pi * np.fft.rfftfreq(RESPONSE, 1 / SAMPLE_RATE)
    delays = (distances - distances[0]) / SPEED_OF_SOUND + 0.001  # so that no microphone hears it before it starts
    if array == "stereo":
        angles = np.pi / 4 - np.arcsin(directions[:, 1]) / 2
        response = np.stack([np.cos(angles), np.sin(angles)])[:, :, None]
    elif array == "ambix":
        response = np.stack([np.ones(len(gains)), *directions.T[[1, 2, 0]]])[:, :, None]
    else:
        response = np.exp(1j * omega * (np.array(array) @ directions.T)[..., None] / SPEED_OF_SOUND)
    waves = gains[:, None] * np.exp(-1j * omega * delays[:, None])
    filters = np.fft.irfft((np.broadcast_to(response, (len(response), *waves.shape)) * waves).sum(1))
    size = 1 << (len(wave) + RESPONSE).bit_length()
    return np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(filters, size))[:, : len(wave)]


def record(row: Row, root: Path, array: Any, room: bool, rng: np.random.Generator) -> tuple[torch.Tensor, list[float]]:
    """Mix the clips of a row in a recording (channels, time); return their azimuths in degrees as well."""
    names = [name for name in CLIPS if row.get(name)]
    clips = [read_row_clip(row, name, root) for name in names]
    half = 90.0 if len(array) == 2 or array == "stereo" else 180.0
    azimuths, mixture = rng.uniform(-half, half, len(names)), 0.0
    for clip, azimuth in zip(clips, azimuths, strict=True):
        level = np.sqrt((clips[0] ** 2).sum() / max((clip**2).sum(), 1e-12))
        gain = 1.0 if clip is clips[0] else level * 10 ** (-float(row["snr_db"]) / 20)
        mixture = mixture + gain * place(clip, np.radians(azimuth), array, room)
    return torch.from_numpy(0.5 * mixture / np.abs(mixture).max()).float(), azimuths.tolist()


def angle_error(direction: Direction, azimuth: float) -> float | None:
    """Absolute error of an azimuth in degrees, or of a pan; None without a direction."""
    if direction.pan is not None:
        return abs(direction.pan + azimuth / 90)
    return None if direction.azimuth is None else abs((direction.azimuth - azimuth + 180) % 360 - 180)


def summarise(errors: list[float | None]) -> dict[str, float]:
    """Number of sounds, share with a direction, and mean and median error of these."""
    given = [error for error in errors if error is not None]
    share = len(given) / max(1, len(errors))
    return {"sounds": len(errors), "given": share, "mean": np.mean(given), "median": np.median(given)}


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    options = make_parser(__doc__, mixtures=True).parse_args(argv)
    separator = Separator.from_pretrained(options.model)
    rows, root = list_rows(options, "pair", "three")
    figures: dict[str, Any] = {}
    for (name, array), room in tqdm(list(product(KINDS.items(), (False, True))), "directions", disable=None):
        errors: dict[str, list[float | None]] = {"separated": [], "mixture": []}
        for number, row in enumerate(rows):
            mixture, azimuths = record(row, root, array, room, np.random.default_rng(number))
            results = separator(mixture, [row[f"{clip}_label"] for clip in CLIPS if row.get(clip)], SAMPLE_RATE)
            whole = Separation(mixture, torch.zeros_like(mixture), SAMPLE_RATE, 1.0).direction(array)
            for result, azimuth in zip(results, azimuths, strict=True):
                if result.presence >= LIST_PRESENCE:  # others would not be listed
                    errors["separated"].append(angle_error(result.direction(array), azimuth))
                    errors["mixture"].append(angle_error(whole, azimuth))
        figures[f"{name}, {'room' if room else 'open'}"] = {kind: summarise(each) for kind, each in errors.items()}
    cells = []
    for name, each in figures.items():
        unit, digits = ("", 2) if name.startswith("stereo") else ("°", 1)
        mean, median, before = (
            f"{value:.{digits}f}{unit}"
            for value in (each["separated"]["mean"], each["separated"]["median"], each["mixture"]["mean"])
        )
        cells.append(
            (name, str(each["separated"]["sounds"]), f"{each['separated']['given']:.0%}", mean, median, before)
        )
    print(markdown(("recording", "sounds", "given", "mean error", "median", "mean of the mixture"), cells))
    write_json(options.json, figures)


if __name__ == "__main__":
    run_benchmark(main)
