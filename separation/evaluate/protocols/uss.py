"""USS's evaluations (arXiv 2305.07447): AudioSet, FSDKaggle2018, FSD50K, Slakh2100, MUSDB18, VoiceBank-DEMAND.

USS's queries are mean embeddings of the training clips of a class: `--class-embeddings`. Without it the query is the
name of the class, and figures are not comparable; four of FSDKaggle2018's names are no AudioSet class (Burping or
eructation, Gunshot or gunfire, Oboe, Violin or fiddle). Rows follow the scripts in USS's repository
(github.com/bytedance/uss, evaluation/dataset_creation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from separation.data.fixed_mixtures import Mixing, Row
from separation.data.lists import read_table
from separation.evaluate.protocols.base import ListFile, Protocol, ProtocolError, make_row

RATE, SEGMENT, PER_CLASS, SEED = 32000, 2.0, 100, 1234
MATCHED = Mixing(RATE, SEGMENT, repeat=True, peak=None, gains=(0.02, 50.0))
READY = Mixing(RATE, None, peak=None)
CUT = Mixing(RATE, SEGMENT, peak=None)
LOUD, LEAST_PARTS = 0.1, 10
STEMS = ("vocals", "bass", "drums", "other")
SOURCE = "Its scripts are in evaluation/ of github.com/bytedance/uss (Apache-2.0)."
KAGGLE = ListFile(
    ("FSDKaggle2018.meta/test_post_competition_scoring_clips.csv", "test_post_competition_scoring_clips.csv")
)
FSD50K = ListFile(("FSD50K.ground_truth/eval.csv", "eval.csv"))


def build_audioset(root: Path) -> list[Row]:
    """Build a hundred mixtures of each of the 527 classes, named as USS's script writes them."""
    from separation.vocabulary.ontology import classes

    rows = []
    for each in classes():
        for number in range(PER_CLASS):
            name = f"class_id={each.index},index={number:03d}"
            target, mixture = (f"class_id={each.index}/{name},{what}.wav" for what in ("source", "mixture"))
            rows.append(make_row(name, each.name, target, mixture=mixture))
    return rows


def mix_neighbours(names: Sequence[str], labels: Sequence[str], targets: int) -> list[Row]:
    """Mix each clip with the next one of the list if their labels differ, in shuffled passes, up to 100 rows a class.

    Only the first `targets` clips are targets. Raises ProtocolError if no clip has a neighbour of another class.
    """
    other = [(i + 1) % len(labels) for i in range(len(labels))]
    usable = {labels[i] for i in range(targets) if labels[i] != labels[other[i]]}
    if not usable:
        raise ProtocolError("All clips of the list have the same label: nothing to separate.")
    counts, rows = dict.fromkeys(usable, 0), []
    random = np.random.RandomState(SEED)
    while min(counts.values()) < PER_CLASS:
        for i in random.permutation(targets):
            label = labels[i]
            if label != labels[other[i]] and counts[label] < PER_CLASS:
                name = f"{label}-{counts[label]:03d}"
                rows.append(make_row(name, label.replace("_", " "), names[i], [names[other[i]]], snr_db="0"))
                counts[label] += 1
    return rows


def build_freesound(root: Path, path: Path, column: str, suffix: str, last: int) -> list[Row]:
    """Build mixtures from the columns fname and label(s), of which the first counts; the last clips are no targets."""
    clips = [row for _, row in read_table(path, ("fname", column))]
    labels = [row[column].split(",")[0] for row in clips]
    return mix_neighbours([row["fname"] + suffix for row in clips], labels, len(clips) - last)


def build_slakh2100(root: Path) -> list[Row]:
    """Choose loud two-second parts of stems of the test tracks by the plug-in that played them, from the real mix."""
    import yaml

    parts: dict[str, list[Row]] = {}
    for metadata in sorted((root / "test").glob("*/metadata.yaml")):
        for stem, about in yaml.safe_load(metadata.read_text(encoding="utf-8"))["stems"].items():
            file, plugin = metadata.parent / "stems" / f"{stem}.flac", about["plugin_name"]
            if file.is_file():
                parts.setdefault(plugin, []).extend(loud_parts(root, file, plugin))
    random, rows = np.random.RandomState(SEED), []
    for candidates in parts.values():
        if len(candidates) < PER_CLASS:
            rows += candidates if len(candidates) > LEAST_PARTS else []
        else:
            rows += [candidates[i] for i in random.choice(len(candidates), PER_CLASS, replace=False)]
    if not rows:
        raise ProtocolError(f"uss/slakh2100: {root} holds no test/Track*/metadata.yaml with stems.")
    return rows


