"""Does weak supervision from text work? Mix-and-separate < bi-modal losses < semi-supervised, beside supervised.

    python benchmarks/studies/weak_text.py --data FOLDER --seeds 3 --json weak_text.json

Training clips are mixtures of two recordings with a caption ("The sound mixture of rain and dog bark"). The joint
audio-text encoder is trained first, on the other half of the train recordings: were it the same half, isolated clips
would come in as supervision through the encoder. All arms see the mixtures' half only. Scored on clean pairs of
validation recordings, each source asked for by its label.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    RATE,
    SECONDS,
    Scores,
    band_unet,
    clean_pairs,
    common_labels,
    finish,
    fit,
    options,
    over_seeds,
    recording_groups,
    score_at_level,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from separation.data.captioned import CaptionedData
from separation.data.corpus import Corpus
from separation.data.datamodule import ClipData
from separation.data.manifest import Clip, read_manifest, write_manifest
from separation.encoders.joint import JointEncoder
from separation.training.objectives.bimodal import BiModal
from separation.training.objectives.contrastive import Contrastive
from separation.training.optimiser import AdamW

MIXED, WEAK, SEMI, SUPERVISED = "mix-and-separate", "weak", "semi-supervised", "supervised"
ARMS = (MIXED, WEAK, SEMI, SUPERVISED)
DIM = 128


def order(recording: str) -> str:
    """A fixed, arbitrary order of recordings."""
    return hashlib.sha256(recording.encode()).hexdigest()


def halves(clips: Iterable[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Clips for the encoder and clips for the mixtures: no recording is in both, every label is shared out evenly.

    Recordings of which only the site is known ("freesound:?") count as one each label.
    """
    by_label: dict[str, set[str]] = defaultdict(set)
    kept = list(clips)
    for clip in kept:
        by_label[clip.label].add(recording_of(clip))
    side: dict[str, int] = {}
    for label in sorted(by_label):
        recordings = sorted(by_label[label], key=order)
        counts = [sum(side.get(each) == half for each in recordings) for half in (0, 1)]
        for recording in recordings:
            if recording not in side:
                half = int(counts[1] < counts[0])
                side[recording] = half
                counts[half] += 1
    parts = [[clip for clip in kept if side[recording_of(clip)] == half] for half in (0, 1)]
    return parts[0], parts[1]


def recording_of(clip: Clip) -> str:
    """A clip's recording, or its label's unknown one."""
    return f"{clip.recording} {clip.label}" if "?" in clip.recording else clip.recording


def some(clips: list[Clip], share: float) -> list[Clip]:
    """All clips of a share of every label's recordings, one recording or more."""
    by_label: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        by_label[clip.label].add(recording_of(clip))
    chosen = {
        each
        for recordings in by_label.values()
        for each in sorted(recordings, key=order)[: max(1, round(share * len(recordings)))]
    }
    return [clip for clip in clips if recording_of(clip) in chosen]


def write(folder: Path, name: str, clips: list[Clip]) -> Path:
    """A manifest of train clips."""
    path = folder / f"{name}.csv"
    write_manifest(path, [("train", clip) for clip in clips])
    return path


