"""Labelled clips from shards: classes equally often among those held; repeatable, resumable, equal over ranks."""

import pytest
import torch
from tiny import COLUMNS, write_corpus, write_manifest

from separation.data.manifest import DataError
from separation.data.streaming import write_shards

pytest.importorskip("webdataset", reason="needs the extra shards")
pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.tagged import TaggedData

SIZE, RATE = 4, 8000
LABELS = ["tone 1", "tone 0", "tone 2", "never heard"]
COMMON, RARE, OTHERS = 24, 3, 5  # clips of tones 1, 0 and 3; those of tone 0 are also of tone 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    write_corpus(root, labels=4, recordings=COMMON, seconds=0.05)
    counts = {"tone 1": COMMON, "tone 0;tone 2": RARE, "tone 3": OTHERS}
    rows = [
        {"path": f"audio/made/{label[:6]}/{i}.wav", "split": "train", "labels": label, "recording_id": f"{label} {i}"}
        for label, count in counts.items()
        for i in range(count)
    ]
    manifest = write_manifest(root / "tagged.csv", rows, [*COLUMNS[:2], "labels", "recording_id"])
    folder = tmp_path_factory.mktemp("shards")
    write_shards(manifest, folder, shards=4, sample_rate=RATE)
    return folder


def streamed(folder, **settings):
    common = {"labels": LABELS, "batch_size": SIZE, "seconds": 0.1, "sample_rate": RATE, "held": 16, "buffer": 8}
    return TaggedData(shards=str(folder), **common | settings)


def epoch(data, number=0, first=0):
    data.position = lambda: (number, first)
    return list(data.train_dataloader())


@pytest.mark.parametrize("held", [16, 32, 256])
def test_an_epoch_draws_as_many_clips_as_come(folder, held):
    batches = epoch(streamed(folder, held=held))
    assert len(batches) == (COMMON + RARE + OTHERS) // SIZE
    assert batches[0].waveforms.shape == (SIZE, 800) and batches[0].tags.shape == (SIZE, 4)
    assert all((batch.waveforms[:, 400:] == 0).all() for batch in batches)  # shorter clips end in silence
    for batch in batches:
        assert (batch.tags[torch.arange(SIZE), batch.drawn] == 1).all()
        assert {tuple(row) for row in batch.tags.tolist()} <= {(1, 0, 0, 0), (0, 1, 1, 0)}


@pytest.mark.parametrize(("as_recorded", "peak"), [(True, 0.3), (False, 1.0)])
def test_clips_have_their_own_level_or_a_peak_of_one(folder, as_recorded, peak):
    batch = epoch(streamed(folder, as_recorded=as_recorded))[0]
    assert batch.waveforms.abs().amax(1).tolist() == pytest.approx([peak] * SIZE, rel=0.02)


def test_classes_are_equally_often_among_those_that_are_held(folder):
    data = streamed(folder, held=256)
    drawn = torch.cat([batch.drawn for number in range(20) for batch in epoch(data, number)])
    assert drawn.bincount(minlength=4) / len(drawn) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=0.06)


def test_epochs_differ_repeat_and_go_on_in_the_middle(folder):
    first, second, again = epoch(streamed(folder)), epoch(streamed(folder), 1), epoch(streamed(folder))
    assert all(torch.equal(one.waveforms, other.waveforms) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0].waveforms, second[0].waveforms)
    rest = epoch(streamed(folder), first=3)
    assert len(rest) == len(first) - 3
    assert torch.equal(rest[0].waveforms, first[3].waveforms)


def test_ranks_end_together(folder, monkeypatch):
    seen = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        data = streamed(folder)
        data.ranks = lambda rank=rank: (rank, 2)
        seen.append(epoch(data))
    assert len(seen[0]) == len(seen[1]) == (COMMON + RARE + OTHERS) // 2 // SIZE
    assert not torch.equal(seen[0][0].waveforms, seen[1][0].waveforms)


def test_a_stream_without_its_labels_or_without_a_batch_is_an_error(folder):
    with pytest.raises(DataError, match="none of the clips so far has one of the 1 labels"):
        epoch(streamed(folder, labels=["rain"]))
    with pytest.raises(DataError, match="an epoch has no batch of 64 in any of 1 workers"):
        epoch(streamed(folder, batch_size=64))


@pytest.mark.parametrize(
    ("settings", "words"), [({"labels": None}, "need data.labels"), ({"held": 0}, "the least is 1")]
)
def test_what_a_stream_cannot_give(folder, settings, words):
    with pytest.raises(ValueError, match=words):
        streamed(folder, **settings)
