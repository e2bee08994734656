"""Clips in tar shards, for sets that one machine cannot hold: written once, then streamed from a disk or a web server.

The engine is WebDataset (github.com/webdataset/webdataset): shards are plain tar files, nothing in them is unpickled. A
clip is `<number>.flac` (mono, 16 bit, peak at full scale, as in `corpus.py`), `<number>.json` (its row of the
manifest, and the peak of the recording) and, if asked for, its pictures in order, `<number>.000000.jpg` and so on.
`<split>.json` beside the shards lists them.

An epoch permutes the shards, assigns them to ranks and workers, and shuffles clips in a buffer; all of this is a
function of (seed, epoch). Only clips that have arrived can be drawn: each worker holds the last ones.
"""

from __future__ import annotations

import io
import json
import math
import random
import re
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from separation.data.corpus import FULL_SCALE, decode_clips, report_broken
from separation.data.manifest import Clip, read_manifest
from separation.data.pictures import SUFFIXES, Pictures, read_pictures
from separation.errors import DataError
from separation.storage.download import replace_when_complete, write_json

NAME = re.compile(r"[\w.-]+\.tar")
WEB = re.compile(r"https?://[\w.:/~%@+=-]+")
PEAK = "peak"  # key in a shard beside a clip's row
UNIT = 1 << 60  # the weight of the only clip of a label
StreamedClip = tuple[Any, ...]
"""A clip, its waveform (time,) and, if asked for, the contents of its pictures' files."""


class Shard(NamedTuple):
    """A row of the index: `labels` says how many clips have a label as the main one, and at all."""

    name: str
    clips: int
    labels: dict[str, tuple[int, int]]


def import_webdataset() -> Any:
    """The webdataset package; raises DataError if it is not installed."""
    try:
        import webdataset
    except ModuleNotFoundError:
        raise DataError("Shards need the package webdataset: pip install separation[shards].") from None
    return webdataset


# Writing


def write_shards(
    manifest: Path,
    out: Path,
    split: str = "train",
    shards: int = 8,
    root: Path | None = None,
    sample_rate: int = 32000,
    seed: int = 0,
    notice: Callable[[str], None] = print,
    frames: bool = False,
) -> list[Shard]:
    """Write the clips of a split, shuffled, into tar files with equal numbers of clips of every label; list the files.

    Args:
        manifest: of the clips.
        out: folder for the shards.
        split: rows to write.
        shards: number of files: a multiple of the ranks that will read them, and at least one per worker.
        root: folder that the manifest's paths start from; by default its own.
        sample_rate: Hz.
        seed: of the order.
        notice: receives a line for every clip that is left out.
        frames: write the pictures of the clips as well, as they are.

    Raises DataError if there are fewer clips than shards, or more than 1 % of the clips are broken.
    """
    import_webdataset()  # fail before anything is written
    if not NAME.fullmatch(f"{split}.tar") or split.startswith("."):
        raise DataError(f"The split {split} cannot be a part of file names: letters, digits, - . and _ can.")
    clips = read_manifest(manifest, split)
    if not 0 < shards <= len(clips):
        raise DataError(f"{manifest}: {len(clips)} clips cannot be spread over {shards} shards.")
    rng = np.random.default_rng(seed)
    order = sorted(rng.permutation(len(clips)), key=lambda number: clips[number].label)  # all shards get all labels
    out.mkdir(parents=True, exist_ok=True)
    listed: list[Shard] = []
    broken: list[str] = []
    for shard in range(shards):
        name = f"{split}-{shard:06d}.tar"
        numbered = [(int(number), clips[number]) for number in rng.permutation(order[shard::shards])]
        kept, failed = _write_shard(out / name, numbered, root or manifest.parent, sample_rate, frames)
        main, every = Counter(clip.label for clip in kept), Counter(each for clip in kept for each in set(clip.labels))
        listed.append(Shard(name, len(kept), {label: (main[label], every[label]) for label in sorted(main | every)}))
        broken += failed
    report_broken(broken, len(clips), notice)
    shard_index = {"sample_rate": sample_rate, "shards": [shard._asdict() for shard in listed]}
    write_json(out / f"{split}.json", shard_index)
    return listed


