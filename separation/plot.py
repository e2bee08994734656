"""Pictures of a separation: spectrograms of mixture, target and residual with one time axis and one colour scale.

A spectrogram is accumulated block by block into at most COLUMNS columns and ROWS rows on a logarithmic frequency axis,
so that an hour needs as little memory as a second.
"""

from __future__ import annotations

import logging
import math
import warnings
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from separation.listing import DetectedSound

COLUMNS = 900
ROWS = 240
LOWEST_HZ = 40.0
RANGE = 80.0  # dB from the brightest to the darkest colour
TICKS = (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0)
WINDOWS_AT_ONCE = 256


class Spectrogram:
    """Mean power over time and frequency of a signal that arrives in blocks.

    Args:
        sample_rate: in Hz.
        frames: length of the signal in samples.

    Attributes:
        edges: ROWS + 1 frequencies in Hz, evenly spaced on a logarithmic axis up to half the sample rate.
    """

    def __init__(self, sample_rate: int, frames: int) -> None:
        self.size = 2 ** max(4, round(math.log2(sample_rate * 0.046)))
        self.hop = max(1, min(self.size // 2, frames // COLUMNS))
        self.windows = frames // self.hop + 1
        self.columns = min(COLUMNS, self.windows)
        self.window = np.hanning(self.size + 1)[:-1]  # float64: the squares of large samples exceed float32
        top, step = sample_rate / 2.0, sample_rate / self.size
        self.edges: NDArray[np.float64] = np.geomspace(min(LOWEST_HZ, top / 8.0), top, ROWS + 1)
        # A row is the mean over the bins that it covers, in proportion to the overlap.
        centre = np.arange(self.size // 2 + 1)[:, None] * step
        overlap = np.minimum(centre + step / 2, self.edges[1:]) - np.maximum(centre - step / 2, self.edges[:-1])
        overlap = np.maximum(overlap, 0.0)
        self.bands = overlap / np.maximum(overlap.sum(axis=0), 1e-12)
        self.power = np.zeros((self.columns, ROWS))
        self.count = np.zeros(self.columns)
        self.done = 0
        self.tail: NDArray[np.float32] | None = None  # samples from the next window's first one on

    def push(self, samples: Tensor | NDArray[np.float32]) -> None:
        """Add samples (channels, time), in the main memory."""
        samples = np.asarray(samples)
        if self.tail is None:  # half a window of silence puts the centre of window k at sample k * hop
            self.tail = np.zeros((len(samples), self.size // 2), np.float32)
        signal = np.concatenate([self.tail, samples], axis=1)
        count = max(0, (signal.shape[1] - self.size) // self.hop + 1)
        for start in range(0, count, WINDOWS_AT_ONCE):
            windows = np.arange(start, min(start + WINDOWS_AT_ONCE, count))
            samples_of = windows[:, None] * self.hop + np.arange(self.size)
            power = np.zeros((len(windows), self.size // 2 + 1))
            for channel in signal:
                power += np.abs(np.fft.rfft(channel[samples_of] * self.window)) ** 2 / len(signal)
            column = np.minimum((self.done + windows) * self.columns // self.windows, self.columns - 1)
            np.add.at(self.power, column, power @ self.bands)
            np.add.at(self.count, column, 1.0)
        self.done += count
        self.tail = signal[:, count * self.hop :]

    def decibels(self) -> NDArray[np.float64]:
        """Levels (ROWS, columns), where 0 dB is a full-scale sine. Call it once, after the last block."""
        missing = self.windows - self.done
        if missing > 0:
            channels, held = (1, 0) if self.tail is None else self.tail.shape
            silence = max(0, (missing - 1) * self.hop + self.size - held)
            self.push(np.zeros((channels, silence), np.float32))
        reference = (self.window.sum() / 2.0) ** 2
        mean = self.power / np.maximum(self.count, 1.0)[:, None] / reference
        levels: NDArray[np.float64] = 10.0 * np.log10(np.maximum(mean, 1e-14)).T
        return levels


def draw(
    file: BinaryIO,
    panels: dict[str, NDArray[np.float64]],
    title: str,
    seconds: float,
    edges: NDArray[np.float64],
    sounds: Sequence[DetectedSound] | None = None,
) -> None:
    """Write a PNG of panels (name -> levels (ROWS, columns) in dB, from top to bottom) over `seconds`.

    With `sounds`, the last panel shows when each of them occurs.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it advises on its cache folder where HOME is read-only
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    top = max(float(levels.max()) for levels in panels.values())
    heights = [2.3] * len(panels) + ([] if sounds is None else [0.5 + 0.25 * max(1, len(sounds))])
    figure = Figure(figsize=(10.0, 1.0 + sum(heights)), dpi=110, layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (name, levels) in zip(axes, panels.items(), strict=False):
        image = axis.imshow(
            levels, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE, vmax=top, interpolation="nearest",
            extent=(0.0, seconds, math.log2(edges[0]), math.log2(edges[-1])),
        )  # fmt: skip
        ticks = [tick for tick in TICKS if edges[0] <= tick <= edges[-1]]
        axis.set_yticks([math.log2(tick) for tick in ticks], [f"{tick / 1000:g}" for tick in ticks])
        axis.set_ylabel("frequency (kHz)")
        axis.set_title(name, loc="left", fontsize="medium", parse_math=False)
    for row, sound in enumerate(sounds or ()):
        bars = [(begin, end - begin) for begin, end in sound.times]
        axes[-1].broken_barh(bars, (row - 0.35, 0.7), color="tab:blue", alpha=0.3 + 0.7 * sound.probability)
    if sounds is not None:
        names = [f"{sound.label} {sound.probability:.2f}" for sound in sounds]
        axes[-1].set_yticks(range(len(names)), names, parse_math=False)
        axes[-1].set_ylim(max(0, len(names) - 1) + 0.5, -0.5)
        axes[-1].set_title("sounds", loc="left", fontsize="medium")
        axes[-1].grid(axis="x", alpha=0.4)
    axes[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(axes[: len(panels)]), label="level (dB, 0 = full-scale sine)", pad=0.01)
    figure.suptitle(title, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # scripts that the font lacks are drawn as boxes
        FigureCanvasAgg(figure).print_png(file)  # savefig would draw it twice
