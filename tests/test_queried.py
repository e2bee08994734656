"""Mixtures with queries of any form: levels, pollution, texts, and pictures of the same moment."""

import re

import numpy as np
import pytest
import soundfile
import torch
from tiny import write_corpus, write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

from tiny import read

from separation.data.corpus import Corpus
from separation.data.derived import PollutedClips, unrelated
from separation.data.gains import EnergyGains, RandomGains
from separation.data.manifest import Clip
from separation.data.pictures import Pictures, check_picture, draw_picture
from separation.data.queried import QueriedData
from separation.errors import DataError

RATE = 8000


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"), labels=4, recordings=3, seconds=1.0)


def ready(manifest, **arguments):
    data = QueriedData(manifest=manifest, **({"sample_rate": RATE, "seconds": 0.5, "batch_size": 4} | arguments))
    data.setup()
    return data


def level(gains, sources, rng):
    """One mixture's sources at their levels."""
    return gains.apply(sources, gains.draw(len(sources), rng))


def decibel(ratio):
    return 10 * np.log10(float(ratio))


# --- Levels ------------------------------------------------------------------------------------


def test_random_gains_are_within_their_bounds_and_divided_by_the_number():
    ones = 0.4 * torch.ones(2, 10)
    rng = np.random.default_rng(0)
    factors = torch.stack([level(RandomGains(0.5, 1.5), ones, rng)[:, 0] for _ in range(300)]) * 2 / 0.4
    assert 0.5 <= factors.min() < 0.53 and 1.47 < factors.max() <= 1.5
    assert factors.mean().item() == pytest.approx(1.0, abs=0.04)
    assert level(RandomGains(3.0, 3.0), ones, rng).max() == 0.5  # clipped at 1


@pytest.mark.parametrize("polluted", [0.0, 1.0])
def test_gains_act_on_the_recordings_own_levels(manifest, polluted):
    def peaks(**arguments):
        data = ready(manifest, polluted=polluted, pollution_db=(60.0, 60.0), batch_size=20, **arguments)
        return data.complete(data.batch(0, 0)).sources.abs().amax(-1)

    factors = peaks(gains=RandomGains()) * 2 / 0.3  # tones of 0.3, two in a mixture
    assert 0.49 < factors.min() < 0.6 and 1.4 < factors.max() < 1.52
    assert peaks(gains=RandomGains(1.5, 1.5)) == pytest.approx(0.225 * np.ones((20, 2)), rel=0.01)  # nothing is clipped
    assert peaks(gains=RandomGains(1.5, 1.5, as_recorded=False)) == pytest.approx(0.5 * np.ones((20, 2)))
    assert peaks(gains=EnergyGains(-10, -10))[:, 0] == pytest.approx(0.3 * np.ones(20), rel=0.01)


def test_energy_ratios_are_whole_decibels_and_the_first_source_stays():
    rng = np.random.default_rng(0)
    sources = torch.from_numpy(rng.normal(0, 0.05, (2, 4000))).float()
    found = []
    for _ in range(200):
        first, second = level(EnergyGains(-10, 10), sources, rng)
        assert torch.equal(first, sources[0]) or (first + second).abs().max() == pytest.approx(0.9, abs=1e-5)
        found.append(decibel(first.square().sum() / second.square().sum()))
    assert np.allclose(found, np.round(found), atol=1e-3)
    assert (round(min(found)), round(max(found))) == (-10, 10)


def test_several_backgrounds_together_have_the_ratio():
    rng = np.random.default_rng(1)
    sources = torch.from_numpy(rng.normal(0, 0.05, (4, 4000))).float()
    first, *others = level(EnergyGains(3, 3), sources, rng)
    assert decibel(first.square().sum() / sum(others).square().sum()) == pytest.approx(-3.0, abs=1e-3)


