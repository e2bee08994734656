"""AudioSep's six sets (arXiv 2308.05037), from the lists in its repository (github.com/Audio-AGI/AudioSep).

The authors distribute mixed files; only those give figures comparable to the published ones. In four sets they are
named by row number (`segment-0.wav`, `mixture-0.wav`): `audiosep/NAME-released`. The lists of these four also name the
recordings, but no level, so a second protocol mixes them again: `audiosep/NAME`, every interference at 0 dB, cut or
padded with silence to the length of the target, peaks above 1 scaled to 0.9. AudioSet and VGGSound have mixed files
only.
"""

from __future__ import annotations

from collections.abc import Callable

from separation.data.fixed_mixtures import Mixing, Row
from separation.evaluate.protocols.base import ListFile, Protocol, Sources, make_row

RELEASED = Mixing(sample_rate=32000, seconds=None, peak=None)
REMIXED = Mixing(sample_rate=32000, seconds=None, peak=1.0, peak_to=0.9)
SOURCE = "The lists are in evaluation/metadata of github.com/Audio-AGI/AudioSep (MIT); its README links the mixtures."
AUDIOSET = "evaluation/data/audioset/"
SHA256 = {
    "audiocaps": "c8e99f43b25e5f50ff878c17c3d32fb8e308f731c1b3c63ab9734ef8a81609c0",
    "audioset": "11fb7fff03e5f36ff34907b86aeef0665da5d2729692c4ed50b1dbfa37115d96",
    "clotho": "e56084e442bc6afa05e845ca5aa3cea079bc15fa644bf4b19db9d95e4d5fd6d4",
    "esc50": "bbb4fda3fb0152b814776e5371e9d521f70cdcd90aaf9aabe40c924cea1550fb",
    "music": "5b0f12bc6b9848b24c8a6efc003ba4b9bb6b8d87e41a33edd75ec7d97d86d0f0",
    "vggsound": "741dfb8069ca5a2de38714c5ab685800c15021753a32cab7b41d415d22e2ccd3",
}
ROWS_SHA256 = {
    "audiocaps": "98334af911573b28354c220ce029b29a0e7722dd8036056188f614de0d81d896",
    "audiocaps-released": "22a8d15c2ba10bb356b545c14855aea7cc8d0264432790d05e20029c8c5dadcb",
    "audioset": "46491e423d2411ba6d62417b8b7be521b02ca903393d534bd99d23857860925b",
    "clotho": "18181372c1a4dd17903e65eef4baf940eb1e1a180eb0f4cb8d4168282719a819",
    "clotho-released": "7b7073569fa2be6851caa0924de10a0d4fdefe310efa8e5592696b979163cd60",
    "esc50": "18807019ae97778e6ebcadaea9543b0444f130a4a9ceb57acd544fcfd0341222",
    "esc50-released": "14f1e08a8129cf7ea1af19ee287745f9737c6d04b8c27da3e01eb35ec56a0afd",
    "music": "b42867a8a37854350012a80c014236134a2d099eeab8607a97d4610c21958a53",
    "music-released": "104da44f2a05d143a70f7a3700c123dea14323f1dd69e1e2e67a12517d0653c8",
    "vggsound": "de0f53e85a16c73420e042b6d9e8fab183ca1a29905b4419842c69535d6478cf",
}


def build_remixed(name: str) -> Callable[[Sources], list[Row]]:
    """Return a builder of rows idx, caption, (labels,) target, interference, (interference).

    Columns are read by position, since two of them have the same name.
    """

    def build(sources: Sources) -> list[Row]:
        first = 3 if name == "audiocaps" else 2
        rows = sources.rows(f"{name}_eval.csv", first + 2)[1:]
        return [make_row(row[0], row[1], row[first], row[first + 1 :], snr_db="0") for row in rows]

    return build


def build_released(name: str) -> Callable[[Sources], list[Row]]:
    """Return a builder of rows of the same queries with the mixed files."""

    def build(sources: Sources) -> list[Row]:
        rows = sources.rows(f"{name}_eval.csv", 2)[1:]
        return [make_row(row[0], row[1], f"segment-{row[0]}.wav", mixture=f"mixture-{row[0]}.wav") for row in rows]

    return build


def build_audioset(sources: Sources) -> list[Row]:
    """Build ten two-second mixtures a class; the column noise_wav names the mixture."""
    rows = []
    for _, caption, *paths in (row[:4] for row in sources.rows("audioset_eval.csv", 4)[1:]):
        target, mixture = (path.removeprefix(AUDIOSET) for path in paths)
        rows.append(make_row(target.split("/")[-1].removesuffix(",source.wav"), caption, target, mixture=mixture))
    return rows


def build_vggsound(sources: Sources) -> list[Row]:
    """Build a hundred clips with ten interferences each."""
    rows = sources.rows("vggsound_eval.csv", 4)[1:]
    return [make_row(row[0], row[3], row[2], mixture=row[1]) for row in rows]


BUILD = {"audioset": build_audioset, "vggsound": build_vggsound}


def make_protocol(name: str, count: int, queries: str, aggregate: str = "mean", *, remix: bool = False) -> Protocol:
    """Make the protocol of a set, from its recordings (`remix`) or from the authors' mixed files."""
    full = name if remix or name in BUILD else f"{name}-released"
    file, below = f"{name}_eval.csv", f"evaluation/data/{name}"
    return Protocol(
        name=f"audiosep/{full}",
        version=1,
        about=f"AudioSep's set {name}, {count} {queries}, 32 kHz; "
        + ("mixed again at 0 dB" if remix else "mixed by its authors"),
        source=SOURCE,
        root=f"SEPARATION_{name.upper()}_ROOT",
        build=build_remixed(name) if remix else BUILD.get(name, build_released(name)),
        mixing=REMIXED if remix else RELEASED,
        lists=(ListFile((file, f"audiosep_eval/{file}", f"evaluation/metadata/{file}"), SHA256[name]),),
        folders=("", "audio", "evaluation", below) if remix else ("", below),
        sha256=ROWS_SHA256[full],
        count=count,
        aggregate=aggregate,
    )


PROTOCOLS = (
    make_protocol("audiocaps", 4820, "captions", remix=True),
    make_protocol("audiocaps", 4820, "captions"),
    make_protocol("audioset", 5270, "names of 527 classes", "class median"),
    make_protocol("clotho", 5225, "captions, two interferences each", remix=True),
    make_protocol("clotho", 5225, "captions, two interferences each"),
    make_protocol("esc50", 2000, "names of 50 classes", remix=True),
    make_protocol("esc50", 2000, "names of 50 classes"),
    make_protocol("music", 5004, "names of 10 instruments", "class mean", remix=True),
    make_protocol("music", 5004, "names of 10 instruments", "class mean"),
    make_protocol("vggsound", 1000, "names of classes"),
)
