"""Clips in tar shards, for sets that one machine cannot hold: written once, then streamed from a disk or a web server.

The engine is WebDataset (github.com/webdataset/webdataset): shards are plain tar files that any tool opens, nothing in
them is unpickled, and it brings no more than `braceexpand`. A clip is `<number>.flac` (mono, 16 bit, peak at full
scale, as in `corpus.py`) and `<number>.json` (its row of the manifest, and the recording's own peak). `<split>.json`
beside the shards lists them.

An epoch permutes the shards, gives every rank and every worker of it some of them, and shuffles clips in a buffer; all
of it is a function of (seed, epoch).
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from separation.data.corpus import BROKEN_LIMIT, FULL_SCALE, decode
from separation.data.cut import BROKEN, complaint
from separation.data.manifest import Clip, DataError, read_manifest

NAME = re.compile(r"[\w.-]+\.tar")
WEB = re.compile(r"https?://[\w.:/~%@+=-]+")
PEAK = "peak"  # key beside a clip's row in a shard


def engine() -> Any:
    """The webdataset package.

    Raises:
        DataError: it is not installed.
    """
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
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Writes a split's clips, shuffled, into tar files of equally many clips; returns what the index says of them.

    Args:
        manifest: of the clips.
        out: folder for the shards.
        split: which rows.
        shards: how many; a multiple of the ranks that will read them, and at least one for each of their workers.
        root: folder that the manifest's paths start from; its own by default.
        sample_rate: Hz.
        seed: of the order.
        say: gets a line for every clip that is left out.

    Raises:
        DataError: there are fewer clips than shards, or more than 1 % of the clips are broken.
    """
    engine()  # before anything is written
    clips = read_manifest(manifest, split)
    if not 0 < shards <= len(clips):
        raise DataError(f"{manifest}: {len(clips)} clips cannot be spread over {shards} shards.")
    order = np.random.default_rng(seed).permutation(len(clips))
    out.mkdir(parents=True, exist_ok=True)
    listed, broken = [], 0
    for shard in range(shards):
        name = f"{split}-{shard:06d}.tar"
        numbered = [(int(number), clips[number]) for number in order[shard::shards]]
        failed = _write_shard(out / name, numbered, root or manifest.parent, sample_rate)
        for line in failed:
            say(f"left out: {line}")
        broken += len(failed)
        if broken > BROKEN_LIMIT * len(clips):
            (out / name).unlink()
            raise DataError(f"{broken} of {len(clips)} clips and more cannot be read; the last: {failed[-1]}")
        listed.append({"name": name, "clips": len(numbered) - len(failed)})
    partial = out / f".{split}.json.{os.getpid()}"
    partial.write_text(json.dumps({"sample_rate": sample_rate, "shards": listed}, indent=1) + "\n", encoding="utf-8")
    partial.replace(out / f"{split}.json")
    return listed


def _write_shard(path: Path, numbered: list[tuple[int, Clip]], root: Path, sample_rate: int) -> list[str]:
    """One shard, which appears when it is complete; returns what is wrong with the clips that are not in it."""
    import soundfile

    failed = []
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file, engine().TarWriter(file, encoder=False, mtime=0) as writer:
            for number, clip in numbered:
                try:
                    samples, peak = decode(root / clip.path, sample_rate, clip.start, clip.seconds)
                except BROKEN as error:
                    failed.append(complaint(root / clip.path, error))
                    continue
                flac = io.BytesIO()
                soundfile.write(flac, samples, sample_rate, format="FLAC", subtype="PCM_16")
                row = json.dumps(asdict(clip) | {PEAK: peak}, ensure_ascii=False).encode()
                writer.write({"__key__": f"{number:09d}", "flac": flac.getvalue(), "json": row})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return failed


# Reading


