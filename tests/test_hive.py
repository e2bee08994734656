"""Hive: its metadata as evaluation and as training data, and mixtures of classes that may sound together."""

import json
import sys
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from layouts import hive_mixture
from tiny import write_corpus

pytest.importorskip("lightning", reason="needs the extra [train]")

from queries import encoder, unet

from separation.data.corpus import Corpus
from separation.data.derived import AllowedPairs
from separation.data.fixed_mixtures import render
from separation.data.hive import parse_mixture, read_hive, together_in
from separation.data.hive_mixtures import HiveData
from separation.data.mixing import Augment, Mixer
from separation.data.queried import QueriedData
from separation.data.texts import Texts
from separation.errors import DataError
from separation.evaluate.protocols.base import ProtocolError, find_protocol, fingerprint
from separation.evaluate.tables import summarize
from separation.training.objectives.supervised import Supervised

RATE = 44100
SOURCES = [
    ("VGGSound/a.wav", "Ocean", 2.0, 1.5, 2.0),
    ("ESC50/b.wav", "Dog", 0.0, 0.25, 0.5),
    ("AVE/c.wav", "Rain", 1.0, 0.0, 1.0),
    ("AVE/d.wav", "Cat", 0.0, 0.0, 1.0),
    ("AVE/e.wav", "Bell", 0.0, 0.0, 1.0),
]


@pytest.fixture
def root(tmp_path):
    """Short stand-ins: mixtures of 1 s of recordings of 8 s."""
    waves = {}
    for seed, (path, *_) in enumerate(SOURCES):
        waves[path] = (0.1 * np.random.default_rng(seed).standard_normal(8 * RATE)).astype(np.float32)
        (tmp_path / path).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / path, waves[path], RATE, subtype="FLOAT")
    return SimpleNamespace(folder=tmp_path, waves=waves)


def write(folder, split, *mixtures):
    path = folder / "metadata" / split / "2mix" / "metadata_tar0001.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(mixtures))


def expected(root, number, seconds, norm=0.5):
    """A source as Hive's script cuts and weights it."""
    path, _, chunk, crop, weight = SOURCES[number]
    part = root.waves[path][int(chunk * RATE) : int((chunk + 10) * RATE)][int(crop * RATE) :]
    wave = np.zeros(int(seconds * RATE), np.float32)
    part = part[: len(wave)]
    wave[: len(part)] = part
    return weight * norm * wave


def test_every_source_of_a_mixture_is_asked_for_at_its_weight(root):
    write(root.folder, "test", hive_mixture("x", *SOURCES[:2], seconds=10.0), hive_mixture("y", *SOURCES, seconds=10.0))
    protocol = find_protocol("hive/test")
    rows = protocol.rows(root.folder)
    assert [(row["kind"], row["query"]) for row in rows[:2]] == [("pair", "Ocean"), ("pair", "Dog")]
    assert [row["kind"] for row in rows[2:]] == ["five"] * 5 and len({row["id"] for row in rows}) == 7
    parts = [expected(root, number, 10.0) for number in range(5)]
    for row, number, count in ((rows[0], 0, 2), (rows[1], 1, 2), (rows[4], 2, 5)):
        rendered = render(row, protocol.locate(row, root.folder), protocol.mixing)
        assert rendered.sample_rate == RATE
        assert np.allclose(rendered.target, parts[number], atol=1e-6)
        assert np.allclose(rendered.mixture, sum(parts[:count]), atol=1e-5)
    quieter = hive_mixture("y", *SOURCES, seconds=10.0)
    quieter["sources"][4]["applied_weight"] = 0.7  # of the fourth interference, which other lists do not have
    write(root.folder, "test", quieter)
    changed = protocol.rows(root.folder)
    assert fingerprint(changed, protocol.mixing) != fingerprint(rows[2:], protocol.mixing)
    (root.folder / "AVE/e.wav").unlink()
    assert protocol.locate(changed[0], root.folder) == "AVE/e.wav"
    scores = [SimpleNamespace(kind="five", esc=False, label="a", recording="a", value=3.0, presence=0.5)]
    assert [line["rows"] for line in summarize(scores)] == ["five"]


def test_metadata_that_is_not_as_published(root, monkeypatch):
    protocol = find_protocol("hive/test")
    with pytest.raises(DataError, match=r"no metadata of Hive's split test \(metadata/test/"):
        protocol.rows(root.folder)
    write(root.folder, "test", hive_mixture("x", *SOURCES[:2], seconds=4.0))
    with pytest.raises(ProtocolError, match="2mix-x is 4 s at 44100 Hz, not 10 s at 44100 Hz"):
        protocol.rows(root.folder)
    broken = hive_mixture("x", *SOURCES[:2])
    del broken["sources"][1]["label"]
    write(root.folder, "test", hive_mixture("w", *SOURCES[:2]), broken)
    with pytest.raises(DataError, match=r"json: mixture 1 is not as in Hive's metadata \(KeyError 'label'\)\."):
        list(read_hive(root.folder, "test"))
    write(root.folder, "test", hive_mixture("x", ("../other/a.wav", *SOURCES[0][1:]), SOURCES[1]))
    with pytest.raises(DataError, match=r"mixture 0 is not as .*\(ValueError source \.\./other/a\.wav\)"):
        list(read_hive(root.folder, "test"))
    (root.folder / "validation").mkdir()
    (root.folder / "validation" / "data.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"data\.parquet: Parquet needs the package pyarrow: pip install pyarrow, or"):
        list(read_hive(root.folder, "validation"))


def test_parquet_gives_the_same_mixtures(root, monkeypatch):
    entry = hive_mixture("x", *SOURCES[:3])
    flat = {"mix_id": "x", "num_sources": 3, **entry["dataset_info"], **entry["mixing_params"]}
    columns = {key: [source[key] for source in entry["sources"]] for key in entry["sources"][0]}
    rows = [flat | {"sources": entry["sources"]}, flat | {"sources": columns}]
    batch = SimpleNamespace(to_pylist=lambda: rows)  # pyarrow is not a dependency
    parquet = SimpleNamespace(ParquetFile=lambda path: SimpleNamespace(iter_batches=lambda size: [batch]))
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(parquet=parquet))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    (root.folder / "train").mkdir()
    (root.folder / "train" / "data.parquet").touch()
    assert list(read_hive(root.folder, "train")) == [parse_mixture(entry)] * 2


