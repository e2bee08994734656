"""Measure how well a model separates `mix.wav`: a table of its stems, each separated by its text query.

`python demos/score.py --at-least 8` has exit status 1 if a stem gains less than 8 dB.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from make_mix import FOLDER, STEMS, stems

from separation import ModelError, Separator, read
from separation.evaluate.metrics import sdr, sdri


class Result(NamedTuple):
    """One stem: SDR of the mixture, SDR improvement of the target (dB), max |target + residual - mixture|."""

    label: str
    before: float
    gain: float
    presence: float
    rounding: float


def score(separator: Separator) -> list[Result]:
    """Separate the mix with all queries in one pass and compare the targets with the stems."""
    (mixture, rate), references = read(FOLDER / "mix.wav"), stems()
    results = []
    for stem, r in zip(STEMS, separator(mixture, [stem.query for stem in STEMS], rate), strict=True):
        known, rounding = references[stem.label], float((r.target + r.residual - mixture).abs().max())
        before, gain = sdr(known, mixture.numpy()), sdri(known, r.target.numpy(), mixture.numpy())
        results.append(Result(stem.label, before, gain, r.presence, rounding))
    return results


def main(argv: list[str] | None = None) -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description="SDRi of the stems of demos/mix.wav")
    parser.add_argument("--model", default="default", help="model name or directory")
    parser.add_argument("--at-least", type=float, metavar="DB", help="fail if a stem's SDRi is less")
    arguments = parser.parse_args(argv)
    try:
        results = score(Separator.from_pretrained(arguments.model))
    except ModelError as error:
        parser.exit(1, f"{error}\n")
    print(f"{'stem':12}{'mixture SDR':>13}{'SDRi':>10}{'presence':>10}{'  |target + residual - mixture|'}")
    for r in results:
        print(f"{r.label:12}{r.before:10.2f} dB{r.gain:7.2f} dB{r.presence:10.2f}{r.rounding:18.1e} at most")
    return int(arguments.at_least is not None and min(r.gain for r in results) < arguments.at_least)


if __name__ == "__main__":
    raise SystemExit(main())
