"""What every data module checks before anything is drawn: its settings, its splits, its clips."""

import os
import re
from dataclasses import fields
from types import SimpleNamespace

import pytest
from tiny import write_corpus, write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from tiny import read
from torch.utils.data._utils.pin_memory import pin_memory

from separation.data.captioned import CaptionedBatch, CaptionedData
from separation.data.datamodule import CorpusData
from separation.data.mixing import Draw
from separation.data.queried import QueriedBatch, QueriedData
from separation.data.tagged import TaggedBatch, TaggedData
from separation.errors import DataError

RATE = 8000


def changed(manifest, name, change):
    """A copy of a manifest beside it, whose rows were changed one by one."""
    rows = [change(number, row) for number, row in enumerate(read(manifest))]
    return write_manifest(manifest.parent / name, rows)


@pytest.fixture
def manifest(tmp_path):
    return write_corpus(tmp_path, labels=3, recordings=2, seconds=0.1)


@pytest.mark.parametrize(
    "setting, said",
    [
        ({"workers": -1}, "data.workers is -1; the least is 0."),
        ({"batch_size": 0}, "data.batch_size is 0; the least is 1."),
        ({"batches": 0}, "data.batches is 0; the least is 1."),
        ({"sample_rate": 0}, "data.sample_rate is 0; the least is 1."),
        ({"seconds": 0.0}, "data.seconds is 0; it must be a time above 0 s."),
        ({"seconds": float("nan")}, "data.seconds is nan; it must be a time above 0 s."),
    ],
)
def test_impossible_settings_are_named(setting, said):
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        CorpusData(**setting)


# --- Splits ------------------------------------------------------------------------------------


FIRST, HELD = "audio/made/tone 0/0.wav", {"split": "validation"}


def test_a_cache_of_an_earlier_version_is_explained(manifest, tmp_path, capsys):
    TaggedData(manifest, cache=tmp_path / "cache", sample_rate=RATE, validation_count=0).load()
    said = "data.cache is no longer used: give a folder of `separation-data pack` as data.manifest.\n"
    assert capsys.readouterr().out == said and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({3: HELD | {"recording_id": "made:0:0"}, 4: HELD, 5: HELD}, "made:0:0 is in train and validation."),
        ({5: {"split": "test", "path": FIRST}}, f"{FIRST} is in test and train."),  # whatever its id says
    ],
)
def test_a_recording_in_two_splits_stops_before_anything_is_decoded(manifest, monkeypatch, changes, said):
    leaking = changed(manifest, "leaking.csv", lambda n, row: row | changes.get(n, {}))
    monkeypatch.setattr("separation.data.corpus.decode", None)
    with pytest.raises(DataError, match=f"^{re.escape(f'{leaking}: the recording {said}')}$"):
        QueriedData(manifest=leaking, sample_rate=RATE).setup("fit")


def captioned(manifest, isolated):
    data = CaptionedData(manifest, isolated_manifest=isolated, isolated=1, sources=2, made=4, sample_rate=RATE)
    data.setup("fit")
    return data


def test_isolated_recordings_may_be_trained_on_but_not_validated_on(manifest):
    assert captioned(manifest, manifest).isolated_mixer is not None
    held = changed(manifest, "held.csv", lambda n, row: row | {"split": "validation" if n == 3 else "train"})
    file = manifest.parent / read(manifest)[3]["path"]
    said = f"{manifest}: the recording {file} is in train and validation, and 1 more are."
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        captioned(held, manifest)
    # The same file, found from another folder, under another id.
    (manifest.parent / "singles").mkdir()
    singles = changed(
        manifest, "singles/manifest.csv", lambda n, row: row | {"path": f"../{row['path']}", "recording_id": f"x{n}"}
    )
    said = f"{singles}: the recording {file} is in train and validation."
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        captioned(held, singles)


# --- Clips that are left out -------------------------------------------------------------------


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """A manifest of 100 clips to train on, one of them missing, and 100 to validate on, one of them no sound."""
    folder = tmp_path_factory.mktemp("hundred")
    rows = read(write_corpus(folder, labels=10, recordings=10, seconds=0.1))
    held = read(write_corpus(folder / "held", labels=10, recordings=10, seconds=0.1, split="validation"))
    held = [row | {"path": f"held/{row['path']}", "recording_id": f"h{n}"} for n, row in enumerate(held)]
    (folder / rows[7]["path"]).unlink()
    (folder / held[7]["path"]).write_bytes(b"no sound")
    return write_manifest(folder / "manifest.csv", rows + held)


def of_rank(rank, manifest, **settings):
    """A data module that is set up as the process of a rank does it."""
    data = QueriedData(manifest=manifest, sample_rate=RATE, validation_count=100, **settings)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=2, limit_val_batches=1.0)
    data.setup("fit")
    return data