# Training


def test_its_mixtures_train(root):
    write(root.folder, "train", hive_mixture("x", *SOURCES[:2], seconds=1.0), hive_mixture("y", *SOURCES, seconds=1.0))
    data = HiveData(root.folder, batch_size=8, seconds=0.5, batches=2, sample_rate=RATE)
    data.setup("fit")
    batch = data.batch(0, 1)
    assert batch.sources.shape == (8, 5, RATE // 2) and batch.levels is None
    labels = [source[1] for source in SOURCES]
    parts = torch.stack([torch.from_numpy(expected(root, number, 1.0))[: RATE // 2] for number in range(5)])
    counts = set()
    for sources, [asked] in zip(batch.sources, batch.texts, strict=True):
        assert torch.allclose(sources[0], parts[labels.index(asked)], atol=1e-6)
        count = int((sources.abs().sum(1) > 0).sum())
        assert torch.allclose(sources.sum(0), parts[:count].sum(0), atol=1e-5)
        counts.add(count)
    assert counts == {2, 5} and len({asked for [asked] in batch.texts}) > 2
    assert torch.equal(data.batch(0, 1).sources, batch.sources)
    resampled = HiveData(root.folder, batch_size=2, seconds=0.5, batches=1, sample_rate=16000, limit=1)
    resampled.setup("fit")
    assert len(resampled.mixtures) == 1
    module = Supervised(unet(), encoder(), "snr")
    module.log = lambda *given, **options: None
    assert torch.isfinite(module.training_step(resampled.batch(0, 0), 0))


def test_mixtures_whose_recordings_are_missing_are_replaced(root):
    gone = ("AVE/gone.wav", "Gone", 0.0, 0.0, 1.0)
    write(root.folder, "train", hive_mixture("x", *SOURCES[:2], seconds=1.0), hive_mixture("y", gone, SOURCES[1]))
    data = HiveData(root.folder, batch_size=8, seconds=0.5, batches=1, sample_rate=RATE)
    data.setup("fit")
    assert {asked for [asked] in data.batch(0, 0).texts} == {"Ocean", "Dog"}
    (root.folder / "VGGSound/a.wav").unlink()
    with pytest.raises(DataError, match="20 mixtures in a row cannot be read; the last: "):
        data.batch(0, 0)


# Classes that may sound together


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=5, recordings=2, seconds=0.5)


@pytest.fixture
def table(tmp_path):
    (tmp_path / "together.json").write_text('{"tone 0": ["tone 1", "Tone_2"], "tone 3": ["tone 1"]}')
    return tmp_path / "together.json"


ALLOWED = {(0, 1), (0, 2), (1, 3)} | {(number, 4) for number in range(4)}  # tone 4 is not in the table


def test_the_table_is_what_is_mixed_in_training():
    mixtures = [parse_mixture(hive_mixture("x", *SOURCES[:2])), parse_mixture(hive_mixture("y", *SOURCES[1:3]))]
    assert together_in(mixtures) == {"Dog": ["Ocean", "Rain"], "Ocean": ["Dog"], "Rain": ["Dog"]}


def test_clips_are_mixed_if_their_classes_may_sound_together(corpus, table):
    found = {}
    for together in (None, table):
        data = QueriedData(manifest=corpus, together=together, sample_rate=8000, seconds=0.25, batch_size=60, batches=1)
        data.setup("fit")
        pairs = {tuple(sorted(int(label[-1]) for label in labels)) for labels in data.batch(0, 0).labels}
        found[together] = pairs
    assert found[table] == ALLOWED < found[None]


def test_the_mixer_of_the_default_model_does_so_too(corpus, table, no_sentence_weights):
    clips = Corpus(corpus, "train", sample_rate=8000)
    matrix = AllowedPairs(table).matrix(clips.labels)
    assert torch.equal(matrix, matrix.T)
    mixer = Mixer(clips, Texts(clips), 2000, Augment(), three=0.5, together=matrix)
    drawn = mixer.draw(300, torch.Generator().manual_seed(0))
    rows = list(zip(drawn.labels.tolist(), drawn.used.tolist(), strict=True))
    pairs = {used: {tuple(sorted(pair)) for row, n in rows if n == used for pair in combinations(row[:used], 2)}
             for used in (2, 3)}  # fmt: skip
    assert pairs[2] == ALLOWED >= pairs[3] and len(pairs[3]) > 4
    absent = {tuple(sorted(row[::2])) for row, used in rows if used == 2}
    assert not absent <= ALLOWED  # what does not sound need not fit
    assert all(len(set(row)) == 3 for row, _ in rows)


@pytest.mark.parametrize("text", ["[]", '{"a": "b"}', '{"a": [1]}', "{"])
def test_other_tables_are_refused(tmp_path, text):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"t\.json: (invalid JSON|not a JSON object with a list of classes)"):
        AllowedPairs(tmp_path / "t.json")
