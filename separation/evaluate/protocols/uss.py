"""USS's evaluations (arXiv 2305.07447): AudioSet, FSDKaggle2018, FSD50K, Slakh2100, MUSDB18, VoiceBank-DEMAND.

USS asks with the mean embedding of a class's training clips; here the class's name is the query, so figures are not
its. Rows follow the dataset creators in its repository (github.com/bytedance/uss, evaluation/dataset_creation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from separation.data.fixed_mixtures import Mixing, Row
from separation.evaluate.protocols.base import ListFile, Protocol, ProtocolError, Sources, pair

RATE, SEGMENT, PER_CLASS, SEED = 32000, 2.0, 100, 1234
MATCHED = Mixing(RATE, SEGMENT, repeat=True, peak=None, gains=(0.02, 50.0))
READY = Mixing(RATE, None, peak=None)
CUT = Mixing(RATE, SEGMENT, peak=None)
LOUD, LEAST = 0.1, 10
STEMS = ("vocals", "bass", "drums", "other")
SOURCE = "Its scripts are in evaluation/ of github.com/bytedance/uss (Apache-2.0)."


def audioset(_: Sources) -> list[Row]:
    """A hundred mixtures of each of the 527 classes, in the files that USS's creator of this set writes."""
    from separation.ontology import classes

    rows = []
    for each in classes():
        for number in range(PER_CLASS):
            name = f"class_id={each.index},index={number:03d}"
            folder = f"class_id={each.index}"
            files = [f"{folder}/{name},{what}.wav" for what in ("source", "mixture")]
            rows.append(pair(name, each.name, files[0], mixture=files[1]))
    return rows


def neighbours(names: Sequence[str], labels: Sequence[str], drawn_from: int) -> Iterator[Row]:
    """Each clip with the next of the list where their labels differ, in shuffled passes until each class has a hundred.

    Args:
        names: the clips' paths.
        labels: their classes.
        drawn_from: how many of the clips, from the first, may be targets.
    """
    if not any(labels[i] != labels[(i + 1) % len(labels)] for i in range(drawn_from)):
        raise ProtocolError("All clips of the list have the same label: nothing to separate.")
    counts = dict.fromkeys(labels, 0)
    for label in set(labels):
        if not any(labels[i] == label != labels[(i + 1) % len(labels)] for i in range(drawn_from)):
            del counts[label]  # it could never be filled
    random = np.random.RandomState(SEED)
    while any(count < PER_CLASS for count in counts.values()):
        for i in random.permutation(drawn_from):
            label, other = labels[i], (i + 1) % len(labels)
            if label != labels[other] and counts[label] < PER_CLASS:
                name = f"{label}-{counts[label]:03d}"
                query = label.replace("_", " ")
                yield pair(name, query, names[i], [names[other]], snr_db="0")
                counts[label] += 1


def fsdkaggle2018(sources: Sources) -> list[Row]:
    """41 classes; the columns fname and label. Its last clip is never a target."""
    clips = sources.columns(KAGGLE.names[0], "fname", "label")
    return list(neighbours([name for name, _ in clips], [label for _, label in clips], len(clips) - 1))


def fsd50k(sources: Sources) -> list[Row]:
    """Of several labels the first counts; the columns fname and labels."""
    clips = sources.columns(FSD50K.names[0], "fname", "labels")
    names, labels = [f"{name}.wav" for name, _ in clips], [each.split(",")[0] for _, each in clips]
    return list(neighbours(names, labels, len(clips)))


def slakh2100(sources: Sources) -> list[Row]:
    """Stems of the test tracks by the plug-in that played them: two-second parts that are loud, from the real mix."""
    parts: dict[str, list[Row]] = {}
    for track in sorted(path for path in (sources.root / "test").glob("*") if path.is_dir()):
        for stem, plugin in plugins(track / "metadata.yaml"):
            file = track / "stems" / f"{stem}.flac"
            if file.is_file():
                parts.setdefault(plugin, []).extend(loud_parts(sources.root, track, file, plugin))
    random, rows = np.random.RandomState(SEED), []
    for candidates in parts.values():
        if len(candidates) < PER_CLASS:
            rows += candidates if len(candidates) > LEAST else []
        else:
            rows += [candidates[i] for i in random.choice(len(candidates), PER_CLASS, replace=False)]
    if not rows:
        raise ProtocolError(f"uss/slakh2100: {sources.root} holds no test/Track*/metadata.yaml with stems.")
    return rows


