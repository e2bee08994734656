"""Training from shards: every clip once an epoch; repeatable, resumable, of the same length on every rank."""

import json
import math
import shutil
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from tiny import COLUMNS, read, write_corpus, write_manifest

from separation.data.gains import RandomGains
from separation.data.streaming import ShardedClips, StreamedBatches, write_shards
from separation.errors import DataError

pytest.importorskip("webdataset", reason="needs the extra shards")
pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.queried import QueriedData
from separation.data.tagged import TaggedData

CLIPS, HELD, SIZE, RATE = 26, 6, 4, 8000
LABELS = ["tone 1", "tone 0", "tone 2", "never heard"]
COMMON, RARE, OTHERS = 24, 3, 5  # clips of tones 1, 0 and 3; those of tone 0 are also of tone 2
SETTINGS = {"batch_size": SIZE, "seconds": 0.1, "sample_rate": RATE, "buffer": 8, "balance": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_shards(write_corpus(folder, labels=13, recordings=2, seconds=0.05), folder, shards=6, sample_rate=RATE)
    return folder


@pytest.fixture(scope="module")
def tagged_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    manifest = write_corpus(folder, labels=4, recordings=COMMON, seconds=0.05)
    rows = []
    for row in read(manifest):
        label, number = row["label"], int(row["path"].split("/")[-1].removesuffix(".wav"))
        if number < {"tone 1": COMMON, "tone 0": RARE, "tone 3": OTHERS}.get(label, 0):
            rows.append(row | {"labels": "tone 0;tone 2" if label == "tone 0" else label})
    write_manifest(manifest, rows, [*COLUMNS, "labels"])
    write_shards(manifest, folder / "shards", shards=6, sample_rate=RATE)
    return folder / "shards"


def queried(folder, **settings):
    return QueriedData(shards=str(folder), **SETTINGS | {"held": HELD} | settings)


def tagged(folder, **settings):
    return TaggedData(shards=str(folder), **SETTINGS | {"labels": LABELS, "held": 16} | settings)


@pytest.fixture(params=[queried, tagged])
def streamed(request, folder, tagged_folder):
    """Makes a data module of either kind."""
    place = folder if request.param is queried else tagged_folder
    return lambda **settings: request.param(place, **settings)


def epoch(data, number=0, first=0):
    data.position = lambda: (number, first)
    return list(data.train_dataloader())


def audio(batch):
    return batch.sources if hasattr(batch, "sources") else batch.waveforms


def test_epochs_differ_repeat_and_continue_in_the_middle(streamed):
    first, second, again = epoch(streamed()), epoch(streamed(), 1), epoch(streamed())
    assert all(torch.equal(audio(one), audio(other)) for one, other in zip(first, again, strict=True))
    assert not torch.equal(audio(first[0]), audio(second[0]))
    rest = epoch(streamed(), first=3)
    assert len(rest) == len(first) - 3
    assert torch.equal(audio(rest[0]), audio(first[3]))
    assert epoch(streamed(), first=len(first)) == []


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("balance", [1.0, 0.0])
def test_ranks_share_the_clips_end_together_and_continue(streamed, monkeypatch, ranks, balance):
    seen, announced = [], set()
    for rank in range(ranks):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        data = streamed(held=2, batch_size=2, balance=balance)
        data.ranks = lambda rank=rank: (rank, ranks)
        batches = epoch(data)
        rest = epoch(data, first=1)
        assert all(torch.equal(audio(one), audio(other)) for one, other in zip(batches[1:], rest, strict=True))
        seen.append(batches)
        announced.add(len(data.train_dataloader()))
    assert announced == {len(batches) for batches in seen} and len(seen[0]) >= 3
    assert all(not torch.equal(audio(seen[0][0]), audio(other[0])) for other in seen[1:])


def test_a_stream_without_a_batch_is_an_error(streamed, folder, tmp_path):
    with pytest.raises(DataError, match=r"an epoch has no batch of 64 in any of 1 workers; "):
        epoch(streamed(held=256, batch_size=64))
    with pytest.raises(DataError, match=r"6 shards cannot be shared by 1 ranks of 8 workers each: write a multiple"):
        len(streamed(workers=8).train_dataloader())
    with pytest.raises(DataError, match="the shards are at 8000 Hz, the training at 16000"):
        epoch(streamed(sample_rate=16000))


# --- Balance -----------------------------------------------------------------------------------


def expected(balance):
    """Share of each label, the number of its clips ** balance."""
    powers = {"tone 1": COMMON**balance, "tone 0": RARE**balance, "tone 3": OTHERS**balance}
    return {label: power / sum(powers.values()) for label, power in powers.items()}


@pytest.mark.parametrize("balance", [1.0, 0.5, 0.0, -0.5])
def test_every_clip_comes_as_often_as_its_label_says(tagged_folder, balance):
    clips, size, drawn = ShardedClips(tagged_folder, balance=balance), COMMON + RARE + OTHERS, Counter()
    sizes = {"tone 1": COMMON, "tone 0": RARE, "tone 3": OTHERS}
    for number in range(30):
        clips.set_epoch(number)
        came = Counter(clip for clip, _ in clips)
        assert came.total() == size
        for clip, times in came.items():
            wanted = size * expected(balance)[clip.label] / sizes[clip.label]
            assert math.floor(wanted) <= times <= math.ceil(wanted)
            drawn[clip.label] += times
    for label, share in expected(balance).items():
        assert drawn[label] / drawn.total() == pytest.approx(share, abs=0.015)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_and_their_workers_balance_together(tagged_folder, ranks):
    clips, drawn = ShardedClips(tagged_folder, even=True, balance=0.0), Counter()
    for number in range(30):
        clips.set_epoch(number)
        for rank, worker in product(range(ranks), range(2)):
            clips.worker_info = lambda rank=rank, worker=worker: (rank, ranks, worker, 2)
            came = [clip.label for clip, _ in clips]
            assert len(came) == clips.clips_per_worker(ranks, 2)
            drawn.update(came)
    for label, share in expected(0.0).items():  # with 3 ranks the rare label is in every second of 6 shares
        assert drawn[label] / drawn.total() == pytest.approx(share, abs=0.02 + 0.015 * ranks)


def test_both_sources_of_a_mixture_follow_the_balance(tagged_folder):
    def shares(**settings):
        data = queried(tagged_folder, batch_size=1, distinct=False, **settings)
        labels = [batch.labels[0] for number in range(30) for batch in epoch(data, number)]
        return [Counter(each) for each in zip(*labels, strict=True)]

    for place in shares(balance=0.0):
        assert all(0.25 < place[label] / place.total() < 0.42 for label in expected(0.0))
    for place in shares(balance=1.0):
        assert 0.68 < place["tone 1"] / place.total() < 0.82  # 24 of 32 clips


def test_shards_of_an_old_version_are_not_balanced(tagged_folder, tmp_path):
    shutil.copytree(tagged_folder, tmp_path / "old")
    index = json.loads((tagged_folder / "train.json").read_text())
    for shard in index["shards"]:
        del shard["labels"]
    (tmp_path / "old" / "train.json").write_text(json.dumps(index))
    assert len(list(ShardedClips(tmp_path / "old"))) == COMMON + RARE + OTHERS
    with pytest.raises(DataError, match=r"train\.json: its shards were written by an old version without labels"):
        ShardedClips(tmp_path / "old", balance=0.5)


# --- Mixtures with queries ---------------------------------------------------------------------


def firsts(batches):
    """The labels of the first sources."""
    assert all(len(set(labels)) == 2 for batch in batches for labels in batch.labels)
    return [labels[0] for batch in batches for labels in batch.labels]


def test_every_clip_after_those_that_are_held_is_a_first_source(folder):
    batches = epoch(queried(folder))
    assert len(batches) == (CLIPS - HELD) // SIZE and batches[0].sources.shape == (SIZE, 2, 800)
    labels = firsts(batches)
    assert max(labels.count(label) for label in labels) <= 2  # two recordings a label, each once


@pytest.mark.parametrize("held", [CLIPS, CLIPS + 1, 256])
def test_a_stream_shorter_than_the_held_clips_is_mixed_at_its_end(folder, held):
    batches = epoch(queried(folder, held=held, batch_size=2))
    assert sorted(firsts(batches)) == sorted([f"tone {label}" for label in range(13)] * 2)  # every clip once


def test_held_clips_that_remain_get_their_turn(folder):
    assert len(epoch(queried(folder, held=16, batch_size=1))) == (CLIPS - 16) + (16 - (CLIPS - 16))  # 10 are pushed out
    assert len(epoch(queried(folder, held=13, batch_size=1))) == 13  # twice what is held: nothing is left over


@pytest.mark.parametrize(("as_recorded", "peak", "tolerance"), [(True, 0.15, 3e-3), (False, 0.5, 1e-3)])
def test_sources_are_at_the_levels_asked_for(folder, as_recorded, peak, tolerance):
    data = queried(folder, gains=RandomGains(low=1.0, high=1.0, as_recorded=as_recorded))
    batch = data.complete(epoch(data)[0])
    assert batch.texts == batch.labels
    assert torch.allclose(batch.sources.abs().amax(-1), torch.tensor(peak), atol=tolerance)  # tones at 0.3


@pytest.mark.parametrize(("shards", "workers", "held"), [(3, 0, 6), (5, 2, 4), (5, 2, 8), (4, 2, 20)])
def test_every_epoch_has_the_announced_number_of_batches(tmp_path, shards, workers, held):
    """The learning rate follows the length of the training, which Lightning knows from this number."""
    manifest = write_corpus(tmp_path, labels=13, recordings=2, seconds=0.05)
    write_shards(manifest, tmp_path / "s", shards=shards, sample_rate=RATE)
    data = queried(tmp_path / "s", held=held, batch_size=2, workers=workers)
    announced = len(data.train_dataloader())
    assert all(len(epoch(data, number)) == announced > 0 for number in range(3))


def test_clips_that_cannot_be_mixed_are_an_error(tmp_path):
    manifest = write_corpus(tmp_path, labels=1, recordings=4, seconds=0.05)
    write_shards(manifest, tmp_path / "s", shards=1, sample_rate=RATE)
    words = r"\d\.wav cannot be mixed with 1 of the 4 clips that are held; hold more of them, or stream more clips\."
    with pytest.raises(DataError, match=words):
        epoch(queried(tmp_path / "s", held=256))


@pytest.mark.parametrize(
    ("make", "settings", "words"),
    [
        (queried, {"polluted": 0.5}, "polluted"),
        (queried, {"held": 1}, "are mixed from"),
        (tagged, {"labels": None}, "need data.labels"),
        (tagged, {"held": 0}, "the least is 1"),
    ],
)
def test_settings_not_available_with_streams_are_errors(folder, make, settings, words):
    with pytest.raises(ValueError, match=words):
        make(folder, **settings)


# --- Clips with classes ------------------------------------------------------------------------


@pytest.mark.parametrize("held", [16, 32, 256])
def test_an_epoch_draws_as_many_clips_as_arrive(tagged_folder, held):
    batches = epoch(tagged(tagged_folder, held=held))
    assert len(batches) == (COMMON + RARE + OTHERS) // SIZE
    assert batches[0].waveforms.shape == (SIZE, 800) and batches[0].tags.shape == (SIZE, 4)
    assert all((batch.waveforms[:, 400:] == 0).all() for batch in batches)  # shorter clips end in silence
    for batch in batches:
        assert (batch.tags[torch.arange(SIZE), batch.drawn_class] == 1).all()
        assert {tuple(row) for row in batch.tags.tolist()} <= {(1, 0, 0, 0), (0, 1, 1, 0)}


@pytest.mark.parametrize(("as_recorded", "peak"), [(True, 0.3), (False, 1.0)])
def test_clips_come_as_recorded_or_with_a_peak_of_one(tagged_folder, as_recorded, peak):
    batch = epoch(tagged(tagged_folder, as_recorded=as_recorded))[0]
    assert batch.waveforms.abs().amax(1).tolist() == pytest.approx([peak] * SIZE, rel=0.02)


def test_classes_are_drawn_equally_often_among_those_that_are_held(tagged_folder):
    data = tagged(tagged_folder, held=256)
    drawn = torch.cat([batch.drawn_class for number in range(20) for batch in epoch(data, number)])
    assert drawn.bincount(minlength=4) / len(drawn) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.06)


def test_a_stream_without_the_classes_is_an_error(tagged_folder):
    with pytest.raises(DataError, match="none of the clips so far has one of the 1 labels"):
        epoch(tagged(tagged_folder, labels=["rain"]))


def test_held_clips_are_grouped_once_and_not_at_every_draw(tagged_folder):
    looks = 0

    class Numbers(list):
        def __iter__(self):
            nonlocal looks
            looks += 1
            return super().__iter__()

    data = tagged(tagged_folder, held=8)
    find, clips = data.class_numbers, list(StreamedBatches(data, 0).clips)
    data.class_numbers = lambda labels: Numbers(find(labels))
    assert len(list(data.stream(iter(clips), np.random.default_rng(0)))) == len(clips) > 16
    assert looks <= 2 * len(clips)
