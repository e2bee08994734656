"""Rendering of fixed mixtures: what a row says, and, where the recordings are, the stated energies."""

import numpy as np
import pytest
import soundfile
from tiny import read, write_manifest

from separation.data.fixed_mixtures import SAMPLE_RATE, read_row_clip, read_rows, render

LENGTH = 5 * SAMPLE_RATE


def tone(hertz, seconds, sample_rate=SAMPLE_RATE, amplitude=0.1):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * sample_rate)) / sample_rate)


@pytest.fixture
def root(tmp_path):
    waves = {
        "long.wav": tone(400, 8),
        "short.wav": tone(1000, 1),
        "loud.wav": tone(3000, 5, amplitude=0.8),
        "stereo.wav": np.stack([tone(700, 2), 3 * tone(700, 2)], axis=1),
    }
    for name, wave in waves.items():
        soundfile.write(tmp_path / name, wave, SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", tone(1000, 2, 16000), 16000, subtype="FLOAT")
    return tmp_path


def row(**changes):
    """A pair: `long` against `short`, at 0 dB."""
    values = {"id": "pair0000", "kind": "pair", "query": "tone", "phrase": "a whistle", "snr_db": "0"}
    values |= {"target": "long.wav", "target_start": "1.25", "target_offset": "0.0"}
    values |= {"interference1": "short.wav", "interference1_start": "0.0", "interference1_offset": "2.5"}
    return values | {"interference2": "", "interference2_start": "", "interference2_offset": ""} | changes


def energy(wave):
    return float(np.square(wave, dtype=np.float64).sum())


def decibels(wave, other):
    return 10 * np.log10(energy(wave) / energy(other))


@pytest.mark.parametrize(
    ("path", "start", "offset", "wanted", "tolerance"),
    [
        ("long.wav", 1.25, 0.0, tone(400, 8)[int(1.25 * SAMPLE_RATE) :][:LENGTH], 1e-6),  # a part of a longer clip
        ("long.wav", 7.0, 0.0, tone(400, 8)[7 * SAMPLE_RATE :], 1e-6),  # which ends too early
        ("short.wav", 0.0, 2.5, tone(1000, 1), 1e-6),  # within silence
        ("short.wav", 0.0, 4.75, tone(1000, 1)[: SAMPLE_RATE // 4], 1e-6),  # cut at the end of the mixture
        ("stereo.wav", 0.0, 0.0, 2 * tone(700, 2), 1e-6),  # channels are averaged
        ("slow.wav", 0.0, 1.0, tone(1000, 2), 0.1),  # resampled; see below
    ],
)
def test_a_clip_is_placed_in_silence_or_cut(root, path, start, offset, wanted, tolerance):
    clip = row(target=path, target_start=str(start), target_offset=str(offset))
    wave, first = read_row_clip(clip, "target", root), int(offset * SAMPLE_RATE)
    assert wave.shape == (LENGTH,)
    assert np.allclose(wave[first : first + len(wanted)], wanted, atol=tolerance)
    assert energy(wave[:first]) == energy(wave[first + len(wanted) :]) == 0
    if path == "slow.wav":  # away from its ends
        assert np.abs(wave[first : first + len(wanted)] - wanted)[1000:-1000].max() < 1e-4


def test_a_silent_interference_is_left_as_it_is(root):
    soundfile.write(root / "short.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    rendered = render(row(), root)
    assert np.array_equal(rendered.mixture, rendered.target)


@pytest.mark.parametrize("snr", [-5, 0, 3, 10])
def test_interference_is_scaled_to_the_snr(root, snr):
    rendered = render(row(snr_db=str(snr)), root)
    assert decibels(rendered.target, rendered.mixture - rendered.target) == pytest.approx(snr, abs=1e-3)
    assert np.allclose(rendered.target, read_row_clip(row(), "target", root), atol=1e-6)


def test_two_interferences_each_have_the_snr(root):
    changes = {"interference2": "stereo.wav", "interference2_start": "0", "interference2_offset": "1", "kind": "three"}
    rendered = render(row(**changes), root)  # tones of different frequencies: energies add
    assert decibels(rendered.target, rendered.mixture - rendered.target) == pytest.approx(-3.01, abs=0.02)


def test_a_loud_mixture_is_scaled_down_with_its_target(root):
    rendered = render(row(target="loud.wav", target_start="0"), root)
    assert np.abs(rendered.mixture).max() == pytest.approx(0.9, abs=1e-6)
    assert 0.3 < np.abs(rendered.target).max() / 0.8 < 0.7
    assert decibels(rendered.target, rendered.mixture - rendered.target) == pytest.approx(0, abs=1e-3)


def test_an_absent_query_has_silence_as_its_target(root):
    present, absent = render(row(), root), render(row(kind="absent"), root)
    assert np.array_equal(absent.mixture, present.mixture)
    assert energy(absent.target) == 0
    assert absent.target.shape == (LENGTH,)


def test_rows_are_read_by_kind(tmp_path):
    rows = [row(id=str(i), kind=kind) for i, kind in enumerate(["pair", "absent", "pair", "three"])]
    write_manifest(tmp_path / "list.csv", rows, list(rows[0]))
    assert read_rows(tmp_path / "list.csv") == rows
    assert [r["id"] for r in read_rows(tmp_path / "list.csv", "pair")] == ["0", "2"]
    assert read_rows(tmp_path / "list.csv", "other") == []


def test_the_validation_list_renders_to_its_stated_energies(data_root):
    rows = read_rows(data_root / "validation_mixtures.csv")
    chosen = rows[::9]
    assert {r["kind"] for r in chosen} == {"pair", "three", "absent"}
    for stated in chosen:
        rendered = render(stated, data_root)
        for name in ("mixture",) if stated["kind"] == "absent" else ("mixture", "target"):
            found = 10 * np.log10(energy(getattr(rendered, name)))
            assert found == pytest.approx(float(stated[f"{name}_energy_db"]), abs=0.05), stated["id"]


def test_the_validation_list_uses_validation_recordings_only(data_root):
    split = {r["path"]: r["split"] for r in read(data_root / "manifest.csv")}
    for stated in read_rows(data_root / "validation_mixtures.csv"):
        names = [stated[name] for name in ("target", "interference1", "interference2") if stated[name]]
        assert {split[name] for name in names} == {"validation"}
