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

from separation.data.captioned import CaptionedData
from separation.data.corpus import Corpus
from separation.data.datamodule import ClipData
from separation.data.manifest import Clip, write_manifest
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


def main(argv: list[str] | None = None) -> None:
    """Run the study."""
    parser = study.make_parser(__doc__, steps=900, labels=24)
    add = parser.add_argument
    add("--made", type=int, default=1500, help="two-source clips to train on")
    add("--isolated", type=float, default=0.1, help="share of recordings known alone (semi-supervised)")
    add("--contrast", type=float, default=2.5, help="weight of CNT; published 0.5, beside 5 for the rest")
    add("--encoder_steps", type=int, default=500)
    add("--encoder_batch", type=int, default=48)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        run_study(arguments, Path(folder))


def run_study(arguments: Namespace, folder: Path) -> None:
    """Train and score all arms; manifests of their recordings are written to `folder`."""
    train, validation, labels, pairs = study.read_data(arguments)
    encoder_clips, mixture_clips = split_halves(clip for clip in train.clips if clip.label in labels)
    halves = {"encoder": encoder_clips, "mixtures": mixture_clips}
    for name, clips in (halves | {"isolated": select_share(mixture_clips, arguments.isolated)}).items():
        write_manifest(folder / f"{name}.csv", [("train", clip) for clip in clips])

    torch.manual_seed(0)
    encoder, steps = JointEncoder(study.RATE, DIM, channels=(16, 32, 64, 128), hidden=256), arguments.encoder_steps
    settings = study.data_settings(arguments, 0) | {
        "batch_size": arguments.encoder_batch,
        "batches": max(1, steps // 4),
    }
    data = ClipData(folder / "encoder.csv", arguments.data, **settings)
    study.fit(Contrastive(encoder, AdamW(2e-3, 0.05, 50)), data, steps, 0)
    encoder.eval()
    facts = {"labels_used": labels, "encoder_top1": top1_accuracy(encoder, validation, labels)}
    print(f"joint space: the right of {len(labels)} labels first for {facts['encoder_top1']:.0%}", flush=True)

    def run(arm: str, seed: int) -> list[float]:
        whole = arm in (WEAK, SEMI)
        settings = study.data_settings(arguments, seed) | {"made": arguments.made, "isolated": 0}
        if arm == SEMI:
            settings |= {"isolated_manifest": folder / "isolated.csv", "isolated": arguments.batch_size // 2}
        sources, slots = 1 if arm == SUPERVISED else 2, 2 if whole else 1
        mixtures = folder / "mixtures.csv"
        data = CaptionedData(mixtures, arguments.data, sources=sources, slots=slots, **settings)
        weights = {"contrast": arguments.contrast} if whole else {"consistency": 0.0, "contrast": 0.0}
        model, optimiser = study.band_unet(DIM, seed), AdamW(2e-3, 0.02, 50)
        objective = BiModal(model, deepcopy(encoder), optimiser=optimiser, ema=0.99, **weights)
        study.fit(objective, data, arguments.steps, seed)
        return study.score_pairs(objective.average, encoder.encode_text, pairs, objective.average.input_level)

    arms = (MIXED, WEAK, SEMI, SUPERVISED)
    base = MIXED if MIXED in (arguments.arms or arms) else WEAK
    means = study.compare_arms(arguments, arms, run, pairs, base, facts)
    if {WEAK, SUPERVISED} <= means.keys():
        print(f"\nweak reaches {means[WEAK] / means[SUPERVISED]:.0%} of the supervised SDRi")


if __name__ == "__main__":
    study.run_benchmark(main)
