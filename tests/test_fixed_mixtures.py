"""Rendering of fixed mixtures: what a row says, and, where the recordings are, the stated energies."""

import csv

import numpy as np
import pytest
import soundfile

from separation.data.fixed_mixtures import SAMPLE_RATE, read_row_clip, read_rows, render

LENGTH = 5 * SAMPLE_RATE


def tone(hertz, seconds, sample_rate=SAMPLE_RATE, amplitude=0.1):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate)


@pytest.fixture
def root(tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(400, 8), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", tone(1000, 1), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", tone(3000, 5, amplitude=0.8), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", tone(1000, 2, 16000), 16000, subtype="FLOAT")
    left = tone(700, 2)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, 3 * left], axis=1), SAMPLE_RATE, subtype="FLOAT")
    return tmp_path


def row(**changes):
    """A pair: `long` against `short`, at 0 dB."""
    values = {
        "id": "pair0000",
        "kind": "pair",
        "query": "tone",
        "phrase": "a whistle",
        "snr_db": "0",
        "target": "long.wav",
        "target_start": "1.25",
        "target_offset": "0.0",
        "interference1": "short.wav",
        "interference1_start": "0.0",
        "interference1_offset": "2.5",
        "interference2": "",
        "interference2_start": "",
        "interference2_offset": "",
    }
    return values | changes


def read_target(root, path, start, offset):
    return read_row_clip(row(target=path, target_start=str(start), target_offset=str(offset)), "target", root)


def energy(wave):
    return float(np.square(wave, dtype=np.float64).sum())


def test_a_longer_clip_is_cut_from_its_start(root):
    wave = read_target(root, "long.wav", 1.25, 0.0)
    assert wave.shape == (LENGTH,)
    assert np.allclose(wave, tone(400, 8)[int(1.25 * SAMPLE_RATE) :][:LENGTH], atol=1e-6)


def test_a_shorter_clip_is_put_into_silence(root):
    wave = read_target(root, "short.wav", 0.0, 2.5)
    first = int(2.5 * SAMPLE_RATE)
    assert np.allclose(wave[first : first + SAMPLE_RATE], tone(1000, 1), atol=1e-6)
    assert energy(wave[:first]) == energy(wave[first + SAMPLE_RATE :]) == 0
    assert len(wave) == LENGTH


def test_a_clip_that_would_reach_over_the_end_is_cut(root):
    wave = read_target(root, "short.wav", 0.0, 4.75)
    assert len(wave) == LENGTH
    assert np.allclose(wave[-SAMPLE_RATE // 4 :], tone(1000, 1)[: SAMPLE_RATE // 4], atol=1e-6)
    assert len(read_target(root, "long.wav", 7.0, 0.0)) == LENGTH


def test_other_rates_are_resampled_and_channels_averaged(root):
    slow = read_target(root, "slow.wav", 0.0, 1.0)[SAMPLE_RATE : 3 * SAMPLE_RATE]
    assert np.abs(slow - tone(1000, 2))[1000:-1000].max() < 1e-4
    assert np.allclose(read_target(root, "stereo.wav", 0.0, 0.0)[: 2 * SAMPLE_RATE], 2 * tone(700, 2), atol=1e-6)


@pytest.mark.parametrize("snr", [-5, 0, 3, 10])
def test_interference_is_scaled_to_the_snr(root, snr):
    rendered = render(row(snr_db=str(snr)), root)
    interference = rendered.mixture - rendered.target
    assert 10 * np.log10(energy(rendered.target) / energy(interference)) == pytest.approx(snr, abs=1e-3)
    assert np.allclose(rendered.target, read_target(root, "long.wav", 1.25, 0.0), atol=1e-6)


def test_two_interferences_each_have_the_snr(root):
    changes = {"interference2": "stereo.wav", "interference2_start": "0", "interference2_offset": "1", "kind": "three"}
    rendered = render(row(snr_db="0", **changes), root)
    rest = energy(rendered.mixture - rendered.target)  # tones of different frequencies: energies add
    assert 10 * np.log10(energy(rendered.target) / rest) == pytest.approx(-3.01, abs=0.02)


def test_a_loud_mixture_is_scaled_down_with_its_target(root):
    rendered = render(row(target="loud.wav", target_start="0"), root)
    assert np.abs(rendered.mixture).max() == pytest.approx(0.9, abs=1e-6)
    scale = np.abs(rendered.target).max() / 0.8
    assert 0.3 < scale < 0.7
    assert 10 * np.log10(energy(rendered.target) / energy(rendered.mixture - rendered.target)) == pytest.approx(
        0, abs=1e-3
    )


def test_an_absent_query_has_silence_as_its_target(root):
    present, absent = render(row(), root), render(row(kind="absent"), root)
    assert np.array_equal(absent.mixture, present.mixture)
    assert energy(absent.target) == 0
    assert absent.target.shape == (LENGTH,)


def test_rows_are_read_by_kind(tmp_path):
    rows = [row(id=str(i), kind=kind) for i, kind in enumerate(["pair", "absent", "pair", "three"])]
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert read_rows(tmp_path / "list.csv") == rows
    assert [r["id"] for r in read_rows(tmp_path / "list.csv", "pair")] == ["0", "2"]
    assert read_rows(tmp_path / "list.csv", "other") == []


def test_the_validation_list_renders_to_its_stated_energies(data_root):
    rows = read_rows(data_root / "validation_mixtures.csv")
    assert [sum(r["kind"] == kind for r in rows) for kind in ("pair", "three", "absent")] == [300, 60, 100]
    chosen = rows[::9]
    assert {r["kind"] for r in chosen} == {"pair", "three", "absent"}
    for stated in chosen:
        rendered = render(stated, data_root)
        found = 10 * np.log10(energy(rendered.mixture))
        assert found == pytest.approx(float(stated["mixture_energy_db"]), abs=0.05), stated["id"]
        if stated["kind"] != "absent":
            found = 10 * np.log10(energy(rendered.target))
            assert found == pytest.approx(float(stated["target_energy_db"]), abs=0.05), stated["id"]


def test_the_validation_list_uses_validation_recordings_only(data_root):
    with (data_root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        split = {r["path"]: r["split"] for r in csv.DictReader(file)}
    for stated in read_rows(data_root / "validation_mixtures.csv"):
        names = [stated[name] for name in ("target", "interference1", "interference2") if stated[name]]
        assert {split[name] for name in names} == {"validation"}
