"""The studies' common parts against plain figures, and a study from its command line to its JSON, in miniature."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import vectors, write_corpus, write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

from separation.data.corpus import Corpus
from separation.encoders.sentence import SentenceEncoder

STUDIES = Path(__file__).parents[1] / "benchmarks" / "studies"


@pytest.fixture(scope="module", autouse=True)
def studies_importable():
    sys.path.insert(0, str(STUDIES))
    yield
    sys.path.remove(str(STUDIES))


@pytest.fixture(scope="module")
def common():
    import common

    return common


def load(name):
    spec = importlib.util.spec_from_file_location(name, STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    """Tones for training and for validation, of other recordings."""
    folder = tmp_path_factory.mktemp("data")
    manifest = write_corpus(folder, labels=3, recordings=4, seconds=0.8)
    lines = manifest.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    for number, row in enumerate(rows):
        row["split"] = "validation" if number % 4 == 3 else "train"
    write_manifest(manifest, rows, lines[0].split(","))
    return folder


def test_pairs_are_of_different_labels_and_equal_energy(common, corpus_folder):
    corpus = Corpus(corpus_folder / "manifest.csv", "validation", sample_rate=8000)
    pairs = common.clean_pairs(corpus, ["tone 0", "tone 2"], 5, 0.5)
    assert len(pairs) == 5
    for pair in pairs:
        assert sorted(pair.labels) == ["tone 0", "tone 2"]
        assert pair.waves.shape == (2, 4000)
        assert torch.allclose(pair.waves.square().mean(1).sqrt(), torch.full((2,), 0.1), atol=1e-5)
    again = common.clean_pairs(corpus, ["tone 0", "tone 2"], 5, 0.5)
    assert all(torch.equal(a.waves, b.waves) for a, b in zip(pairs, again, strict=True))


def test_the_mixture_itself_scores_nought_and_half_of_it_about_three(common, corpus_folder):
    corpus = Corpus(corpus_folder / "manifest.csv", "validation", sample_rate=8000)
    pairs = common.clean_pairs(corpus, ["tone 0", "tone 2"], 3, 0.5)

    def score(factor):
        def separate(mixture, conditions):
            return factor * mixture[:, None].expand(-1, conditions.shape[1], -1, -1), None

        model = SimpleNamespace(separate=separate)
        model.eval = lambda: model
        return common.score_pairs(model, vectors, pairs)

    assert score(1.0) == pytest.approx([0.0] * 6)
    # Half of a sum of two orthogonal tones misses a quarter of each: 1 / (0.25 + 0.25), 3.01 dB.
    assert score(0.5) == pytest.approx([10 * np.log10(2)] * 6, abs=0.1)


def test_labels_of_both_splits_come_by_their_number_of_recordings(common):
    train = SimpleNamespace(
        labels=["a", "b", "c", "d"], tree={"a": {1: []}, "b": {1: [], 2: []}, "c": {}, "d": {1: []}}
    )
    other = SimpleNamespace(labels=["a", "b", "d", "e"])
    assert common.common_labels(train, other) == ["b", "a", "d"]
    assert common.common_labels(train, other, 2) == ["b", "a"]


def test_a_difference_is_taken_mixture_by_mixture(common):
    easy = np.linspace(-10, 10, 40)
    arms = {"plain": [(easy).tolist(), (easy + 1).tolist()], "nit": [(easy + 2).tolist(), (easy + 2).tolist()]}
    plain, nit, difference = common.lines(arms, [str(i) for i in range(40)], "plain")
    assert (plain["mean"], nit["mean"]) == (pytest.approx(0.5), pytest.approx(2.0))
    assert plain["seeds"] == pytest.approx([0.0, 1.0])
    assert plain["low"] < -1.0 and plain["high"] > 2.0
    assert difference["arm"] == "nit - plain"
    assert [difference[key] for key in ("mean", "low", "high")] == pytest.approx([1.5] * 3)
    assert "| nit - plain | 1.50 | 1.50 to 1.50 | 2.00, 1.00 |" in common.table([difference])


def test_the_study_of_noise_invariance_runs(corpus_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
    small = {"seeds": 2, "steps": 2, "batch_size": 2, "mixtures": 2, "labels": 3, "width": 2}
    command = [f"--{key}={value}" for key, value in small.items()]
    file = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["study", "--data", str(corpus_folder), *command, "--json", str(file), "--clean"])
    load("noise_invariant").main()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert {arm: np.shape(values) for arm, values in result["scores"].items()} == dict.fromkeys(
        ("plain", "nit", "clean"), (2, 4)
    )
    assert np.isfinite(result["scores"]["nit"]).all()
    assert [row["arm"] for row in result["table"]] == ["plain", "nit", "clean", "nit - plain", "clean - plain"]
    assert result["settings"]["data"] == corpus_folder.name  # no path of this machine
    assert "| nit - plain |" in capsys.readouterr().out


def test_the_study_of_the_network_runs(corpus_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))
    network, file = load("network"), tmp_path / "network.json"
    arms = [network.BASE, network.SENTENCE, "magnitude mask, the mixture's phase"]
    small = {"seeds": 1, "steps": 1, "batch_size": 2, "mixtures": 2, "labels": 3, "encoder_steps": 1}
    command = [f"--{key}={value}" for key, value in small.items()]
    monkeypatch.setattr(
        sys, "argv", ["study", "--data", str(corpus_folder), *command, "--json", str(file), "--arms", *arms]
    )
    network.main()
    result = json.loads(file.read_text(encoding="utf-8"))
    assert {arm: np.shape(values) for arm, values in result["scores"].items()} == dict.fromkeys(arms, (1, 4))
    assert np.isfinite([result["scores"][arm] for arm in arms]).all()
    differences = [f"{arm} - {network.BASE}" for arm in arms[1:]]
    assert [row["arm"] for row in result["table"]] == [*arms, *differences]
    assert f"| {network.BASE} |" in capsys.readouterr().out
