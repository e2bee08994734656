"""Pictures in training: carried by shards, and encoded once for all trainings with the same encoder."""

import contextlib
import sqlite3
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from queries import DIM, unet
from tiny import read, write_corpus, write_manifest
from torch.utils.data import DataLoader

pytest.importorskip("webdataset", reason="needs the extra shards")
pytest.importorskip("lightning", reason="needs the extra [train]")
pytest.importorskip("open_clip", reason="needs the extra [clip]")

import soundfile
from test_clip import SMALL

from separation.data.pictures import VectorStore, draw_picture
from separation.data.queried import QueriedData
from separation.data.streaming import ShardedClips
from separation.datasets.command import main
from separation.encoders.clip import ClipEncoder
from separation.encoders.table import RandomEncoder
from separation.errors import DataError
from separation.training.objectives.supervised import Supervised

CLIPS, SECONDS, RATE = 6, 12, 4000
SETTINGS = {"sample_rate": RATE, "seconds": 2.0, "batch_size": 3, "frames": 3, "distinct": False, "balance": 1.0}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Clips whose samples rise from 0 to 1, with a picture for each second."""
    folder = tmp_path_factory.mktemp("framed")
    rows = read(write_corpus(folder, labels=CLIPS, recordings=1, seconds=0.1))
    for number, row in enumerate(rows):
        soundfile.write(folder / row["path"], np.linspace(0, 1, SECONDS * RATE), RATE)
        (folder / f"frames {number}").mkdir()
        for second in range(SECONDS):
            draw_picture(row["label"], second).save(folder / f"frames {number}" / f"{second + 1:06d}.jpg")
        row |= {"frame": f"frames {number}/*.jpg", "seconds": SECONDS}
    return write_manifest(folder / "manifest.csv", rows, list(rows[0]))


@pytest.fixture(scope="module")
def shards(manifest):
    folder = manifest.parent / "shards"
    command = ["shard", str(manifest), "--out", str(folder), "--shards", "3", "--sample-rate", str(RATE), "--frames"]
    assert main(command) == 0
    return folder


def streamed(shards, **settings):
    return QueriedData(shards=str(shards), **SETTINGS | {"held": 3, "buffer": 2, "batch_size": 2} | settings)


def listed(manifest, **settings):
    data = QueriedData(manifest=manifest, validation_count=0, **SETTINGS | settings)
    data.setup()
    return data


def contents(manifest):
    """Label and second of each picture by its content."""
    labels = {row["frame"].split("/")[0]: row["label"] for row in read(manifest)}
    pictures = manifest.parent.glob("frames */*.jpg")
    return {path.read_bytes(): (labels[path.parent.name], int(path.stem)) for path in pictures}


# --- Shards --------------------------------------------------------------------------------------


def test_shards_carry_the_pictures_as_they_are(manifest, shards):
    known = contents(manifest)
    for clip, wave, pictures in ShardedClips(shards, frames=True):
        assert wave.shape == (SECONDS * RATE,)
        assert [known[picture] for picture in pictures] == [(clip.label, second + 1) for second in range(SECONDS)]
    assert {len(item) for item in ShardedClips(shards)} == {2}


def test_streamed_pictures_are_of_the_moment_of_the_excerpt(manifest, shards):
    known, middles = contents(manifest), set()
    for epoch in range(8):
        data = streamed(shards)
        data.position = lambda epoch=epoch: (epoch, 0)
        for batch in data.train_dataloader():
            for sources, labels, pictures in zip(batch.sources, batch.labels, batch.pictures, strict=True):
                for wave, label, shown in zip(sources, labels, pictures, strict=True):
                    found = [known[picture] for picture in shown]
                    middle = found[1][1]
                    assert found == [(label, middle + step) for step in (-1, 0, 1)]
                    assert float(wave.mean()) * SECONDS == pytest.approx(middle - 0.5, abs=0.01)
                    middles.add(middle)
    assert middles == set(range(4, 10))  # three seconds from either end


def test_a_clip_without_its_pictures_is_left_out_of_shards(manifest, tmp_path, capsys):
    rows = read(manifest)
    rows[2]["frame"] = "nowhere/*.jpg"
    write_manifest(manifest.parent / "other.csv", rows, list(rows[0]))
    command = ["shard", str(manifest.parent / "other.csv"), "--out", str(tmp_path), "--shards", "1", "--frames"]
    assert main(command) == 1
    said = f"1 of 6 clips cannot be read; the first: {rows[2]['path']}: its pictures {manifest.parent}/nowhere/*.jpg"
    assert f"{said} are missing." in capsys.readouterr().err


def test_shards_without_pictures_are_named(manifest, tmp_path):
    assert main(["shard", str(manifest), "--out", str(tmp_path), "--shards", "1", "--sample-rate", str(RATE)]) == 0
    with pytest.raises(DataError, match=r"train\.json: its shards have no pictures: write them with --frames\."):
        list(streamed(tmp_path).train_dataloader())


# --- Vectors -------------------------------------------------------------------------------------


class Counting(ClipEncoder):
    """Counts the pictures that it encodes."""

    encoded = 0

    def encode_image(self, images):
        self.encoded += len(images)
        return super().encode_image(images)


def begin(data, seed=0):
    """Begins a training with CLIP of random weights."""
    torch.manual_seed(seed)
    encoder = Counting(**SMALL)
    module = Supervised(unet(), encoder, "binary_mask", ["image"])
    module.trainer = SimpleNamespace(datamodule=data, world_size=1, global_rank=0, global_step=0)
    module.on_fit_start()
    return module


def made_of(data, batches=3):
    """The first batches of an epoch, as the loader gives them."""
    data.position, data.batches = (lambda: (0, 0)), batches
    return list(data.train_dataloader())[:batches]


@pytest.fixture(params=["manifest", "stream", "workers"])
def make(request, manifest, shards, tmp_path):
    """Makes data that keeps vectors in a file."""
    kept = {"vectors": tmp_path / "kept" / "pictures.sqlite"}
    if request.param == "stream":
        return lambda: streamed(shards, **kept)
    return lambda: listed(manifest, **kept, workers=1 if request.param == "workers" else 0)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_picture_is_encoded_once_for_all_trainings(make):
    plain = make()
    plain.vectors = None
    direct, wanted, different = begin(plain), [], set()
    for batch in made_of(plain):
        queries = [shown for row in batch.pictures for shown in row]
        different |= {picture for shown in queries for picture in shown}
        wanted.append(direct.encoder.encode_image(queries).unflatten(0, (-1, 2)))
    for encodes in (True, False):
        data = make()
        module = begin(data)
        for batch, vectors in zip(made_of(data), wanted, strict=True):
            assert torch.allclose(module.conditions(batch), vectors, atol=1e-6)
        assert module.encoder.encoded == (len(different) if encodes else 0)
    data = make()
    other = begin(data, seed=1)  # with other weights
    conditions = [other.conditions(batch) for batch in made_of(data)]
    assert other.encoder.encoded == len(different) and not torch.allclose(conditions[0], wanted[0], atol=1e-2)


def test_a_picture_is_known_by_its_content(manifest, tmp_path):
    store = VectorStore(tmp_path / "v.sqlite", b"weights")
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for seed, path in enumerate(paths):
        draw_picture("rain", seed).save(path)
    vectors = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    store.add(paths, vectors)
    assert np.array_equal(store.find(paths[1]), vectors[1]) and np.array_equal(store.find(str(paths[0])), vectors[0])
    assert np.array_equal(store.find(paths[1].read_bytes()), vectors[1])
    assert VectorStore(tmp_path / "v.sqlite", b"others").find(paths[0]) is None
    paths[0].write_bytes(paths[1].read_bytes())
    assert np.array_equal(store.find(paths[0]), vectors[1])
    assert store.find(draw_picture("rain", 0)) is None  # pixels are not kept
    found = DataLoader([str(path) for path in paths], batch_size=None, collate_fn=store.find, num_workers=0)
    assert all(np.array_equal(vector, vectors[1]) for vector in found)


def test_a_file_that_holds_no_vectors_is_named(tmp_path):
    (tmp_path / "v.sqlite").write_text("no database" * 100)
    for path, reason in (("v.sqlite", "file is not a database"), ("v.sqlite/w.sqlite", "File exists")):
        said = rf"{path}: the vectors of pictures cannot be read or written \(.*{reason}"
        with pytest.raises(DataError, match=said):
            VectorStore(tmp_path / path, b"weights")


@pytest.mark.parametrize("value", [b"abc", "text", None, np.full(4, np.nan, "<f4").tobytes()])
def test_a_damaged_vector_is_named(tmp_path, value):
    store = VectorStore(tmp_path / "v.sqlite", b"weights")
    store.add([b"picture"], np.ones((1, 4)))
    with contextlib.closing(sqlite3.connect(tmp_path / "v.sqlite")) as writer, writer:
        writer.execute("UPDATE vectors SET vector = ?", [value])
    with pytest.raises(DataError, match=r"v\.sqlite: .* \(a vector is damaged\)"):
        store.find(b"picture")
    with pytest.raises(DataError, match=r"none\.png: the picture cannot be read"):
        store.find("none.png")


def test_an_encoder_without_weights_keeps_nothing(manifest, tmp_path):
    data = listed(manifest, vectors=tmp_path / "v.sqlite")
    module = Supervised(unet(), RandomEncoder(DIM), "binary_mask", ["image"])
    module.trainer = SimpleNamespace(datamodule=data)
    module.on_fit_start()
    assert not (tmp_path / "v.sqlite").exists()
