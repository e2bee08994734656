"""The released frame-wise detector as USS mines its anchors with it, read when the first clip comes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from separation.encoders.panns import Cnn14DecisionLevelMax, Frames, detector_from_file
from separation.encoders.released import cached

DETECTOR_FILE = "Cnn14_DecisionLevelMax_mAP=0.385.pth"
HOME = "https://zenodo.org/records/3987831"


class ReleasedDetector(nn.Module):
    """Waveform (batch, time) at 32 kHz to probabilities of the 527 AudioSet classes, 100 frames a second.

    Args:
        weights: the published file, or a USS checkpoint; by default it is looked for in the cache.

    Raises:
        EncoderError: at the first clip, where there is no such file, or it holds another network.
    """

    sample_rate, hop = 32000, 320

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.weights = weights
        self.read: list[Cnn14DecisionLevelMax] = []  # a list, so that the frozen weights stay out of checkpoints

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Frames:
        if not self.read:
            path = self.weights or cached(DETECTOR_FILE, "the detector PANNs Cnn14 DecisionLevelMax", HOME)
            self.read.append(detector_from_file(path))
        frames: Frames = self.read[0].to(waveform.device)(waveform)
        return frames
