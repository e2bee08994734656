"""Soft labels of recordings by an AudioSet tagger, and the names of its classes, for trainings on a labelled corpus."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from separation.data.corpus import Corpus
from separation.data.mixing import Batch
from separation.encoders.joint import JointEncoder
from separation.errors import ModelError
from separation.vocabulary.ontology import tagger_classes
from separation.vocabulary.sounds import known_sounds

OCCURS, FITS, OTHERS, LISTED = 0.3, 0.5, 0.08, 0.15  # posteriors: see `Teacher` and its methods
ACTIVE_DB = -30.0  # level of a frame relative to the source's loudest frame


class Teacher:
    """A tagger's posteriors of every clip of a corpus, half the mean and half the maximum over the clip.

    Args:
        encoder: its tagger is the teacher, its sentence encoder encodes the names of the classes.
        corpus: the clips.
        rivals: whether names are needed of all classes, for `name_loss`, or only of those that fit a clip.

    Attributes:
        posteriors: (clips, classes).
        taught: (classes,), whether a class occurs in the corpus, with a posterior above 0.3.
        nameable: (classes,), whether a class is one that can be asked for, not a room, silence or a signal.
        names: (classes, 3, dim), sentence vectors of a class's name in three forms; zero if they are not needed.
    """

    @torch.no_grad()
    def __init__(self, encoder: JointEncoder, corpus: Corpus, rivals: bool = False) -> None:
        assert encoder.tagger is not None
        rows = []
        for number in range(len(corpus)):
            patches = encoder.spectrogram(corpus.waveform(number)[None].to(encoder.device))[0]
            likely = torch.sigmoid(encoder.tagger.classify(encoder.tagger(patches)[1].float()))
            rows.append((likely.mean(0) + likely.amax(0)) / 2)
        self.posteriors = torch.stack(rows)
        self.taught = self.posteriors.amax(0) > OCCURS
        self.nameable = torch.zeros_like(self.taught)
        self.nameable[[number for sound in known_sounds().values() for number in sound.classes]] = True
        needed = self.nameable & (self.posteriors.amax(0) > FITS) | rivals
        classes = [tagger_classes()[number] for number in needed.nonzero()[:, 0].tolist()]
        short = [each.name.lower().split(" (")[0] for each in classes]
        forms = [(name, f"the sound of {name}", f"{name.split(',')[0]} sound") for name in short]
        names = encoder.sentence.encode_text([text for texts in forms for text in texts]).unflatten(0, (-1, 3))
        self.names = torch.zeros(len(needed), *names.shape[1:], device=encoder.device)
        self.names[needed] = names.to(encoder.device)

    def of_sources(self, batch: Batch) -> Tensor:
        """Posteriors of the sources of a batch (batch, slots, classes); zero where a slot has no source."""
        assert batch.clips is not None
        return self.posteriors[batch.clips.clamp_min(0)] * batch.has_source()[..., None]

    def draw_names(self, labels: Tensor) -> Tensor:
        """Sentence vectors (..., dim) of classes (...), each in one of its forms."""
        return self.names[labels, torch.randint(self.names.shape[1], labels.shape, device=labels.device)]

    def rename(self, batch: Batch, share: float) -> Tensor:
        """Sentences (batch, slots, dim) of a batch, a share of them replaced by the name of a class.

        A class fits a query for one source if its posterior is above 0.5 for that source and below 0.08 for the others.
        """
        asks, likely = batch.asked_sources(), self.of_sources(batch) * self.nameable
        own = asks @ likely
        others = ((1 - asks)[..., None] * likely[:, None]).amax(2)
        fits = ((own > FITS) & (others < OTHERS)).float()  # (batch, queries, classes)
        some = fits.any(-1) & (asks.sum(-1) == 1)
        weight = rearrange(torch.where(some[..., None], fits, 1.0), "batch queries classes -> (batch queries) classes")
        drawn = torch.multinomial(weight, 1)[:, 0].view(some.shape)
        chosen = some & (torch.rand(some.shape, device=some.device) < share)
        return torch.where(chosen[..., None], self.draw_names(drawn), batch.sentences)

    def frame_loss(self, logits: Tensor, batch: Batch, spectra: Tensor) -> Tensor:
        """Cross-entropy of class logits over time with the posteriors of the sources that sound in each frame.

        `logits` are (batch, classes, frames), `spectra` those of the sources (batch, slots, bins, frames * 8). The loss
        is the sum over the classes that occur in the corpus, and the mean over batch and frames.
        """
        active = sounding_frames(spectra, logits.shape[-1]) > ACTIVE_DB
        target = self.of_sources(batch)[..., self.taught]
        target = (target[..., None] * active[:, :, None]).amax(1)  # (batch, classes, frames)
        loss = F.binary_cross_entropy_with_logits(logits[:, self.taught].float(), target, reduction="none")
        return loss.sum(1).mean()

    def name_loss(self, encoder: JointEncoder, scaled: Tensor, batch: Batch, deviation: float) -> Tensor:
        """Cross-entropy of recordings among the names of all classes, with their posteriors as the target.

        `scaled` are embedded recordings (batch, dim) times the inverse temperature; `deviation` is of the noise on the
        names.
        """
        likely = self.of_sources(batch)[:, 0] * self.nameable
        likely = torch.where(likely > LISTED, likely, 0.0)
        names = self.draw_names(torch.arange(len(self.names), device=scaled.device))
        logits = scaled @ encoder.embed_sentences(add_noise(names, deviation)).T
        has_name = likely.sum(1) > 0
        target = likely / likely.sum(1, keepdim=True).clamp_min(1e-6)
        return F.cross_entropy(logits, target, reduction="none").sum() / has_name.sum().clamp_min(1)


def sounding_frames(spectra: Tensor, frames: int) -> Tensor:
    """Level of sources over time, dB relative to the loudest of `frames` frames, from spectra (..., bins, time)."""
    level = spectra.abs().square().sum(-2).unflatten(-1, (frames, -1)).sum(-1)
    return 10 * torch.log10(level / level.amax(-1, keepdim=True).clamp_min(1e-10) + 1e-10)


def add_noise(sentences: Tensor, deviation: float) -> Tensor:
    """Unit sentence vectors (..., dim) with noise of `deviation` times their length: stands for unseen wordings."""
    noise = torch.randn_like(sentences) * deviation / sentences.shape[-1] ** 0.5
    return F.normalize(sentences + noise, dim=-1)


def check_tagger(encoder: nn.Module, wanted: dict[str, float]) -> None:
    """Raise ModelError if a setting needs a tagger and the encoder has none."""
    used = [name for name, value in wanted.items() if value]
    if used and (not isinstance(encoder, JointEncoder) or encoder.tagger is None):
        raise ModelError(f"model.{used[0]} needs an encoder with a tagger (model.encoder.tagger).")
