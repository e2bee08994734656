"""Query encoders of the published systems, each built when the first query of its form comes.

A separator therefore loads, and takes plain embeddings, if weights or packages of its encoder are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from separation.encoders.base import Extract, QueryEncoder, UnsupportedQueryError, find_weights
from separation.encoders.clap import ClapEncoder
from separation.encoders.clip import ClipEncoder
from separation.encoders.panns import PannsEncoder
from separation.encoders.table import OneHotEncoder, TableEncoder
from separation.encoders.taggers import encode_classes
from separation.models.bimodal_unet import EMBEDDING, TOKENS, WIDTH, pack
from separation.released.systems import MUSIC_CLAP, SYSTEMS


class ReleasedEncoder(QueryEncoder):
    """Query encoder of the published system `family` (a name of `separate --list-models`).

    Its state is the encoder tensors of the separator's checkpoint, by their published names. They are used first, then
    files in the cache. `prompts` names CLIP's prompt templates, see `encoders.clip`.
    """

    needs_files = True

    def __init__(self, family: str, embedding_dim: int, prompts: str = "ensemble") -> None:
        super().__init__()
        if family not in SYSTEMS:
            raise ValueError(f"family must be one of {', '.join(SYSTEMS)}, not {family!r}")
        self.family, self.embedding_dim, self.prompts = family, embedding_dim, prompts
        self.modalities = frozenset(SYSTEMS[family].encoders)
        self.unit_length = SYSTEMS[family].unit_length
        self.tensors: dict[str, Tensor] = {}
        self.parts: dict[str, QueryEncoder] = {}  # not submodules: they are built late and stay out of checkpoints
        self.register_buffer("place", torch.zeros((), device="cpu"), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ReleasedEncoder:
        """Move or convert the parts too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for part in self.parts.values():
            part._apply(fn)  # type: ignore[no-untyped-call]
        return self

    def keep(self, form: str, part: QueryEncoder) -> QueryEncoder:
        """Keep the encoder for one form of query: frozen, on the device of this module."""
        place: Any = self.place
        self.parts[form] = part.eval().requires_grad_(False).to(place.device)
        return part

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the published encoder tensors as they were loaded."""
        return dict(self.tensors)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        """Take published encoder tensors. They are checked when a query needs them."""
        self.tensors, self.parts = dict(state_dict), {}

    def part(self, form: str) -> QueryEncoder:
        """Return the encoder for one form of query; raise EncoderError if it is not taken or its files are missing."""
        system = SYSTEMS[self.family]
        if form in system.refusals:
            raise UnsupportedQueryError(system.refusals[form])
        if form not in self.modalities:
            forms = ", ".join([*sorted(self.modalities, reverse=True), "embedding"])
            raise UnsupportedQueryError(f'The model "{self.family}" takes no {form}; it takes {forms}.')
        if form not in self.parts:
            self.keep(form, build_part(system.encoders[form], form, self.tensors, system.encoder_file, self.prompts))
        return self.parts[form]

    def fingerprint(self, form: str) -> bytes:
        return self.part(form).fingerprint(form)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self.part("text").encode_text(texts)

    def encode_audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        return self.part("audio").encode_audio(waveform, sample_rate)

    def encode_examples(self, examples: Any, extract: Extract | None = None) -> Tensor:
        return self.part("audio").encode_examples(examples, extract)

    def encode_label(self, labels: Sequence[Any]) -> Tensor:
        if SYSTEMS[self.family].encoders.get("label") == "classes":
            return encode_classes(labels)  # needs no tagger
        return self.part("label").encode_label(labels)

    def encode_image(self, images: Sequence[Any]) -> Tensor:
        return self.part("image").encode_image(images)


def build_part(
    kind: str, form: str, tensors: Mapping[str, Tensor], file: tuple[str, str, str] | None, prompts: str
) -> QueryEncoder:
    """Build the encoder of one kind, as in the record of the system, for one form of query.

    Its weights are among the `tensors` of the separator's checkpoint or in the published `file`.
    """
    if kind == "output number":
        return OneHotEncoder(["1", "2"])
    if kind == "table":  # the names of its labels were published outside the checkpoint
        table = without_prefix(tensors, "label_net.")
        return TableEncoder.from_tensors(table, [str(number) for number in range(len(table["label_net.weight"]))])
    tagger = without_prefix(tensors, "query_net.base.")
    if kind.startswith("tagger") and tagger:
        return PannsEncoder.from_tensors(tagger, kind.removeprefix("tagger "), source="the checkpoint's tagger")
    if kind.startswith("clap") and tensors:
        clap = ClapEncoder.from_tensors(tensors, "the checkpoint's CLAP", text=form == "text", audio=form == "audio")
        return clap if kind == "clap" else StatesEncoder(clap=clap, mask_padding=False)
    assert file is not None
    path = find_weights(*file)
    if kind.startswith("tagger"):
        return PannsEncoder.from_file(path, kind.removeprefix("tagger "))
    if kind == "clip":
        return ClipEncoder.from_file(path, prompts=prompts)
    clap = ClapEncoder.from_file(path, text=form == "text", audio=form == "audio")
    return clap if kind == "clap" else StatesEncoder(clap=clap, mask_padding=False)


def without_prefix(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Return the tensors whose names contain `start`, without what stands before it."""
    return {name[name.index(start) :]: value for name, value in tensors.items() if start in name}


class StatesEncoder(ReleasedEncoder):
    """Sentences to CLAP's embedding and hidden states in one vector, as the bi-modal network takes them.

    For new trainings it has both towers of CLAP, because these compare recordings with texts.

    Args:
        weights: CLAP's file; by default it is looked for in the cache at the first query.
        clap: an encoder to use instead.
        mask_padding: set the states of padding to zero. The published network was trained without.

    Raises:
        EncoderError: at the first query, if the file is missing.
    """

    def __init__(self, weights: str | None = None, clap: ClapEncoder | None = None, mask_padding: bool = True) -> None:
        super().__init__("bimodal", EMBEDDING + TOKENS * WIDTH)
        self.modalities = frozenset({"text", "audio"})
        self.weights, self.mask_padding = weights, mask_padding
        if clap is not None:
            self.keep("clap", clap)

    @property
    def clap(self) -> ClapEncoder:
        """CLAP, read at first use."""
        if "clap" not in self.parts:
            path = self.weights or find_weights(*MUSIC_CLAP)
            self.keep("clap", ClapEncoder.from_file(path))
        return self.parts["clap"]  # type: ignore[return-value]

    def encode_text(self, texts: list[str]) -> Tensor:
        """Encode sentences to (batch, 59648)."""
        return self.encode_tokens(*self.clap.tokenize(texts, TOKENS))

    def encode_tokens(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Encode token numbers and their mask (batch, 77) to (batch, 59648)."""
        hidden, embedding = self.clap.encode_tokens(tokens, mask)
        if self.mask_padding:
            hidden = hidden * mask.to(hidden)[..., None]
        return pack(embedding, hidden)
