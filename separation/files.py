"""Separation of files from Python, block by block or into output files: a part of `Separator`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from separation.audio import AudioError, Reader
from separation.audio.formats import CLIPS, FORMATS, parse_bit_rate
from separation.audio.remux import MUXERS
from separation.encoders.base import QueryEncoder
from separation.inference.changes import Span, check_gain, pair_gains
from separation.inference.levels import measure_level, measure_level_and_rumble
from separation.inference.results import FileSeparation, FractionWatch, Watch, pass_on
from separation.inference.stream import Stream
from separation.models.base import ConditionedModel
from separation.outputs.names import NAME_BYTES, Namer, Request, blend_of
from separation.outputs.planning import OutputOptions, OutputPlan, fill_outputs
from separation.query import Query, as_list
from separation.storage.tensors import own_defaults

if TYPE_CHECKING:
    from separation.inference.changes import Times
    from separation.inference.results import Progress
    from separation.query import Plain

    Gains = Mapping[Any, float] | Sequence[tuple[Query | Plain, float]]


class FileSeparator:
    """The part of a `Separator` that measures and separates files."""

    model: ConditionedModel
    encoder: QueryEncoder
    stream: Callable[..., Stream]  # `Separator.stream`

    @own_defaults()
    def level(self, blocks: Iterable[Tensor], sample_rate: int) -> float:
        """Measure the level of a recording from its blocks (channels, n), see `levels.measure_level`.

        If the network has a high-pass filter, it is a `stream.Level` without the rumble.
        """
        if self.model.high_pass:
            return measure_level_and_rumble(blocks, sample_rate, self.model.high_pass)
        return measure_level(blocks)

    @own_defaults()
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

    @own_defaults()
    def separate_file(
        self,
        source: Reader | str | Path,
        queries: Query | Plain | Sequence[Query | Plain] = (),
        watch: Watch = pass_on,
        share: bool = False,
        *,
        remove: Query | Plain | Sequence[Query | Plain] = (),
        gains: Gains = (),
        span: Times = None,
        measured: tuple[int, float] | None = None,
        output: str | Path | None = None,
        residual: bool = False,
        overwrite: bool = False,
        format: str | None = None,
        subtype: str | None = None,
        clip: str | None = None,
        bitrate: int | str | None = None,
        progress: Progress | None = None,
    ) -> FileSeparation:
        """Separate a file of any length block by block, or write the results to files.

            for mixture, (target,) in separator.separate_file("mix.wav", "dog barking"): ...
            separator.separate_file("mix.wav", remove=["dog barking", "wind"], output="clean.wav")

        Args:
            source: the file, or its reader.
            queries: as in `__call__`.
            watch: passes on the blocks of both passes over the file; its stages are "measuring" and "separating".
            share: targets of the queries share energy that several claim, see `models.base.SharedTargets`.
            remove: sounds to remove together; the residual of the last target has none of them.
            gains: sounds to change, as in `remix`; the residual of the last target is the remix.
            span: as in `__call__`.
            measured: what `measure` returned for the file; None: measure it.
            output: a folder, for file names as in the command, or the path of the only result.
            residual: also write the residual of each query.
            overwrite: whether existing files may be replaced.
            format: of the files, such as "flac".
            subtype: their sample type.
            clip: treatment of samples beyond full scale, see `audio.formats.CLIPS`.
            bitrate: of mp3, ogg, opus, m4a and films in kilobits per second; None: as the input.
            progress: called with the completed fraction, 0 to 1; returns False to cancel, which 1.0 is too late for.

        Raises:
            AudioError: if the file cannot be read or a result cannot be written.
            Cancelled: if `progress` returned False.
            ValueError, ModelError: as `__call__`.
        """
        wanted, changed, parsed = as_list(queries), pair_gains(gains, remove) or None, Span.parse(span)
        pairs = [*((query, None) for query in wanted), *(changed or ())]
        options = OutputOptions(format, subtype, None if bitrate is None else parse_bit_rate(str(bitrate)), clip)
        reader = source if isinstance(source, Reader) else Reader(source)
        watch = FractionWatch(progress, reader.sample_rate, 1.0 if output is None else 0.99) if progress else watch
        frames, level = measured or self.measure(reader, watch)
        stream, weights = self._stream_of_changes(wanted, changed, reader.sample_rate, reader.channels, level, share)
        file = FileSeparation(stream, reader, frames, level, watch, parsed, weights, [query for query, _ in pairs])
        if output is not None:
            named = [(Query.parse(query, self.encoder).name, gain) for query, gain in pairs]
            write_files(file, named, Path(output), residual, overwrite, options)
        return file

    def _stream_of_changes(
        self,
        queries: Sequence[Query | Plain],
        changed: list[tuple[Query | Plain, float]] | None,
        sample_rate: int,
        channels: int,
        level: float | None,
        share: bool = False,
    ) -> tuple[Stream, Tensor | None]:
        """Return a stream for queries and sounds to be changed, and the share of each of the latter that is removed.

        Several sounds to be changed share the energy that they claim together.
        """
        if changed is None:
            return self.stream(queries, sample_rate, channels, level, share), None
        shared = [share] * len(queries) + [len(changed) > 1] * len(changed)
        removed = not share and all(gain == -math.inf for _, gain in changed)
        every = [*queries, *(query for query, _ in changed)]
        stream = self.stream(every, sample_rate, channels, level, shared, summed=removed)
        return stream, torch.tensor([1.0 - 10 ** (check_gain(gain) / 20) for _, gain in changed])


def write_files(
    file: FileSeparation,
    sounds: Sequence[tuple[str, float | None]],
    output: Path,
    residual: bool,
    overwrite: bool,
    options: OutputOptions,
) -> None:
    """Write a separation to a folder, with names as in the command, or its only result to a file; note the paths in it.

    Args:
        file: the separation.
        sounds: names of the queries, with None, and of sounds that are changed together, with their gains in dB.
        output: a folder, or a file of an audio format.
        residual: whether the residual of each query is written.
        overwrite: whether existing files may be replaced.
        options: how they are written.

    Raises:
        AudioError: if a file exists or cannot be written; nothing is written then.
        ValueError: if there are several results for one file.
    """
    requests = [Request(name, "", True, residual) for name, gain in sounds if gain is None]
    requests += blend_of(Request(name, "", False, False, gain) for name, gain in sounds)
    reader, suffix = file.reader, output.suffix.lower().lstrip(".")
    same = suffix in MUXERS and suffix == reader.path.suffix.lower().lstrip(".")
    if len(os.fsencode(output.name)) > NAME_BYTES:
        raise AudioError(f"{output} cannot be written: the name is too long.")
    alone = (suffix in FORMATS or same) and not output.is_dir()
    if options.clip not in (None, *CLIPS):
        raise ValueError(f"Unknown clip mode {options.clip!r}. Use one of {', '.join(CLIPS)}.")
    if alone and sum(request.target + request.residual for request in requests) != 1:
        raise ValueError(f"{output} is one file, but there are several results: name a folder.")
    if alone and not same:
        options = replace(options, format=options.format or suffix)
    namer = Namer([reader.path], overwrite, option="overwrite=True")
    plan = OutputPlan(str(reader.path), reader, requests, options, namer)
    if same and not all(plan.films):
        raise ValueError(f"{output} would hold sound only: name a file of one of {', '.join(FORMATS)}.")
    if alone:
        plan.paths = [{"target" if requests[0].target else "residual": output}]
    else:
        plan.claim_paths(output, reader.path.stem, reader.path)
    with ExitStack() as stack:
        stack.callback(namer.remove_empty_folders)
        plan.check()
        outputs = plan.open(file.frames, stack)
        fill_outputs(file, outputs)
        plan.finish(outputs, record=not alone)
    file.outputs = [path for paths in plan.paths for path in paths.values()]
    if isinstance(file.watch, FractionWatch):
        file.watch.progress(1.0)  # too late to cancel: the files are there
