"""The picture: levels, bounded memory, any text as a title."""

import io
import math
import warnings

import numpy as np
import pytest
import torch

from separation.plot import COLUMNS, ROWS, Spectrogram, draw

pytest.importorskip("matplotlib")


def spectrum_of(waveform, sample_rate, piece):
    spectrum = Spectrogram(sample_rate, waveform.shape[1])
    for start in range(0, waveform.shape[1], piece):
        spectrum.push(waveform[:, start : start + piece])
    return spectrum, spectrum.decibels()


def tone(frequency, seconds, sample_rate, level=1.0):
    time = torch.arange(round(seconds * sample_rate)) / sample_rate
    return level * torch.sin(2 * math.pi * frequency * time)[None]


@pytest.mark.parametrize("sample_rate", [8000, 44100, 96000])
def test_a_full_scale_tone_is_near_0_db_at_its_frequency(sample_rate):
    spectrum, levels = spectrum_of(tone(1000.0, 2.0, sample_rate), sample_rate, 4096)
    row = int(levels[:, levels.shape[1] // 2].argmax())
    assert spectrum.edges[row] * 0.95 < 1000.0 < spectrum.edges[row + 1] * 1.05
    assert -5.0 < levels[:, 5:-5].max() < 0.5


def test_level_and_time_are_where_they_belong():
    waveform = torch.cat([torch.zeros(1, 32000), tone(500.0, 1.0, 32000, 0.1)], dim=1)
    _, levels = spectrum_of(waveform, 32000, 1000)
    columns, opposite = levels.shape[1], spectrum_of(torch.cat([waveform, -waveform]), 32000, 1000)[1]
    assert np.abs(opposite - levels)[:, columns // 2 + 20 :].max() < 0.01  # both channels count
    assert levels[:, : columns // 2 - 20].max() < -130
    assert -26.0 < levels[:, columns // 2 + 20 : -20].max() < -19.5


def test_pieces_do_not_matter():
    waveform = torch.randn(2, 30011, generator=torch.Generator().manual_seed(0))
    whole = spectrum_of(waveform, 16000, 30011)[1]
    for piece in (1000, 77, 16384):
        assert np.abs(spectrum_of(waveform, 16000, piece)[1] - whole).max() < 1e-3


@pytest.mark.parametrize("frames", [1, 2, 100, 5000])
def test_short_signals_have_a_picture(frames):
    spectrum, levels = spectrum_of(torch.ones(1, frames), 44100, 64)
    assert levels.shape[0] == ROWS
    assert 1 <= levels.shape[1] <= COLUMNS
    assert np.isfinite(levels).all()
    assert (spectrum.count > 0).all()


def test_an_hour_takes_no_more_than_a_second():
    spectrum = Spectrogram(44100, 3600 * 44100)
    for _ in range(3):
        spectrum.push(torch.zeros(2, 441000))
    assert spectrum.power.shape == (COLUMNS, ROWS)
    assert spectrum.tail.shape[1] < 2 * spectrum.size


def test_the_picture_is_drawn_with_any_title_and_one_scale(monkeypatch):
    from matplotlib.axes import Axes
    from matplotlib.image import imread

    spectrum, levels = spectrum_of(tone(440.0, 1.0, 16000), 16000, 16000)
    file = io.BytesIO()
    panels, scales, original = {"mixture": levels, "target": levels - 10, "residual": levels - 120}, set(), Axes.imshow

    def imshow(self, levels, **options):
        scales.add((options["vmin"], options["vmax"], options["extent"]))
        return original(self, levels, **options)

    monkeypatch.setattr(Axes, "imshow", imshow)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(file, panels, "$\\frac{ “犬の鳴き声” 100% _^", 1.0, spectrum.edges)
    assert [scale[1] for scale in scales] == [pytest.approx(float(levels.max()))]
    file.seek(0)
    picture = imread(file, format="png")
    height, width = picture.shape[:2]
    assert width == 1100
    assert height > 700
    assert len(np.unique(picture[::7, ::7].reshape(-1, picture.shape[2]), axis=0)) > 50


def test_a_timeline_takes_any_number_of_sounds():
    from separation.listing import DetectedSound

    spectrum, levels = spectrum_of(tone(500.0, 1.0, 8000), 8000, 8000)
    sizes = []
    for count in (0, 1, 12):
        sounds = [DetectedSound(f"${number}", 0.5, ((0.0, 0.25), (0.5, 1.0))) for number in range(count)]
        file = io.BytesIO()
        draw(file, {"recording": levels}, "Sounds", 1.0, spectrum.edges, sounds)
        sizes.append(int.from_bytes(file.getvalue()[20:24], "big"))  # height in pixels
    assert sizes[0] == sizes[1] < sizes[2]


def test_samples_far_beyond_full_scale_have_a_spectrogram():
    spectrogram = Spectrogram(16000, 16000)
    spectrogram.push(1e30 * np.sin(np.arange(16000, dtype=np.float32))[None])
    assert 550 < spectrogram.decibels().max() < 610
