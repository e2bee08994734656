"""Our own joint audio-text space: a sentence and a recording of what it says lie close together.

The text side is a small perceptron over the frozen sentence vector; the audio side is a convolutional network on the
log-mel spectrogram. Both are trained together, contrastively, as CLAP is (Elizalde et al., 2022), but small.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import QueryEncoder
from separation.encoders.sentence import SentenceEncoder

PIECE_SECONDS = 5  # what it was trained on
FRAMES = ("{}", "the sound of {}", "{} sound", "{} noise")


def mel_matrix(bins: int, mels: int, sample_rate: int, low: float = 50.0) -> Tensor:
    """Triangular mel filters (mels, bins), HTK's formula, each of unit sum."""

    def to_mel(hertz: Tensor) -> Tensor:
        return 2595 * torch.log10(1 + hertz / 700)

    edges = torch.linspace(float(to_mel(torch.tensor(low))), float(to_mel(torch.tensor(sample_rate / 2))), mels + 2)
    frequency = to_mel(torch.linspace(0, sample_rate / 2, bins))
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    weights = torch.minimum(rise, fall).clamp_min(0)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-8)


class LogMel(nn.Module):
    """Waveform (batch, time) to log-mel (batch, 1, mels, frames), relative to the recording's mean level."""

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int, mels: int = 64, n_fft: int = 1024, hop: int = 640) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.register_buffer("filters", mel_matrix(n_fft // 2 + 1, mels, sample_rate), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        if waveform.shape[-1] < self.n_fft:
            waveform = F.pad(waveform, (0, self.n_fft - waveform.shape[-1]))
        spectrum = torch.stft(
            waveform, self.n_fft, self.hop, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        mel = self.filters @ spectrum.abs().square()
        mel = mel / mel.mean((1, 2), keepdim=True).clamp_min(1e-12)
        return (torch.log10(mel + 1e-6) / 2 + 1)[:, None]


def block(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """A convolution that halves both axes and one that does not."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, 2, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class SoundEncoder(QueryEncoder):
    """Sentences and recordings to unit vectors of one space.

    Args:
        sample_rate: rate of the audio side, Hz.
        embedding_dim: size of the space.
        channels: of the audio side's blocks.
        dropout: of the text side, in training.
    """

    modalities = frozenset({"text", "audio"})

    def __init__(
        self,
        sample_rate: int = 32000,
        embedding_dim: int = 256,
        channels: tuple[int, ...] = (32, 64, 128, 256),
        hidden: int = 512,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.sample_rate, self.embedding_dim = sample_rate, embedding_dim
        self.sentence = SentenceEncoder()
        dim = self.sentence.embedding_dim
        self.text = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, embedding_dim)
        )
        self.log_mel = LogMel(sample_rate)
        blocks = [block(a, b) for a, b in pairwise(channels)]
        self.audio = nn.Sequential(block(1, channels[0], 5), *blocks)
        self.project = nn.Sequential(
            nn.Linear(2 * channels[-1], hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, embedding_dim)
        )

    def embed_sentences(self, sentences: Tensor) -> Tensor:
        """Sentence vectors (..., 384), unit length, to the space (..., embedding_dim)."""
        return F.normalize(self.text(sentences * sentences.shape[-1] ** 0.5).float(), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Texts to (batch, embedding_dim): the mean over the frames they are put in, which steadies short queries."""
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one text")
        framed = [self._embed([frame.format(text) for text in texts]) for frame in FRAMES]
        return F.normalize(torch.stack(framed).mean(0), dim=-1)

    def _embed(self, texts: list[str]) -> Tensor:
        sentences = self.sentence.encode_text(texts)
        return self.embed_sentences(sentences.to(next(self.text.parameters()).device))

    def embed_log_mel(self, log_mel: Tensor) -> Tensor:
        """Log-mel (batch, 1, mels, frames) to (batch, embedding_dim)."""
        x = self.audio(log_mel.contiguous(memory_format=torch.channels_last))
        x = x.mean(2).float()  # (batch, channels, frames)
        pooled = torch.cat([x.mean(2), x.amax(2)], dim=1)
        return F.normalize(self.project(pooled).float(), dim=-1)

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) at `sample_rate` to (batch, embedding_dim)."""
        if sample_rate != self.sample_rate:
            from separation.audio import resample

            waveform = resample(waveform, sample_rate, self.sample_rate)
        return self.embed_log_mel(self.log_mel(waveform.to(self.log_mel.window.device)))

    def encode_example(self, waveform: Tensor) -> Tensor:
        """One example (time,) to (1, embedding_dim): of a long one, the mean over pieces of 5 to 10 s."""
        pieces = waveform.tensor_split(max(1, len(waveform) // (PIECE_SECONDS * self.sample_rate)))
        return self.mean(torch.cat([self.encode_audio(piece[None], self.sample_rate) for piece in pieces]))
