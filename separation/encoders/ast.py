"""The Audio Spectrogram Transformer (Gong et al., 2021) as query net: same interface as PANNs, through transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from separation.encoders.packages import optional
from separation.encoders.tagger import TaggerEncoder, Tags
from separation.tensors import Tensors, load_strictly, read_tensors


class AstEncoder(TaggerEncoder):
    """AST as query net: class probabilities (527) or the embedding (768) of example recordings, and class labels.

    Segments have 10 s, what the published network was trained on; shorter ones are padded by its own feature extractor.

    Args:
        condition: "probabilities" or "embedding".
        config: overrides of the published sizes.

    Raises:
        EncoderError: transformers is not installed.
    """

    sample_rate = 16000
    segment_seconds = 10.0

    def __init__(self, condition: str = "probabilities", config: dict[str, Any] | None = None) -> None:
        transformers = optional("transformers", "AST", "ast")
        settings = transformers.ASTConfig(num_labels=self.classes, **(config or {}))
        super().__init__(condition, settings.hidden_size)
        self.network = transformers.ASTForAudioClassification(settings).eval().requires_grad_(False)
        self.features = transformers.ASTFeatureExtractor(
            num_mel_bins=settings.num_mel_bins, max_length=settings.max_length, sampling_rate=self.sample_rate
        )

    @classmethod
    def from_tensors(cls, tensors: Tensors, source: str = "the checkpoint", **options: Any) -> AstEncoder:
        """From a state dict in Hugging Face names; `options` as for the class.

        Raises:
            EncoderError: a tensor is missing, unknown or of another shape.
        """
        encoder = cls(**options)
        load_strictly(encoder.network, tensors, source)
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> AstEncoder:
        """From a file such as MIT/ast-finetuned-audioset-10-10-0.4593's `model.safetensors`."""
        return cls.from_tensors(read_tensors(path), str(path), **options)

    def tag(self, waveform: Tensor) -> Tags:
        examples = [each.cpu().numpy() for each in waveform]
        features = self.features(examples, sampling_rate=self.sample_rate, return_tensors="pt").input_values
        hidden = self.network.audio_spectrogram_transformer(features.to(waveform.device)).pooler_output
        return Tags(self.network.classifier(hidden).sigmoid(), hidden)
