"""Hive's test and validation sets (arXiv 2601.22599), mixed from the user's copies of its twelve sources.

Rows follow its metadata and `mix_from_metadata.py` in github.com/ShandaAI/Hive (Apache-2.0): every source at its
`applied_weight` times the normalisation of the mixture. Each source of a mixture is asked for by its label. Which of
them the paper asks for, by what text and at which rate, was not available: figures may not be comparable.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from separation.data.fixed_mixtures import ALL_CLIPS, Mixing, Row
from separation.data.hive import HiveMixture, read_hive
from separation.evaluate.protocols.base import Protocol, ProtocolError, make_row

RATE = 44100
SOURCE = "The metadata are at huggingface.co/datasets/AlayaLab/Hive (earlier ShandaAI/Hive)."


def ask_for_each(mixture: HiveMixture) -> list[Row]:
    """Make a row for each source of a mixture."""
    rows = []
    for number, target in enumerate(mixture.sources):
        others = [source for n, source in enumerate(mixture.sources) if n != number]
        row = make_row(f"{mixture.name}-s{number + 1}", target.label, target.path, [each.path for each in others])
        for column, source in zip(ALL_CLIPS, (target, *others), strict=False):
            for what, value in (("start", source.start), ("seconds", source.seconds), ("gain", source.gain)):
                row[f"{column}_{what}"] = f"{value:.6f}"
        rows.append(row)
    return rows


def build(root: Path, split: str, seconds: float) -> list[Row]:
    """Build the rows of a split."""
    rows = []
    for mixture in read_hive(root, split):
        if (mixture.sample_rate, mixture.seconds) != (RATE, seconds):
            found = f"{mixture.seconds:g} s at {mixture.sample_rate} Hz"
            raise ProtocolError(f"hive/{split}: {mixture.name} is {found}, not {seconds:g} s at {RATE} Hz.")
        rows += ask_for_each(mixture)
    return rows


PROTOCOLS = tuple(
    Protocol(
        name=f"hive/{split}",
        version=1,
        about=f"Hive's {split} mixtures of 2 to 5 sources of {seconds:g} s at 44.1 kHz, each source asked for",
        source=SOURCE,
        root="SEPARATION_HIVE_ROOT",
        build=partial(build, split=split, seconds=seconds),
        mixing=Mixing(RATE, seconds, peak=None),
        metrics=("sdr", "sdri", "si_sdr", "si_sdri"),
    )
    for split, seconds in (("test", 10.0), ("validation", 4.0))
)
