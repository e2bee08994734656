"""CLAP (LAION, HTSAT-base and RoBERTa-base): texts and recordings to unit vectors of one space of 512 dimensions.

The networks and the tokenizer are those of transformers. Weights load from LAION's `.pt` files, from the copies inside
checkpoints of separators, and in Hugging Face form. RoBERTa's vocabulary is in none of these files.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from separation.encoders.base import EncoderError, QueryEncoder, import_optional
from separation.errors import expand_home
from separation.models.spectra import LogMel
from separation.storage.download import hub_snapshots
from separation.storage.tensors import Tensors, load_strictly, read_tensors

CLIP_SECONDS = 10
MAX_TOKENS = 512
VOCABULARY = 50265
SPECIAL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 50264}
TEXT_CONFIG = {"vocab_size": VOCABULARY, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
AUDIO_CONFIG = {
    "patch_embeds_hidden_size": 128,
    "hidden_size": 1024,
    "depths": [2, 2, 12, 2],
    "num_attention_heads": [4, 8, 16, 32],
    "enable_fusion": False,
}

# Tensors of published files beside the weights: computed here, not used by any condition, or training state.
INDICES = ("position_ids", "token_type_ids", "relative_position_index", "attn_mask")
COMPUTED = (*INDICES, "num_batches_tracked")
UNUSED = (
    "audio_branch.spectrogram_extractor.",
    "audio_branch.logmel_extractor.",
    "audio_branch.tscam_conv.",
    "audio_branch.head.",
    "text_transform.",
    "audio_transform.",
    "logit_scale",
)
# A tensor of each tower in LAION's and in Hugging Face's names; what is before it in a file is the prefix.
SIGNS = (
    "text_branch.embeddings.word_embeddings.weight",
    "audio_branch.patch_embed.proj.weight",
    "text_model.embeddings.word_embeddings.weight",
    "audio_model.audio_encoder.patch_embed.proj.weight",
)
PREFIXES = {"text": ("text_model.", "text_projection."), "audio": ("audio_model.", "audio_projection.")}
# LAION's names to Hugging Face's, which contain none of the former.
RENAMES = (
    ("text_branch.", "text_model."),
    ("projection.0.", "projection.linear1."),
    ("projection.2.", "projection.linear2."),
    ("audio_branch.bn0.", "audio_model.audio_encoder.batch_norm."),
    ("audio_branch.", "audio_model.audio_encoder."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
    (".attn.proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def transformers_names(tensors: Tensors, source: str = "the checkpoint") -> dict[str, Tensor]:
    """Extract CLAP's weights under Hugging Face names, from LAION's or Hugging Face's names with any prefix."""
    match = ((name, sign) for sign in SIGNS for name in tensors if f".{name}".endswith(f".{sign}"))
    name, sign = next(match, ("", ""))
    if not name:
        raise EncoderError(f"{source} contains no CLAP: there is neither tensor {SIGNS[0]} nor {SIGNS[2]}.")
    prefix, found = name.removesuffix(sign), {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(prefix)
        if not name.startswith(prefix) or bare.endswith(COMPUTED) or bare.startswith(UNUSED):
            continue
        parts = {bare: tensor}
        if ".attn.qkv." in bare:  # one matrix for what is three in Hugging Face's form
            kinds = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            parts = {bare.replace(".attn.qkv.", f".attention.self.{kind}."): part for kind, part in kinds}
        for new, part in parts.items():
            for theirs, ours in RENAMES:
                new = new.replace(theirs, ours)
            found[new] = part
    return found


def build_tower(kind: str, config: dict[str, Any] | None = None) -> nn.Module:
    """Build the "text" tower (RoBERTa) or the "audio" tower (HTS-AT) with its projection and random weights.

    `config` holds settings that differ from the published ones.
    """
    transformers = import_optional("transformers", "CLAP", "clap")
    if kind == "text":
        settings = transformers.ClapTextConfig(**{**TEXT_CONFIG, **(config or {})})
        tower: nn.Module = transformers.ClapTextModelWithProjection(settings)
    else:
        settings = transformers.ClapAudioConfig(**{**AUDIO_CONFIG, **(config or {})})
        tower = transformers.ClapAudioModelWithProjection(settings)
    for module in tower.modules():  # index buffers differ between versions of transformers: not part of `state_dict`
        names = [name for name, _ in module.named_buffers(recurse=False) if name in INDICES]
        module._non_persistent_buffers_set.update(names)
    return tower.eval().requires_grad_(False)


@cache
def load_tokenizer(folder: str | None = None) -> Any:
    """Load RoBERTa's tokenizer from a folder or the local Hugging Face cache, once per process; nothing is downloaded.

    With another vocabulary, texts would be encoded wrongly or all alike without an error. So its size, its special
    tokens and the token numbers of one sentence are compared with the published ones (README of fairseq's RoBERTa);
    EncoderError if they differ, or there is none.
    """
    names = ("roberta-base", "FacebookAI/roberta-base", "laion/larger_clap_general", "laion/clap-htsat-unfused")
    places = [expand_home(folder)] if folder else [place for name in names for place in hub_snapshots(name)]
    for place in places:
        if (place / "tokenizer.json").is_file() or all((place / n).is_file() for n in ("vocab.json", "merges.txt")):
            break
    else:
        raise EncoderError(
            f"{folder + ': ' if folder else ''}RoBERTa's vocabulary is missing; get it with: hf download roberta-base "
            "tokenizer.json, or name a folder with tokenizer.json (or vocab.json and merges.txt)."
        )
    transformers = import_optional("transformers", "CLAP", "clap")
    try:
        tokenizer = transformers.RobertaTokenizer.from_pretrained(str(place))
        numbers = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
        sentence = tokenizer("Hello world")["input_ids"]
    except Exception as error:  # a damaged file may raise anything
        raise EncoderError(f"{place} contains no readable tokenizer: {str(error)[:120]}") from None
    if len(tokenizer) != VOCABULARY:
        raise EncoderError(f"{place}: the tokenizer has {len(tokenizer)} tokens, RoBERTa's has {VOCABULARY}.")
    for token, number in SPECIAL.items():
        if numbers[token] != number:
            raise EncoderError(f"{place}: token {token} has number {numbers[token]}, in RoBERTa {number}.")
    if sentence != [0, 31414, 232, 2]:
        raise EncoderError(f"{place}: 'Hello world' becomes {sentence[:8]}, in RoBERTa [0, 31414, 232, 2].")
    return tokenizer


class ClapEncoder(QueryEncoder):
    """Texts and recordings (at any rate) to unit vectors.

    Args:
        text: whether to build the text tower (125 M parameters).
        audio: whether to build the audio tower (73 M parameters).
        vocabulary: a folder with RoBERTa's tokenizer files; None uses the local Hugging Face cache.
        text_config: settings of the text tower that differ from the published ones.
        audio_config: settings of the audio tower that differ from the published ones.

    Raises:
        EncoderError: transformers is not installed.
        ValueError: neither tower is wanted.
    """

    sample_rate = 48000

    def __init__(
        self,
        text: bool = True,
        audio: bool = True,
        vocabulary: str | None = None,
        text_config: dict[str, Any] | None = None,
        audio_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.modalities = frozenset(name for name, wanted in (("text", text), ("audio", audio)) if wanted)
        if not self.modalities:
            raise ValueError("a CLAP encoder has a text tower, an audio tower, or both")
        self.text = build_tower("text", text_config) if text else None
        self.audio = build_tower("audio", audio_config) if audio else None
        self.log_mel = LogMel(self.sample_rate, 1024, 480, 64, 50.0, 14000.0)
        tower: Any = self.text if self.text is not None else self.audio
        self.embedding_dim = int(tower.config.projection_dim)

    @classmethod
    def from_tensors(cls, tensors: Tensors, source: str = "the checkpoint", **options: Any) -> ClapEncoder:
        """Create the encoder from a state dict in any published form; `options` are the arguments of the class.

        Raises:
            EncoderError: there is no CLAP among the tensors, or a tensor belongs to neither tower.
            ModelError: a tensor is missing, unknown or has another shape; the message names it.
        """
        encoder = cls(**options)
        names = transformers_names(tensors, source)
        for name in sorted(names):
            if not name.startswith((*PREFIXES["text"], *PREFIXES["audio"])):
                raise EncoderError(f"{source}: tensor {name} does not belong to CLAP.")
        for tower in sorted(encoder.modalities):
            weights = {name: tensor for name, tensor in names.items() if name.startswith(PREFIXES[tower])}
            load_strictly(getattr(encoder, tower), weights, source, lambda name: name.endswith(COMPUTED))
        return encoder

    @classmethod
    def from_file(cls, path: str | Path, **options: Any) -> ClapEncoder:
        """Create the encoder from a LAION `.pt`, an AudioSep checkpoint or a Hugging Face `model.safetensors`."""
        return cls.from_tensors(read_tensors(path), str(path), **options)

    def tokenize(self, texts: list[str], length: int | None = None) -> tuple[Tensor, Tensor]:
        """Convert texts to token numbers and their mask, both (batch, tokens).

        With `length`, every row has so many tokens; else as many as the longest text, at most 512.
        """
        padding = "max_length" if length else "longest"
        encoded = load_tokenizer(self.vocabulary)(
            texts, padding=padding, truncation=True, max_length=length or MAX_TOKENS, return_tensors="pt"
        )
        return encoded["input_ids"], encoded["attention_mask"]

    @torch.no_grad()
    def encode_tokens(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encode tokens and mask (batch, tokens) as states (batch, tokens, 768) and unit vectors (batch, 512)."""
        if self.text is None:
            self.refuse("text")
        output = self.text(input_ids=tokens.to(self.device), attention_mask=mask.to(self.device))
        return output.last_hidden_state, F.normalize(output.text_embeds.float(), dim=-1)

    def encode_text(self, texts: list[str]) -> Tensor:
        """Encode texts as unit vectors (batch, 512); raise EncoderError without RoBERTa's vocabulary."""
        if self.text is None:
            self.refuse("text")
        return self.encode_tokens(*self.tokenize(texts))[1] if texts else torch.zeros(0, self.embedding_dim)

    def embed_audio(self, waveform: Tensor) -> Tensor:
        """Embed waveforms (batch, time) at 48 kHz, of one sample or more, as unit vectors (batch, 512).

        Shorter ones are repeated as often as they fit into 10 s and padded with zeros. Of longer ones the middle 10 s
        count: CLAP was trained on random 10 s, the middle is reproducible.
        """
        if self.audio is None:
            self.refuse("audio")
        size, time = CLIP_SECONDS * self.sample_rate, waveform.shape[-1]
        if not time:
            raise ValueError("an example recording has at least one sample")
        start = max(0, time - size) // 2
        clip = waveform[:, start : start + size].repeat(1, max(1, size // time))
        log_mel = self.log_mel(F.pad(clip, (0, size - clip.shape[-1])))
        return F.normalize(self.audio(input_features=log_mel).audio_embeds.float(), dim=-1)
