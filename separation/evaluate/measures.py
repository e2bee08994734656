"""The metrics by the names that `--metrics` takes.

SDR and SI-SDR have the floors of the published tables (`metrics.ratios`), so that every row has a figure. BSS Eval is
version 4; a row's figure is the median over its windows. Its references are the target and all that interferes.

`swapped`: USS hands estimate and reference to museval in the wrong order for MUSDB18, both for its result and for the
mixture that it compares with. These metrics do the same, to be set beside what USS published and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from separation import metrics
from separation.metrics.speech import PACKAGES, SPEECH_RATE, at_speech_rate, installed

Array = NDArray[np.floating]
FLOOR, EPSILON = metrics.PUBLISHED_FLOOR, metrics.PUBLISHED_EPSILON


@dataclass
class Signals:
    """What one system made of one row, waveforms (time,).

    Args:
        target: the truth.
        mixture: what it was given.
        estimate: what it took for the target.
        rest: what it took for the rest.
        sample_rate: Hz.
        window: samples of BSS Eval's windows; None: one window.
    """

    target: Array
    mixture: Array
    estimate: Array
    rest: Array
    sample_rate: int
    window: int | None = None

    @cached_property
    def bss(self) -> metrics.BSS:
        """BSS Eval of target and rest."""
        references = np.stack([self.target, self.mixture - self.target])
        return metrics.bss_eval(references, np.stack([self.estimate, self.rest]), self.window)

    def bss_sdr(self, reference: Array, estimate: Array) -> float:
        """BSS Eval's SDR of one source."""
        return middle(metrics.windowed_sdr(reference, estimate, self.window))


def middle(values: Array) -> float:
    """The median of what is a number; NaN where nothing is."""
    numbers = values[~np.isnan(values)]
    return float(np.median(numbers)) if len(numbers) else float("nan")


def bss_part(name: str, signals: Signals) -> float:
    """One of BSS Eval's ratios of the target."""
    return middle(getattr(signals.bss, name)[0])


def difference(after: float, before: float) -> float:
    """An improvement; NaN where there was nothing to improve."""
    return after - before if np.isfinite(before) else float("nan")


def segmental_snr(signals: Signals) -> float:
    """Segmental SNR at 16 kHz, as PESQ, whatever the rate of the separation; NaN of what is too short for a frame."""
    target, estimate = (at_speech_rate(wave, signals.sample_rate) for wave in (signals.target, signals.estimate))
    try:
        return metrics.segmental_snr(target, estimate, SPEECH_RATE)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class Measure:
    """A metric: its heading in tables and what it is of a row."""

    heading: str
    of: Callable[[Signals], float]


MEASURES = {
    "sdr": Measure("SDR", lambda s: metrics.sdr(s.target, s.estimate, FLOOR)),
    "sdri": Measure("SDRi", lambda s: metrics.sdri(s.target, s.estimate, s.mixture, FLOOR)),
    "si_sdr": Measure("SI-SDR", lambda s: metrics.si_sdr(s.target, s.estimate, EPSILON)),
    "si_sdri": Measure("SI-SDRi", lambda s: metrics.si_sdri(s.target, s.estimate, s.mixture, EPSILON)),
    "snr": Measure("SNR, means removed", lambda s: metrics.snr(s.target, s.estimate, zero_mean=True)),
    "segmental_snr": Measure("segmental SNR", segmental_snr),
    "pesq": Measure("PESQ", lambda s: metrics.pesq(s.target, s.estimate, s.sample_rate)),
    "stoi": Measure("STOI", lambda s: metrics.stoi(s.target, s.estimate, s.sample_rate)),
    "bss_sdr": Measure("BSS SDR", lambda s: s.bss_sdr(s.target, s.estimate)),
    "bss_sdri": Measure(
        "BSS SDRi", lambda s: difference(s.bss_sdr(s.target, s.estimate), s.bss_sdr(s.target, s.mixture))
    ),
    "bss_isr": Measure("BSS ISR", partial(bss_part, "isr")),
    "bss_sir": Measure("BSS SIR", partial(bss_part, "sir")),
    "bss_sar": Measure("BSS SAR", partial(bss_part, "sar")),
    "bss_sdr_swapped": Measure("BSS SDR, swapped as in USS", lambda s: s.bss_sdr(s.estimate, s.target)),
    "bss_sdri_swapped": Measure(
        "BSS SDRi, swapped as in USS",
        lambda s: difference(s.bss_sdr(s.estimate, s.target), s.bss_sdr(s.estimate, s.mixture)),
    ),
}
SUPPRESSION = "suppression"  # of absent queries: the only metric that they have
DEFAULT = ("sdr", "sdri", "si_sdr")


def measure(names: tuple[str, ...], signals: Signals) -> dict[str, float]:
    """Metrics of one row by name."""
    return {name: MEASURES[name].of(signals) for name in names}


def wanted(text: str) -> tuple[str, ...]:
    """`--metrics`' value as names.

    Raises:
        ValueError: there is none, or no such metric.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in MEASURES]
    if not names or unknown:
        raise ValueError(f"{unknown[0] if unknown else 'nothing'} is no metric; these are: {', '.join(MEASURES)}")
    return names


def possible(names: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """Those whose packages are installed, and a sentence for each of the others."""
    missing = [
        f"{MEASURES[n].heading} is left out: it needs the package {PACKAGES[n]}." for n in names if not installed(n)
    ]
    return tuple(name for name in names if installed(name)), missing
