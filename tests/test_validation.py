"""Validation mixtures drawn from a split: always the same ones, of two sources, some asked for what is not there."""

import numpy as np
import pytest
import soundfile
from tiny import write_corpus

from separation.data.manifest import read_manifest
from separation.data.protocol import SAMPLE_RATE, render
from separation.data.validation import Rows, draw_rows, drawn_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, labels=5, recordings=3, seconds=7.0, split="validation")
    return folder


@pytest.fixture(scope="module")
def clips(folder):
    return read_manifest(folder / "manifest.csv", "validation")


def test_rows_are_a_function_of_seed_and_number(clips):
    rows = draw_rows(clips, 20, seed=3)
    assert rows == draw_rows(clips, 20, seed=3)
    assert rows[:7] == draw_rows(clips, 7, seed=3)
    assert all(a != b for a, b in zip(rows, draw_rows(clips, 20, seed=4), strict=True))
    assert len({tuple(sorted(row.items())) for row in rows}) == 20


def test_a_share_asks_for_what_is_in_neither_source(clips):
    rows = draw_rows(clips, 50, absent=0.2)
    absent = [row for row in rows if row["kind"] == "absent"]
    assert [rows.index(row) for row in absent] == list(range(4, 50, 5))
    for row in rows:
        labels = {row["target_label"], row["interference1_label"]}
        assert len(labels) == 2
        assert (row["query"] in labels) == (row["kind"] == "pair")
        assert row["kind"] == "absent" or row["query"] == row["target_label"]
    assert all(row["kind"] == "pair" for row in draw_rows(clips, 10, absent=0.0))
    assert {row["snr_db"] for row in rows} == {"-5", "0", "5"}


def test_too_few_labels_give_no_mixtures(clips):
    few = [clip for clip in clips if clip.label in ("tone 0", "tone 1")]
    assert draw_rows(few, 4) == []
    assert len(draw_rows(few, 4, absent=0.0)) == 4
    assert draw_rows(few[:1], 4, absent=0.0) == []


def test_a_row_renders_to_its_clips_at_its_level(clips, folder):
    row = next(row for row in draw_rows(clips, 20) if row["kind"] == "pair" and row["snr_db"] == "5")
    rendered = render(row, folder)
    energy = [float(np.square(wave, dtype=np.float64).sum()) for wave in (rendered.target, rendered.mixture)]
    assert rendered.mixture.shape == (5 * SAMPLE_RATE,)
    assert 10 * np.log10(energy[0] / (energy[1] - energy[0])) == pytest.approx(5, abs=0.1)  # tones of other frequency
    label = int(row["target_label"].removeprefix("tone "))
    hertz = np.abs(np.fft.rfft(rendered.target)).argmax() / 5
    assert hertz == pytest.approx(300 * 1.6**label * 1.02, rel=0.03)


def test_what_cannot_be_scored_is_left_out_and_said(tmp_path, capsys):
    manifest = write_corpus(tmp_path, labels=3, recordings=1, seconds=1.0, split="validation")
    clips = read_manifest(manifest, "validation")
    soundfile.write(tmp_path / clips[0].path, np.zeros(8000), 8000)
    (tmp_path / clips[1].path).write_bytes(b"no sound")
    rows = draw_rows(clips, 12)
    good = drawn_rows(clips, tmp_path, 12)
    silent, broken = clips[0].path, clips[1].path
    for row in rows:
        # Behind a silent target everything is silent; a silent interference spoils a pair only.
        spoilt = row["target"] == silent or (row["interference1"] == silent and row["kind"] == "pair")
        assert (row in good) == (not spoilt and broken not in row.values())
    assert 0 < len(good) < 12
    assert f"{12 - len(good)} of 12 validation mixtures are left out" in capsys.readouterr().out


def test_ranks_share_the_rows(clips, folder):
    rows = draw_rows(clips, 5)
    shares = [Rows(rows, folder, rank, 2) for rank in range(2)]
    assert [len(share) for share in shares] == [3, 2]
    assert [share[1].row["id"] for share in shares] == [rows[2]["id"], rows[3]["id"]]
