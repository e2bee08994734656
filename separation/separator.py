"""`Separator`, the main class: mixture and query to target and residual."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from separation.audio import AudioError, Reader, as_rate, as_waveform
from separation.encoders.base import QueryEncoder
from separation.encoders.joint import JointEncoder
from separation.listing import LIST_THRESHOLD, DetectedSound, Detector, ListingRule, select_sounds
from separation.models.base import ConditionedModel, NegativeFilter, SharedTargets
from separation.pretrained import ModelError, find_model, load_model, load_settings
from separation.query import Query, encode_queries
from separation.sounds import Sound
from separation.stream import PresenceRule, Stream, measure_level, measure_level_and_rumble, presence_word
from separation.suggestions import Hint, suggest
from separation.tensors import read_tensors

if TYPE_CHECKING:
    from separation.query import Plain

Watch = Callable[[Iterable[Tensor], str, int | None], Iterable[Tensor]]
"""Passes on the blocks of one pass over a file, to show progress or to stop: (blocks, stage, samples per channel)."""

PRECISIONS = ("auto", "float32", "bfloat16")
BFLOAT16_PROCESSORS = ("avx512_bf16", "amx_bf16")

__all__ = ["FileSeparation", "ModelError", "Query", "Separation", "Separator", "Stream", "Watch"]


@dataclass(frozen=True)
class Separation:
    """Result of a separation, with target + residual == mixture.

    Attributes:
        target: (channels, time) float32.
        residual: (channels, time) float32.
        sample_rate: Hz.
        presence: probability that the query occurs in the mixture, 0 to 1; NaN if the model does not estimate it.
    """

    target: Tensor
    residual: Tensor
    sample_rate: int
    presence: float

    @property
    def verdict(self) -> str | None:
        """The presence in a word: "present", "uncertain" or "absent"; None if the model does not estimate it."""
        return presence_word(self.presence)


class FileSeparation:
    """Separates a file of any length in constant memory. Made by `Separator.separate_file`.

    Iterate once: every item is a mixture (channels, n) and its targets (queries, channels, n) on the CPU, in order and
    without gaps. The residual of a target is mixture - target.

    Attributes:
        frames: samples per channel.
        level: of the recording, see `stream.measure_level`.
    """

    def __init__(self, stream: Stream, reader: Reader, frames: int, level: float, watch: Watch) -> None:
        self.stream, self.reader, self.frames, self.level, self.watch = stream, reader, frames, level, watch

    @property
    def presence(self) -> list[float]:
        """Probability of each query to occur in what has been processed; NaN if the model does not estimate it."""
        return self.stream.presence

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the file for the second time.

        Raises:
            AudioError: if the file can no longer be read, or its length has changed.
        """
        read = done = 0

        def blocks() -> Iterator[Tensor]:
            nonlocal read
            for block in self.watch(self.reader.blocks(), "separating", self.frames):
                read += block.shape[-1]
                yield block
            if read != self.frames:
                raise AudioError(f"{self.reader.path} changed while it was being read.")

        for mixture, targets in self.stream.separate(blocks()):
            done += targets.shape[-1]
            yield mixture, targets
        if done != self.frames:
            raise RuntimeError(f"the separator returned {done} samples for {self.frames}")


def pass_on(blocks: Iterable[Tensor], stage: str, frames: int | None) -> Iterable[Tensor]:
    """A `Watch` that shows nothing."""
    return blocks