@pytest.mark.parametrize("gains", [RandomGains(0.5, 1.5), EnergyGains(-10, 10)])
def test_a_batch_has_the_levels_of_its_mixtures(gains):
    rng = np.random.default_rng(3)
    sources = torch.from_numpy(rng.uniform(-1, 1, (6, 3, 400)) * np.logspace(-3, 0, 6)[:, None, None]).float()
    sources[2, 1:] = 0  # nothing is divided by
    drawn = torch.stack([gains.draw(3, np.random.default_rng(n)) for n in range(6)])
    together = gains.apply(sources, drawn)
    for number, mixture in enumerate(sources):
        assert torch.allclose(together[number], level(gains, mixture, np.random.default_rng(number)), atol=1e-6)
    assert torch.isfinite(together).all()


def test_levels_are_set_where_the_batch_is(manifest):
    data = ready(manifest, gains=EnergyGains(-10, 10))
    batch = data.batch(0, 0)
    mixed = data.on_after_batch_transfer(batch, 0)
    assert mixed.levels is None and batch.levels.shape == (4, 2)
    assert torch.equal(mixed.sources[:, 0], batch.sources[:, 0])
    assert not torch.equal(mixed.sources[:, 1], batch.sources[:, 1])
    assert data.complete(mixed) is mixed and data.on_after_batch_transfer("a row", 0) == "a row"


