"""Our own small tagger of any classes: what sounds when, learnt from what sounds somewhere in a clip.

A convolutional network on the log-mel gives a logit for every class and step; a clip's probability is the linear
softmax of its steps (Wang et al., "A comparison of five multiple instance learning pooling functions", 2019), in which
the steps that are sure count most. It serves as detector of anchors and as query net, as PANNs do in USS.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.panns import Frames
from separation.encoders.sound import LogMel, block
from separation.encoders.table import OneHotEncoder
from separation.encoders.tagger import Label, TaggerEncoder, Tags

HALVINGS = 3  # of time
SURE = 1e-7


def linear_softmax(probabilities: Tensor) -> Tensor:
    """Clip probabilities (batch, classes) of step probabilities (batch, steps, classes): sum p^2 / sum p."""
    return probabilities.square().sum(1) / probabilities.sum(1).clamp_min(SURE)


class FrameTagger(TaggerEncoder):
    """Waveform (batch, time) to `Frames`; as an encoder, a recording's class probabilities or the vector behind them.

    A label as a query is the mean condition of that class's segments in training, as USS is evaluated; before any was
    seen, ones and zeros.

    Args:
        labels: the classes.
        condition: "probabilities" or "embedding".
        sample_rate: Hz.
        channels: of the blocks; the first three halve time and frequency.
        hidden: size of the vector behind the probabilities.
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
        self.classes = len(labels)
        super().__init__(condition, hidden)
        self.modalities = frozenset({"audio", "label"})
        self.sample_rate = sample_rate
        self.names = OneHotEncoder(labels)
        self.log_mel = LogMel(sample_rate, hop=sample_rate // 50)
        self.hop = self.log_mel.hop
        first, second, third = channels
        self.blocks = nn.Sequential(block(1, first, 5), block(first, second), block(second, third))
        self.hidden = nn.Conv1d(2 * third, hidden, 3, padding=1)
        self.dropout, self.last = nn.Dropout(dropout), nn.Linear(hidden, self.classes)
        self.register_buffer("means", torch.zeros(self.classes, self.embedding_dim))
        self.register_buffer("seen", torch.zeros(self.classes))

    def steps(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (batch, steps, classes) and the vectors behind them (batch, steps, hidden); a step is 8 frames."""
        x = self.blocks(self.log_mel(waveform).contiguous(memory_format=torch.channels_last))
        x = torch.cat([x.mean(2), x.amax(2)], dim=1)  # (batch, 2 * channels, steps)
        vectors = F.relu(self.hidden(x)).transpose(1, 2)
        return self.last(self.dropout(vectors)), vectors

    def forward(self, waveform: Tensor) -> Frames:
        logits, _ = self.steps(waveform)
        probabilities = torch.sigmoid(logits)
        frames = waveform.shape[-1] // self.hop + 1
        at = torch.arange(frames, device=logits.device).div(2**HALVINGS, rounding_mode="floor")
        return Frames(probabilities[:, at.clamp_max(logits.shape[1] - 1)], linear_softmax(probabilities))

    def tag(self, waveform: Tensor) -> Tags:
        logits, vectors = self.steps(waveform)
        return Tags(linear_softmax(torch.sigmoid(logits)), vectors.mean(1))

    def encode_label(self, labels: Sequence[Label | Sequence[Label]]) -> Tensor:
        """Labels to (batch, embedding_dim).

        Raises:
            EncoderError: a label is unknown.
            UnsupportedQueryError: the condition is the embedding, and none of the class was seen in training.
        """
        numbers = [self.names.index(label) for label in labels]  # type: ignore[arg-type]
        return torch.stack([self.of_class(number) for number in numbers])

    def of_class(self, number: int) -> Tensor:
        """The condition (embedding_dim,) of a class."""
        if self.seen[number] > 0:
            return self.means[number]
        if self.condition != "probabilities":
            self.refuse(f"label {self.names.labels[number]!r}, because training has met no segment of it")
        return F.one_hot(torch.tensor(number, device=self.means.device), self.classes).float()

    def observe(self, numbers: Tensor, conditions: Tensor) -> None:
        """Takes conditions (batch, embedding_dim) of segments of these classes (batch,) into the classes' means."""
        for number, condition in zip(numbers.tolist(), conditions.detach(), strict=True):
            self.seen[number] += 1
            self.means[number] += (condition - self.means[number]) / self.seen[number]
