"""The query encoders of the released separators, each built when the first query of its form comes.

A separator therefore loads, and takes plain embeddings, where its encoder's weights or packages are missing; and nobody
waits for a tower of CLAP that no query needs. Weights that lie in the separator's own checkpoint are used first, then
files in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from separation.encoders.base import QueryEncoder, UnsupportedQueryError, find_weights
from separation.encoders.taggers import encode_classes

FORMS = {
    "audiosep": ("text", "audio"),
    "dcase2024": ("text", "audio"),
    "uss": ("label", "audio"),
    "uss-embedding": ("audio",),
    "labelsep": ("label",),
    "clipsep-pit": ("label",),
    "bertsep": (),
    "bimodal": ("text",),
}  # of other names, the CLIPSep family: text and image
CLIP_FORMS = ("text", "image")
UNIT_LENGTH = ("audiosep", "dcase2024")  # trained with CLAP's unit vectors
CLAP_FILE = "music_speech_audioset_epoch_15_esc_89.98.pt"
BIMODAL_CLAP_FILE = "music_audioset_epoch_15_esc_90.14.pt"
CLIP_FILE = "open_clip_model.safetensors"
PANNS_FILE = "Cnn14_mAP=0.431.pth"
NO_CLASSES = (
    "This model takes no class ids: its condition is the tagger's embedding, whose 2048 numbers stand for no classes, "
    'so masking them by class would mean nothing; use the 527-class model ("uss"), example audio or an embedding.'
)
BERT_TABLE = "BERTSep's sentence vectors were published outside its checkpoint; give embeddings of 256 numbers."


class ReleasedEncoder(QueryEncoder):
    """What turns queries into a released separator's conditions.

    Its state is the encoder tensors of the separator's checkpoint, by their published names.

    Args:
        family: the separator's name, as in `separate --list-models`.
        embedding_dim: numbers of a condition.
        prompts: what CLIP's texts are put into, see `clip.py`.
    """

    def __init__(self, family: str, embedding_dim: int, prompts: str = "ensemble") -> None:
        super().__init__()
        self.family, self.embedding_dim, self.prompts = family, embedding_dim, prompts
        self.modalities = frozenset(FORMS.get(family, CLIP_FORMS))
        self.unit_length = family in UNIT_LENGTH
        self.tensors: dict[str, Tensor] = {}
        self.parts: dict[str, QueryEncoder] = {}
        self.register_buffer("place", torch.zeros(()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ReleasedEncoder:
        """What `to` and its like do; here to the parts too, which are no submodules because they are built late."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for part in self.parts.values():
            part._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def keep(self, form: str, part: QueryEncoder) -> QueryEncoder:
        """Keeps a part that has just been built, frozen, where this encoder is."""
        place: Any = self.place
        self.parts[form] = part.eval().requires_grad_(False).to(place.device)
        return part

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """The published encoder tensors, as they came."""
        return dict(self.tensors)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Takes published encoder tensors; they are checked when a query needs them."""
        self.tensors, self.parts = dict(state_dict), {}

    def part(self, form: str) -> QueryEncoder:
        """The encoder for queries of one form.

        Raises:
            EncoderError: its weights or packages are missing, or it takes no such queries; one plain sentence.
        """
        if self.family == "uss-embedding" and form == "label":
            raise UnsupportedQueryError(NO_CLASSES)
        if self.family == "bertsep":
            raise UnsupportedQueryError(BERT_TABLE)
        if form not in self.modalities:
            forms = ", ".join([*sorted(self.modalities, reverse=True), "embedding"])
            raise UnsupportedQueryError(f'The model "{self.family}" takes no {form}; it takes {forms}.')
        if form not in self.parts:
            build = BUILDERS.get(self.family) or clip(self.prompts)
            self.keep(form, build(self.tensors, form))
        return self.parts[form]

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, embedding_dim)."""
        return self.part("text").encode_text(texts)

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Example recordings (batch, time) to (batch, embedding_dim)."""
        return self.part("audio").encode_audio(waveform, sample_rate)

    def encode_examples(self, examples: Any) -> Tensor:
        """Example recordings to one condition (1, embedding_dim), as the encoder for them does it."""
        return self.part("audio").encode_examples(examples)

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        """Class names, ids or numbers to (batch, embedding_dim)."""
        return self.part("label").encode_label(labels)

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        """Pictures to (batch, embedding_dim)."""
        return self.part("image").encode_image(images)


def bare(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """The tensors whose names hold `start`, with the names cut off before it."""
    return {k[k.index(start) :]: v for k, v in tensors.items() if start in k}


def clap(tensors: Mapping[str, Tensor], form: str, filename: str = CLAP_FILE) -> QueryEncoder:
    """One tower of CLAP."""
    from separation.encoders.clap import ClapEncoder

    towers = {"text": form == "text", "audio": form == "audio"}
    if tensors:
        return ClapEncoder.from_tensors(tensors, "the checkpoint's CLAP", **towers)
    path = find_weights(filename, "the encoder CLAP", "https://huggingface.co/lukewys/laion_clap")
    return ClapEncoder.from_file(path, **towers)


def panns(condition: str) -> Callable[[Mapping[str, Tensor], str], QueryEncoder]:
    """A builder of PANNs' Cnn14 with one of its two outputs as the condition."""

    def build(tensors: Mapping[str, Tensor], form: str) -> QueryEncoder:
        from separation.encoders.panns import PannsEncoder

        if form == "label":
            return Classes()
        own = bare(tensors, "query_net.base.")
        if own:
            return PannsEncoder.from_tensors(own, condition, source="the checkpoint's tagger")
        path = find_weights(PANNS_FILE, "the tagger PANNs Cnn14", "https://zenodo.org/records/3987831")
        return PannsEncoder.from_file(path, condition)

    return build


