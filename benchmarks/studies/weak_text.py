"""Does weak supervision from text work? Mix-and-separate, bi-modal losses and semi-supervised, beside supervised.

    python benchmarks/studies/weak_text.py --data FOLDER --seeds 3 --json weak_text.json

Training clips are mixtures of two recordings with a caption ("The sound mixture of rain and dog bark"). The joint
audio-text encoder is trained first, on the other half of the train recordings: with the same half, isolated clips
would supervise the separator through the encoder. All arms see the mixtures' half only. Scored on clean pairs of
validation recordings, each source asked for by its label.
"""

from __future__ import annotations

import hashlib
import tempfile
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path

import numpy as np
import study
import torch
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
DIM = 128


# Recordings


def recording_of(clip: Clip) -> str:
    """Return the recording of a clip; unknown ones ("freesound:?") count as one per label."""
    return f"{clip.recording} {clip.label}" if "?" in clip.recording else clip.recording


def recordings_by_label(clips: Iterable[Clip]) -> dict[str, list[str]]:
    """Return the recordings of each label in a fixed, arbitrary order."""
    found: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        found[clip.label].add(recording_of(clip))
    return {
        label: sorted(found[label], key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        for label in sorted(found)
    }


def split_halves(clips: Iterable[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Split clips so that no recording is in both halves and each has half of the recordings of every label."""
    kept = list(clips)
    half_of: dict[str, int] = {}
    for recordings in recordings_by_label(kept).values():
        counts = [sum(half_of.get(recording) == half for recording in recordings) for half in (0, 1)]
        for recording in recordings:
            if recording not in half_of:
                half_of[recording] = int(counts[1] < counts[0])
                counts[half_of[recording]] += 1
    first, second = ([clip for clip in kept if half_of[recording_of(clip)] == half] for half in (0, 1))
    return first, second


def select_share(clips: list[Clip], share: float) -> list[Clip]:
    """Return all clips of a share of the recordings of every label, one recording or more."""
    chosen = set()
    for recordings in recordings_by_label(clips).values():
        chosen.update(recordings[: max(1, round(share * len(recordings)))])
    return [clip for clip in clips if recording_of(clip) in chosen]


def write_train_manifest(path: Path, clips: list[Clip]) -> Path:
    """Write a manifest of train clips; return its path."""
    write_manifest(path, [("train", clip) for clip in clips])
    return path


# The joint encoder


def train_joint_space(manifest: Path, arguments: Namespace) -> JointEncoder:
    """Train the encoder on its half of the recordings, or load the one that an earlier run has kept.

    Raises:
        SystemExit: the kept encoder was trained on something else, perhaps the mixtures' half; the message says what.
    """
    torch.manual_seed(0)
    encoder = JointEncoder(sample_rate=study.RATE, embedding_dim=DIM, channels=(16, 32, 64, 128), hidden=256)
    steps, batch, file = arguments.encoder_steps, arguments.encoder_batch, arguments.keep
    origin = {
        "list_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "half": manifest.stem,
        "labels": ";".join(sorted({clip.label for clip in read_manifest(manifest, "train")})),
        "steps": str(steps),
        "batch": str(batch),
    }
    if file and file.exists():
        with safe_open(file, "pt") as opened:
            found = opened.metadata() or {}
        if not found:
            print(f"{file}: the file does not say what it was trained on; it is used without a check.", flush=True)
        elif other := [name for name in origin if found.get(name) != origin[name]]:
            was, wanted = found.get(other[0]), origin[other[0]]
            raise SystemExit(f"{file}: the encoder of another study, {other[0]} is {was}, not {wanted}.")
        encoder.load_state_dict(load_file(file))
        return encoder.eval()
    settings = {"batch_size": batch, "batches": max(1, steps // 4)}
    length = {"seconds": study.SECONDS, "sample_rate": study.RATE}
    data = ClipData(manifest, arguments.data, arguments.cache, **settings, **length)
    seconds = study.fit(Contrastive(encoder, AdamW(2e-3, 0.05, 50)), data, steps, 0)
    print(f"joint space: {steps} steps, {seconds:.0f} s", flush=True)
    if file:
        save_file({name: value.contiguous() for name, value in encoder.state_dict().items()}, file, origin)
    return encoder.eval()


@torch.no_grad()
def top1_accuracy(encoder: JointEncoder, corpus: Corpus, labels: list[str]) -> float:
    """Return the share of clips with one of these labels whose own label is the closest text."""
    texts = encoder.encode_text(labels)
    correct = []
    for number, clip in enumerate(corpus.clips):
        if clip.label in labels:
            wave = corpus.waveform(number)[None, : round(study.SECONDS * study.RATE)]
            correct.append(labels[int((encoder.encode_audio(wave, study.RATE) @ texts.T).argmax())] == clip.label)
    return float(np.mean(correct))


# The study


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    parser = study.make_parser(__doc__, steps=900, labels=24)
    add = parser.add_argument
    add("--made", type=int, default=1500, help="two-source clips to train on")
    add("--isolated", type=float, default=0.1, help="share of recordings known alone (semi-supervised)")
    add("--contrast", type=float, default=2.5, help="weight of CNT; published 0.5, beside 5 for the rest")
    add("--encoder_steps", type=int, default=500)
    add("--encoder_batch", type=int, default=48)
    add("--keep", type=Path, help="safetensors file that the joint encoder is written to, or read from if it exists")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        run_study(arguments, Path(folder))


def run_study(arguments: Namespace, folder: Path) -> None:
    """Train and score all arms; manifests of their recordings are written to `folder`."""
    train, validation = study.read_corpora(arguments)
    labels = study.common_labels(train, validation, arguments.labels)
    encoder_clips, mixture_clips = split_halves(clip for clip in train.clips if clip.label in labels)
    encoder_manifest = write_train_manifest(folder / "encoder.csv", encoder_clips)
    mixtures = write_train_manifest(folder / "mixtures.csv", mixture_clips)
    isolated = write_train_manifest(folder / "isolated.csv", select_share(mixture_clips, arguments.isolated))
    encoder = train_joint_space(encoder_manifest, arguments)
    facts = {"labels_used": labels, "encoder_top1": top1_accuracy(encoder, validation, labels)}
    print(f"joint space: the right of {len(labels)} labels first for {facts['encoder_top1']:.0%}", flush=True)
    if arguments.tune:
        validation = Corpus(encoder_manifest, "train", arguments.data, study.RATE, arguments.cache)
    pairs = study.clean_pairs(validation, labels, arguments.mixtures, study.SECONDS)

    def run(arm: str, seed: int) -> list[float]:
        whole = arm in (WEAK, SEMI)
        settings = study.data_settings(arguments, seed) | {"made": arguments.made}
        if arm == SEMI:
            settings |= {"isolated_manifest": isolated, "isolated": arguments.batch_size // 2}
        sources, slots = 1 if arm == SUPERVISED else 2, 2 if whole else 1
        data = CaptionedData(
            mixtures, arguments.data, arguments.cache, sources=sources, slots=slots, **({"isolated": 0} | settings)
        )
        weights = {"contrast": arguments.contrast} if whole else {"consistency": 0.0, "contrast": 0.0}
        model, optimiser = study.band_unet(DIM, seed), AdamW(2e-3, 0.02, 50)
        objective = BiModal(model, deepcopy(encoder), optimiser=optimiser, ema=0.99, **weights)
        study.fit(objective, data, arguments.steps, seed)
        return study.score_pairs(objective.average, encoder.encode_text, pairs, objective.average.input_level)

    scores = study.run_arms(arguments.arms or (MIXED, WEAK, SEMI, SUPERVISED), run, arguments.seeds)
    if {WEAK, SUPERVISED} <= scores.keys():
        facts["weak_share_of_supervised"] = float(np.mean(scores[WEAK]) / np.mean(scores[SUPERVISED]))
    study.report(
        vars(arguments) | facts, scores, pairs, MIXED if MIXED in scores else next(iter(scores)), arguments.json
    )
    if "weak_share_of_supervised" in facts:
        print(f"\nweak reaches {facts['weak_share_of_supervised']:.0%} of the supervised SDRi")


if __name__ == "__main__":
    main()
