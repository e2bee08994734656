"""AudioSep's six sets (arXiv 2308.05037), from the lists in its repository (github.com/Audio-AGI/AudioSep).

The authors distribute mixed files; only those give figures comparable to the published ones. In four sets they are
named by row number (`segment-0.wav`, `mixture-0.wav`): `audiosep/NAME-released`. The lists of these four also name the
recordings, but no level, so a second protocol mixes them again: `audiosep/NAME`, every interference at 0 dB, cut or
padded with silence to the length of the target, peaks above 1 scaled to 0.9. AudioSet and VGGSound have mixed files
only.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from separation.data.fixed_mixtures import Mixing, Row
from separation.data.lists import read_cells
from separation.evaluate.protocols.base import ListFile, Protocol, make_row

RELEASED = Mixing(sample_rate=32000, seconds=None, peak=None)
REMIXED = Mixing(sample_rate=32000, seconds=None, peak=1.0, peak_to=0.9)
SOURCE = "The lists are in evaluation/metadata of github.com/Audio-AGI/AudioSep (MIT); its README links the mixtures."
AUDIOSET = "evaluation/data/audioset/"
SETS = {  # rows, queries, aggregate; sha256 of the list, of the rows with the released files, of the remixed rows
    "audiocaps": (
        4820, "captions", "mean",
        "c8e99f43b25e5f50ff878c17c3d32fb8e308f731c1b3c63ab9734ef8a81609c0",
        "22a8d15c2ba10bb356b545c14855aea7cc8d0264432790d05e20029c8c5dadcb",
        "98334af911573b28354c220ce029b29a0e7722dd8036056188f614de0d81d896",
    ),
    "audioset": (
        5270, "names of 527 classes", "class median",
        "11fb7fff03e5f36ff34907b86aeef0665da5d2729692c4ed50b1dbfa37115d96",
        "46491e423d2411ba6d62417b8b7be521b02ca903393d534bd99d23857860925b",
        None,
    ),
    "clotho": (
        5225, "captions, two interferences each", "mean",
        "e56084e442bc6afa05e845ca5aa3cea079bc15fa644bf4b19db9d95e4d5fd6d4",
        "7b7073569fa2be6851caa0924de10a0d4fdefe310efa8e5592696b979163cd60",
        "18181372c1a4dd17903e65eef4baf940eb1e1a180eb0f4cb8d4168282719a819",
    ),
    "esc50": (
        2000, "names of 50 classes", "mean",
        "bbb4fda3fb0152b814776e5371e9d521f70cdcd90aaf9aabe40c924cea1550fb",
        "14f1e08a8129cf7ea1af19ee287745f9737c6d04b8c27da3e01eb35ec56a0afd",
        "18807019ae97778e6ebcadaea9543b0444f130a4a9ceb57acd544fcfd0341222",
    ),
    "music": (
        5004, "names of 10 instruments", "class mean",
        "5b0f12bc6b9848b24c8a6efc003ba4b9bb6b8d87e41a33edd75ec7d97d86d0f0",
        "104da44f2a05d143a70f7a3700c123dea14323f1dd69e1e2e67a12517d0653c8",
        "b42867a8a37854350012a80c014236134a2d099eeab8607a97d4610c21958a53",
    ),
    "vggsound": (
        1000, "names of classes", "mean",
        "741dfb8069ca5a2de38714c5ab685800c15021753a32cab7b41d415d22e2ccd3",
        "de0f53e85a16c73420e042b6d9e8fab183ca1a29905b4419842c69535d6478cf",
        None,
    ),
}  # fmt: skip


def build(root: Path, path: Path, name: str, remix: bool) -> list[Row]:
    """Build the rows of a set. Columns are read by position, since two of them may have the same name."""
    first = 3 if name == "audiocaps" else 2  # column of the target; AudioCaps has labels before it
    least = 4 if name in ("audioset", "vggsound") else first + 2 if remix else 2
    rows = []
    for _, cells in list(read_cells(path, least))[1:]:
        number, query = cells[:2]
        if remix:
            row = make_row(number, query, cells[first], cells[first + 1 :], snr_db="0")
        elif name == "audioset":  # ten two-second mixtures a class; the column noise_wav names the mixture
            target, mixture = (cell.removeprefix(AUDIOSET) for cell in cells[2:4])
            row = make_row(target.split("/")[-1].removesuffix(",source.wav"), query, target, mixture=mixture)
        elif name == "vggsound":  # a hundred clips with ten interferences each: id, mixture, target, query
            row = make_row(number, cells[3], cells[2], mixture=cells[1])
        else:
            row = make_row(number, query, f"segment-{number}.wav", mixture=f"mixture-{number}.wav")
        rows.append(row)
    return rows


def make_protocol(name: str, remix: bool) -> Protocol:
    """Make the protocol of a set, from its recordings (`remix`) or from the authors' mixed files."""
    count, queries, aggregate, list_sha256, released, remixed = SETS[name]
    file, below = f"{name}_eval.csv", f"evaluation/data/{name}"
    return Protocol(
        name=f"audiosep/{name}" if remix or remixed is None else f"audiosep/{name}-released",
        version=1,
        about=f"AudioSep's set {name}, {count} {queries}, 32 kHz; "
        + ("mixed again at 0 dB" if remix else "mixed by its authors"),
        source=SOURCE,
        root=f"SEPARATION_{name.upper()}_ROOT",
        build=partial(build, name=name, remix=remix),
        mixing=REMIXED if remix else RELEASED,
        lists=(ListFile((file, f"audiosep_eval/{file}", f"evaluation/metadata/{file}"), list_sha256),),
        folders=("", "audio", "evaluation", below) if remix else ("", below),
        sha256=remixed if remix else released,
        count=count,
        aggregate=aggregate,
    )


PROTOCOLS = tuple(make_protocol(name, remix) for name in SETS for remix in (True, False) if SETS[name][-1] or not remix)