def plugins(metadata: Path) -> Iterator[tuple[str, str]]:
    """Stems of a track and the plug-ins that played them."""
    import yaml

    if metadata.is_file():
        described = yaml.safe_load(metadata.read_text(encoding="utf-8"))
        for stem, entry in described["stems"].items():
            yield stem, entry["plugin_name"]


def loud_parts(root: Path, track: Path, stem: Path, plugin: str) -> Iterator[Row]:
    """The two-second parts of a stem whose peak is over 0.1."""
    import soundfile

    samples, rate = soundfile.read(stem, dtype="float32", always_2d=True)
    wave = samples.mean(axis=1)
    length = int(SEGMENT * rate)
    peaks = np.abs(wave[: len(wave) // length * length].reshape(-1, length)).max(axis=1, initial=0)
    paths = [path.relative_to(root).as_posix() for path in (stem, track / "mix.flac")]
    for number in np.flatnonzero(peaks > LOUD):
        query = plugin.removesuffix(".nkm").replace("_", " ")
        start = f"{SEGMENT * number:.1f}"
        name = f"{track.name}-{stem.stem}-{start}"
        yield pair(name, query, paths[0], mixture=paths[1], target_start=start) | {"label": plugin}


def musdb18(sources: Sources) -> list[Row]:
    """Four stems of each of the test songs, as wav files: test/SONG/{mixture,vocals,bass,drums,other}.wav."""
    folders = sorted(path for path in (sources.root / "test").glob("*") if path.is_dir())
    rows = []
    for stem in STEMS:
        query = "other instruments" if stem == "other" else stem
        for folder in folders:
            files = [f"test/{folder.name}/{name}.wav" for name in (stem, "mixture")]
            rows.append(pair(f"{folder.name}-{stem}", query, files[0], mixture=files[1]) | {"label": stem})
    return rows or empty("uss/musdb18", sources.root / "test")


def voicebank(sources: Sources) -> list[Row]:
    """Every noisy test sentence with its clean one."""
    names = sorted(path.name for path in (sources.root / "clean_testset_wav").glob("*.wav"))
    rows = [
        pair(Path(name).stem, "speech", f"clean_testset_wav/{name}", mixture=f"noisy_testset_wav/{name}")
        for name in names
    ]
    return rows or empty("uss/voicebank-demand", sources.root / "clean_testset_wav")


def empty(name: str, folder: Path) -> list[Row]:
    """Says that a folder holds nothing."""
    raise ProtocolError(f"{name}: {folder} holds none of its recordings.")


KAGGLE = ListFile(
    ("FSDKaggle2018.meta/test_post_competition_scoring_clips.csv", "test_post_competition_scoring_clips.csv")
)
FSD50K = ListFile(("FSD50K.ground_truth/eval.csv", "eval.csv"))
SPEECH = ("pesq", "stoi", "segmental_snr", "sdr", "sdri", "si_sdr")
WINDOWED = ("bss_sdr", "bss_sdri", "bss_sdr_swapped", "bss_sdri_swapped", "sdri")


def protocol(name: str, about: str, build: Callable[[Sources], list[Row]], mixing: Mixing) -> Protocol:
    """One of the sets, with what most of them have in common."""
    root = f"SEPARATION_{name.split('-')[0].upper()}_ROOT"
    return Protocol(f"uss/{name}", 1, about, SOURCE, root, build, mixing, aggregate="class median")


PROTOCOLS = (
    replace(
        protocol("audioset", "52,700 two-second mixtures of 527 classes, as USS's script writes them", audioset, READY),
        count=52700,
        sha256="73297f2e3727a9244d777762244045e54d14d0d2003f6c9ae33d7e6b1171e07c",
    ),
    replace(
        protocol("fsdkaggle2018", "two seconds of 41 classes, 100 mixtures each, 0 dB", fsdkaggle2018, MATCHED),
        lists=(KAGGLE,),
        folders=("FSDKaggle2018.audio_test", ""),
    ),
    replace(
        protocol("fsd50k", "two seconds of each class, 100 mixtures each, 0 dB", fsd50k, MATCHED),
        lists=(FSD50K,),
        folders=("FSD50K.eval_audio", ""),
    ),
    protocol("slakh2100", "two loud seconds of a stem in the real mix, by plug-in, up to 100 each", slakh2100, CUT),
    replace(
        protocol("musdb18", "stems of whole test songs, mono; museval on windows of 1 s, both orders", musdb18, READY),
        metrics=WINDOWED,
        window=1.0,
    ),
    replace(
        protocol("voicebank-demand", "noisy test sentences, one class, speech; metrics at 16 kHz", voicebank, READY),
        version=2,  # 1 cut the mixture to 16 kHz before the model, and took the mean
        metrics=SPEECH,
    ),
)