def joint_space(manifest: Path, arguments: Any) -> JointEncoder:
    """The encoder, trained on its own half, or as an earlier study has kept it."""
    torch.manual_seed(0)
    encoder = JointEncoder(sample_rate=RATE, embedding_dim=DIM, channels=(16, 32, 64, 128), hidden=256)
    origin = trained_on(manifest, arguments) if arguments.keep else {}
    if arguments.keep and arguments.keep.exists():
        check_origin(arguments.keep, origin)
        encoder.load_state_dict(load_file(arguments.keep))
        return encoder.eval()
    data = ClipData(
        manifest, arguments.data, arguments.cache, batch_size=arguments.encoder_batch, seconds=SECONDS,
        batches=max(1, arguments.encoder_steps // 4), sample_rate=RATE,
    )  # fmt: skip
    seconds = fit(Contrastive(encoder, AdamW(2e-3, 0.05, 50)), data, arguments.encoder_steps, 0)
    print(f"joint space: {arguments.encoder_steps} steps, {seconds:.0f} s", flush=True)
    if arguments.keep:
        save_file({k: v.contiguous() for k, v in encoder.state_dict().items()}, arguments.keep, origin)
    return encoder.eval()


def trained_on(manifest: Path, arguments: Any) -> dict[str, str]:
    """What an encoder depends on: the list of its half (and so of its labels), steps and batches."""
    labels = sorted({clip.label for clip in read_manifest(manifest, "train")})
    return {
        "list_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "half": manifest.stem,
        "labels": ";".join(labels),
        "steps": str(arguments.encoder_steps),
        "batch": str(arguments.encoder_batch),
    }


def check_origin(file: Path, origin: dict[str, str]) -> None:
    """Refuses a kept encoder that is not this study's: it could have heard the mixtures' half.

    Raises:
        SystemExit: it was trained on something else; the message says on what.
    """
    with safe_open(file, "pt") as opened:
        found = opened.metadata() or {}
    if not found:
        print(f"{file}: it does not say what it was trained on; it is taken as this study's.", flush=True)
        return
    if other := [name for name in origin if found.get(name) != origin[name]]:
        was, wanted = found.get(other[0]), origin[other[0]]
        raise SystemExit(f"{file}: it is the encoder of another study, its {other[0]} is {was}, not {wanted}.")


def rank(encoder: JointEncoder, corpus: Corpus, labels: list[str]) -> float:
    """Share of a corpus's clips (of these labels) for which their own label is the closest text."""
    names = encoder.encode_text(labels)
    wanted = [number for number, clip in enumerate(corpus.clips) if clip.label in labels]
    waves = [corpus.waveform(number)[None, : round(SECONDS * RATE)] for number in wanted]
    with torch.no_grad():
        first = [int((encoder.encode_audio(wave, RATE) @ names.T).argmax()) for wave in waves]
    return float(np.mean([labels[i] == corpus.clips[n].label for i, n in zip(first, wanted, strict=True)]))


def trained(arm: str, seed: int, manifests: dict[str, Path], encoder: JointEncoder, arguments: Any) -> BiModal:
    """One arm's separator."""
    whole = arm in (WEAK, SEMI)
    data = CaptionedData(
        manifests["mixtures"], arguments.data, arguments.cache, batch_size=arguments.batch_size, seconds=SECONDS,
        batches=max(1, arguments.steps // 4), seed=seed, sample_rate=RATE, sources=1 if arm == SUPERVISED else 2,
        slots=2 if whole else 1, made=arguments.made,
        isolated_manifest=manifests["isolated"] if arm == SEMI else None,
        isolated=arguments.batch_size // 2 if arm == SEMI else 0, validation_count=0,
    )  # fmt: skip
    weights = {"contrast": arguments.contrast} if whole else {"consistency": 0.0, "contrast": 0.0}
    objective = BiModal(band_unet(DIM, seed), deepcopy(encoder), optimiser=AdamW(2e-3, 0.02, 50), ema=0.99, **weights)
    fit(objective, data, arguments.steps, seed)
    return objective


def study(arguments: Any, folder: Path) -> tuple[Scores, list[str], dict[str, Any]]:
    """Scores of all arms, the recordings they belong to, and what else was measured."""
    manifest = arguments.data / "manifest.csv"
    train = Corpus(manifest, "train", arguments.data, RATE, arguments.cache)
    validation = Corpus(manifest, "validation", arguments.data, RATE, arguments.cache)
    labels = common_labels(train, validation, arguments.labels)
    encoder_clips, mixture_clips = halves(clip for clip in train.clips if clip.label in labels)
    manifests = {
        "encoder": write(folder, "encoder", encoder_clips),
        "mixtures": write(folder, "mixtures", mixture_clips),
        "isolated": write(folder, "isolated", some(mixture_clips, arguments.isolated)),
    }
    encoder = joint_space(manifests["encoder"], arguments)
    facts = {"labels_used": labels, "encoder_top1": rank(encoder, validation, labels)}
    print(f"joint space: the right of {len(labels)} labels first for {facts['encoder_top1']:.0%}", flush=True)
    if arguments.tune:
        validation = Corpus(manifests["encoder"], "train", arguments.data, RATE, arguments.cache)
    pairs = clean_pairs(validation, labels, arguments.mixtures, SECONDS)

    def make(arm: str, seed: int) -> list[float]:
        objective = trained(arm, seed, manifests, encoder, arguments)
        return score_at_level(objective.average, encoder.encode_text, pairs)

    arms: Scores = {}
    for arm in arguments.arms or ARMS:
        over_seeds(arm, arms, make, arguments.seeds)
    means = {arm: float(np.mean(values)) for arm, values in arms.items()}
    if {WEAK, SUPERVISED} <= means.keys():
        facts["weak_share_of_supervised"] = means[WEAK] / means[SUPERVISED]
    return arms, recording_groups(pairs), facts


def main() -> None:
    """Command line."""
    parser = options(__doc__, 900, batch_size=8, mixtures=150, labels=24)
    parser.set_defaults(labels=24)
    parser.add_argument("--made", type=int, default=1500, help="two-source clips to train on")
    parser.add_argument("--isolated", type=float, default=0.1, help="share of recordings known alone (semi-supervised)")
    parser.add_argument(
        "--contrast", type=float, default=2.5, help="weight of CNT; published 0.5, beside 5 for the rest"
    )
    parser.add_argument("--encoder_steps", type=int, default=500)
    parser.add_argument("--encoder_batch", type=int, default=48)
    parser.add_argument(
        "--keep", type=Path, help="safetensors file: the joint encoder is kept there and taken from there"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arms, recordings, facts = study(arguments, Path(folder))
    finish(vars(arguments) | facts, arms, recordings, MIXED if MIXED in arms else next(iter(arms)), arguments.json)
    if "weak_share_of_supervised" in facts:
        print(f"\nweak reaches {facts['weak_share_of_supervised']:.0%} of the supervised SDRi")


if __name__ == "__main__":
    main()
