"""The toolkit's own joint audio-text space: texts and matching recordings have similar vectors.

The text branch is a small perceptron on the frozen sentence vector. The audio branch is another one on features of the
recording, pooled over time: those of a convolutional network on log-mels, or the late features of an AudioSet tagger.
The branches are trained together with a contrastive loss, as CLAP (Elizalde et al., 2022), but small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import Extract, QueryEncoder, select_sounding
from separation.encoders.sentence import TEMPLATES as TEMPLATES
from separation.encoders.sentence import SentenceEncoder
from separation.models.spectra import LogMel
from separation.models.tagger import LATE_DIM, PATCHES_PER_SECOND, LogMelPatches, Tagger
from separation.vocabulary.sounds import wordings

SEGMENT_SECONDS = 5  # of recordings in training
LABEL_SHARPNESS = 10.0  # of the softmax over cosines to labels
LABEL_WEIGHT = 2.0  # of the labels that a query resembles, beside its own condition
FAINT_SHARE = 0.5  # of an example's energy; a sound that has less may not be its loudest


def conv_block(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Two convolutions, of which the first halves time and frequency."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def move_to_labels(conditions: Tensor, labels: Tensor) -> Tensor:
    """Move conditions (batch, dim) towards the mean of those of labels (labels, dim) that they resemble."""
    resembled = torch.softmax(LABEL_SHARPNESS * conditions @ labels.T, dim=-1) @ labels
    return F.normalize(conditions + LABEL_WEIGHT * F.normalize(resembled, dim=-1), dim=-1)


class JointEncoder(QueryEncoder):
    """Texts and recordings to unit vectors of one space.

    Args:
        sample_rate: rate of the audio branch, Hz.
        embedding_dim: size of the space.
        channels: channels of the audio branch's blocks.
        hidden: hidden units of both branches' perceptrons.
        dropout: of both perceptrons, in training.
        tagger: whether the audio branch stands on a tagger, which is not trained, instead of convolutions.
        labels: number of labels, of which each has a condition that stands for all its wordings, see `encode_query`.
        classes: number of other sounds that the model was trained with by their names only.
    """

    modalities = frozenset({"text", "audio"})
    labels: Tensor
    classes: Tensor

    def __init__(
        self,
        sample_rate: int = 32000,
        embedding_dim: int = 256,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        hidden: int = 512,
        dropout: float = 0.2,
        tagger: bool = False,
        labels: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.sample_rate, self.embedding_dim = sample_rate, embedding_dim

        def perceptron(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, embedding_dim)
            )

        self.own: Any = None  # the `OwnNames` of a fine-tuned model, see `separation.own_sounds`
        for name, count in (("labels", labels), ("classes", classes)):
            self.register_buffer(name, torch.zeros(count, embedding_dim), persistent=count > 0)
        self.sentence = SentenceEncoder()
        self.text = perceptron(self.sentence.embedding_dim)
        self.tagger = Tagger().requires_grad_(False) if tagger else None
        if tagger:
            self.patches = LogMelPatches(sample_rate)
            self.project = perceptron(2 * LATE_DIM)
            return
        self.mel = LogMel(sample_rate, relative=True)
        self.audio = nn.Sequential(
            conv_block(1, channels[0], 5), *(conv_block(inputs, outputs) for inputs, outputs in pairwise(channels))
        )
        self.project = perceptron(2 * channels[-1])

    def embed_sentences(self, sentences: Tensor) -> Tensor:
        """Project sentence vectors (..., 384) of unit length into the space, (..., embedding_dim)."""
        # Scaled so that the perceptron's inputs have unit variance.
        conditions = F.normalize(self.text(sentences * sentences.shape[-1] ** 0.5).float(), dim=-1)
        return conditions if self.own is None else self.own(sentences, conditions)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Encode texts as (batch, embedding_dim), the mean over templates, which makes short queries more robust.

        Raises:
            TypeError: `texts` is a single string.
        """
        return F.normalize(self.embed_templates(texts).mean(0), dim=-1)

    def encode_query(self, texts: list[str]) -> Tensor:
        """Encode texts that are queries as (batch, embedding_dim).

        The condition of a text is moved towards those of the labels that it resembles, each the mean over all wordings
        of the label: the separator has heard these most often. Texts that are nearer to another class ("music") stay
        where they are, and so do names of a user's own sounds, and sentences that are taken as one query
        (`Query.as_one`).
        """
        conditions = self.move(self.encode_text(texts))
        if self.own is None or not len(self.labels):
            return conditions
        named = self.own.find(self.sentence.encode_text(texts).to(self.device))[0]
        return torch.where(named[:, None], self.encode_text(texts), conditions)

    def move(self, conditions: Tensor) -> Tensor:
        """Move the conditions of queries (batch, dim) towards the labels, if any are stored."""
        if not len(self.labels):
            return conditions
        moved = move_to_labels(conditions, self.labels)
        if not len(self.classes):
            return moved
        stay = (conditions @ self.classes.T).amax(-1) > (conditions @ self.labels.T).amax(-1)
        return torch.where(stay[:, None], conditions, moved)

    def describe_labels(self, texts: Mapping[str, Sequence[str]], classes: list[str]) -> None:
        """Compute the conditions of labels from their names and wordings, and those of classes from their names."""
        means = [self.encode_text([label, *words]).mean(0) for label, words in texts.items()]
        self.labels, self.classes = F.normalize(torch.stack(means), dim=-1), self.encode_text(classes)

    def embed_templates(self, texts: list[str]) -> Tensor:
        """Embed texts in each template as (templates, batch, embedding_dim)."""
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one text")
        sentences = self.sentence.encode_text([template.format(text) for template in TEMPLATES for text in texts])
        return self.embed_sentences(sentences.unflatten(0, (len(TEMPLATES), -1)).to(self.device))

    def embed_labels(self, labels: Sequence[str]) -> Tensor:
        """Embed labels without templates as (labels, embedding_dim); a quarter of the time of `encode_text`."""
        return self.embed_sentences(self.sentence.encode_text(list(labels)).to(self.device))

    @torch.inference_mode()
    def agreement(self, texts: list[str]) -> Tensor:
        """How much the vectors of each text agree between templates (batch,): length of their mean, at most 1."""
        return self.embed_templates(texts).mean(0).norm(dim=-1)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Input of the audio branch for waveforms (batch, time), whatever their level.

        Log-mels relative to their mean power (batch, 1, mels, frames), or a tagger's patches (batch, patches, 96, 64).
        """
        if self.tagger is None:
            return self.mel(waveform).transpose(2, 3)
        level = waveform.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-5)
        seconds = waveform.shape[-1] / self.sample_rate
        return self.patches((waveform / level)[:, None], int(seconds * PATCHES_PER_SECOND) + 1)

    def embed_spectrogram(self, spectrogram: Tensor) -> Tensor:
        """Embed the result of `spectrogram` as (batch, embedding_dim)."""
        if self.tagger is None:
            maps = self.audio(spectrogram.contiguous(memory_format=torch.channels_last))
            return self.embed_features(maps.mean(2).transpose(1, 2))
        return self.embed_features(self.tagger(spectrogram)[1])

    def embed_features(self, features: Tensor) -> Tensor:
        """Embed features over time (batch, frames or patches, channels) as (batch, embedding_dim)."""
        features = features.float()
        pooled = torch.cat([features.mean(1), features.amax(1)], dim=-1)
        # The tagger's features are small; this brings them to about unit variance.
        scaled = pooled if self.tagger is None else 4 * pooled
        return F.normalize(self.project(scaled).float(), dim=-1)

    def embed_audio(self, waveform: Tensor) -> Tensor:
        """Embed waveforms (batch, time) at `self.sample_rate` as (batch, embedding_dim)."""
        return self.embed_spectrogram(self.spectrogram(waveform))

    def encode_example(self, waveform: Tensor, extract: Extract | None = None) -> Tensor:
        """Encode one example (time,) as (1, embedding_dim), by its part that sounds.

        Without a tagger this is the mean over segments of 5 to 10 s. With one, the vector of the recording is moved
        towards the labels that it resembles, because the separator has learned mostly from texts (docs/using.md). A
        tagger may recognise a faint sound better than the loudest. If what the vector extracts from the example has
        less than half of its energy, the rest is encoded, and taken instead if it extracts more.
        """
        waveform = select_sounding(waveform, self.sample_rate)
        if self.tagger is not None:
            vector = self.encode_audio(waveform[None], self.sample_rate)
            vector = move_to_labels(vector, self.embed_labels(tuple(wordings())))
            if extract is not None:
                target = extract(waveform, vector)
                if target.norm() < FAINT_SHARE**0.5 * waveform.norm():
                    other = self.encode_example(waveform - target)
                    return other if extract(waveform, other).norm() > target.norm() else vector
            return vector
        segments = waveform.tensor_split(max(1, len(waveform) // (SEGMENT_SECONDS * self.sample_rate)))
        return self.mean(torch.cat([self.encode_audio(segment[None], self.sample_rate) for segment in segments]))
