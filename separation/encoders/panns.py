"""PANNs' Cnn14 (Kong et al., 2020): tagger, embedding, and frame-wise detector of the 527 AudioSet classes.

Published files load with their tensor names. Their Fourier and mel kernels are computed instead of read. In training
there is dropout as published, and `TaggerEncoder.spectrogram` is where spectrograms are masked and mixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, find_weights
from separation.encoders.taggers import Frames, TaggerEncoder, Tags, hold_steps
from separation.models.spectra import LogMel
from separation.storage.tensors import Tensors, load_strictly, read_tensors, select_first

CHANNELS = (64, 128, 256, 512, 1024, 2048)
HALVINGS = 5
SIGN = "conv_block1.conv1.weight"  # a tensor that every Cnn14 has
PREFIXES = ("", "module.", "model.", "query_net.base.", "network.")
DETECTOR_PREFIXES = ("", "module.", "model.", "anchor_segment_detector.sed_model.", "network.")
DETECTOR_FILE = "Cnn14_DecisionLevelMax_mAP=0.385.pth"
HOME = "https://zenodo.org/records/3987831"
# Tensors of published files that are computed here instead of read, and counters that only training uses.
COMPUTED = re.compile(r"(?:spectrogram|logmel)_extractor\.|.*num_batches_tracked$")

# Rate in Hz, window and hop in samples, and upper edge of the mel bands in Hz of the published networks.
FRONT_ENDS = {"cnn14": (32000, 1024, 320, 14000.0), "cnn14_16k": (16000, 512, 160, 8000.0)}


class ConvBlock(nn.Module):
    """Two 3x3 convolutions and average pooling: (batch, in, frames, bands) to (batch, out, frames / p, bands / p)."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.avg_pool2d(x, self.pool) if self.pool > 1 else x


class Cnn14(nn.Module):
    """Tagger: waveform (batch, time) to `Tags`.

    Args:
        variant: "cnn14" (32 kHz) or "cnn14_16k".
        classes: number of classes.
        channels: channels of the blocks; published networks have the default.
    """

    prefixes = PREFIXES

    def __init__(self, variant: str = "cnn14", classes: int = 527, channels: tuple[int, ...] = CHANNELS) -> None:
        super().__init__()
        if variant not in FRONT_ENDS:
            raise ValueError(f"variant must be one of {', '.join(FRONT_ENDS)}, not {variant!r}")
        self.variant = variant
        self.sample_rate, n_fft, self.hop, high = FRONT_ENDS[variant]
        self.log_mel = LogMel(self.sample_rate, n_fft, self.hop, 64, 50.0, high)
        self.spectrogram: Callable[[Tensor], Tensor] = nn.Identity()
        self.bn0 = nn.BatchNorm2d(64)
        self.blocks = len(channels)
        for number, (inputs, outputs) in enumerate(zip((1, *channels), channels, strict=False), 1):
            setattr(self, f"conv_block{number}", ConvBlock(inputs, outputs, 2 if number <= HALVINGS else 1))
        self.fc1 = nn.Linear(channels[-1], channels[-1])
        self.fc_audioset = nn.Linear(channels[-1], classes)

    @property
    def shortest(self) -> int:
        """Number of samples from which one step remains after the halvings."""
        return int(2**HALVINGS - 1) * self.hop

    def features(self, waveform: Tensor) -> Tensor:
        """Compute features (batch, channels, steps of 32 frames) of (batch, time) with at least `shortest` samples."""
        if waveform.shape[-1] < self.shortest:
            raise ValueError(f"Cnn14 needs {self.shortest} samples or more, not {waveform.shape[-1]}")
        x: Tensor = self.log_mel(waveform)  # (batch, 1, frames, 64)
        x = self.spectrogram(self.bn0(x.transpose(1, 3)).transpose(1, 3))  # per band
        for number in range(1, self.blocks + 1):
            x = F.dropout(getattr(self, f"conv_block{number}")(x), 0.2, self.training)
        return x.mean(3)

    def forward(self, waveform: Tensor) -> Tags:
        x = self.features(waveform)
        hidden = F.dropout(x.amax(2) + x.mean(2), 0.5, self.training)
        embedding = F.dropout(F.relu(self.fc1(hidden)), 0.5, self.training)
        return Tags(torch.sigmoid(self.fc_audioset(embedding)), embedding)

    def load_published(self, tensors: Tensors, source: str = "the checkpoint") -> Cnn14:
        """Load a published state dict, whose names may have any known prefix, and freeze the network.

        Raises:
            EncoderError: there is no Cnn14 among the tensors, or one with another front end.
            ModelError: a tensor is missing, unknown or has another shape; the message names it.
        """
        bare = select_first(tensors, self.prefixes, SIGN)
        if not bare:
            raise EncoderError(f"{source} contains no Cnn14: tensor {SIGN} is missing.")
        variant = find_variant(bare)
        if variant not in (None, self.variant):
            raise EncoderError(f"{source} is {variant}, not {self.variant}.")
        load_strictly(self, bare, source, COMPUTED.match)
        return self.eval().requires_grad_(False)


