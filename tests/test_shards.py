"""Shards: what is written is read, once over all ranks and workers, in an order of (seed, epoch)."""

import functools
import http.server
import io
import json
import shutil
import tarfile
import threading

import numpy as np
import pytest
import soundfile
import torch
from tiny import write_corpus
from torch.utils.data import DataLoader

from separation.data.corpus import Corpus
from separation.data.streaming import ShardedClips, write_shards
from separation.datasets.command import main
from separation.errors import DataError

pytest.importorskip("webdataset", reason="needs the extra shards")

CLIPS, SHARDS = 26, 4


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=13, recordings=2, seconds=0.05)


@pytest.fixture(scope="module")
def folder(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(manifest, folder, shards=SHARDS, sample_rate=8000)
    return folder


@pytest.fixture
def rank(monkeypatch):
    """Sets the rank that is asked for when shards are opened."""

    def choose(number, ranks=2):
        monkeypatch.setenv("RANK", str(number))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))

    return choose


def recordings(clips):
    return [clip.recording for clip, _ in clips]


def test_shards_hold_what_the_corpus_does(manifest, folder):
    corpus = Corpus(manifest, sample_rate=8000)
    read = {clip.recording: (clip, wave) for clip, wave in ShardedClips(folder)}
    assert len(read) == len(ShardedClips(folder)) == len(corpus) == CLIPS
    assert ShardedClips(folder).sample_rate == 8000
    for number, clip in enumerate(corpus.clips):
        assert read[clip.recording][0] == clip
        assert torch.equal(read[clip.recording][1], corpus.waveform(number))
    for (clip, wave), (same, full) in zip(ShardedClips(folder, as_recorded=True), ShardedClips(folder), strict=True):
        assert clip == same
        assert wave.abs().max().item() == pytest.approx(0.3, abs=5e-3)
        assert torch.allclose(wave / wave.abs().max(), full, atol=1e-6)


def test_shards_without_levels_serve_without_them(folder, tmp_path):
    shutil.copy(folder / "train.json", tmp_path)
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as old, tarfile.open(tmp_path / path.name, "w") as new:
            for member in old:
                content = old.extractfile(member).read()
                if member.name.endswith("json"):
                    row = json.loads(content)
                    del row["peak"]
                    content = json.dumps(row).encode()
                    member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    assert len(list(ShardedClips(tmp_path))) == CLIPS
    with pytest.raises(DataError, match=r"train\.json: its shards were written by an old version without levels"):
        next(iter(ShardedClips(tmp_path, as_recorded=True)))


def test_shards_are_plain_equally_long_and_reproducible(manifest, folder, tmp_path):
    index = json.loads((folder / "train.json").read_text())
    assert [shard["clips"] for shard in index["shards"]] == [7, 7, 6, 6]
    names = [f"train-{number:06d}.tar" for number in range(SHARDS)]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "train.json"]
    with tarfile.open(folder / names[0]) as shard:
        assert {name.split(".")[1] for name in shard.getnames()} == {"flac", "json"}
        assert len(shard.getnames()) == 14
    write_shards(manifest, tmp_path, shards=SHARDS, sample_rate=8000)
    assert all(path.read_bytes() == (tmp_path / path.name).read_bytes() for path in folder.iterdir())


# --- Order -------------------------------------------------------------------------------------


def test_two_ranks_of_two_workers_see_every_clip_once(folder, rank, monkeypatch):
    orders = []
    for epoch in range(2):
        seen = []
        for number in range(2):
            rank(number)
            clips = ShardedClips(folder, buffer=4)
            monkeypatch.delenv("RANK")  # a spawned worker knows the rank from the dataset
            clips.set_epoch(epoch)
            own = recordings(DataLoader(clips, batch_size=None, num_workers=2))
            assert 12 <= len(own) <= 14
            seen += own
        assert len(seen) == len(set(seen)) == CLIPS
        orders.append(seen)
    assert orders[0] != orders[1]


def test_even_ends_all_workers_after_equally_many(folder, rank):
    for number in range(2):
        rank(number)
        seen = recordings(DataLoader(ShardedClips(folder, even=True), batch_size=None, num_workers=2))
        assert len(seen) == len(set(seen)) == 2 * 6


def test_the_order_is_a_function_of_seed_and_epoch(folder):
    def order(seed=0, epoch=0, **how):
        clips = ShardedClips(folder, seed=seed, **how)
        clips.set_epoch(epoch)
        return recordings(clips)

    assert order() == order()
    assert order() != order(epoch=1) != order(seed=1) != order()
    assert order(buffer=0) != order()
    assert sorted(order(buffer=0)) == sorted(order(epoch=1))


def test_the_number_of_shards_must_fit_ranks_and_workers(folder, rank):
    rank(0, 3)
    with pytest.raises(DataError, match=r"train\.json: 4 shards cannot be shared by 3 ranks of 1 workers each"):
        next(iter(ShardedClips(folder)))
    rank(0, 4)
    with pytest.raises(DataError, match="4 shards cannot be shared by 4 ranks of 2 workers each"):
        next(iter(DataLoader(ShardedClips(folder), batch_size=None, num_workers=2)))


# --- The command -------------------------------------------------------------------------------