def test_a_mixture_over_full_scale_is_scaled_down():
    rng = np.random.default_rng(1)
    sources = torch.from_numpy(rng.uniform(-1, 1, (2, 4000))).float()
    scaled = level(EnergyGains(10, 10), sources, rng)
    assert scaled.sum(0).abs().max().item() == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_see_together_what_one_sees_with_larger_batches(manifest, ranks):
    whole = ready(manifest, batch_size=6).batch(1, 2)
    parts = [ready(manifest, batch_size=6 // ranks).batch(1, 2, rank, ranks) for rank in range(ranks)]
    assert torch.equal(whole.sources, torch.cat([part.sources for part in parts]))
    assert torch.equal(whole.levels, torch.cat([part.levels for part in parts]))
    assert whole.texts == [texts for part in parts for texts in part.texts]


# --- Clips and texts ---------------------------------------------------------------------------


def test_sources_of_a_mixture_are_unrelated(manifest):
    data = ready(manifest, sources=3, asked=2)
    for seed in range(20):
        numbers = data.draw_clips(np.random.default_rng(seed))
        assert len({data.clips[n].label for n in numbers}) == 3
    loose = ready(manifest, distinct=False)
    drawn = [loose.draw_clips(np.random.default_rng(seed)) for seed in range(100)]
    assert any(loose.clips[a].label == loose.clips[b].label for a, b in drawn)
    assert all(loose.clips[a].recording != loose.clips[b].recording for a, b in drawn)


@pytest.mark.parametrize("text", ["label", "caption", "any"])
def test_the_text_of_a_query_is_a_label_a_caption_or_any(manifest, text):
    data = ready(manifest, text=text)
    batch = data.batch(0, 0)
    texts = [called for each in batch.texts for called in each]
    if text == "label":
        assert batch.texts == batch.labels
    assert all(texts) and all(called.startswith("A tone of") for called in texts if text == "caption")
    clip = Clip("a.wav", "", "", "r", "made", 1.0)
    with pytest.raises(ValueError, match="neither label nor caption"):
        data.draw_text(clip, np.random.default_rng(0))


# --- Pollution ---------------------------------------------------------------------------------


def test_a_share_of_the_clips_is_polluted_by_an_unrelated_one_always_the_same(manifest):
    corpus = Corpus(manifest, sample_rate=RATE)
    polluted = PollutedClips(corpus, 0.5, -3.0, 3.0, seed=1)
    found = [polluted.pollutant(number) for number in range(len(corpus))]
    assert 3 <= sum(other is not None for other in found) <= 9
    for share in (0.0, 1.0):
        assert {PollutedClips(corpus, share).pollutant(number) is not None for number in range(12)} == {share == 1}
    for number, other in enumerate(found):
        clean, wave = corpus.waveform(number), polluted.waveform(number)
        assert torch.equal(wave, polluted.waveform(number))
        if other is None:
            assert torch.equal(wave, clean)
            continue
        assert unrelated(corpus.clips[number], corpus.clips[other[0]])
        assert wave.abs().max() <= 1
        scale = torch.dot(wave, clean) / torch.dot(clean, clean)  # tones of other frequencies are orthogonal
        rest = wave - scale * clean
        assert decibel((scale * clean).square().sum() / rest.square().sum()) == pytest.approx(other[1], abs=0.1)


def test_training_draws_from_the_polluted_clips(manifest):
    clean, dirty = ready(manifest), ready(manifest, polluted=1.0)
    assert not torch.equal(clean.batch(0, 0).sources, dirty.batch(0, 0).sources)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ready(manifest, polluted=1.5)


# --- Pictures ----------------------------------------------------------------------------------


def ramp(seconds):
    """A wave (time,) whose value is the time in seconds."""
    return torch.arange(round(seconds * RATE)).float() / RATE + 1


def framed(manifest, folder, frames):
    """A manifest in a folder whose clips have these pictures."""
    rows = [row | {"frame": str(frame)} for row, frame in zip(read(manifest), frames, strict=True)]
    return write_manifest(folder / "framed.csv", rows, list(rows[0]))


def with_frames(tmp_path, manifest, count, monkeypatch):
    """Frame data whose clips all have `count` pictures, one a second, and last as long."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(count):
        draw_picture("dog bark", number).save(folder / f"{number + 1:06d}.jpg")
    shown = framed(manifest, tmp_path, [folder / "*.jpg"] * 12)
    data = ready(shown, frames=3, seconds=2.0, root=manifest.parent)
    data.clips = [Clip("a.wav", "a", "", "r", "made", count, frame=str(folder / "*.jpg"))]
    monkeypatch.setattr(data.sounds, "waveform", lambda number: ramp(count))
    return data


def test_pictures_are_of_the_same_moment_as_the_excerpt(tmp_path, manifest, monkeypatch):
    data = with_frames(tmp_path, manifest, 12, monkeypatch)
    middles = set()
    for seed in range(60):
        wave, pictures = data.cut(
            data.sounds.waveform(0), data.pictures.list_pictures(data.clips[0]), np.random.default_rng(seed)
        )
        numbers = [int(path.stem) for path in pictures]
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        centre = float(wave.mean()) - 1  # s
        assert centre == pytest.approx(numbers[1] - 0.5, abs=1e-3)
        middles.add(numbers[1])
    assert middles == set(range(4, 10))  # three seconds from either end


def test_a_clip_with_few_pictures_gives_what_it_has(tmp_path, manifest, monkeypatch):
    data = with_frames(tmp_path, manifest, 1, monkeypatch)
    wave, pictures = data.cut(
        data.sounds.waveform(0), data.pictures.list_pictures(data.clips[0]), np.random.default_rng(0)
    )
    assert [path.name for path in pictures] == ["000001.jpg"] and wave.shape == (16000,)


@pytest.mark.parametrize(
    "frame, says", [("", "names no frame"), ("nowhere/*.jpg", "are missing"), ("clip.mp4", "is not a picture")]
)
def test_missing_pictures_are_named(tmp_path, manifest, frame, says):
    (tmp_path / "clip.mp4").write_bytes(b"")
    data = Pictures(tmp_path)
    with pytest.raises(DataError, match=says):
        data.list_pictures(Clip("a.wav", "a", "", "r", "made", 1.0, frame=frame))


def written(folder):
    """Pictures of several kinds, whole and broken."""
    picture = draw_picture("rain", 1)
    for name in ("whole.jpg", "whole.png", "whole.webp", "whole.bmp"):
        picture.save(folder / name)
        (folder / name.replace("whole", "cut")).write_bytes((folder / name).read_bytes()[:-500])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "padded.jpg").write_bytes((folder / "whole.jpg").read_bytes() + b"more" * 1000)
    return folder


def test_broken_pictures_are_named_and_whole_ones_pass(tmp_path, monkeypatch):
    from PIL.ImageFile import ImageFile

    folder = written(tmp_path)
    for name in ("cut.jpg", "cut.png", "cut.webp", "cut.bmp", "text.jpg", "empty.png", "gone.jpg"):
        said = f"{folder / name}: the file is damaged or not a picture."
        with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
            check_picture(folder / name)
    for name in ("whole.webp", "whole.bmp", "padded.jpg"):
        check_picture(folder / name)
    monkeypatch.setattr(ImageFile, "load", None)  # the usual ones are not decoded: calling this would break them
    for name in ("whole.jpg", "whole.png"):
        check_picture(folder / name)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("many"), labels=10, recordings=20, seconds=0.02)


def test_clips_whose_pictures_are_broken_are_left_out_and_named_once(tmp_path, many, capsys):
    pictures = written(tmp_path)
    frames = [pictures / "whole.jpg"] * 200
    frames[3], frames[77] = pictures / "gone.jpg", pictures / "cut.jpg"
    data = ready(framed(many, tmp_path, frames), frames=3, root=many.parent, validation_count=0)
    rows = read(many)
    assert capsys.readouterr().out.splitlines() == [
        f"left out: {rows[3]['path']}: its pictures {pictures / 'gone.jpg'} are missing.",
        f"left out: {pictures / 'cut.jpg'}: the file is damaged or not a picture.",
    ]
    kept = [row["path"] for number, row in enumerate(rows) if number not in (3, 77)]
    assert [clip.path for clip in data.clips] == kept
    drawn = {data.draw_clips(np.random.default_rng(seed))[0] for seed in range(3000)}
    assert drawn == set(range(198))
    for number in (0, 3, 100, 197):  # sounds and clips still go together
        samples, _ = soundfile.read(many.parent / data.clips[number].path)
        assert np.allclose(data.sounds.waveform(number), samples / np.abs(samples).max(), atol=1e-4)


def test_a_picture_shared_by_several_clips_is_checked_and_named_once(tmp_path, many, capsys, monkeypatch):
    pictures, seen = written(tmp_path), []
    monkeypatch.setattr("separation.data.pictures.check_picture", lambda path: seen.append(path) or check_picture(path))
    frames = [pictures / "whole.jpg"] * 198 + [pictures / "cut.jpg"] * 2
    assert len(ready(framed(many, tmp_path, frames), frames=3, root=many.parent, validation_count=0).clips) == 198
    assert capsys.readouterr().out == f"left out: {pictures / 'cut.jpg'}: the file is damaged or not a picture.\n"
    assert sorted(seen) == [pictures / "cut.jpg", pictures / "whole.jpg"]


def test_broken_pictures_of_more_than_one_percent_stop(tmp_path, many):
    pictures = written(tmp_path)
    frames = [pictures / "whole.jpg"] * 197 + [pictures / name for name in ("cut.jpg", "text.jpg", "gone.jpg")]
    said = f"3 of 200 clips cannot be read; the first: {pictures / 'cut.jpg'}: the file is damaged or not a picture."
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        ready(framed(many, tmp_path, frames), frames=3, root=many.parent)


def test_drawn_pictures_differ_by_sound_and_specimen():
    pixels = {key: np.asarray(draw_picture(*key)) for key in [("dog bark", 1), ("dog bark", 2), ("rain", 1)]}
    assert pixels["dog bark", 1].shape == (64, 64, 3)
    assert np.array_equal(pixels["dog bark", 1], np.asarray(draw_picture("dog bark", 1)))
    assert not np.array_equal(pixels["dog bark", 1], pixels["dog bark", 2])
    palettes = [{tuple(p) for p in pixels[key].reshape(-1, 3)} for key in pixels]
    assert palettes[0] == palettes[1] != palettes[2]
