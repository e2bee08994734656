"""The loading benchmark counts what it says."""

import sys
from pathlib import Path

import pytest
from tiny import vectors, write_corpus

from separation.data.datamodule import MixtureData

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import loading


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr("separation.data.texts.SentenceEncoder.encode_text", lambda self, texts: vectors(texts, 4))
    manifest = write_corpus(tmp_path, labels=4)
    data = MixtureData(manifest, batch_size=3, seconds=0.25, sample_rate=8000)
    data.setup()
    return data


@pytest.mark.parametrize("workers", [0, 1])
def test_mixtures_are_counted_without_the_first_batch(data, monkeypatch, workers):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(loading.time, "perf_counter", lambda: next(clock))
    row = loading.measure(data, workers, batches=5)
    assert row == {"workers": workers, "mixtures": 15, "seconds": 2.0, "mixtures_per_second": 7.5}


def test_the_table_says_how_fast_that_is(data):
    rows = [{"workers": 2, "mixtures_per_second": 30.0}]
    assert loading.table(rows, data).splitlines() == [
        "batches of 3 mixtures of 0.25 s at 8000 Hz, two or three sources each",
        " workers  mixtures/s  batches/s  x real time",
        "       2        30.0      10.00            8",
    ]