def loud_parts(root: Path, stem: Path, plugin: str) -> Iterator[Row]:
    """Return the two-second parts of a stem whose peak is above 0.1."""
    import soundfile

    samples, rate = soundfile.read(stem, dtype="float32", always_2d=True)
    wave, length, track = samples.mean(axis=1), int(SEGMENT * rate), stem.parents[1]
    peaks = np.abs(wave[: len(wave) // length * length].reshape(-1, length)).max(axis=1, initial=0)
    target, mixture = (path.relative_to(root).as_posix() for path in (stem, track / "mix.flac"))
    query = plugin.removesuffix(".nkm").replace("_", " ")
    for number in np.flatnonzero(peaks > LOUD):
        start = f"{SEGMENT * number:.1f}"
        name = f"{track.name}-{stem.stem}-{start}"
        yield make_row(name, query, target, mixture=mixture, target_start=start, label=plugin)


def build_musdb18(root: Path) -> list[Row]:
    """Build rows of four stems of each test song from test/SONG/{mixture,vocals,bass,drums,other}.wav."""
    folders = sorted(path for path in (root / "test").glob("*") if path.is_dir())
    rows = []
    for stem in STEMS:
        query = "other instruments" if stem == "other" else stem
        for folder in folders:
            target, mixture = (f"test/{folder.name}/{name}.wav" for name in (stem, "mixture"))
            rows.append(make_row(f"{folder.name}-{stem}", query, target, mixture=mixture, label=stem))
    return rows


def build_voicebank(root: Path) -> list[Row]:
    """Build rows of every noisy test sentence and its clean version."""
    names = sorted(path.name for path in (root / "clean_testset_wav").glob("*.wav"))
    return [
        make_row(name.removesuffix(".wav"), "speech", f"clean_testset_wav/{name}", mixture=f"noisy_testset_wav/{name}")
        for name in names
    ]


def uss(name: str, about: str, build: Callable[..., list[Row]], mixing: Mixing, **more: Any) -> Protocol:
    """Make the protocol of a set; `more` are other fields of `Protocol`."""
    version, root = more.pop("version", 1), f"SEPARATION_{name.split('-')[0].upper()}_ROOT"
    return Protocol(f"uss/{name}", version, about, SOURCE, root, build, mixing, aggregate="class median", **more)


PROTOCOLS = (
    uss(
        "audioset", "52,700 two-second mixtures of 527 classes, as USS's script writes them", build_audioset, READY,
        count=52700, sha256="73297f2e3727a9244d777762244045e54d14d0d2003f6c9ae33d7e6b1171e07c",
    ),
    *(
        uss(
            f"fsdkaggle2018{name}", f"two seconds of 41 classes, 100 mixtures each, 0 dB; {about}",
            partial(build_freesound, column="label", suffix="", last=last), MATCHED,
            lists=(KAGGLE,), folders=("FSDKaggle2018.audio_test", ""),
        )
        for name, last, about in (
            ("", 1, "the same as -38344b4"),
            ("-38344b4", 1, "the script at this commit, which permutes all clips but the last"),
            ("-3ba77f5", 0, "the script at this later commit, which permutes all clips"),
        )
    ),
    uss(
        "fsd50k", "two seconds of each class, 100 mixtures each, 0 dB",
        partial(build_freesound, column="labels", suffix=".wav", last=0), MATCHED,
        lists=(FSD50K,), folders=("FSD50K.eval_audio", ""),
    ),
    uss("slakh2100", "two loud seconds of a stem in the real mix, by plug-in, up to 100 each", build_slakh2100, CUT),
    uss(
        "musdb18", "stems of whole test songs, mono; museval on windows of 1 s, both orders", build_musdb18, READY,
        metrics=("bss_sdr", "bss_sdri", "bss_sdr_swapped", "bss_sdri_swapped", "sdri"), window=1.0,
    ),
    uss(
        "voicebank-demand", "noisy test sentences, one class, speech; metrics at 16 kHz", build_voicebank, READY,
        version=2,  # version 1 resampled the mixture to 16 kHz before the model, and took the mean
        metrics=("pesq", "stoi", "segmental_snr", "sdr", "sdri", "si_sdr"),
    ),
)  # fmt: skip
