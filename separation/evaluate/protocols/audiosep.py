"""AudioSep's six sets (arXiv 2308.05037), from the lists in its repository (github.com/Audio-AGI/AudioSep).

Its authors hand out ready mixtures; only with those are figures comparable to the published ones. For four sets they
are named by the row's number (`segment-0.wav`, `mixture-0.wav`): `audiosep/NAME-released`. The lists of those four name
the recordings too, but no level, so a second protocol mixes them anew: `audiosep/NAME`, every interference at 0 dB, cut
or filled with silence to the target's length, peaks over 1 scaled to 0.9. Of AudioSet and VGGSound there are only the
ready mixtures.
"""

from __future__ import annotations

from collections.abc import Callable

from separation.data.fixed_mixtures import Mixing, Row
from separation.evaluate.protocols.base import ListFile, Protocol, Sources, pair

WHOLE = Mixing(sample_rate=32000, seconds=None, peak=None)
ANEW = Mixing(sample_rate=32000, seconds=None, peak=1.0, peak_to=0.9)
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


def list_file(name: str) -> ListFile:
    """A set's list, wherever AudioSep's checkout or a folder of lists keeps it."""
    file = f"{name}_eval.csv"
    return ListFile((file, f"audiosep_eval/{file}", f"evaluation/metadata/{file}"), SHA256[name])


def mixed(name: str) -> Callable[[Sources], list[Row]]:
    """Rows idx, caption, (labels,) target, interference, (interference): by position, as two columns share a name."""

    def build(sources: Sources) -> list[Row]:
        first = 3 if name == "audiocaps" else 2
        rows = sources.rows(f"{name}_eval.csv", first + 2)[1:]
        return [pair(row[0], row[1], row[first], row[first + 1 :], snr_db="0") for row in rows]

    return build


def released(name: str) -> Callable[[Sources], list[Row]]:
    """The same queries of the ready files, by number."""

    def build(sources: Sources) -> list[Row]:
        rows = sources.rows(f"{name}_eval.csv", 2)[1:]
        return [pair(row[0], row[1], f"segment-{row[0]}.wav", mixture=f"mixture-{row[0]}.wav") for row in rows]

    return build


def audioset(sources: Sources) -> list[Row]:
    """Ten two-second mixtures a class; the column called noise_wav names the mixture."""
    rows = []
    for _, caption, target, mixture, *_ in sources.rows("audioset_eval.csv", 4)[1:]:
        names = [name.removeprefix(AUDIOSET) for name in (target, mixture)]
        rows.append(pair(names[0].split("/")[-1].removesuffix(",source.wav"), caption, names[0], mixture=names[1]))
    return rows


def vggsound(sources: Sources) -> list[Row]:
    """A hundred clips with ten partners each."""
    rows = sources.rows("vggsound_eval.csv", 4)[1:]
    return [pair(row[0], row[3], row[2], mixture=row[1]) for row in rows]


def protocol(name: str, count: int, queries: str, aggregate: str = "mean", *, again: bool = False) -> Protocol:
    """A set of which recordings are mixed anew, or ready mixtures are read."""
    full = name if again or name in BUILD else f"{name}-released"
    how = "mixed anew at 0 dB" if again else "its authors' ready mixtures"
    below = f"evaluation/data/{name}"
    return Protocol(
        name=f"audiosep/{full}",
        version=1,
        about=f"AudioSep's set {name}, {count} {queries}, 32 kHz; {how}",
        source=SOURCE,
        root=f"SEPARATION_{name.upper()}_ROOT",
        build=mixed(name) if again else BUILD.get(name, released(name)),
        mixing=ANEW if again else WHOLE,
        lists=(list_file(name),),
        folders=("", "audio", "evaluation", below) if again else ("", below),
        sha256=ROWS_SHA256[full],
        count=count,
        aggregate=aggregate,
    )


BUILD = {"audioset": audioset, "vggsound": vggsound}
PROTOCOLS = (
    protocol("audiocaps", 4820, "captions", again=True),
    protocol("audiocaps", 4820, "captions"),
    protocol("audioset", 5270, "names of 527 classes", "class median"),
    protocol("clotho", 5225, "captions, against two others each", again=True),
    protocol("clotho", 5225, "captions, against two others each"),
    protocol("esc50", 2000, "names of 50 classes", again=True),
    protocol("esc50", 2000, "names of 50 classes"),
    protocol("music", 5004, "names of 10 instruments", "class mean", again=True),
    protocol("music", 5004, "names of 10 instruments", "class mean"),
    protocol("vggsound", 1000, "names of classes"),
)
