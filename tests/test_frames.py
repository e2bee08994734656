"""Pictures of videos, one per second, and the stems of MUSDB18's containers."""

import shutil
from itertools import pairwise

import matplotlib.image
import pytest
from media import save_media, tone

from separation.data.frames import add_frames, extract, find_video
from separation.data.manifest import Clip, read_entries, write_manifest
from separation.datasets.command import main
from separation.errors import DataError


def clip(path, frame="", start=0.0, seconds=0.0):
    return Clip(path, "hum", "", path, "mine", seconds, start=start, frame=frame)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Five seconds, whose picture gets brighter every second."""
    path = tmp_path_factory.mktemp("video") / "a video.mp4"
    return save_media(path, [tone(440, 5, 44100)], seconds_of_pictures=5.0, picture=lambda time: 40 * int(time) + 20)


def brightness(folder):
    """The mean grey of each picture, in order."""
    return [matplotlib.image.imread(path).mean() for path in sorted(folder.glob("*.jpg"))]


def test_one_picture_per_second(video, tmp_path):
    assert extract(video, tmp_path / "frames") == 5
    assert [path.name for path in sorted((tmp_path / "frames").iterdir())][::4] == ["000001.jpg", "000005.jpg"]
    levels = brightness(tmp_path / "frames")
    assert all(20 < after - before < 60 for before, after in pairwise(levels))
    assert matplotlib.image.imread(tmp_path / "frames" / "000001.jpg").shape[:2] == (256, 342)  # as the video
    assert extract(video, tmp_path / "part", 2.0, 2.0) == 2
    assert brightness(tmp_path / "part") == pytest.approx(levels[2:4], abs=5)


def test_a_file_without_pictures_is_named(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    save_media(tmp_path / "b.mp4", [tone(440, 1, 44100)])
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        with pytest.raises(DataError, match=rf"{name}: (no frames can be extracted|there is no such file)"):
            extract(tmp_path / name, tmp_path / "frames")
    with pytest.raises(DataError, match=r"b\.mp4: no frames can be extracted: it holds no picture"):
        extract(save_media(tmp_path / "b.mp4", seconds_of_pictures=1.0), tmp_path / "frames", start=5.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


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
    assert len(list((tmp_path / "frames").iterdir())) == 2  # one folder for each part of a video
    assert read[0].path == "a.wav"


def test_the_video_of_a_clip_is_its_frame_or_its_file(tmp_path):
    assert find_video(clip("a.wav", "b.MP4")) == "b.MP4"
    assert find_video(clip("a.webm")) == "a.webm"
    assert find_video(clip("a.wav", "frames/a/*.jpg")) == ""
    entries = [("train", clip("a.wav")), ("train", clip("b.wav", "frames/b/*.jpg"))]
    assert add_frames(entries, tmp_path, tmp_path / "frames", tmp_path) == entries  # there is no video
