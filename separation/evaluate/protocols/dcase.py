"""DCASE 2024 task 9, language-queried separation: the synthetic validation set (zenodo.org/records/10886481).

The list gives target, noise, SNR and caption. Its columns are read by position, as in the organisers' evaluator.
"""

from __future__ import annotations

from pathlib import Path

from separation.data.fixed_mixtures import Mixing, Row
from separation.data.lists import read_cells
from separation.evaluate.protocols.base import ListFile, Protocol, make_row


def build(root: Path, path: Path) -> list[Row]:
    """Build rows from target, noise, SNR and caption; the list has names without suffix."""
    return [
        make_row(number, caption, f"{target}.wav", [f"{noise}.wav"], snr_db=snr)
        for number, (_, (target, noise, snr, caption, *_)) in enumerate(list(read_cells(path, 4))[1:])
    ]


PROTOCOLS = (
    Protocol(
        name="dcase2024/task9",
        version=1,
        about="3,000 captioned mixtures of 10 s at 16 kHz, -15 to 15 dB",
        source="The list and the recordings (lass_validation.zip) are at zenodo.org/records/10886481.",
        root="SEPARATION_DCASE2024_ROOT",
        build=build,
        mixing=Mixing(sample_rate=16000, seconds=None, peak=1.0, peak_to=0.9),
        lists=(ListFile(("lass_synthetic_validation.csv",)),),
        folders=("lass_validation", ""),
    ),
)