def test_a_broken_clip_is_left_out_and_reported(tmp_path, capsys):
    manifest = write_corpus(tmp_path, labels=50, recordings=2, seconds=0.02)
    (tmp_path / "audio" / "made" / "tone 7" / "1.wav").unlink()
    said = []
    write_shards(manifest, tmp_path / "out", shards=2, sample_rate=8000, notice=said.append)
    assert said == [f"left out: {tmp_path}/audio/made/tone 7/1.wav: the file does not exist."]
    assert len(recordings(ShardedClips(tmp_path / "out"))) == len(ShardedClips(tmp_path / "out")) == 99
    (tmp_path / "audio" / "made" / "tone 8" / "1.wav").unlink()
    assert main(["shard", str(manifest), "--out", str(tmp_path / "new"), "--shards", "2"]) == 1
    assert "2 of 100 clips cannot be read; the first: " in capsys.readouterr().err
    assert not (tmp_path / "new" / "train.json").exists()


def test_the_command_writes_shards(manifest, tmp_path, capsys):
    arguments = ["shard", str(manifest), "--out", str(tmp_path), "--shards", "3", "--sample-rate", "4000"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"wrote 3 shards with {CLIPS} clips to {tmp_path}\n"
    assert next(iter(ShardedClips(tmp_path)))[1].shape == (200,)
    with pytest.raises(DataError, match="26 clips cannot be spread over 27 shards"):
        write_shards(manifest, tmp_path, shards=27)


# --- Errors --------------------------------------------------------------------------------------


def test_an_invalid_index_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train\.json: the index of shards cannot be read"):
        ShardedClips(tmp_path)
    (tmp_path / "train.json").write_text('{"shards": [{"name": "a.tar"}]}')
    with pytest.raises(DataError, match=r"train\.json: the file is not an index of shards"):
        ShardedClips(tmp_path)
    for name in ("pipe:touch x.tar", "../a.tar", "a.tar; b", "x.zip"):
        index = {"sample_rate": 8000, "shards": [{"name": name, "clips": 1}]}
        (tmp_path / "train.json").write_text(json.dumps(index))
        with pytest.raises(DataError, match="is not a valid name of a shard"):
            ShardedClips(tmp_path)


def test_a_truncated_or_missing_shard_is_noticed(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    shard = tmp_path / "copy" / "train-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2 - 100])
    with pytest.raises(DataError, match=r"(000001\.tar: the shard cannot be read|n: (its shards hold|a clip of))"):
        list(ShardedClips(tmp_path / "copy"))
    shard.unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar: the shard cannot be read"):
        list(ShardedClips(tmp_path / "copy"))


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}"])
def test_a_row_that_is_none_is_an_error_of_the_shards(folder, tmp_path, content):
    shutil.copytree(folder, tmp_path / "copy")
    with tarfile.open(tmp_path / "copy" / "train-000000.tar", "a") as shard:
        for suffix in ("flac", "json"):
            member = tarfile.TarInfo(f"000000999.{suffix}")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    with pytest.raises(DataError, match=r"train\.json: the json of a clip of its shards is not a row of a manifest"):
        list(ShardedClips(tmp_path / "copy", buffer=0))


@pytest.mark.parametrize(
    ("change", "sound", "problem"),
    [
        ({}, None, "a damaged flac, or its json is not a row"),
        ({"captions": 3}, (400, 8000), "a damaged flac, or its json is not a row"),
        ({"more": 3}, (400, 8000), "a damaged flac, or its json is not a row"),
        ({"peak": float("nan")}, (400, 8000), "not mono at 8000 Hz with a finite peak"),
        ({}, (400, 16000), "not mono at 8000 Hz with a finite peak"),
        ({}, ((400, 2), 8000), "not mono at 8000 Hz with a finite peak"),
    ],
)
def test_a_clip_that_cannot_be_used_is_named(folder, tmp_path, change, sound, problem):
    shutil.copytree(folder, tmp_path / "copy")
    flac = io.BytesIO()
    if sound:
        soundfile.write(flac, np.zeros(sound[0]), sound[1], format="FLAC")
    with tarfile.open(folder / "train-000000.tar") as shard:
        name = next(each for each in shard.getnames() if each.endswith("json"))
        row = json.load(shard.extractfile(name)) | change
    with tarfile.open(tmp_path / "copy" / "train-000000.tar", "a") as shard:
        for suffix, content in (("flac", flac.getvalue()), ("json", json.dumps(row).encode())):
            member = tarfile.TarInfo(f"000000999.{suffix}")
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    index = json.loads((tmp_path / "copy" / "train.json").read_text())
    index["shards"][0]["clips"] += 1
    (tmp_path / "copy" / "train.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=rf"train\.json: the clip 000000999 of its shards (has|is) {problem}"):
        list(ShardedClips(tmp_path / "copy", buffer=0))


def test_nothing_is_unpickled(folder, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy")
    with tarfile.open(tmp_path / "copy" / "train-000000.tar", "a") as shard:
        for suffix in ("pkl", "pyd", "pth"):
            member = tarfile.TarInfo(f"000000999.{suffix}")
            member.size = 4
            shard.addfile(member, io.BytesIO(b"evil"))
    monkeypatch.setattr("pickle.loads", None)  # calling them would fail
    monkeypatch.setattr("pickle.load", None)
    with pytest.raises(DataError, match=r"a clip of its shards has no flac"):
        list(ShardedClips(tmp_path / "copy", buffer=0))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches with curl, which is not installed")
def test_shards_are_streamed_from_a_server(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert recordings(ShardedClips(address)) == recordings(ShardedClips(folder))
        with pytest.raises(DataError, match=r"/test\.json: the index of shards cannot be read"):
            ShardedClips(address, "test")
        server.shutdown()
