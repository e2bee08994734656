"""Training from shards: every clip once an epoch, mixed with earlier ones; repeatable, resumable, equal over ranks."""

import pytest
import torch
from tiny import write_corpus

from separation.data.gains import RandomGains
from separation.data.manifest import DataError
from separation.data.streaming import write_shards

pytest.importorskip("webdataset", reason="needs the extra shards")
pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.queried import QueriedData

CLIPS, HELD, SIZE, RATE = 26, 6, 4, 8000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    manifest = write_corpus(tmp_path_factory.mktemp("corpus"), labels=13, recordings=2, seconds=0.05)
    folder = tmp_path_factory.mktemp("shards")
    write_shards(manifest, folder, shards=4, sample_rate=RATE)
    return folder


def streamed(folder, **settings):
    common = {"batch_size": SIZE, "seconds": 0.1, "sample_rate": RATE, "held": HELD, "buffer": 8}
    return QueriedData(shards=str(folder), **common | settings)


def epoch(data, number=0, first=0):
    data.position = lambda: (number, first)
    return list(data.train_dataloader())


def test_an_epoch_makes_a_mixture_of_every_clip_after_those_that_are_held(folder):
    batches = epoch(streamed(folder))
    assert len(batches) == (CLIPS - HELD) // SIZE
    assert batches[0].sources.shape == (SIZE, 2, 800)
    firsts = [texts[0] for batch in batches for texts in batch.labels]
    assert max(firsts.count(label) for label in firsts) <= 2  # two recordings a label, each once
    assert all(len(set(labels)) == 2 for batch in batches for labels in batch.labels)


def test_sources_are_the_clips_at_the_levels_asked_for(folder):
    data = streamed(folder, gains=RandomGains(low=1.0, high=1.0))
    batch = data.mix(epoch(data)[0])
    assert batch.texts == batch.labels
    assert torch.allclose(batch.sources.abs().amax(-1), torch.tensor(0.15), atol=3e-3)  # tones at 0.3
    data = streamed(folder, gains=RandomGains(low=1.0, high=1.0, as_recorded=False))
    batch = data.mix(epoch(data)[0])
    assert torch.allclose(batch.sources.abs().amax(-1), torch.tensor(0.5), atol=1e-3)


def test_epochs_differ_and_repeat(folder):
    first, second, again = epoch(streamed(folder)), epoch(streamed(folder), 1), epoch(streamed(folder))
    assert all(torch.equal(one.sources, other.sources) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0].sources, second[0].sources)


def test_a_training_goes_on_in_the_middle_of_an_epoch(folder):
    whole, rest = epoch(streamed(folder)), epoch(streamed(folder), first=3)
    assert len(rest) == len(whole) - 3
    assert torch.equal(whole[3].sources, rest[0].sources)


def test_ranks_and_workers_share_the_clips_and_end_together(folder, monkeypatch):
    seen = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        data = streamed(folder, held=2, batch_size=2)
        data.ranks = lambda rank=rank: (rank, 2)
        seen.append(epoch(data))
    assert len(seen[0]) == len(seen[1]) == (CLIPS // 2 - 2) // 2
    assert not torch.equal(seen[0][0].sources, seen[1][0].sources)


@pytest.mark.parametrize("held", [CLIPS, CLIPS + 1, 256])
def test_a_stream_that_is_shorter_than_what_is_held_is_mixed_at_its_end(folder, held):
    batches = epoch(streamed(folder, held=held, batch_size=2))
    assert len(batches) == CLIPS // 2
    firsts = [texts[0] for batch in batches for texts in batch.labels]
    assert sorted(firsts) == sorted([f"tone {label}" for label in range(13)] * 2)  # every clip once
    assert all(len(set(labels)) == 2 for batch in batches for labels in batch.labels)


def test_what_filled_the_held_clips_and_is_still_there_gets_its_turn(folder):
    data = streamed(folder, held=16, batch_size=1)
    assert len(epoch(data)) == (CLIPS - 16) + (16 - (CLIPS - 16))  # the last 10 push 10 of the first 16 out
    assert len(epoch(streamed(folder, held=13, batch_size=1))) == 13  # twice what is held: nothing is left over


@pytest.mark.parametrize(("shards", "workers", "held"), [(3, 0, 6), (5, 2, 4), (5, 2, 8), (4, 2, 20)])
def test_every_epoch_has_the_batches_that_are_said_beforehand(tmp_path, shards, workers, held):
    """By their number Lightning knows how long a training is, which the learning rate needs."""
    manifest = write_corpus(tmp_path, labels=13, recordings=2, seconds=0.05)
    write_shards(manifest, tmp_path / "s", shards=shards, sample_rate=RATE)
    data = streamed(tmp_path / "s", held=held, batch_size=2, workers=workers)
    said = len(data.train_dataloader())
    for number in range(3):
        data.position = lambda number=number: (number, 0)
        assert len(list(data.train_dataloader())) == said > 0


def test_an_epoch_without_a_batch_is_an_error(folder):
    with pytest.raises(DataError, match=r"an epoch has no batch of 32 in any of 1 workers; "):
        epoch(streamed(folder, held=256, batch_size=32))


def test_shards_that_do_not_go_round_are_said_before_the_training(folder):
    data = streamed(folder, workers=8)
    with pytest.raises(DataError, match=r"4 shards cannot be shared by 1 ranks of 8 workers each: write a multiple"):
        len(data.train_dataloader())


def test_an_epoch_of_which_all_was_seen_is_none(folder):
    assert epoch(streamed(folder), first=5) == []


def test_a_stream_of_one_kind_of_sound_is_an_error(tmp_path):
    manifest = write_corpus(tmp_path, labels=1, recordings=4, seconds=0.05)
    write_shards(manifest, tmp_path / "s", shards=1, sample_rate=RATE)
    words = r"\d\.wav cannot be mixed with 1 of the 4 clips that are held; hold more of them, or stream more clips\."
    with pytest.raises(DataError, match=words):
        epoch(streamed(tmp_path / "s", held=256))


def test_clips_that_do_not_go_together_are_an_error(folder):
    data = streamed(folder)
    data.may_mix = lambda clip, other: False
    with pytest.raises(DataError, match="hold more"):
        epoch(data)


def test_a_rate_that_is_not_the_shards_is_an_error(folder):
    with pytest.raises(DataError, match="the shards are at 8000 Hz, the training at 16000"):
        epoch(streamed(folder, sample_rate=16000))


@pytest.mark.parametrize(("settings", "words"), [({"polluted": 0.5}, "polluted"), ({"held": 1}, "are mixed from")])
def test_what_a_stream_cannot_give(folder, settings, words):
    with pytest.raises(ValueError, match=words):
        streamed(folder, **settings)
