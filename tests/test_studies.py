"""The studies: what their encoders may see, their figures, and each from its command line to its JSON, in miniature."""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import read, vectors, write_corpus, write_manifest
from torch import nn

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.corpus import Corpus
from separation.data.manifest import Clip, read_manifest
from separation.encoders.sentence import SentenceEncoder
from separation.encoders.taggers import Frames

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks" / "studies"))
study, noise_invariant, uss_anchors, weak_text = map(
    importlib.import_module, ("study", "noise_invariant", "uss_anchors", "weak_text")
)
RATE = study.RATE
SMALL = ["--steps", "2", "--mixtures", "2", "--batch_size", "2"]


@pytest.fixture(autouse=True)
def sentence_vectors(monkeypatch):
    """Random vectors, so that the weights of the sentence encoder are not read."""
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tones: for each of six labels four recordings to train on and one to validate on."""
    place = tmp_path_factory.mktemp("data")
    manifest = write_corpus(place, labels=6, recordings=5, seconds=0.8)
    rows = read(manifest)
    for number, row in enumerate(rows):
        row["split"] = "validation" if number % 5 == 4 else "train"
    write_manifest(manifest, rows)
    return place


def run(module, folder, file, *options):
    """Run a study; return its JSON."""
    module.main(["--data", str(folder), *SMALL, *options, "--json", str(file)])
    return json.loads(file.read_text(encoding="utf-8"))


# Common parts


@pytest.fixture(scope="module")
def pairs(folder):
    corpus = Corpus(folder / "manifest.csv", "validation", sample_rate=8000)
    return [study.clean_pairs(corpus, ["tone 0", "tone 2"], 5, 0.5) for _ in range(2)]


def test_pairs_have_different_labels_and_equal_energy(pairs):
    assert len(pairs[0]) == 5
    for pair, again in zip(*pairs, strict=True):
        assert sorted(pair.labels) == ["tone 0", "tone 2"]
        assert pair.waves.shape == (2, 4000)
        assert torch.allclose(pair.waves.square().mean(1).sqrt(), torch.full((2,), 0.1), atol=1e-5)
        assert torch.equal(pair.waves, again.waves)


def test_pairs_with_their_own_levels_and_with_a_sound_that_nobody_asks_for(folder):
    corpus = Corpus(folder / "manifest.csv", "validation", sample_rate=8000)
    [recorded] = study.clean_pairs(corpus, ["tone 0", "tone 2"], 1, 0.5, as_recorded=True)
    number = next(n for n, clip in enumerate(corpus.clips) if clip.recording == recorded.recordings[0])
    assert recorded.waves[0].abs().amax() == pytest.approx(float(corpus.waveform(number).abs().amax()), rel=0.02)
    [pair] = study.clean_pairs(corpus, ["tone 0", "tone 2"], 1, 0.5, unasked=True)
    assert pair.waves.shape == (3, 4000) and len(pair.recordings) == len(pair.labels) == 2
    share = torch.corrcoef(pair.waves)  # tones of different labels
    assert share[2, :2].abs().max() < 0.2
    model = SimpleNamespace(separate=lambda mixture, conditions: (mixture[:, None].expand(-1, 2, -1, -1) / 3, None))
    model.eval = lambda: model
    # A third of three orthogonal tones misses 4/9 + 2/9 of each: 4.77 dB better than the mixture, which misses two.
    assert study.score_pairs(model, vectors, [pair]) == pytest.approx([10 * np.log10(3)] * 2, abs=0.1)


@pytest.mark.parametrize("level", [None, 0.05])
def test_scores_of_the_mixture_and_of_half_of_it(pairs, level):
    levels = []

    def score(factor):
        def separate(mixture, conditions):
            levels.append(mixture.square().mean().sqrt())
            return factor * mixture[:, None].expand(-1, conditions.shape[1], -1, -1), None

        model = SimpleNamespace(separate=separate)
        model.eval = lambda: model
        return study.score_pairs(model, vectors, pairs[0], level)

    assert score(1.0) == pytest.approx([0.0] * 10, abs=1e-6)
    # Half of a sum of two orthogonal tones misses a quarter of each: 1 / (0.25 + 0.25), 3.01 dB.
    assert score(0.5) == pytest.approx([10 * np.log10(2)] * 10, abs=0.1)
    assert levels == pytest.approx([level or 0.1 * 2**0.5] * 10, rel=0.02)


def test_labels_of_both_splits_by_their_number_of_recordings():
    tree = {"a": {1: []}, "b": {1: [], 2: []}, "c": {}, "d": {1: []}}
    train, other = SimpleNamespace(labels=list("abcd"), tree=tree), SimpleNamespace(labels=list("abde"))
    assert study.common_labels(train, other) == ["b", "a", "d"]
    assert study.common_labels(train, other, 2) == ["b", "a"]


def test_differences_are_taken_mixture_by_mixture(tmp_path, capsys):
    easy = np.linspace(-10, 10, 40)
    values = {("plain", 0): easy, ("plain", 1): easy + 1, ("nit", 0): easy + 2, ("nit", 1): easy + 2}
    arguments = SimpleNamespace(arms=None, seeds=2, json=tmp_path / "a.json", data=tmp_path)
    pairs = [study.Pair(torch.zeros(2, 1), ("a", "b"), (str(2 * i), str(2 * i + 1))) for i in range(20)]

    def run(arm, seed):
        return values[arm, seed].tolist()

    means = study.compare_arms(arguments, ("plain", "nit"), run, pairs, "plain", {"fact": 1})
    assert means == {"plain": pytest.approx(0.5), "nit": pytest.approx(2.0), "nit - plain": pytest.approx(1.5)}
    result = json.loads(arguments.json.read_text(encoding="utf-8"))
    plain, _, difference = result["table"]
    assert plain["seeds"] == pytest.approx([0.0, 1.0])
    assert plain["low"] < -1.0 and plain["high"] > 2.0
    assert [difference[key] for key in ("mean", "low", "high")] == pytest.approx([1.5] * 3)
    assert result["settings"]["fact"] == 1
    assert result["settings"]["data"] == tmp_path.name  # not the whole path
    assert "| nit - plain | 1.50 | 1.50 to 1.50 | 2.00, 1.00 |" in capsys.readouterr().out


# Noise invariance


def test_study_of_noise_invariance(folder, tmp_path):
    arms = ["plain", "plain, squared", "nit", "clean"]
    options = ["--seeds=1", "--labels=3", "--width=2", "--arms", *arms]
    result = run(noise_invariant, folder, tmp_path / "a.json", *options)
    assert {arm: np.shape(values) for arm, values in result["scores"].items()} == dict.fromkeys(arms, (1, 4))
    assert np.isfinite(result["scores"]["nit"]).all()
    names = [*arms, *(f"{arm} - plain" for arm in arms[1:])]
    assert {metric: [row["arm"] for row in table] for metric, table in result["tables"].items()} == dict.fromkeys(
        [f"{metric}{rows}" for rows in noise_invariant.ROWS for metric in ("SDRi", "SI-SDRi", "SIR")], names
    )
    sdri = {row["arm"]: row["mean"] for row in result["table"]}
    assert result["table"] == result["tables"]["SDRi"] and sdri["plain, squared"] != pytest.approx(
        sdri["plain"], abs=1e-3
    )


# Weak supervision from text


def clip(number, recording, label):
    return Clip(f"{number}.wav", label, "", recording, "", 1.0)


def test_no_recording_is_in_both_halves():
    clips = [clip(f"{label}{n}", f"site:{label}{n // 2}", label) for label in "abc" for n in range(14)]
    clips += [clip("shared1", "site:s", "a"), clip("shared2", "site:s", "b"), clip("shared3", "site:s", "c")]
    clips += [clip("unknown1", "freesound:?", "a"), clip("unknown2", "freesound:?", "a")]
    halves = encoder, mixtures = weak_text.split_halves(clips)
    assert sorted(c.path for c in encoder + mixtures) == sorted(c.path for c in clips)
    assert not set(map(weak_text.recording_of, encoder)) & set(map(weak_text.recording_of, mixtures))
    for label in "abc":
        counts = [len({c.recording for c in half if c.label == label}) for half in halves]
        assert abs(counts[0] - counts[1]) <= 1
    assert {c.path for c in weak_text.split_halves(reversed(clips))[0]} == {c.path for c in encoder}


def test_halves_of_the_real_recordings(data_root):
    clips = read_manifest(data_root / "manifest.csv", "train")
    encoder, mixtures = weak_text.split_halves(clips)
    assert not set(map(weak_text.recording_of, encoder)) & set(map(weak_text.recording_of, mixtures))
    assert not {c.path for c in encoder} & {c.path for c in mixtures}
    recordings = Counter(label for label, _ in {(c.label, weak_text.recording_of(c)) for c in clips})
    both = {c.label for c in encoder} & {c.label for c in mixtures}
    assert both == {label for label, count in recordings.items() if count > 1}


def test_a_share_of_the_recordings_of_every_label():
    clips = [clip(f"{label}{n}", f"{label}{n // 2}", label) for label in "ab" for n in range(20)]
    kept = weak_text.select_share(clips, 0.3)
    assert {label: len({c.recording for c in kept if c.label == label}) for label in "ab"} == {"a": 3, "b": 3}
    assert len(kept) == 12
    assert len({c.recording for c in weak_text.select_share(clips, 0.0)}) == 2


def test_study_of_weak_text(folder, tmp_path, capsys):
    options = ["--seeds=1", "--made=8", "--encoder_batch=4", "--labels=6", "--encoder_steps=2"]
    result = run(weak_text, folder, tmp_path / "a.json", *options)
    assert list(result["scores"]) == ["mix-and-separate", "weak", "semi-supervised", "supervised"]
    assert all(np.shape(values) == (1, 4) for values in result["scores"].values())
    means = {row["arm"]: row["mean"] for row in result["table"]}
    share = f"weak reaches {means['weak'] / means['supervised']:.0%} of the supervised SDRi"
    assert capsys.readouterr().out.rstrip().endswith(share)
    assert 0 <= result["settings"]["encoder_top1"] <= 1


# Anchors


def test_a_perfect_tagger_finds_the_whole_sound(folder):
    corpus = Corpus(folder / "manifest.csv", "train", sample_rate=RATE)
    padded = uss_anchors.Padded(corpus, corpus.labels[:3], corpus.labels[3:], 0)

    class Perfect(nn.Module):
        hop, number = 320, -1

        def forward(self, waveform):
            self.number += 1
            frames = torch.arange(waveform.shape[-1] // 320 + 1) * 320
            start = padded.start(self.number)
            inside = ((frames >= start) & (frames < start + 2 * RATE)).float()
            return Frames(inside[None, :, None].expand(1, -1, 3), torch.ones(1, 3))

    found, chance = uss_anchors.anchor_overlaps(Perfect(), padded)
    assert found > 0.97
    assert 0.2 < chance < 0.45


def test_study_of_anchors(folder, tmp_path):
    result = run(
        uss_anchors, folder, tmp_path / "a.json", "--seeds=2", "--labels=3", "--tagger_steps=2", "--tagger_batch=3"
    )
    assert list(result["scores"]) == ["random anchors", "mined anchors"]
    assert all(np.shape(values) == (2, 4) for values in result["scores"].values())
    assert 0 <= result["settings"]["anchor_overlap"] <= 1