def _write_shard(
    path: Path, numbered: list[tuple[int, Clip]], root: Path, sample_rate: int, frames: bool
) -> tuple[list[Clip], list[str]]:
    """Write one shard, which appears when complete; return its clips, and a line for each broken one, left out."""
    import soundfile

    kept: list[Clip] = []
    failed: list[str] = []
    webdataset, shown = import_webdataset(), Pictures(root)
    with (
        replace_when_complete(path) as partial,
        partial.open("wb") as file,
        webdataset.TarWriter(file, encoder=False, mtime=0) as writer,
    ):
        for place, samples, peak in decode_clips([clip for _, clip in numbered], root, sample_rate, failed):
            number, clip = numbered[place]
            try:
                pictures = read_pictures(shown.list_pictures(clip)) if frames else {}
            except DataError as error:
                failed.append(str(error))
                continue
            flac = io.BytesIO()
            soundfile.write(flac, samples, sample_rate, format="FLAC", subtype="PCM_16")
            row = json.dumps(asdict(clip) | {PEAK: peak}, ensure_ascii=False).encode()
            writer.write({"__key__": f"{number:09d}", "flac": flac.getvalue(), "json": row, **pictures})
            kept.append(clip)
    return kept, failed


# Reading


class ShardedClips(IterableDataset[StreamedClip]):
    """The clips of a folder of shards as (clip, waveform (time,) in [-1, 1]), each once per epoch over all ranks.

    Put it into a `DataLoader` with `batch_size=None`. Create it where torch.distributed (or RANK and WORLD_SIZE) knows
    the rank, such as in a data module's `train_dataloader`.

    `balance` does not change how many clips a worker yields, but how often each of them comes: its expected number of
    times, rounded up or down by a random offset. The buffer moves repetitions of a clip apart.

    Args:
        folder: output of `write_shards`, a folder or an http(s) address.
        split: of the clips.
        buffer: clips that are held to be shuffled; 0 = in the order of the shards.
        seed: of the order.
        even: every rank and worker ends after the same number of clips in every epoch, which DDP needs; a few clips are
            missed.
        as_recorded: clips come at their recorded levels; otherwise with a peak of one.
        balance: a label comes in proportion to (number of its clips) ** balance; 1 = every clip comes once.
        frames: a third item is the list of the clip's pictures, as bytes of their files.
        classes: whether a label counts; all labels of a clip then do, and clips without one are left out. None = the
            main label.

    Raises:
        DataError: if the index is missing or not valid, or webdataset is not installed.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str = "train",
        buffer: int = 1000,
        seed: int = 0,
        even: bool = False,
        as_recorded: bool = False,
        balance: float = 1.0,
        frames: bool = False,
        classes: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__()
        self.worker_info = import_webdataset().utils.pytorch_worker_info
        self.folder = str(folder).rstrip("/") if WEB.fullmatch(str(folder)) else str(Path(folder).absolute())
        self.index = f"{self.folder}/{split}.json"
        self.sample_rate, self.shards = _read_index(self.index)
        self.buffer, self.seed, self.even, self.as_recorded, self.epoch = buffer, seed, even, as_recorded, 0
        self.frames, self.place = frames, self.worker_info()[:2]
        self.all_labels = classes is not None
        self.weights: dict[str, int] = {}  # of a clip by label, whole for exact sums; empty: all clips weigh the same
        self.loads = {shard.name: shard.clips for shard in self.shards}  # sums of the weights
        if balance != 1 or classes:
            if any(shard.clips and not shard.labels for shard in self.shards):
                raise DataError(f"{self.index}: its shards were written by an old version without labels: write again.")
            totals: Counter[str] = Counter()
            for shard in self.shards:
                totals.update({label: counts[self.all_labels] for label, counts in shard.labels.items()})
            for label, total in totals.items():
                if total > 0 and (classes is None or classes(label)):
                    self.weights[label] = round(total ** (balance - 1) * UNIT)
            for name, _, labels in self.shards:
                self.loads[name] = sum(labels[each][self.all_labels] * self.weights.get(each, 0) for each in labels)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; call it before each epoch, as with a distributed sampler."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of clips over all ranks."""
        return sum(shard.clips for shard in self.shards)

    def clips_per_worker(self, ranks: int, workers: int) -> int:
        """Number of clips that each worker of each rank has in every epoch, whichever shards are its own.

        Raises:
            DataError: if the shards are not a multiple of the ranks, or fewer than the workers.
        """
        if len(self.shards) % ranks or len(self.shards) < ranks * workers:
            raise DataError(
                f"{self.index}: {len(self.shards)} shards cannot be shared by {ranks} ranks of {workers} workers each: "
                "write a multiple of the ranks, at least one for every worker."
            )
        return sum(sorted(shard.clips for shard in self.shards)[: len(self.shards) // ranks // workers])

    def __iter__(self) -> Iterator[StreamedClip]:
        rank, ranks, worker, workers = self.worker_info()
        if ranks == 1:
            rank, ranks = self.place  # a spawned worker does not know the ranks
        least = self.clips_per_worker(ranks, workers)
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.shards))
        own = [self.shards[number] for number in order][rank::ranks][worker::workers]
        samples = self._take_turns(own, least if self.even else sum(shard.clips for shard in own))
        if self.buffer:
            rng = random.Random(f"{self.seed} {self.epoch} {[shard.name for shard in own]}")
            samples = import_webdataset().shuffle(self.buffer, self.buffer, rng=rng)(samples)
        for sample in samples:
            clip, wave, peak = self._decode_sample(sample)
            if self.as_recorded and peak is None:
                raise DataError(f"{self.index}: its shards were written by an old version without levels: write again.")
            wave = wave * peak if self.as_recorded and peak is not None else wave
            pictures = [sample[name] for name in sorted(sample) if Path(f"0.{name}").suffix in SUFFIXES]
            if self.frames and not pictures:
                raise DataError(f"{self.index}: its shards have no pictures: write them with --frames.")
            yield (clip, wave, pictures) if self.frames else (clip, wave)

    def _take_turns(self, own: list[Shard], turns: int) -> Iterator[dict[str, Any]]:
        """The samples of some shards in order, each as often as its weight says, `turns` in all."""
        names, expected = [shard.name for shard in own], sum(shard.clips for shard in own)
        load, weights = sum(self.loads[name] for name in names), self.weights
        if not load:  # no clip has one of the classes
            load, weights = expected, {}
        taken, read, reached = 0, 0, random.Random(f"{self.seed} {self.epoch} {names} turns").randrange(max(1, load))
        for sample in self._read_shards(names):
            read += 1
            if not {"flac", "json"} <= set(sample):
                raise DataError(f"{self.index}: a clip of its shards has no flac or no json.")
            try:
                row = sample["row"] = json.loads(sample["json"])
                labels = set(row["labels"]) if self.all_labels else {row["label"]}
            except (ValueError, KeyError, TypeError):
                raise DataError(f"{self.index}: the json of a clip of its shards is not a row of a manifest.") from None
            reached += turns * (sum(weights.get(label, 0) for label in labels) if weights else 1)
            while taken < min(turns, reached // load):
                taken += 1
                yield sample
        if taken < turns or read != expected:
            raise DataError(f"{self.index}: its shards hold {read} clips where {expected} are listed.")

    def _decode_sample(self, sample: dict[str, Any]) -> tuple[Clip, Tensor, float | None]:
        """A clip, its waveform (time,) with a peak of one, and the peak of the recording if the shard states it."""
        import soundfile

        row, where = dict(sample["row"]), f"{self.index}: the clip {sample['__key__']} of its shards"
        try:
            peak = row.pop(PEAK, None)
            peak = None if peak is None else float(peak)
            clip = Clip(**row | {"labels": tuple(row["labels"]), "captions": tuple(row["captions"])})
            samples, rate = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
        except (ValueError, KeyError, TypeError, soundfile.SoundFileError):
            raise DataError(f"{where} has a damaged flac, or its json is not a row of a manifest.") from None
        if samples.ndim > 1 or rate != self.sample_rate or not (peak is None or math.isfinite(peak)):
            raise DataError(f"{where} is not mono at {self.sample_rate} Hz with a finite peak.")
        return clip, torch.from_numpy(samples).float() / FULL_SCALE, peak

    def _read_shards(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """The encoded samples of some shards in order."""
        webdataset = import_webdataset()
        for name in names:
            address = f"{self.folder}/{name}"
            try:
                with webdataset.gopen(address) as stream:
                    files = webdataset.tariterators.tar_file_expander([{"url": address, "stream": stream}])
                    yield from webdataset.tariterators.group_by_keys(files)
            except (tarfile.TarError, OSError) as error:
                raise DataError(f"{address}: the shard cannot be read ({error.args[0]}).") from None


def _read_index(address: str) -> tuple[int, list[Shard]]:
    """Sample rate, and the shards."""
    try:
        if WEB.fullmatch(address):
            with urlopen(address, timeout=60) as answer:
                text = answer.read()
        else:
            text = Path(address).read_bytes()
        content = json.loads(text)
        shards = [
            Shard(str(each["name"]), int(each["clips"]), {label: (int(main), int(every)) for label, (main, every) in
                  each.get("labels", {}).items()}) for each in content["shards"]
        ]  # fmt: skip
        sample_rate = int(content["sample_rate"])
    except (OSError, URLError) as error:
        raise DataError(f"{address}: the index of shards cannot be read ({error}).") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{address}: the file is not an index of shards.") from None
    for name, *_ in shards:
        if not NAME.fullmatch(name):  # webdataset runs a name that starts with "pipe:" as a command
            raise DataError(f"{address}: “{name}” is not a valid name of a shard.")
    return sample_rate, shards


# Training from a stream


class StreamedBatches(IterableDataset[Any]):
    """The batches that one worker makes of its clips in one epoch.

    Args:
        data: data module; `stream_options` are arguments of `ShardedClips`, `stream` chooses what a batch is made of,
            and `make_batch` makes it.
        epoch: number of the epoch.

    Raises:
        DataError: as `ShardedClips`, or if the shards have another rate than the training.
    """

    def __init__(self, data: Any, epoch: int) -> None:
        self.data, self.epoch, self.rank = data, epoch, data.ranks()[0]
        how = {"buffer": data.buffer, "seed": data.seed, "as_recorded": data.as_recorded} | data.stream_options
        self.clips = ShardedClips(str(data.shards), even=True, **how)
        self.clips.set_epoch(epoch)
        if (rate := self.clips.sample_rate) != data.sample_rate:
            raise DataError(f"{self.clips.index}: the shards are at {rate} Hz, the training at {data.sample_rate}.")

    def __iter__(self) -> Iterator[Any]:
        worker = info.id if (info := get_worker_info()) else 0
        rng, waiting = np.random.default_rng((self.data.seed, self.epoch, self.rank, worker)), []
        for item in self.data.stream(iter(self.clips), rng):
            waiting.append(item)
            if len(waiting) == self.data.batch_size:
                yield self.data.make_batch(waiting, [rng] * len(waiting))
                waiting = []


def count_batches(data: Any) -> int:
    """Number of batches in every epoch of a stream, the same on all ranks; raise DataError if there is none."""
    ranks, workers = data.ranks()[1], max(1, data.workers)
    turns = data.count_turns(StreamedBatches(data, 0).clips.clips_per_worker(ranks, workers))
    count = workers * (turns // data.batch_size)
    if count == 0:
        raise DataError(
            f"{data.shards}: an epoch has no batch of {data.batch_size} in any of {workers} workers; stream more "
            "clips, or lower data.batch_size or data.workers."
        )
    return count


def stream_turns(clips: Iterable[StreamedClip], size: int) -> Iterator[tuple[StreamedClip, deque[StreamedClip]]]:
    """Each clip that gets a mixture of its own, with the last `size` clips, which are held to be mixed with it.

    The first clips are only held; those that are still held when the stream ends get their turn then. The number of
    turns depends on the number of clips only, which is the same on every rank.
    """
    held: deque[StreamedClip] = deque(maxlen=size)
    had_turn: deque[bool] = deque(maxlen=size)
    for clip in clips:
        full = len(held) == size
        if full:
            yield clip, held
        held.append(clip)
        had_turn.append(full)
    yield from ((clip, held) for clip, done in zip(list(held), had_turn, strict=True) if not done)
