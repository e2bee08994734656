"""AST, the audio spectrogram transformer (Gong et al., 2021), as a tagger that learns by adapters.

The network is that of transformers. What it learned stays as it is: behind each of its layers, a small bottleneck is
trained (Houlsby et al., "Parameter-efficient transfer learning", 2019; one for each layer as in Pfeiffer et al., 2021),
and a layer that classifies.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, import_optional
from separation.encoders.taggers import TaggerEncoder, Tags
from separation.errors import expand_home
from separation.storage.download import hub_snapshots

PUBLISHED = "MIT/ast-finetuned-audioset-10-10-0.4593"


class Adapter(nn.Module):
    """Bottleneck with a skip connection, (..., dim) to (..., dim); at first it changes nothing."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, size), nn.Linear(size, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(F.gelu(self.down(x)))


class AdaptedAST(TaggerEncoder):
    """AST with adapters as a tagger of any classes, and as a query net.

    Recordings are cut or padded to 10.24 s, as it was trained.

    Args:
        labels: the classes; by default those of AudioSet.
        condition: "probabilities" or "embedding" (768 numbers).
        size: hidden units of each adapter.
        config: settings of the network that differ from the published ones.

    Raises:
        EncoderError: transformers is not installed.
    """

    sample_rate = 16000

    def __init__(
        self,
        labels: list[str] | None = None,
        condition: str = "embedding",
        size: int = 64,
        config: dict[str, Any] | None = None,
    ) -> None:
        transformers = import_optional("transformers", "AST", "clap")
        settings = transformers.ASTConfig(**(config or {}))
        super().__init__(condition, settings.hidden_size, labels)
        self.network = transformers.ASTModel(settings).eval().requires_grad_(False)
        self.extractor = transformers.ASTFeatureExtractor(max_length=settings.max_length)
        layers = self.network.layers
        self.adapters = nn.ModuleList(Adapter(settings.hidden_size, size) for _ in layers)
        for layer, adapter in zip(layers, self.adapters, strict=True):
            layer.register_forward_hook(lambda module, inputs, output, adapter=adapter: adapter(output))
        self.classify = nn.Linear(settings.hidden_size, self.classes)

    def trained_parts(self) -> list[nn.Module]:
        return [self.adapters, self.classify]

    def start(self, weights: str) -> None:
        """Load the published network from a folder or the local Hugging Face cache, or all weights from a file."""
        if Path(weights).is_file():
            return super().start(weights)
        folders = [expand_home(weights), *hub_snapshots(weights)]
        found = next((folder for folder in folders if (folder / "model.safetensors").is_file()), None)
        if found is None:
            raise EncoderError(
                f"The weights of AST are missing: get them with: hf download {PUBLISHED}, or name a folder with them."
            )
        published = type(self.network).from_pretrained(found, use_safetensors=True, local_files_only=True)
        self.network.load_state_dict(published.state_dict())

    def tag(self, waveform: Tensor) -> Tags:
        features = self.extractor(
            list(waveform.float().cpu().numpy()), sampling_rate=self.sample_rate, return_tensors="pt"
        )["input_values"]
        embedding = self.network(self.spectrogram(features[:, None])[:, 0].to(self.device)).pooler_output
        return Tags(torch.sigmoid(self.classify(embedding)), embedding)
