"""The studies of weak supervision: what their encoders may see, their figures, and both in miniature."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import vectors, write_corpus, write_manifest
from torch import nn

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.corpus import Corpus
from separation.data.manifest import Clip, read_manifest
from separation.encoders.sentence import SentenceEncoder
from separation.encoders.taggers import Frames

STUDIES = Path(__file__).parents[1] / "benchmarks" / "studies"


@pytest.fixture(autouse=True)
def studies_importable(monkeypatch):
    """The studies import what they share by its bare name; the sentence encoder's 91 MB stay on the disk."""
    monkeypatch.syspath_prepend(str(STUDIES))
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones: for each of six labels four recordings to train on and one to validate on."""
    place = tmp_path_factory.mktemp("data")
    manifest = write_corpus(place, labels=6, recordings=5, seconds=0.8)
    lines = manifest.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    for number, row in enumerate(rows):
        row["split"] = "validation" if number % 5 == 4 else "train"
    write_manifest(manifest, rows, lines[0].split(","))
    return place


def clip(number, recording, label):
    return Clip(f"{number}.wav", label, "", recording, "", 1.0)


def test_no_recording_is_in_both_halves():
    from weak_text import halves, recording_of

    clips = [clip(f"{label}{n}", f"site:{label}{n // 2}", label) for label in "abc" for n in range(14)]
    clips += [clip("shared1", "site:s", "a"), clip("shared2", "site:s", "b"), clip("shared3", "site:s", "c")]
    clips += [clip("unknown1", "freesound:?", "a"), clip("unknown2", "freesound:?", "a")]
    encoder, mixtures = halves(clips)
    assert sorted(c.path for c in encoder + mixtures) == sorted(c.path for c in clips)
    assert not {recording_of(c) for c in encoder} & {recording_of(c) for c in mixtures}
    for label in "abc":
        counts = [len({c.recording for c in half if c.label == label}) for half in (encoder, mixtures)]
        assert abs(counts[0] - counts[1]) <= 1
    assert {c.path for c in halves(reversed(clips))[0]} == {c.path for c in encoder}


def test_halves_of_the_real_recordings(data_root):
    from weak_text import halves, recording_of

    clips = read_manifest(data_root / "manifest.csv", "train")
    encoder, mixtures = halves(clips)
    assert not {recording_of(c) for c in encoder} & {recording_of(c) for c in mixtures}
    assert not {c.path for c in encoder} & {c.path for c in mixtures}
    recordings = Counter(c.label for c in {(c.label, recording_of(c)): c for c in clips}.values())
    both = {c.label for c in encoder} & {c.label for c in mixtures}
    assert both == {label for label, count in recordings.items() if count > 1}


def test_a_share_of_every_label_s_recordings():
    from weak_text import some

    clips = [clip(f"{label}{n}", f"{label}{n // 2}", label) for label in "ab" for n in range(20)]
    kept = some(clips, 0.3)
    assert {label: len({c.recording for c in kept if c.label == label}) for label in "ab"} == {"a": 3, "b": 3}
    assert len(kept) == 12
    assert len({c.recording for c in some(clips, 0.0)}) == 2


def test_overlap_of_an_anchor_and_a_sound():
    from uss_anchors import RATE, shared

    assert [shared(start, 2 * RATE) for start in (0, RATE, 2 * RATE, 3 * RATE, 5 * RATE)] == [0, 0.5, 1, 0.5, 0]


def test_a_detector_that_knows_finds_the_whole_sound(folder):
    from uss_anchors import CLIP, HEARD, RATE, overlaps

    corpus = Corpus(folder / "manifest.csv", "train", sample_rate=RATE)
    from padded import Padded

    padded = Padded(corpus, corpus.labels[:3], corpus.labels[3:], CLIP, HEARD, 0)

    class Knows(nn.Module):
        hop = 320
        number = -1

        def forward(self, waveform):
            self.number += 1
            frames = torch.arange(waveform.shape[-1] // 320 + 1) * 320
            start = padded.start(self.number)
            inside = ((frames >= start) & (frames < start + 2 * RATE)).float()
            return Frames(inside[None, :, None].expand(1, -1, 3), torch.ones(1, 3))

    found, chance = overlaps(Knows(), padded)
    assert found > 0.97
    assert 0.2 < chance < 0.45


def test_a_kept_encoder_is_taken_by_its_own_study_alone(folder, tmp_path, monkeypatch, capsys):
    import weak_text

    file, manifest = tmp_path / "joint.safetensors", tmp_path / "encoder.csv"
    manifest.write_bytes((folder / "manifest.csv").read_bytes())
    study = SimpleNamespace(keep=file, data=folder, cache=None, encoder_batch=4, encoder_steps=1)
    made = weak_text.joint_space(manifest, study)
    monkeypatch.setattr(weak_text, "fit", None)  # what is kept is not trained anew
    again = weak_text.joint_space(manifest, study)
    weights, kept = made.state_dict(), again.state_dict()
    assert all(torch.equal(kept.pop(name), value) for name, value in weights.items()) and not kept
    assert not again.training
    other = SimpleNamespace(**vars(study) | {"encoder_steps": 2})
    with pytest.raises(SystemExit) as stop:
        weak_text.joint_space(manifest, other)
    assert str(stop.value) == f"{file}: it is the encoder of another study, its steps is 1, not 2."
    lines = manifest.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"another study, its list_sha256 is [0-9a-f]{64}, not [0-9a-f]{64}\.$"):
        weak_text.joint_space(manifest, study)
    save_file({name: value.contiguous() for name, value in weights.items()}, file)  # as earlier versions did
    capsys.readouterr()
    weak_text.joint_space(manifest, study)
    said = f"{file}: it does not say what it was trained on; it is taken as this study's.\n"
    assert capsys.readouterr().out == said


def test_both_studies_in_miniature(folder, tmp_path, monkeypatch, capsys):
    import uss_anchors
    import weak_text

    common = ["--data", str(folder), "--seeds", "2", "--steps", "2", "--mixtures", "2", "--batch_size", "2"]
    monkeypatch.setattr(sys, "argv", ["weak_text", *common, "--labels", "6", "--made", "8", "--encoder_steps", "2",
                                      "--encoder_batch", "4", "--json", str(tmp_path / "a.json"),
                                      "--keep", str(tmp_path / "joint.safetensors")])  # fmt: skip
    weak_text.main()
    with safe_open(tmp_path / "joint.safetensors", "pt") as kept:
        origin = kept.metadata()
    assert (origin["half"], origin["steps"], origin["batch"]) == ("encoder", "2", "4")
    assert origin["labels"] == ";".join(f"tone {n}" for n in range(6))
    monkeypatch.setattr(sys, "argv", ["uss_anchors", *common, "--labels", "3", "--tagger_steps", "2",
                                      "--tagger_batch", "3", "--json", str(tmp_path / "b.json")])  # fmt: skip
    uss_anchors.main()
    text, anchors = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert list(text["scores"]) == ["mix-and-separate", "weak", "semi-supervised", "supervised"]
    assert list(anchors["scores"]) == ["random anchors", "mined anchors"]
    for found in (text, anchors):
        assert all(len(seeds) == 2 and len(seeds[0]) == 4 for seeds in found["scores"].values())
        assert [row["arm"] for row in found["table"]][: len(found["scores"])] == list(found["scores"])
    share = text["settings"]["weak_share_of_supervised"]
    means = {row["arm"]: row["mean"] for row in text["table"]}
    assert share == pytest.approx(means["weak"] / means["supervised"])
    assert 0 <= anchors["settings"]["anchor_overlap"] <= 1
    assert "% of the supervised SDRi" in capsys.readouterr().out
