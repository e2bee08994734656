"""Audio taggers as encoders: a recording's class probabilities, or the hidden vector behind them, are the condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from separation.audio import resample
from separation.encoders.base import QueryEncoder
from separation.encoders.joint import conv_block
from separation.encoders.table import Label, OneHotEncoder, as_labels
from separation.models.spectra import LogMel
from separation.models.tagger import LATE_DIM, PATCHES_PER_SECOND, LogMelPatches, Tagger
from separation.storage.tensors import load_strictly, read_tensors, select
from separation.vocabulary.ontology import class_index

AUDIOSET_CLASSES = 527
CONDITIONS = ("probabilities", "embedding")
SEGMENTS_AT_ONCE = 8
EMBEDDED = "embedded"


class Tags(NamedTuple):
    """Output of a tagger: class probabilities (batch, classes) and the hidden vectors behind them (batch, dim)."""

    probabilities: Tensor
    embedding: Tensor


class Frames(NamedTuple):
    """Output of a detector: probabilities per frame (batch, frames, classes) and per clip (batch, classes)."""

    framewise: Tensor
    clipwise: Tensor


def hold_steps(steps: Tensor, frames: int, factor: int) -> Tensor:
    """Repeat each step (batch, steps, classes) `factor` times, and the last one until there are `frames`."""
    index = torch.arange(frames, device=steps.device).div(factor, rounding_mode="floor")
    return steps[:, index.clamp_max(steps.shape[1] - 1)]


def encode_classes(
    labels: Sequence[Label | Sequence[Label]],
    number: Callable[[Label], int] = class_index,
    count: int = AUDIOSET_CLASSES,
) -> Tensor:
    """Encode classes as (batch, count) of zeros and ones; a nested list is one row for all its classes."""
    rows = torch.zeros(len(labels), count)
    for row, entry in zip(rows, labels, strict=True):
        row[[number(label) for label in as_labels(entry)]] = 1
    return rows


class TaggerEncoder(QueryEncoder):
    """Base class of tagger encoders, as in "Universal Source Separation with Weakly Labelled Data" (Kong et al., 2023).

    The condition of a recording is the mean over segments of 2 s. With condition "probabilities", labels are supported
    as well: a vector with 1 at the AudioSet class. Vectors are not normalised. Silence in examples is removed, as in
    USS.

    Args:
        condition: "probabilities" (one number per class) or "embedding" (the tagger's last hidden vector).
        hidden: length of the hidden vector.
        labels: the classes; by default those of AudioSet.

    Attributes:
        spectrogram: log-mels (batch, patches, frames, mels) pass through it; a training changes them here.
    """

    unit_length = False
    ignores_silence = True
    segment_seconds = 2.0

    def __init__(self, condition: str, hidden: int, labels: Sequence[str] | None = None) -> None:
        super().__init__()
        if condition not in CONDITIONS:
            raise ValueError(f"condition must be one of {', '.join(CONDITIONS)}, not {condition!r}")
        self.names = None if labels is None else OneHotEncoder(labels)
        self.condition, self.classes = condition, AUDIOSET_CLASSES if labels is None else len(labels)
        self.spectrogram = nn.Identity()
        by_class = condition == "probabilities"
        self.embedding_dim = self.classes if by_class else hidden
        self.modalities = frozenset({"audio", "label"} if by_class else {"audio"})

    def tag(self, waveform: Tensor) -> Tags:
        """Tag waveforms (batch, time) at `self.sample_rate`."""
        raise NotImplementedError

    @torch.no_grad()
    def probabilities(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Class probabilities (batch, classes) of whole waveforms (batch, time)."""
        return self.tag(resample(waveform, sample_rate, self.sample_rate).to(self.device)).probabilities

    @torch.no_grad()
    def embed_audio(self, waveform: Tensor) -> Tensor:
        """Embed waveforms (batch, time) at `self.sample_rate` as (batch, embedding_dim), the mean over segments.

        The last segment is repeated until it is full; there must be a sample.
        """
        if not waveform.shape[-1]:
            raise ValueError("an example recording has at least one sample")
        size = round(self.segment_seconds * self.sample_rate)
        last = (waveform.shape[-1] - 1) // size * size  # where the last segment starts
        tail = waveform[:, last:]
        tail = tail.repeat(1, -(-size // tail.shape[-1]))[:, :size]
        segments = torch.cat([waveform[:, :last], tail], 1)
        parts = rearrange(segments, "b (segment time) -> (b segment) time", time=size).split(SEGMENTS_AT_ONCE)
        vectors = torch.cat([getattr(self.tag(part), self.condition) for part in parts])
        return reduce(vectors, "(b segment) dim -> b dim", "mean", b=len(waveform))

    def start(self, weights: str) -> None:
        """Load the weights that a training starts from: a file of `python -m separation.export encoder`."""
        load_strictly(self, read_tensors(Path(weights)), weights)

    def trained_parts(self) -> list[nn.Module]:
        """Return the modules that a training of the tagger changes."""
        return [self]

    def class_number(self, label: Label) -> int:
        """Return the number of a class; raise EncoderError or OntologyError if it is unknown."""
        return self.names.index(label) if self.names else class_index(label)

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """Encode classes as (batch, classes) of zeros and ones; a nested list is one query for all its classes.

        Raises EncoderError or OntologyError for an unknown class, UnsupportedQueryError where classes are no condition.
        """
        if "label" not in self.modalities:
            self.refuse(f"label, because the {self.embedding_dim} numbers of its condition are not classes")
        return encode_classes(labels, self.class_number, self.classes).to(self.device)


def linear_softmax(probabilities: Tensor) -> Tensor:
    """Clip probabilities (batch, classes) from those of steps (batch, steps, classes): sum p^2 / sum p."""
    return probabilities.square().sum(1) / probabilities.sum(1).clamp_min(1e-7)


class FrameTagger(TaggerEncoder):
    """A small tagger and frame-wise detector of any classes, trained on clip labels.

    A convolutional network on the log-mel spectrogram gives a logit per class and step of 8 frames. The probability of
    a clip is the linear softmax of its steps, which gives confident steps more weight (Wang et al., "A comparison of
    five multiple instance learning pooling functions", 2019). As in USS, it finds anchor segments and encodes queries.

    A label is encoded as the mean condition of its class's segments in training, as USS is evaluated; before any was
    observed, as a one-hot vector.

    Args:
        labels: the classes.
        condition: "probabilities" or "embedding".
        sample_rate: Hz.
        channels: channels of the three blocks, each of which halves time and frequency.
        hidden: length of the embedding.
        dropout: before the last layer, in training.
    """

    means: Tensor
    seen: Tensor

    def __init__(
        self,
        labels: list[str],
        condition: str = "probabilities",
        sample_rate: int = 32000,
        channels: tuple[int, int, int] = (24, 48, 96),
        hidden: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(condition, hidden, labels)
        self.modalities = frozenset({"audio", "label"})
        self.sample_rate = sample_rate
        self.hop = sample_rate // 50
        self.mel = LogMel(sample_rate, hop=self.hop, relative=True)
        first, second, third = channels
        self.blocks = nn.Sequential(conv_block(1, first, 5), conv_block(first, second), conv_block(second, third))
        self.hidden = nn.Conv1d(2 * third, hidden, 3, padding=1)
        self.dropout, self.last = nn.Dropout(dropout), nn.Linear(hidden, self.classes)
        self.register_buffer("means", torch.zeros(self.classes, self.embedding_dim))
        self.register_buffer("seen", torch.zeros(self.classes))

    def steps(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, steps, classes) and hidden vectors (batch, steps, hidden) of waveforms (batch, time)."""
        log_mel = self.spectrogram(self.mel(waveform)).transpose(2, 3)  # (batch, 1, mels, frames)
        x = self.blocks(log_mel.contiguous(memory_format=torch.channels_last))
        x = torch.cat([x.mean(2), x.amax(2)], dim=1)  # (batch, 2 * channels, steps)
        vectors = F.relu(self.hidden(x)).transpose(1, 2)
        return self.last(self.dropout(vectors)), vectors

    def forward(self, waveform: Tensor) -> Frames:
        """Detect classes in waveforms (batch, time); there are time // hop + 1 frames."""
        probabilities = torch.sigmoid(self.steps(waveform)[0])
        frames = waveform.shape[-1] // self.hop + 1
        return Frames(hold_steps(probabilities, frames, 2 ** len(self.blocks)), linear_softmax(probabilities))

    def tag(self, waveform: Tensor) -> Tags:
        logits, vectors = self.steps(waveform)
        return Tags(linear_softmax(torch.sigmoid(logits)), vectors.mean(1))

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """Encode labels as (batch, embedding_dim).

        Raises UnsupportedQueryError if the condition is the embedding, and no segment of the class was observed.
        """
        rows = []
        for label in labels:
            number = self.class_number(label)  # type: ignore[arg-type]
            if not self.seen[number] and self.condition != "probabilities":
                self.refuse(f"label {label!r}, because training has met no segment of it")
            one_hot = F.one_hot(torch.tensor(number, device=self.means.device), self.classes)
            rows.append(self.means[number] if self.seen[number] else one_hot.float())
        return torch.stack(rows)

    def observe(self, numbers: Tensor, conditions: Tensor) -> None:
        """Update the mean conditions of classes `numbers` (batch,) with those of segments (batch, embedding_dim)."""
        for number, condition in zip(numbers.tolist(), conditions.detach(), strict=True):
            self.seen[number] += 1
            self.means[number] += (condition - self.means[number]) / self.seen[number]


class PatchTagger(TaggerEncoder):
    """The tagger of the default model (MobileNet on patches of 0.96 s) with classes of its own.

    A clip's probabilities are the linear softmax of its patches.

    Args:
        labels: the classes; by default those of AudioSet.
        condition: "probabilities" or "embedding".
        sample_rate: Hz.
        dropout: before the last layer, in training.
    """

    def __init__(
        self,
        labels: list[str] | None = None,
        condition: str = "embedding",
        sample_rate: int = 32000,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(condition, LATE_DIM, labels)
        self.sample_rate, self.patches, self.network = sample_rate, LogMelPatches(sample_rate), Tagger()
        self.dropout, self.network.classify = nn.Dropout(dropout), nn.Linear(LATE_DIM, self.classes)

    def start(self, weights: str) -> None:
        """Load the weights that a training starts from: a file, or "embedded", the default's except its classes."""
        if weights != EMBEDDED:
            return super().start(weights)
        default = Path(__file__).parents[1] / "weights" / "default" / "model.safetensors"
        classify = {f"classify.{name}": value for name, value in self.network.classify.state_dict().items()}
        load_strictly(self.network, select(read_tensors(default), "encoder.tagger.") | classify, default)

    def tag(self, waveform: Tensor) -> Tags:
        level = waveform.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-5)
        count = int(waveform.shape[-1] / self.sample_rate * PATCHES_PER_SECOND) + 1
        late = self.network(self.spectrogram(self.patches((waveform / level)[:, None], count)))[1]
        probabilities = torch.sigmoid(self.network.classify(self.dropout(late)))
        return Tags(linear_softmax(probabilities), late.mean(1))