class ShardedClips(IterableDataset[tuple[Clip, Tensor]]):
    """The clips of a folder of shards as (clip, waveform (time,) in [-1, 1]), every one once an epoch over all ranks.

    Put it into a `DataLoader` with `batch_size=None`. Make it where torch.distributed (or RANK and WORLD_SIZE) already
    says which rank this is, such as in a data module's `train_dataloader`.

    Args:
        folder: where `write_shards` wrote, on a disk or at an http(s) address.
        split: which split.
        buffer: clips that are held to be shuffled; 0 = in the order of the shards.
        seed: of the order.
        even: ends every rank and worker after equally many clips in every epoch, which DDP needs; a few are missed.
        as_recorded: gives clips at the recordings' own levels; otherwise every clip's peak is at one.

    Raises:
        DataError: there is no such index, it is not one, or webdataset is not installed.
    """

    def __init__(
        self,
        folder: Path | str,
        split: str = "train",
        buffer: int = 1000,
        seed: int = 0,
        even: bool = False,
        as_recorded: bool = False,
    ) -> None:
        super().__init__()
        engine()
        self.folder = str(folder).rstrip("/") if WEB.fullmatch(str(folder)) else str(Path(folder).absolute())
        self.index = f"{self.folder}/{split}.json"
        self.sample_rate, self.shards = _read_index(self.index)
        self.buffer, self.seed, self.even, self.epoch = buffer, seed, even, 0
        self.as_recorded = as_recorded
        self.place = engine().utils.pytorch_worker_info()[:2]

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order; call it before each epoch, as with a distributed sampler."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Clips of the whole set, over all ranks."""
        return sum(count for _, count in self.shards)

    def share(self, rank: int, ranks: int, worker: int, workers: int) -> list[tuple[str, int]]:
        """The shards of one worker of one rank in this epoch, with their numbers of clips."""
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(self.shards))
        return [self.shards[number] for number in order][rank::ranks][worker::workers]

    def check_round(self, ranks: int, workers: int) -> None:
        """Sees that every rank gets as many shards, and every worker one at least.

        Raises:
            DataError: they do not.
        """
        if len(self.shards) % ranks or len(self.shards) < ranks * workers:
            raise DataError(
                f"{self.index}: {len(self.shards)} shards do not go round {ranks} ranks of {workers} workers each: "
                "write a multiple of the ranks, at least one for every worker."
            )

    def each(self, ranks: int, workers: int) -> int:
        """Clips that each worker of each rank can be given in every epoch, whichever shards are its own."""
        return sum(sorted(count for _, count in self.shards)[: len(self.shards) // ranks // workers])

    def __iter__(self) -> Iterator[tuple[Clip, Tensor]]:
        rank, ranks, worker, workers = engine().utils.pytorch_worker_info()
        if ranks == 1:
            rank, ranks = self.place  # a worker that was spawned rather than forked knows no ranks
        self.check_round(ranks, workers)
        mine = self.share(rank, ranks, worker, workers)
        expected = sum(count for _, count in mine)
        wanted = self.each(ranks, workers) if self.even else expected
        got = 0
        for sample in self._stream([name for name, _ in mine]):
            if got == wanted:
                return
            if not {"flac", "json"} <= set(sample):
                raise DataError(f"{self.index}: a clip of its shards has no flac or no json.")
            got += 1
            clip, wave, peak = _decoded(sample)
            if self.as_recorded and peak is None:
                raise DataError(
                    f"{self.index}: its shards are of a version that did not note levels: write them again."
                )
            yield clip, wave * peak if self.as_recorded and peak is not None else wave
        if got < expected and got < wanted:
            raise DataError(f"{self.index}: its shards hold {got} clips where {expected} are listed.")

    def _stream(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """The undecoded samples of some shards, shuffled."""
        samples = self._samples(names)
        if not self.buffer:
            return samples
        rng = random.Random(f"{self.seed} {self.epoch} {names}")
        shuffled: Iterator[dict[str, Any]] = engine().shuffle(self.buffer, initial=self.buffer, rng=rng)(samples)
        return shuffled

    def _samples(self, names: list[str]) -> Iterator[dict[str, Any]]:
        """The samples of some shards in order; each shard is closed when it is through, or nobody wants more of it."""
        tar = engine().tariterators
        for name in names:
            address = f"{self.folder}/{name}"
            try:
                with engine().gopen(address) as stream:
                    yield from tar.group_by_keys(tar.tar_file_expander([{"url": address, "stream": stream}]))
            except (tarfile.TarError, OSError) as error:
                raise DataError(f"{address}: the shard cannot be read ({error.args[0]}).") from None


def _read_index(address: str) -> tuple[int, list[tuple[str, int]]]:
    """The sample rate and (name, clips) of every shard."""
    try:
        if WEB.fullmatch(address):
            with urlopen(address, timeout=60) as answer:
                text = answer.read()
        else:
            text = Path(address).read_bytes()
        content = json.loads(text)
        shards = [(str(each["name"]), int(each["clips"])) for each in content["shards"]]
        sample_rate = int(content["sample_rate"])
    except (OSError, URLError) as error:
        raise DataError(f"{address}: it cannot be read ({error}).") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{address}: it is no index of shards.") from None
    for name, _ in shards:
        if not NAME.fullmatch(name):  # the engine runs what follows "pipe:"
            raise DataError(f"{address}: it names “{name}”, which is no shard.")
    return sample_rate, shards


def _decoded(sample: dict[str, Any]) -> tuple[Clip, Tensor, float | None]:
    """A clip, its waveform (time,) with the peak at one, and its own peak where that was noted."""
    import soundfile

    row = json.loads(sample["json"])
    peak = row.pop(PEAK, None)
    clip = Clip(**row | {"labels": tuple(row["labels"]), "captions": tuple(row["captions"])})
    samples, _ = soundfile.read(io.BytesIO(sample["flac"]), dtype="int16")
    return clip, torch.from_numpy(samples).float() / FULL_SCALE, peak
