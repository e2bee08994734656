"""Pictures of videos, one a second; the video is drawn here by ffmpeg."""

import shutil
import subprocess
from itertools import pairwise

import matplotlib.image
import numpy as np
import pytest
import soundfile

from separation.data.frames import add_frames, extract, folder_of, video_of
from separation.data.manifest import Clip, DataError, read_entries, write_manifest
from separation.datasets.command import main
from separation.datasets.musdb18 import STEMS, take_stems_out

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg, which is not installed")


def clip(path, frame="", start=0.0, seconds=0.0):
    return Clip(path, "hum", "", path, "mine", seconds, start=start, frame=frame)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Five seconds, whose picture gets brighter every second."""
    path = tmp_path_factory.mktemp("video") / "a video.mp4"
    grey = "geq=lum='40*floor(T)+20':cb=128:cr=128"
    drawn = ["-f", "lavfi", "-i", "color=black:s=64x48:r=10:d=5", "-f", "lavfi", "-i", "sine=440:d=5"]
    subprocess.run(["ffmpeg", "-v", "error", *drawn, "-vf", grey, "-c:a", "aac", str(path)], check=True)
    return path


def brightness(folder):
    """The mean grey of each picture, in order."""
    return [matplotlib.image.imread(path).mean() for path in sorted(folder.glob("*.jpg"))]


@needs_ffmpeg
def test_one_picture_a_second(video, tmp_path):
    assert extract(video, tmp_path / "frames") == 5
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())][::4] == ["000001.jpg", "000005.jpg"]
    levels = brightness(tmp_path / "frames")
    assert all(20 < after - before < 60 for before, after in pairwise(levels))
    picture = matplotlib.image.imread(tmp_path / "frames" / "000001.jpg")
    assert picture.shape[:2] == (256, 342)  # the shape of the video, 256 high
    assert extract(video, tmp_path / "part", 2.0, 2.0) == 2
    assert brightness(tmp_path / "part")[0] == pytest.approx(levels[2], abs=5)


@needs_ffmpeg
def test_a_file_without_pictures_is_named(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"a\.mp4: no frames can be taken from it \(ffmpeg: "):
        extract(tmp_path / "a.mp4", tmp_path / "frames")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@needs_ffmpeg
def test_the_manifest_gets_the_frames(video, tmp_path, capsys):
    shutil.copy(video, tmp_path / "v.mp4")
    (tmp_path / "bad.mp4").write_text("no video")
    clips = [clip("a.wav", "v.mp4"), clip("v.mp4", start=1.0, seconds=3.0), clip("b.wav"), clip("c.wav", "bad.mp4")]
    write_manifest(tmp_path / "m.csv", [("train", each) for each in clips])
    assert main(["frames", str(tmp_path / "m.csv"), "--out", str(tmp_path / "frames")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"no frames: {tmp_path}/bad.mp4: ")
    assert said[-1].endswith("2 of 4 clips with frames")
    read = [clip for _, clip in read_entries(tmp_path / "m.csv")]
    assert [len(list(tmp_path.glob(each.frame))) if each.frame else 0 for each in read] == [5, 3, 0, 0]
    assert read[0].path == "a.wav"


def test_without_ffmpeg_one_sentence_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    write_manifest(tmp_path / "m.csv", [("train", clip("a.mp4"))])
    before = (tmp_path / "m.csv").read_bytes()
    assert main(["frames", str(tmp_path / "m.csv"), "--out", str(tmp_path / "frames")]) == 1
    said = capsys.readouterr().err
    assert said == "separation-data: Frames of videos need the program ffmpeg, and there is none on the PATH.\n"
    assert (tmp_path / "m.csv").read_bytes() == before
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "Song.stem.mp4").touch()
    with pytest.raises(DataError, match=r"Song\.stem\.mp4: its stems need ffmpeg, and there is none on the PATH"):
        take_stems_out(tmp_path)


def test_which_video_a_clip_has():
    assert video_of(clip("a.wav", "b.MP4")) == "b.MP4"
    assert video_of(clip("a.webm")) == "a.webm"
    assert video_of(clip("a.wav", "frames/a/*.jpg")) == ""
    parts = [clip("a.mp4"), clip("a.mp4", start=1.0), clip("b/a.mp4")]
    assert len({folder_of(each) for each in parts}) == 3


def test_clips_without_video_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("separation.data.frames.ffmpeg", lambda: "ffmpeg")
    entries = [("train", clip("a.wav")), ("train", clip("b.wav", "frames/b/*.jpg"))]
    assert add_frames(entries, tmp_path, tmp_path / "frames", tmp_path) == entries


@needs_ffmpeg
def test_stems_are_taken_out_of_their_container(tmp_path):
    (tmp_path / "train").mkdir()
    inputs = [
        part for hertz in (100, 200, 400, 800, 1600) for part in ("-f", "lavfi", "-i", f"sine={hertz}:d=1:r=8000")
    ]
    maps = [part for stream in range(5) for part in ("-map", f"{stream}:a")]
    target = tmp_path / "train" / "A - B.stem.mp4"
    subprocess.run(["ffmpeg", "-v", "error", *inputs, *maps, "-c:a", "aac", str(target)], check=True)
    take_stems_out(tmp_path)
    for stem, hertz in zip(STEMS, (200, 400, 800, 1600), strict=True):
        samples, rate = soundfile.read(tmp_path / "train" / "A - B" / f"{stem}.wav")
        spectrum = np.abs(np.fft.rfft(samples[:rate]))
        assert abs(int(spectrum.argmax()) - hertz) <= 2  # a bin is one hertz
    (tmp_path / "train" / "A - B" / "drums.wav").unlink()
    take_stems_out(tmp_path)  # the folder is there: nothing is done again
    assert not (tmp_path / "train" / "A - B" / "drums.wav").exists()
    (tmp_path / "train" / "C.stem.mp4").write_text("no stems")
    with pytest.raises(DataError, match=r"C\.stem\.mp4: its stems cannot be taken out \(ffmpeg: "):
        take_stems_out(tmp_path)
