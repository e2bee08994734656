"""A user's own sounds, mixed with each other and with others, which a model is to tell them apart from."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from separation.data.corpus import FOLEY, Corpus, decode_clips
from separation.data.datamodule import MixtureData
from separation.data.fixed_mixtures import SECONDS, Rendered
from separation.data.foley import SOUNDS, synthesise
from separation.data.manifest import Clip, absolute_entries, read_entries, refuse_leaks, write_manifest
from separation.data.mixing import Draw, Mixer, draw_excerpt
from separation.errors import DataError

FIRST = 0.85  # share of the mixtures in which one of the own sounds is certain
OTHERS = 0.35  # probability of own sounds among the other sources
SNR_DB = (-5.0, 0.0, 5.0)  # of held-out mixtures
HELD_OUT_SEED = 500  # of procedural sounds that are not trained on
REHEARSED = 3  # one of so many procedural sounds is asked for in the end
STAND_INS = 2  # procedural sounds that take the place of own ones where there is no manifest


class NoTexts:
    """Takes the place of `texts.Texts`: own sounds have a condition each, whatever they are called."""

    def draw(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """No vectors (..., 0)."""
        return torch.zeros(*labels.shape, 0)


class OwnMixer(Mixer):
    """Draws mixtures of which most contain a sound of `own`, numbers of labels."""

    own = torch.zeros(0, dtype=torch.long)

    def favour(self, own: Tensor) -> None:
        """Set the labels that are to be learned."""
        self.own, known = own, torch.zeros(len(self.label_weights), dtype=torch.bool)
        known[own] = True
        for chosen, share in ((known, OTHERS), (~known, 1 - OTHERS)):
            self.label_weights[chosen] *= share / self.label_weights[chosen].sum().clamp_min(1e-9)

    def draw(self, count: int, generator: torch.Generator) -> Draw:
        """See `Mixer`."""
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

    def setup(self, stage: str | None = None) -> None:
        """Decode the clips to train on."""
        if self.corpus is None and stage in (None, "fit"):
            self.load()
        if self.trainer is not None:
            self.trainer.limit_val_batches = 0  # measured at the end, see `held_out_mixtures`

    def load(self) -> None:
        """See `CorpusData`."""
        if self.manifest is None:
            self.own = sorted(SOUNDS)[:STAND_INS]
            super().load()
            return
        entries = [*absolute_entries(read_entries(self.manifest), self.folder)]
        refuse_leaks(self.manifest, entries)
        self.own = sorted({clip.label for split, clip in entries if split == "train" and clip.label})
        if not self.own:
            raise DataError(f"{self.manifest}: no row with split train has a label, so there is no sound to learn.")
        train = [entry for entry in entries if entry[0] == "train" and entry[1].label]
        if self.rehearsal is not None:
            packed = self.rehearsal.is_dir()
            others = absolute_entries(read_entries(self.rehearsal), self.rehearsal if packed else self.rehearsal.parent)
            known = {clip.recording for _, clip in entries}
            clips = [
                (split, clip) for split, clip in others
                if split == "train" and clip.label and not {*clip.labels} & {*self.own} and clip.recording not in known
            ]  # fmt: skip
            train += clips[:: max(1, len(clips) // self.rehearsal_clips)]
        with TemporaryDirectory() as folder:
            write_manifest(Path(folder) / "manifest.csv", train)
            corpus = Corpus(Path(folder) / "manifest.csv", "train", None, self.sample_rate, self.foley, self.notice)
        own = {*self.own}
        corpus.keep([n for n, clip in enumerate(corpus.clips) if clip.source != FOLEY or clip.label not in own])
        self.set_corpus(corpus)

    def set_corpus(self, corpus: Corpus) -> None:
        """See `CorpusData`."""
        self.corpus = corpus
        texts, slots = cast(Any, NoTexts()), max(2, min(3, len(corpus.labels)))
        self.mixer = OwnMixer(corpus, texts, self.length, self.augment, slots=slots, balance=self.balance)
        self.mixer.favour(torch.tensor([corpus.labels.index(label) for label in self.own]))

    def held_out_mixtures(self) -> tuple[list[Rendered], list[Rendered]]:
        """Mixtures in which own sounds are asked for, of clips of the split `validation`, and procedural ones.

        Half of the interferences are other own sounds, if there are any. They are the same ones each time.
        """
        clips: dict[str, list[tuple[Clip, Tensor]]] = defaultdict(list)
        if self.manifest is not None:
            listed = [clip for split, clip in read_entries(self.manifest) if split == "validation"]
            listed = [clip for clip in listed if clip.label in self.own]
            for clip, sound in zip(listed, decode_clips(listed, self.folder, self.sample_rate), strict=True):
                if isinstance(sound, str):
                    self.notice(f"left out: {sound}")
                else:
                    clips[clip.label].append((clip, torch.from_numpy(sound[0]).float() / 32767))
        others = [label for label in SOUNDS if label not in self.own]
        new: list[Rendered] = []
        old: list[Rendered] = []
        for label in sorted(clips):
            for clip, wave in clips[label]:
                for turn in range(self.held_out):
                    rng = np.random.default_rng((self.seed, len(new)))
                    rest = [pair[1] for name in sorted(clips) if name != label for pair in clips[name]]
                    if turn % 2 and rest:
                        noise = rest[int(rng.integers(len(rest)))]
                    else:
                        noise = self.procedural(str(rng.choice(others)), HELD_OUT_SEED + len(new))
                    new.append(self.mix_pair(label, clip.recording, clip.path, wave, noise, rng))
        for number, label in enumerate(others[::REHEARSED]):
            rng = np.random.default_rng((self.seed, 1, number))
            pair = (label, str(rng.choice([name for name in others if name != label])))
            target, noise = (self.procedural(name, HELD_OUT_SEED - 1 - number) for name in pair)
            old.append(self.mix_pair(label, f"foley:{label}", label, target, noise, rng))
        return new, old

    def procedural(self, label: str, seed: int) -> Tensor:
        """A procedural sound (time,)."""
        return torch.from_numpy(synthesise(label, SECONDS, self.sample_rate, seed))

    def mix_pair(
        self, label: str, recording: str, path: str, target: Tensor, noise: Tensor, rng: np.random.Generator
    ) -> Rendered:
        """Excerpts of a target and an interference (time,) at a random SNR."""
        length = SECONDS * self.sample_rate
        waves = [draw_excerpt(wave, length, rng) for wave in (target, noise)]
        snr = float(rng.choice(SNR_DB))
        gain = (waves[0].square().sum() / waves[1].square().sum().clamp_min(1e-9)).sqrt() / 10 ** (snr / 20)
        mixture = waves[0] + gain * waves[1]
        scale = 0.9 / float(mixture.abs().max().clamp_min(1e-9))
        row = {"id": path, "kind": "pair", "query": label, "target": path, "recording": recording, "snr_db": str(snr)}
        return Rendered(row, (scale * mixture).numpy(), (scale * waves[0]).numpy(), self.sample_rate)
