"""Mixtures of a user's own sounds and others, from which a model learns to tell the own ones from everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import FOLEY, FULL_SCALE, Corpus, decode_clips
from separation.data.datamodule import MixtureData
from separation.data.fixed_mixtures import PEAK, SECONDS, Rendered
from separation.data.foley import SOUNDS, synthesise
from separation.data.manifest import Clip, Entry, absolute_entries, read_entries, refuse_leaks
from separation.data.mixing import Draw, Mixer, draw_excerpt
from separation.errors import DataError

FIRST = 0.85  # share of the mixtures that contain an own sound by intention, not by chance
OTHERS = 0.35  # probability of own sounds among the other sources
SNR_DB = (-5.0, 0.0, 5.0)  # of held-out mixtures
HELD_OUT_SEED = 500  # of procedural sounds that are not trained on
REHEARSED = 3  # after the training, every third procedural sound is asked for
STAND_INS = 2  # number of procedural sounds that serve as own ones if there is no manifest


class NoTexts:
    """Takes the place of `texts.Texts`: own sounds have a condition each, whatever they are called."""

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """No vectors (..., 0)."""
        return torch.zeros(*labels.shape, 0)


class OwnMixer(Mixer):
    """Draws mixtures of which most contain one of the labels `own`; otherwise see `Mixer`."""

    def __init__(self, own: list[str], corpus: Corpus, *args: Any, **options: Any) -> None:
        super().__init__(corpus, cast(Any, NoTexts()), *args, **options)
        self.own = torch.tensor([corpus.labels.index(label) for label in own])
        known = torch.isin(torch.arange(len(corpus.labels)), self.own)
        for chosen, share in ((known, OTHERS), (~known, 1 - OTHERS)):
            self.label_weights[chosen] *= share / self.label_weights[chosen].sum().clamp_min(1e-9)

    def draw(self, count: int, generator: torch.Generator) -> Draw:
        drawn = super().draw(count, generator)
        number = torch.randint(len(self.own), (count,), generator=generator)
        certain = torch.rand(count, generator=generator) < FIRST
        first, replaced = torch.where(certain, self.own[number], drawn.labels[:, 0]), drawn.labels[:, :1].clone()
        drawn.labels = torch.where(drawn.labels == first[:, None], replaced, drawn.labels)  # no label twice
        drawn.labels[:, 0] = first
        return drawn


class OwnSoundsData(MixtureData):
    """Mixtures of own sounds, those of the manifest, with each other and with rehearsed ones.

    Args:
        rehearsal: manifest or packed corpus with recordings of other sounds, in addition to procedural ones.
        rehearsal_clips: number of its training clips that are used, evenly spaced.
        held_out: mixtures in which each clip of the split `validation` is asked for, after the training.
        common: see `MixtureData`. Without a manifest, two procedural sounds take the place of own ones.

    Attributes:
        own: labels to learn.
    """

    def __init__(
        self, *args: Any, rehearsal: Path | None = None, rehearsal_clips: int = 400, held_out: int = 2, **common: Any
    ) -> None:
        super().__init__(*args, **common)
        self.rehearsal, self.rehearsal_clips, self.held_out = rehearsal, rehearsal_clips, held_out
        self.own: list[str] = []
        self.entries: list[Entry] = []  # of the manifest

    def setup(self, stage: str | None = None) -> None:
        """Decode the clips to train on."""
        if self.corpus is None and stage in (None, "fit"):
            self.load()
        if self.trainer is not None:
            self.trainer.limit_val_batches = 0  # measured at the end, see `held_out_mixtures`

    def load(self) -> None:
        if self.manifest is None:
            self.own = sorted(SOUNDS)[:STAND_INS]
            super().load()
            return
        self.entries = [*absolute_entries(read_entries(self.manifest), self.folder)]
        refuse_leaks(self.manifest, self.entries)
        train = [entry for entry in self.entries if entry[0] == "train" and entry[1].label]
        self.own = sorted({clip.label for _, clip in train})
        if not self.own:
            raise DataError(f"{self.manifest}: no row with split train has a label, so there is no sound to learn.")
        if self.rehearsal is not None:
            folder = self.rehearsal if self.rehearsal.is_dir() else self.rehearsal.parent
            known = {clip.recording for _, clip in self.entries}
            others = [
                (split, clip) for split, clip in absolute_entries(read_entries(self.rehearsal), folder)
                if split == "train" and clip.label and not {*clip.labels} & {*self.own} and clip.recording not in known
            ]  # fmt: skip
            train += others[:: max(1, len(others) // self.rehearsal_clips)]
        corpus = Corpus(None, "train", None, self.sample_rate, self.foley, self.notice, train)
        own = {*self.own}
        corpus.keep([n for n, clip in enumerate(corpus.clips) if clip.source != FOLEY or clip.label not in own])
        self.set_corpus(corpus)

    def set_corpus(self, corpus: Corpus) -> None:
        self.corpus, slots = corpus, max(2, min(3, len(corpus.labels)))
        self.mixer = OwnMixer(self.own, corpus, self.length, self.augment, slots=slots, balance=self.balance)

    def held_out_mixtures(self) -> tuple[list[Rendered], list[Rendered]]:
        """Mixtures in which own sounds are asked for, of clips of the split `validation`, and procedural ones.

        Half of the interferences are other own sounds, if there are any. They are the same ones each time.
        """
        listed = [clip for split, clip in self.entries if split == "validation" and clip.label in self.own]
        listed.sort(key=lambda clip: clip.label)
        broken: list[str] = []
        sounds = decode_clips(listed, self.folder, self.sample_rate, broken)
        clips = [(listed[number], torch.from_numpy(wave).float() / FULL_SCALE) for number, wave, _ in sounds]
        for line in broken:
            self.notice(f"left out: {line}")
        others = [label for label in SOUNDS if label not in self.own]
        new: list[Rendered] = []
        for clip, wave in clips:
            rest = [other for each, other in clips if each.label != clip.label]
            for turn in range(self.held_out):
                rng = np.random.default_rng((self.seed, len(new)))
                if turn % 2 and rest:
                    noise = rest[int(rng.integers(len(rest)))]
                else:
                    noise = self.synthesise(str(rng.choice(others)), len(new))
                new.append(self.mix_pair(clip, wave, noise, rng))
        old: list[Rendered] = []
        for number, label in enumerate(others[::REHEARSED]):
            rng = np.random.default_rng((self.seed, 1, number))
            pair = (label, str(rng.choice([name for name in others if name != label])))
            target, noise = (self.synthesise(name, -1 - number) for name in pair)
            old.append(self.mix_pair(Clip(label, label, label, f"foley:{label}", FOLEY, SECONDS), target, noise, rng))
        return new, old

    def synthesise(self, label: str, number: int) -> Tensor:
        """A procedural sound (time,) that is not trained on."""
        return torch.from_numpy(synthesise(label, SECONDS, self.sample_rate, HELD_OUT_SEED + number))

    def mix_pair(self, clip: Clip, target: Tensor, noise: Tensor, rng: np.random.Generator) -> Rendered:
        """Mix excerpts of a clip (time,) and an interference (time,) at a random SNR."""
        target, noise = (draw_excerpt(wave, SECONDS * self.sample_rate, rng) for wave in (target, noise))
        snr = float(rng.choice(SNR_DB))
        gain = (target.square().sum() / noise.square().sum().clamp_min(1e-9)).sqrt() / 10 ** (snr / 20)
        mixture = target + gain * noise
        scale = PEAK / float(mixture.abs().max().clamp_min(1e-9))
        row = {"id": clip.path, "kind": "pair", "query": clip.label, "target": clip.path, "snr_db": str(snr)}
        row |= {"recording": clip.recording}
        return Rendered(row, (scale * mixture).numpy(), (scale * target).numpy(), self.sample_rate)
