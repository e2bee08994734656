"""The validation list of this project: 300 pairs, 60 triples, 100 absent queries, of validation recordings only."""

from __future__ import annotations

from pathlib import Path

from separation.data.fixed_mixtures import VALIDATION, read_rows
from separation.evaluate.protocols.base import Protocol

LIST = Path(__file__).with_name("validation.csv")
PROTOCOLS = (
    Protocol(
        name="validation",
        version=1,
        about="460 mixtures of 5 s at 32 kHz, 78 classes, -5 to 5 dB; --query phrase asks in other words",
        source="The list comes with this package.",
        root="SEPARATION_DATA",
        build=lambda root: read_rows(LIST),
        mixing=VALIDATION,
        sha256="4e3624bd06af3580351b7fc37d04f51b82e5be5b8e8fe1e3c5ab16d2f41fa868",
        count=460,
    ),
)