class Separator:
    """Extracts what a query describes from a recording.

        separator = Separator.from_pretrained()
        result = separator(mixture, "dog barking", sample_rate=44100)
        result.target, result.residual

    Args:
        model: the network.
        encoder: converts queries to the network's conditions.
        name: of the model, for messages.
        device: where to compute; None or "auto": CUDA, Apple's MPS or the CPU, whichever is there first.
        rule: how presence is estimated.
        listing: which sounds `list_sounds` looks for, and how their probability is computed.
    """

    def __init__(
        self,
        model: ConditionedModel,
        encoder: QueryEncoder,
        name: str = "",
        device: str | torch.device | None = None,
        rule: PresenceRule | None = None,
        listing: ListingRule | None = None,
    ) -> None:
        if device in (None, "auto"):
            mps = "mps" if torch.backends.mps.is_available() else "cpu"
            device = "cuda" if torch.cuda.is_available() else mps
        self.device = torch.device(device)
        self.rule, self.listing = rule or PresenceRule(), listing or ListingRule()
        self.model, self.encoder, self.name = model.to(self.device).eval(), encoder.eval(), name
        self.sample_rate = model.sample_rate
        self.stored_sounds: Path | None = None  # conditions of the sounds that can be listed, by name

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "default",
        device: str | torch.device | None = None,
        faithful: bool = False,
        offline: bool | None = None,
        precision: str = "auto",
    ) -> Separator:
        """Load a model.

        Args:
            name: from `separation.list_models()`, or a model directory, a released checkpoint file, or the run folder
                or a checkpoint of a training.
            device: where to compute.
            faithful: reproduce the published inference of a released system (its segments, levels and masks), channel
                by channel and on the whole recording at once.
            offline: never use the network; by default the environment decides.
            precision: of the network's convolutions: "float32", "bfloat16", or "auto": bfloat16 for models whose
                estimates it hardly changes, on processors that compute with it (avx512_bf16, amx_bf16).

        Raises:
            ValueError: if the precision is unknown.
            ModelError: if the model is unknown, cannot be downloaded, or its files are not usable.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {precision}. Use one of {', '.join(PRECISIONS)}.")
        path = find_model(str(name), offline)
        model, encoder = load_model(path)
        if faithful and not model.has_published_inference:
            raise ModelError(f"{name} was published with this package's own inference; leave faithful out.")
        model.faithful = model.faithful or faithful
        model.eval().fold_norms()
        rule, listing = load_settings(path, "presence", PresenceRule), load_settings(path, "listing", ListingRule)
        if len(rule.background) not in (0, model.condition_dim):
            raise ModelError(
                f"{path}: presence gives a background of {len(rule.background)} numbers, not {model.condition_dim}."
            )
        separator = cls(model, encoder, path.name if path.is_dir() else path.stem, device, rule, listing)
        if (path / "sounds.safetensors").is_file():
            separator.stored_sounds = path / "sounds.safetensors"
        capabilities = torch.cpu.get_capabilities() if separator.device.type == "cpu" else {}
        native = any(capabilities.get(name) for name in BFLOAT16_PROCESSORS)
        model.use_bfloat16 = precision == "bfloat16" or (precision == "auto" and model.prefers_bfloat16 and native)
        return separator

    @overload
    def __call__(self, mixture: Tensor | np.ndarray, query: Query | Plain, sample_rate: int) -> Separation: ...
    @overload
    def __call__(
        self, mixture: Tensor | np.ndarray, query: list[Query | Plain], sample_rate: int
    ) -> list[Separation]: ...
    def __call__(
        self, mixture: Tensor | np.ndarray, query: Query | Plain | list[Query | Plain], sample_rate: int
    ) -> Separation | list[Separation]:
        """Separate one recording.

        Args:
            mixture: (time,) or (channels, time), floats in [-1, 1] or integers of any type.
            query: what to extract: a text (or a class name, for models that know classes only), a class number, an
                embedding (dim,), or a `Query`. A list gives a list of results in its order and shares computation.
            sample_rate: of the mixture, Hz.

        Raises:
            ValueError: if the mixture, the rate or a query is not valid.
            ModelError: if the model does not take such a query, or something that encodes it is missing.
        """
        single = not isinstance(query, list | tuple)
        queries: list[Query | Plain] = [query] if single else list(query)  # type: ignore[list-item, arg-type]
        wave, sample_rate = as_waveform(mixture), as_rate(sample_rate)
        stream = self.stream(queries, sample_rate, wave.shape[0], self.level([wave], sample_rate))
        pieces = [torch.zeros(len(queries), wave.shape[0], 0)]
        # Blocks, because a stream copies what it has not processed yet.
        pieces += [targets for _, targets in stream.separate(wave.split(24 * sample_rate, dim=-1))]
        results = []
        for target_pieces, presence in zip(zip(*pieces, strict=True), stream.presence, strict=True):
            target = torch.cat(target_pieces, dim=-1)
            results.append(Separation(target, wave - target, sample_rate, presence))
        return results[0] if single else results

    def as_scored(self) -> Separator:
        """Return this separator with the inference of the system's published evaluation; both share their weights.

        It processes the whole recording at its own level, as with `faithful`; masks that `faithful` makes binary are
        soft where the published scores were measured with soft ones (CLIPSep).

        Raises:
            ModelError: if the model was published with this package's own inference.
        """
        if not self.model.has_published_inference:
            raise ModelError(f"{self.name} was published with this package's own inference; leave faithful out.")
        other = copy(self)
        other.model = self.model.as_scored()
        return other

    def level(self, blocks: Iterable[Tensor], sample_rate: int) -> float:
        """Measure the level of a recording from its blocks (channels, n), see `stream.measure_level`.

        If the network has a high-pass filter, it is a `stream.Level` without the rumble.
        """
        if self.model.high_pass:
            return measure_level_and_rumble(blocks, sample_rate, self.model.high_pass)
        return measure_level(blocks)

    def measure(self, reader: Reader, watch: Watch = pass_on) -> tuple[int, float]:
        """Read a file for the first time; return its samples per channel and its level.

        Raises:
            AudioError: if it cannot be read.
        """
        frames = 0

        def blocks() -> Iterator[Tensor]:
            nonlocal frames
            for block in watch(reader.blocks(), "measuring", reader.frames):
                frames += block.shape[-1]
                yield block

        level = self.level(blocks(), reader.sample_rate)
        return frames, level

    def separate_file(
        self, reader: Reader, queries: Sequence[Query | Plain], watch: Watch = pass_on, share: bool = False
    ) -> FileSeparation:
        """Separate a file of any length block by block.

            file = separator.separate_file(Reader("mix.wav"), ["dog barking"])
            for mixture, targets in file:
                target.write(targets[0])
                residual.write(mixture - targets[0])

        The file is read twice: here for its level and length, then while the result is iterated over.

        Args:
            reader: the file.
            queries: what to extract, as in `__call__`; at least one.
            watch: passes on the blocks of both passes; its stages are "measuring" and "separating".
            share: no two targets take the same energy, see `models.base.SharedTargets`.

        Raises:
            AudioError: if the file cannot be read.
            ValueError: if a query is empty.
            ModelError: if the model does not take such a query, or something that encodes it is missing.
        """
        frames, level = self.measure(reader, watch)
        stream = self.stream(queries, reader.sample_rate, reader.channels, level, share)
        return FileSeparation(stream, reader, frames, level, watch)

    def stream(
        self, queries: Sequence[Query | Plain], sample_rate: int, channels: int, level: float, share: bool = False
    ) -> Stream:
        """Separate a recording of known level that arrives in blocks, see `separate_file`.

        Raises:
            ValueError: if a query is empty, the rate is not a positive whole number, or the level is not valid.
            ModelError: if the model does not take such a query, or something that encodes it is missing.
        """
        if channels < 1:
            raise ValueError("The recording has no channels.")
        if isinstance(queries, str):
            raise ValueError("The queries must be a list, not one text.")
        parsed = [Query.parse(query, self.encoder) for query in queries]
        model = self._model_for(parsed)
        if share:
            model = SharedTargets(model, self.device)
        if not 0 <= level < math.inf:
            raise ValueError(f"The level of a recording must be a finite number from 0 on, not {level}.")
        return Stream(model, self.conditions(parsed), as_rate(sample_rate), level, self.rule)

    def _model_for(self, queries: Sequence[Query]) -> ConditionedModel:
        """Return the network for these queries: itself, or with the published gate on classes, or with negatives."""
        negatives = [(number, each) for number, query in enumerate(queries) for each in query.negatives()]
        parsed = [Query.parse(each, self.encoder) for _, each in negatives]
        model, by_class = self.model, [list(query.forms()) == ["label"] for query in (*queries, *parsed)]
        gate: Any = getattr(model, "gate", None)
        if model.faithful and gate and "label" in self.encoder.modalities and any(by_class):
            model = gate(self.encoder, by_class)
        if not negatives:
            return model
        excluded = torch.zeros(len(queries), len(negatives), dtype=torch.bool)
        for place, (number, _) in enumerate(negatives):
            excluded[number, place] = True
        return NegativeFilter(model, self.conditions(parsed), excluded)

    @torch.inference_mode()
    def conditions(self, queries: Sequence[Query | Plain]) -> Tensor:
        """Encode queries of any form to conditions (queries, dim), without their negatives.

        Raises:
            ValueError: if there is none, one is empty, or an embedding has another size.
            ModelError: if the model does not take such queries, or something that encodes them is missing.
        """
        if isinstance(queries, str):
            raise ValueError("The queries must be a list, not one text.")
        parsed = [Query.parse(query, self.encoder) for query in queries]
        return encode_queries(parsed, self.encoder, self.model.condition_dim).to(self.device)

    def suggest(self, query: Query | Plain) -> list[Hint]:
        """Return hints for the texts of a query, negatives included, that the model probably does not know.

        Only models of this package with a joint encoder give hints. A hint changes nothing about the separation, which
        uses the text as typed.

        Raises:
            ValueError: if the query is empty.
        """
        if not isinstance(self.encoder, JointEncoder):
            return []
        parsed = [Query.parse(query, self.encoder)]
        parsed += [Query.parse(each, self.encoder) for each in parsed[0].negatives()]
        texts = dict.fromkeys(" ".join(text.split()) for each in parsed for text in each.forms().get("text", ()))
        hints = [suggest(text, self.encoder, self.listing.sounds) for text in texts]
        return [hint for hint in hints if hint is not None]

    def encode(self, query: Query | Plain) -> Query:
        """Replace the values of a query by their embedding, to use it on many recordings.

        Labels stay, because the published inference of a released model treats them in its own way.

        Raises:
            ValueError, ModelError: as `conditions`.
        """
        parsed = Query.parse(query, self.encoder)
        negative = [self.encode(each) for each in parsed.negatives()]
        vector = self.conditions([parsed])[0]
        if list(parsed.forms()) == ["label"]:
            return replace(parsed, negative=negative)
        return Query(embedding=vector, negative=negative)

    def list_sounds(
        self,
        mixture: Tensor | np.ndarray,
        sample_rate: int,
        at_least: float = LIST_THRESHOLD,
        most: int | None = None,
    ) -> list[DetectedSound]:
        """List the sounds that probably occur in a recording and when, the most certain entries first.

        A query for a listed sound gives the same probability. Near-synonyms are listed once.

        Args:
            mixture: (time,) or (channels, time), as in `__call__`.
            sample_rate: of the mixture, Hz.
            at_least: least probability of a correct entry, 0 to 1: larger values give shorter lists.
            most: largest number of sounds.

        Raises:
            ValueError: if the mixture or the rate is not valid.
            ModelError: if the model cannot list sounds.
        """
        return self.list_sounds_in_blocks(*self._blocks(mixture, sample_rate), at_least, most)

    hear = list_sounds  # the earlier name

    def list_sounds_in_blocks(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        level: float,
        at_least: float = LIST_THRESHOLD,
        most: int | None = None,
    ) -> list[DetectedSound]:
        """List the sounds of a recording of known level that is given in blocks (channels, n), see `list_sounds`.

        Raises:
            ValueError: if `most` is not a number of sounds.
            ModelError: if the model cannot list sounds.
        """
        if most is not None and (most < 0 or most != int(most)):
            raise ValueError(f"The largest number of sounds must be a whole number from 0 on, not {most}.")
        found = self.detect(blocks, as_rate(sample_rate), level, self.listing_conditions, len(self.listing.sounds))
        return select_sounds(found, self.listed_sounds, self.listing, at_least, most)

    def when(
        self, mixture: Tensor | np.ndarray, query: Query | Plain, sample_rate: int
    ) -> tuple[tuple[float, float], ...]:
        """Find the spans (from, to), in seconds, in which a query occurs in a recording; none if it does not.

        Args:
            mixture: as in `__call__`.
            query: as in `__call__`; negatives are ignored.
            sample_rate: of the mixture, Hz.

        Raises:
            ValueError, ModelError: as `__call__`.
        """
        return self.detect(*self._blocks(mixture, sample_rate), self.conditions([query])).spans(0)

    def detect(
        self, blocks: Iterable[Tensor], sample_rate: int, level: float, conditions: Tensor, labels: int | None = None
    ) -> Detector:
        """Detect conditions (queries, dim) in a recording of known level that is given in blocks (channels, n).

        Raises:
            ModelError: if the model only separates.
        """
        if not self.model.lists_sounds:
            raise ModelError(f"The model {self.name} cannot list the sounds in a recording.")
        return Detector(self.model, conditions.to(self.device), self.rule, labels).run(blocks, sample_rate, level)

    def _blocks(self, mixture: Tensor | np.ndarray, sample_rate: int) -> tuple[Iterable[Tensor], int, float]:
        """A recording in blocks, its rate and its level."""
        wave, sample_rate = as_waveform(mixture), as_rate(sample_rate)
        return wave.split(24 * sample_rate, dim=-1), sample_rate, self.level([wave], sample_rate)

    @cached_property
    def listed_sounds(self) -> list[Sound]:
        """The sounds that `list_sounds` looks for: the labels in `listing`, then the tagger's other classes."""
        return self.listing.candidates(self.model.has_tagger)

    @cached_property
    def listing_conditions(self) -> Tensor:
        """Conditions (sounds, dim) of `listed_sounds`, on the CPU; from `sounds.safetensors` if the model has them."""
        names = [sound.name for sound in self.listed_sounds]
        stored = read_tensors(self.stored_sounds) if self.stored_sounds else {}
        return (
            torch.stack([stored[name] for name in names]) if set(names) <= set(stored) else self.conditions(names).cpu()
        )

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        return f"Separator({self.name!r}, {size:.1f} M parameters, {self.sample_rate} Hz, on {self.device})"
