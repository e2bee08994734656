"""Separation scores, on numpy waveforms.

`ratios` SDR and its relatives; `bss_eval` SDR, ISR, SIR and SAR as museval has them; `speech` PESQ and STOI where their
packages are installed; `intervals` how sure a mean is; `oracle` what a mask could reach.
"""

from separation.metrics.bss_eval import BSS, bss_eval, windowed_sdr
from separation.metrics.intervals import bootstrap
from separation.metrics.ratios import (
    CAP_DB,
    PUBLISHED_EPSILON,
    PUBLISHED_FLOOR,
    Array,
    decibel,
    energy,
    sdr,
    sdri,
    segmental_snr,
    si_sdr,
    si_sdri,
    snr,
    suppression,
)
from separation.metrics.speech import MissingPackage, pesq, stoi

__all__ = [
    "BSS",
    "CAP_DB",
    "PUBLISHED_EPSILON",
    "PUBLISHED_FLOOR",
    "Array",
    "MissingPackage",
    "bootstrap",
    "bss_eval",
    "decibel",
    "energy",
    "pesq",
    "sdr",
    "sdri",
    "segmental_snr",
    "si_sdr",
    "si_sdri",
    "snr",
    "stoi",
    "suppression",
    "windowed_sdr",
]
