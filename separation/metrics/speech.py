"""What listeners would say of speech, estimated by packages that come with `separation[eval]`."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
SPEECH_RATE = 16000
PACKAGES = {"pesq": "pesq", "stoi": "pystoi"}


class MissingPackage(ImportError):
    """A metric needs a package that is not installed; the message is one plain sentence."""


def installed(metric: str) -> bool:
    """Whether a metric's package is there."""
    return metric not in PACKAGES or find_spec(PACKAGES[metric]) is not None


def package(metric: str) -> Any:
    """A metric's package.

    Raises:
        MissingPackage: it is not installed.
    """
    name = PACKAGES[metric]
    try:
        return import_module(name)
    except ImportError:
        sentence = f"{metric.upper()} needs the package {name}: pip install {name}, or pip install 'separation[eval]'."
        raise MissingPackage(sentence) from None


def at_speech_rate(wave: Array, sample_rate: int) -> Array:
    """(time,) at 16 kHz."""
    import soxr

    return wave if sample_rate == SPEECH_RATE else soxr.resample(wave, sample_rate, SPEECH_RATE)


def pesq(reference: Array, estimate: Array, sample_rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1 to 4.64; NaN where it finds no utterance. Other rates are brought to 16 kHz.

    Args:
        reference: clean speech (time,).
        estimate: enhanced speech (time,).
        sample_rate: Hz.

    Raises:
        MissingPackage: the package `pesq` is not installed.
    """
    module = package("pesq")
    waves = (at_speech_rate(wave, sample_rate) for wave in (reference, estimate))
    # The package sees 16-bit integers; silence would divide by zero in there.
    reference, estimate = (np.asarray(wave, dtype=np.float32) for wave in waves)
    if not reference.any() or not estimate.any():
        return float("nan")
    try:
        return float(module.pesq(SPEECH_RATE, reference, estimate, "wb"))
    except (module.NoUtterancesError, module.BufferTooShortError):
        return float("nan")


def stoi(reference: Array, estimate: Array, sample_rate: int, extended: bool = False) -> float:
    """Short-time objective intelligibility (Taal et al., 2011), 0 to 1; NaN where too little speech is left.

    Args:
        reference: clean speech (time,).
        estimate: enhanced speech (time,).
        sample_rate: Hz.
        extended: ESTOI (Jensen and Taal, 2016).

    Raises:
        MissingPackage: the package `pystoi` is not installed.
    """
    import warnings

    module = package("stoi")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # so it says that 30 frames of speech are missing
        try:
            return float(module.stoi(reference, estimate, sample_rate, extended=extended))
        except (RuntimeWarning, ValueError):  # of not a single frame it says nothing, and fails on the empty array
            return float("nan")