def clip(prompts: str) -> Callable[[Mapping[str, Tensor], str], QueryEncoder]:
    """A builder of CLIP ViT-B/32."""

    def build(tensors: Mapping[str, Tensor], form: str) -> QueryEncoder:
        path = find_weights(
            CLIP_FILE, "the encoder CLIP", "https://huggingface.co/timm/vit_base_patch32_clip_224.openai"
        )
        from separation.encoders.clip import ClipEncoder

        return ClipEncoder.from_file(path, prompts=prompts)

    return build


def label_table(tensors: Mapping[str, Tensor], form: str) -> QueryEncoder:
    """LabelSep's table; its labels are numbers, for their names were published outside the checkpoint."""
    from separation.encoders.table import TableEncoder

    table = bare(tensors, "label_net.")
    return TableEncoder.from_tensors(table, [str(number) for number in range(len(table["label_net.weight"]))])


def heads(tensors: Mapping[str, Tensor], form: str) -> QueryEncoder:
    """PIT's two outputs, called 1 and 2."""
    from separation.encoders.table import OneHotEncoder

    return OneHotEncoder(["1", "2"])


class Classes(QueryEncoder):
    """AudioSet classes to (batch, 527) of zeros and ones; needs no tagger."""

    embedding_dim = 527
    modalities = frozenset({"label"})
    unit_length = False

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        """Class names, ids or numbers to (batch, 527); a list within the list is one query for all its classes."""
        return encode_classes(labels)


class BiModalEncoder(QueryEncoder):
    """Sentences to CLAP's embedding and hidden states in one vector."""

    embedding_dim = 512 + 77 * 768
    modalities = frozenset({"text"})
    unit_length = False

    def __init__(self, clap: QueryEncoder) -> None:
        super().__init__()
        self.clap = clap

    def encode_text(self, texts: list[str]) -> Tensor:
        """Sentences to (batch, 59648)."""
        hidden, embedding = self.clap.encode_text_states(texts, 77)  # type: ignore[operator]
        return torch.cat([embedding, hidden.flatten(1)], dim=-1)


def bimodal(tensors: Mapping[str, Tensor], form: str) -> QueryEncoder:
    """CLAP's text tower for the bi-modal network."""
    return BiModalEncoder(clap(tensors, form, BIMODAL_CLAP_FILE))


BUILDERS: dict[str, Callable[[Mapping[str, Tensor], str], QueryEncoder]] = {
    "audiosep": clap,
    "dcase2024": clap,
    "uss": panns("probabilities"),
    "uss-embedding": panns("embedding"),
    "labelsep": label_table,
    "clipsep-pit": heads,
    "bimodal": bimodal,
}