def test_only_the_first_rank_reports_clips_that_are_left_out(hundred, capsys):
    first = of_rank(0, hundred)
    lost = 100 - len(first.rows)
    assert 0 < lost < 10
    assert capsys.readouterr().out.splitlines() == [
        f"left out: {hundred.parent}/audio/made/tone 0/7.wav: the file does not exist.",
        f"{lost} of 100 validation mixtures are left out: silent or not readable.",
        f"left out: {hundred.parent}/held/audio/made/tone 0/7.wav: the file is damaged or not audio: "
        "it cannot be read as .wav (Format not recognised).",
    ]
    second = of_rank(1, hundred)
    assert capsys.readouterr().out == ""
    assert second.rows == first.rows and len(second.clips) == len(first.clips) == 99


@pytest.mark.parametrize("split", ["validation", "test"])
def test_broken_recordings_to_score_on_stop_a_run(manifest, split):
    """A fit goes on without validation where a manifest has none; here it has one, which is broken."""
    rows = [row | {"split": split if n % 2 else "train"} for n, row in enumerate(read(manifest))]
    manifest = write_manifest(manifest, rows)
    for row in rows[1::2]:
        (manifest.parent / row["path"]).write_bytes(b"no sound")
    data = QueriedData(manifest=manifest, sample_rate=RATE, validation_count=8)
    first = manifest.parent / rows[1]["path"]
    said = f"{manifest}, split {split}: 3 of 3 recordings cannot be read; the first: {first}: the file is damaged"
    with pytest.raises(DataError, match=f"^{re.escape(said)}"):
        data.setup("fit") if split == "validation" else data.test_dataloader()


@pytest.mark.parametrize(
    ("corpus", "labels", "count", "names"),
    [
        ("manifest", ["tone 0", "tone 1", "tone 2"], "", ""),
        ("manifest", ["tone 1"], "4 of 6", "tone 0, tone 2"),
        ("hundred", ["tone 3"], "89 of 99", "tone 0, tone 1, tone 2, ..."),
    ],
)
def test_clips_without_a_class_are_left_out_and_counted(request, capsys, corpus, labels, count, names):
    manifest = request.getfixturevalue(corpus)
    data = TaggedData(manifest=manifest, labels=labels, sample_rate=RATE, validation_count=0)
    data.load()
    said = capsys.readouterr().out
    wanted = f"{count} clips are left out: none of their labels is a class ({names}).\n"
    assert said.endswith(wanted) if count else not said
    assert len(data.sampler.members) == len(labels)


# --- Errors --------------------------------------------------------------------------------------


def test_too_few_clips_for_a_mixture_are_an_error(manifest):
    data = QueriedData(manifest=manifest, sample_rate=RATE, sources=4, batch_size=1, validation_count=0)
    data.load()
    with pytest.raises(DataError, match=rf"^{re.escape(str(manifest))}: there are no 4 clips that may be mixed\.$"):
        data.batch(0, 0)


def test_workers_stay_for_all_epochs_and_change_no_batch(manifest):
    class Stamped(QueriedData):
        def batch(self, *place):
            return super().batch(*place).sources, os.getpid()

    def epochs(workers):
        data = Stamped(manifest=manifest, batch_size=2, batches=3, seconds=0.5, sample_rate=8000, workers=workers)
        data.load()
        loader = data.train_dataloader()
        for epoch, first in ((0, 0), (1, 1)):
            loader.position = lambda place=(epoch, first): place
            yield from loader

    alone, shared = list(epochs(0)), list(epochs(2))
    assert len(alone) == len(shared) == 3 + 2
    assert all(torch.equal(one[0], other[0]) for one, other in zip(alone, shared, strict=True))
    assert {pid for _, pid in alone} == {os.getpid()}
    assert len({pid for _, pid in shared}) == 2


@pytest.mark.parametrize(("processors", "devices", "workers"), [(2, 1, 1), (1, 1, 0), (64, 1, 8), (16, 8, 1)])
def test_workers_for_the_machine(monkeypatch, processors, devices, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(processors), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(devices))
    assert QueriedData(workers="auto").workers == workers


@pytest.mark.parametrize("kind", [Draw, QueriedBatch, TaggedBatch, CaptionedBatch])
def test_tensors_of_a_batch_are_pinned_and_moved_and_nothing_else_is_walked_through(kind, monkeypatch):
    """By what a loader calls on a machine with a GPU, and by Lightning."""

    class Sealed(bytes):
        def __iter__(self):
            pytest.fail("a picture is read byte by byte")

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    rest = {name: [[Sealed(b"jpeg")]] for name in ("texts", "names", "pictures")}
    values = {field.name: rest.get(field.name, torch.zeros(2)) for field in fields(kind)}
    pinned = pin_memory(kind(**values))
    moved = move_data_to_device(pinned, torch.device("meta"))
    assert type(pinned) is type(moved) is kind
    for name, value in values.items():
        if name in rest:
            assert getattr(moved, name) is value
        else:
            assert torch.equal(getattr(pinned, name), torch.ones(2)) and getattr(moved, name).device.type == "meta"
