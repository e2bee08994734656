"""A picture of a separation: spectrograms of mixture, target and residual, one time axis and one
colour scale.

The spectrogram is summed up while the audio streams by, into at most COLUMNS columns and ROWS rows
on a logarithmic frequency axis, so that an hour takes as little memory as a second.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

COLUMNS = 900
ROWS = 240
LOWEST = 40.0
RANGE = 80.0
TICKS = (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0)


class Spectrogram:
    """Mean power over time and frequency of a signal that arrives in blocks.

    Args:
        sample_rate: in Hz.
        frames: the signal's length in samples.
    """

    def __init__(self, sample_rate: int, frames: int) -> None:
        import numpy as np

        self.sample_rate, self.frames = sample_rate, frames
        self.size = 2 ** max(4, round(math.log2(sample_rate * 0.046)))
        self.hop = max(1, min(self.size // 2, frames // COLUMNS))
        self._windows = frames // self.hop + 1
        self.columns = min(COLUMNS, self._windows)
        self.window = np.hanning(self.size + 1)[:-1].astype(np.float32)
        self.edges = band_edges(sample_rate)
        self._bands = _band_matrix(sample_rate, self.size, self.edges)
        self._power = np.zeros((self.columns, ROWS))
        self._count = np.zeros(self.columns)
        self._done = 0
        # Half a window of silence puts window k's centre at sample k * hop.
        self._tail: NDArray[np.float32] | None = None

    def push(self, block: Tensor) -> None:
        """Adds samples (channels, time)."""
        self._push(block.detach().to("cpu").numpy())

    def _push(self, samples: NDArray[np.float32]) -> None:
        import numpy as np

        if self._tail is None:
            self._tail = np.zeros((len(samples), self.size // 2), np.float32)
        signal = np.concatenate([self._tail, samples], axis=1)
        count = max(0, (signal.shape[1] - self.size) // self.hop + 1)
        for start in range(0, count, 256):
            self._add(signal, start, min(start + 256, count))
        self._tail = signal[:, count * self.hop :]

    def _add(self, signal: NDArray[np.float32], first: int, last: int) -> None:
        """Windows number `first` to `last` of `signal`."""
        import numpy as np

        at = np.arange(first, last)[:, None] * self.hop + np.arange(self.size)
        power = np.zeros((last - first, self.size // 2 + 1))
        for channel in signal:
            power += np.abs(np.fft.rfft(channel[at] * self.window)) ** 2 / len(signal)
        index = np.arange(self._done, self._done + last - first)
        column = np.minimum(index * self.columns // self._windows, self.columns - 1)
        np.add.at(self._power, column, power @ self._bands)
        np.add.at(self._count, column, 1.0)
        self._done += last - first

    def decibels(self) -> NDArray[np.float64]:
        """(ROWS, columns), 0 dB is a full-scale sine; call it once, after the last block."""
        import numpy as np

        missing = self._windows - self._done
        if missing > 0:
            channels = 1 if self._tail is None else len(self._tail)
            held = 0 if self._tail is None else self._tail.shape[1]
            wanted = (missing - 1) * self.hop + self.size
            self._push(np.zeros((channels, max(0, wanted - held)), np.float32))
        reference = (self.window.sum() / 2.0) ** 2
        mean = self._power / np.maximum(self._count, 1.0)[:, None] / reference
        levels: NDArray[np.float64] = 10.0 * np.log10(np.maximum(mean, 1e-14)).T
        return levels


def band_edges(sample_rate: int) -> NDArray[np.float64]:
    """ROWS + 1 frequencies in Hz, evenly spaced on a logarithmic axis up to half the sample
    rate.
    """
    import numpy as np

    top = sample_rate / 2.0
    return np.geomspace(min(LOWEST, top / 8.0), top, ROWS + 1)


def _band_matrix(sample_rate: int, size: int, edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """(size // 2 + 1, ROWS): each row's mean over the bins that it covers, in proportion to the
    overlap.
    """
    import numpy as np

    step = sample_rate / size
    centre = np.arange(size // 2 + 1)[:, None] * step
    low = np.maximum(centre - step / 2, edges[:-1])
    high = np.minimum(centre + step / 2, edges[1:])
    overlap = np.maximum(high - low, 0.0)
    shares: NDArray[np.float64] = overlap / np.maximum(overlap.sum(axis=0), 1e-12)
    return shares


def draw(
    file: BinaryIO,
    panels: dict[str, NDArray[np.float64]],
    title: str,
    seconds: float,
    edges: NDArray[np.float64],
) -> None:
    """Writes a PNG.

    Args:
        file: where to.
        panels: name -> decibels (ROWS, columns), from top to bottom, for example mixture, target,
            residual.
        title: above them; any text, nothing in it is markup.
        seconds: length of the signal.
        edges: `Spectrogram.edges`.
    """
    from matplotlib.figure import Figure

    top = max(float(levels.max()) for levels in panels.values())
    figure = Figure(figsize=(10.0, 1.0 + 2.3 * len(panels)), dpi=110, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, levels) in zip(axes, panels.items(), strict=True):
        image = axis.imshow(
            levels, origin="lower", aspect="auto", cmap="magma", vmin=top - RANGE, vmax=top,
            extent=(0.0, seconds, math.log2(edges[0]), math.log2(edges[-1])),
            interpolation="nearest",
        )  # fmt: skip
        ticks = [tick for tick in TICKS if edges[0] <= tick <= edges[-1]]
        axis.set_yticks([math.log2(tick) for tick in ticks], [f"{tick / 1000:g}" for tick in ticks])
        axis.set_ylabel("frequency (kHz)")
        axis.set_title(name, loc="left", fontsize="medium", parse_math=False)
    axes[-1].set_xlabel("time (s)")
    figure.colorbar(image, ax=list(axes), label="level (dB, 0 = full-scale sine)", pad=0.01)
    figure.suptitle(title, parse_math=False)
    with warnings.catch_warnings():
        # A query in a script that the font lacks is drawn as boxes; that is no news for the
        # terminal.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(file, format="png")
