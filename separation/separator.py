"""`Separator`, the main class: mixture and query to target and residual."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from torch import Tensor

from separation.audio import as_rate, as_waveform
from separation.conditions import Conditioner
from separation.devices import find_device
from separation.encoders.base import QueryEncoder
from separation.files import FileSeparator
from separation.inference.changes import Span, pair_gains
from separation.inference.results import FileSeparation, Remix, Separation, Watch, separate_blocks
from separation.inference.stream import Stream
from separation.lister import Lister
from separation.listing import CONTEXT_TERMS, ListingRule
from separation.models.base import ConditionedModel, NegativeFilter, SharedTargets
from separation.presence import PresenceRule
from separation.pretrained import ModelError, find_model, load_model, load_settings
from separation.query import Query
from separation.sharing import SharedSeparator
from separation.storage.hub import is_repository
from separation.storage.tensors import own_defaults

if TYPE_CHECKING:
    from separation.files import Gains
    from separation.inference.changes import Times
    from separation.query import Plain

PRECISIONS = ("auto", "float32", "bfloat16")
BFLOAT16_PROCESSORS = ("avx512_bf16", "amx_bf16")

__all__ = ["FileSeparation", "ModelError", "Query", "Separation", "Separator", "Stream", "Watch"]


class Separator(SharedSeparator, FileSeparator, Lister, Conditioner):
    """Extracts what a query describes from a recording.

        separator = Separator.from_pretrained()
        result = separator(mixture, "dog barking", sample_rate=44100)
        result.target, result.residual

    Args:
        model: the network.
        encoder: converts queries to the network's conditions.
        name: of the model, for messages.
        device: where to compute, see `find_device`.
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
        self.device = find_device(device)
        self.rule, self.listing = rule or PresenceRule(), listing or ListingRule()
        self.model, self.encoder, self.name = model.to(self.device).eval(), encoder.eval(), name
        self.sample_rate = model.sample_rate
        self.stored_sounds: Path | None = None  # conditions of the sounds that can be listed, by name

    @classmethod
    @own_defaults()
    def from_pretrained(
        cls,
        name: str | Path = "default",
        device: str | torch.device | None = None,
        faithful: bool = False,
        offline: bool | None = None,
        precision: str = "auto",
        trust: Sequence[str] | None = (),
    ) -> Separator:
        """Load a model.

        Args:
            name: from `separation.list_models()`, or a model directory, a released checkpoint file, the run folder or
                a checkpoint of a training, or a repository of the Hugging Face Hub: "owner/name" or, with a branch,
                tag or commit, "owner/name@revision". Without one, the commit of the first download is used again.
            device: where to compute, see `find_device`.
            faithful: reproduce the published inference of a released system (its segments, levels and masks), channel
                by channel and on the whole recording at once.
            offline: never use the network; by default the environment decides.
            precision: of the network's convolutions: "float32", "bfloat16", or "auto": bfloat16 for models whose
                estimates it hardly changes, on processors that compute with it (avx512_bf16, amx_bf16).
            trust: packages outside this one whose networks and encoders the model may use; their code is run.

        Raises:
            ValueError: if the precision is unknown, or the device is unknown or not available.
            ModelError: if the model is unknown, cannot be downloaded, or its files are not usable.
        """
        if precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {precision}. Use one of {', '.join(PRECISIONS)}.")
        device = find_device(device)  # before anything is downloaded
        path = find_model(str(name), offline)
        trust = [trust] if isinstance(trust, str) else trust or ()
        model, encoder = load_model(path, trust)
        if faithful and not model.has_published_inference:
            raise ModelError(f"{name} was published with this package's own inference; leave faithful out.")
        model.faithful = model.faithful or faithful
        model.eval().fold_norms()
        rule, listing = load_settings(path, "presence", PresenceRule), load_settings(path, "listing", ListingRule)
        if len(rule.background) not in (0, model.condition_dim):
            raise ModelError(
                f"{path}: presence gives a background of {len(rule.background)} numbers, not {model.condition_dim}."
            )
        if len(listing.context) not in (0, CONTEXT_TERMS + 1):
            raise ModelError(
                f"{path}: listing gives a context of {len(listing.context)} numbers, not {CONTEXT_TERMS + 1}."
            )
        known_as = str(name) if is_repository(str(name)) else path.name if path.is_dir() else path.stem
        separator = cls(model, encoder, known_as, device, rule, listing)
        separator.source, separator.trust = path, trust
        if (path / "sounds.safetensors").is_file():
            separator.stored_sounds = path / "sounds.safetensors"
        capabilities = torch.cpu.get_capabilities() if separator.device.type == "cpu" else {}
        native = any(capabilities.get(name) for name in BFLOAT16_PROCESSORS)
        model.use_bfloat16 = precision == "bfloat16" or (precision == "auto" and model.prefers_bfloat16 and native)
        return separator

    @overload
    def __call__(
        self, mixture: Tensor | np.ndarray, query: Query | Plain, sample_rate: int, *, span: Times = None
    ) -> Separation: ...
    @overload
    def __call__(
        self, mixture: Tensor | np.ndarray, query: list[Query | Plain], sample_rate: int, *, span: Times = None
    ) -> list[Separation]: ...
    @overload
    def __call__(
        self,
        mixture: Tensor | np.ndarray,
        query: Any = None,
        sample_rate: int | None = None,
        *,
        remove: Any,
        span: Times = None,
    ) -> Any: ...
    @own_defaults()
    def __call__(
        self,
        mixture: Tensor | np.ndarray,
        query: Query | Plain | list[Query | Plain] | None = None,
        sample_rate: int | None = None,
        *,
        remove: Query | Plain | Sequence[Query | Plain] | None = None,
        span: Times = None,
    ) -> Any:
        """Separate one recording.

        Args:
            mixture: (time,) or (channels, time), floats in [-1, 1] or integers of any type.
            query: what to extract: a text (or a class name, for models that know classes only), a class number, an
                embedding (dim,), or a `Query`. A list gives a list of results and shares computation.
            sample_rate: of the mixture, Hz.
            remove: one or more sounds to remove together. They have one result: its `residual` contains none of them,
                its presence is the largest of theirs. With a query, a pair of its result and theirs is returned.
            span: (from, to) in seconds or as "mm:ss"; outside, targets are silent, with fades of 20 ms.

        Raises:
            ValueError: if the mixture, the rate, the span or a query is not valid.
            ModelError: if the model does not take such a query, or something that encodes it is missing.
        """
        if query is None and remove is None:
            raise ValueError("Say what to extract (a query) or what to remove.")
        single = not isinstance(query, list | tuple)
        queries: list[Any] = ([] if query is None else [query]) if single else list(query)  # type: ignore[arg-type]
        changed = None if remove is None else pair_gains((), remove)
        results = self._separate(as_waveform(mixture), as_rate(sample_rate), queries, changed, Span.parse(span))
        removed = [] if remove is None else [results.pop()]
        found = results[0] if single and results else results
        return found if not removed else removed[0] if query is None else (found, removed[0])

    def remix(self, mixture: Tensor | np.ndarray, gains: Gains, sample_rate: int, *, span: Times = None) -> Remix:
        """Change the levels of sounds in a recording; everything else stays as it is.

            separator.remix(mixture, {"speech": 3.0, "traffic": -12.0, "wind": -math.inf}, sample_rate)

        Args:
            mixture: as in `__call__`.
            gains: dB of each sound, up to 60; -inf removes it. Zero everywhere returns the mixture exactly.
            sample_rate: of the mixture, Hz.
            span: as in `__call__`; outside, the mixture is not changed.

        Raises:
            ValueError, ModelError: as `__call__`.
        """
        changed, rate = pair_gains(gains), as_rate(sample_rate)
        presence: list[float] = []
        [result] = self._separate(as_waveform(mixture), rate, [], changed, Span.parse(span), presence)
        return Remix(result.residual, rate, presence, [query for query, _ in changed])

    def _separate(
        self,
        wave: Tensor,
        sample_rate: int,
        queries: list[Query | Plain],
        changed: list[tuple[Query | Plain, float]] | None,
        span: Span | None,
        presences: list[float] | None = None,
    ) -> list[Separation]:
        """Separate (channels, time): one result per query, then one of what the changed sounds lose together."""
        stream, weights = self._stream_of_changes(
            queries, changed, sample_rate, wave.shape[0], self.level([wave], sample_rate)
        )
        targets: list[list[Tensor]] = [[wave[:, :0]] for _ in range(len(queries) + (weights is not None))]
        # Blocks, because a stream copies what it has not processed yet.
        blocks = wave.split(24 * sample_rate, dim=-1)
        for _, block in separate_blocks(stream, blocks, sample_rate, span, weights):
            for pieces, target in zip(targets, block, strict=True):
                pieces.append(target)
        presence, parts = stream.presence, stream.part_presence
        if weights is not None:
            if presences is not None:
                presences += presence[len(queries) :]
            presence = [*presence[: len(queries)], max(presence[len(queries) :])]
            parts = [
                *parts[: len(queries)],
                {name: each for part in parts[len(queries) :] for name, each in part.items()},
            ]
        joined = [torch.cat(pieces, dim=-1) for pieces in targets]
        return [
            Separation(target, wave - target, sample_rate, each, named)
            for target, each, named in zip(joined, presence, parts, strict=True)
        ]

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

    @own_defaults()
    def stream(
        self,
        queries: Sequence[Query | Plain] | Query | Plain,
        sample_rate: int,
        channels: int | None = None,
        level: float | None = None,
        share: bool | Sequence[bool] = False,
        summed: bool = False,
    ) -> Stream:
        """Separate a recording that arrives in blocks, or sound as it arrives.

            [target] = separator.stream("dog barking", 48000).push(block)  # both (channels, samples)

        Args:
            queries: what to extract, as in `__call__`; at least one.
            sample_rate: of the recording, Hz.
            channels: number of channels; None: that of the first block.
            level: of the recording, see `level`; None: not known, see `Stream`.
            share: whether targets share energy that several claim, for all or each of them.
            summed: whether only the sum of these is used, see `models.base.SharedTargets`.

        Raises:
            ValueError: if a query is empty, the rate is not a positive whole number, or the level is not valid.
            ModelError: as `__call__`.
        """
        if channels is not None and channels < 1:
            raise ValueError("The recording has no channels.")
        if isinstance(queries, str) and level is not None:
            raise ValueError("The queries must be a list, not one text.")
        if level is not None and not 0 <= level < math.inf:
            raise ValueError(f"The level of a recording must be a finite number from 0 on, not {level}.")
        asked: Sequence[Any] = queries if isinstance(queries, list | tuple) else [queries]

        def understand(queries: Sequence[Any]) -> tuple[ConditionedModel, Tensor, list[tuple[str, ...]]]:
            parsed = list(map(self.understand, queries))
            model, (conditions, sizes) = self._model_for(parsed), self._sounds(parsed)
            shared = [share] * len(parsed) if isinstance(share, bool) else list(share)
            groups = [1 if shared[n] else n + 2 if size > 1 else 0 for n, size in enumerate(sizes) for _ in range(size)]
            if any(groups):
                model = SharedTargets(model, self.device, groups, set(groups) - ({1} if not summed else set()))
            return model, conditions, [tuple(query.parts) for query in parsed]

        model, conditions, parts = understand(asked)
        return Stream(model, conditions, as_rate(sample_rate), level, self.rule, None, parts, channels, understand)

    def _model_for(self, queries: Sequence[Query]) -> ConditionedModel:
        """Return the network, with the published gate on classes and the filter of negatives where they apply."""
        negatives = [(number, each) for number, query in enumerate(queries) for each in query.negatives()]
        parsed = [self.understand(each) for _, each in negatives]
        model, by_class = self.model, [list(query.forms()) == ["label"] for query in (*queries, *parsed)]
        gate: Any = getattr(model, "gate", None)
        if model.faithful and gate and "label" in self.encoder.modalities and any(by_class):
            model = gate(self.encoder, by_class)
        if not negatives:
            return model
        unwanted, sizes = self._sounds(parsed)
        owners = torch.tensor([number for number, _ in negatives]).repeat_interleave(torch.tensor(sizes))
        targets = [number for number, query in enumerate(queries) for _ in range(max(1, len(query.parts)))]
        return NegativeFilter(model, unwanted, torch.tensor(targets)[:, None] == owners)

    def __repr__(self) -> str:
        size = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        return f"Separator({self.name!r}, {size:.1f} M parameters, {self.sample_rate} Hz, on {self.device})"