class Cnn14DecisionLevelMax(Cnn14):
    """Detector: waveform (batch, time) to `Frames`, 100 per second; a clip's probability is its maximum."""

    prefixes = DETECTOR_PREFIXES

    def forward(self, waveform: Tensor) -> Frames:  # type: ignore[override]
        x = self.features(waveform)
        x = F.max_pool1d(x, 3, 1, 1) + F.avg_pool1d(x, 3, 1, 1)
        steps = torch.sigmoid(self.fc_audioset(F.relu(self.fc1(x.transpose(1, 2)))))
        return Frames(hold_steps(steps, waveform.shape[-1] // self.hop + 1, 2**HALVINGS), steps.amax(1))


def find_variant(tensors: Tensors) -> str | None:
    """The front end that the file's mel matrix belongs to; None if there is no such matrix."""
    matrix = tensors.get("logmel_extractor.melW")
    bins = {n_fft // 2 + 1: name for name, (_, n_fft, *_) in FRONT_ENDS.items()}
    return None if matrix is None else bins.get(len(matrix))


class PannsEncoder(TaggerEncoder):
    """Cnn14 as encoder: class probabilities (527) or the embedding (2048) of example recordings, and class labels.

    Args:
        condition: "probabilities" ("at_soft" in USS) or "embedding".
        variant: "cnn14" (32 kHz) or "cnn14_16k".
        channels: channels of the blocks; published networks have the default.
        labels: the classes; by default, and in published networks, those of AudioSet.
    """

    def __init__(
        self,
        condition: str = "probabilities",
        variant: str = "cnn14",
        channels: tuple[int, ...] = CHANNELS,
        labels: list[str] | None = None,
    ) -> None:
        super().__init__(condition, channels[-1], labels)
        self.network = Cnn14(variant, self.classes, channels).eval().requires_grad_(False)
        self.network.spectrogram = self.spectrogram
        self.sample_rate = self.network.sample_rate

    @classmethod
    def from_tensors(
        cls,
        tensors: Tensors,
        condition: str = "probabilities",
        variant: str | None = None,
        source: str = "the checkpoint",
    ) -> PannsEncoder:
        """Create the encoder from a published state dict: PANNs' own, or the query net inside a USS checkpoint."""
        encoder = cls(condition, variant or find_variant(select_first(tensors, PREFIXES, SIGN)) or "cnn14")
        encoder.network.load_published(tensors, source)
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, condition: str = "probabilities", variant: str | None = None) -> PannsEncoder:
        """Create the encoder from a published file, for example `Cnn14_mAP=0.431.pth` or a USS checkpoint."""
        return cls.from_tensors(read_tensors(path), condition, variant, str(path))

    def tag(self, waveform: Tensor) -> Tags:
        missing = max(0, self.network.shortest - waveform.shape[-1])
        return self.network(F.pad(waveform, (0, missing)))


class ReleasedDetector(nn.Module):
    """The published frame-wise detector with which USS mines anchor segments; its file is read at the first clip.

    Waveform (batch, time) at 32 kHz to `Frames` of the 527 AudioSet classes, 100 per second. `weights` is the published
    file or a USS checkpoint; by default the file is looked for in the cache. Raises EncoderError at the first clip.
    """

    sample_rate, hop = 32000, 320

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.networks: list[Cnn14] = []  # a list, so that the frozen weights are not part of checkpoints

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Frames:
        if not self.networks:
            path = self.weights or find_weights(DETECTOR_FILE, "the detector PANNs Cnn14 DecisionLevelMax", HOME)
            self.networks.append(Cnn14DecisionLevelMax().load_published(read_tensors(path), str(path)))
        return self.networks[0].to(waveform.device)(waveform)
