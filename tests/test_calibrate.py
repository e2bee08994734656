"""Calibration finds known coefficients, writes them into a model directory and leaves the rest of its config alone."""

import csv
import json
import sys

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file
from tiny import tiny_separator, write_corpus, write_model

from separation import Separator, calibrate
from separation.calibrate import (
    AskedMixture,
    calibrate_listing,
    calibrate_presence,
    drawn_mixtures,
    listed_mixtures,
    observe,
    store_labels,
)
from separation.data.corpus import Corpus
from separation.errors import DataError
from separation.fitting import cross_fit, fit_background, fit_presence, report
from separation.listing import ListingRule
from separation.presence import PresenceRule
from separation.pretrained import load_settings
from separation.storage.tensors import read_tensors

SOUNDS = ("rain", "siren", "dog bark")


def test_the_background_is_the_mean_odds_as_a_function_of_the_condition():
    rng = np.random.default_rng(0)
    references, slope = rng.standard_normal((4000, 8)), rng.standard_normal(8)
    logits = np.log([[1.0], [3.0], [7.0]]) + references @ slope - 1.5  # of three mixtures; the mean of 1 and 3 is 2
    logits[2] = -np.inf  # there all occur
    assert fit_background(logits, references) == pytest.approx([*slope, -1.5 + np.log(2)], abs=1e-3)


def test_fit_of_presence_finds_the_boundary():
    rng = np.random.default_rng(0)
    detection, conditions = rng.normal(0, 3, 8000), rng.standard_normal((8000, 2))
    background = np.array([1.0, -2.0, 5.0])
    odds = 2.0 * detection - 0.5 * (conditions @ [1.0, -2.0] + 5.0) + 1.0
    present = rng.random(8000) < 1 / (1 + np.exp(-odds))
    rule = fit_presence(detection, conditions, background, present)
    assert rule.logit == pytest.approx(2.0, rel=0.1)
    assert rule.background == pytest.approx((-0.5, 1.0), rel=0.15)
    assert rule.ratio == 0.0
    # Present and absent queries have the same weight: without information the probability is one half.
    zeros = np.zeros((1000, 2))
    rule = fit_presence(zeros[:, 0], zeros, np.zeros(3), np.arange(1000) % 10 > 0)
    assert float(rule(torch.zeros(1), torch.zeros(1, 2))) == pytest.approx(0.5, abs=1e-3)


def test_the_report_gives_shares_and_reliability():
    probability = np.array([0.95, 0.95, 0.55, 0.15, 0.05, 0.05, 0.65, 0.15])
    present = np.array([True, True, True, True, False, False, False, False])
    lines = list(report(probability, present, np.array(["label"] * 8)))
    assert lines[0] == (
        "by label: AUC 0.844; presence is at least 0.5 for 75.0% of sounding and 25.0% of absent queries"
    )
    table = {line[:24].strip(): line[24:].split() for line in lines[1:]}
    assert table["0.9 to 1.0"] == ["0.95", "1.00", "2", "0"]
    assert table["0.1 to 0.2"] == ["0.15", "0.50", "1", "1"]
    assert table["absent (below 0.3)"][1:] == ["0.25", "1", "3"]
    assert table["uncertain"][1:] == ["1.00", "1", "0"]
    assert table["present (from 0.6)"][1:] == ["0.67", "2", "1"]
    assert "0.2 to 0.3" not in table


@pytest.fixture
def directory(tmp_path):
    """A model directory's config."""
    config = {"model": {}, "card": {"training": "1. a\n\n2. b"}, "listing": {"sounds": list(SOUNDS)}, "encoder": {}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return tmp_path


@pytest.fixture
def separator(monkeypatch):
    """A small network that lists three sounds; it is what is loaded from any directory."""
    tiny = tiny_separator()
    separator = Separator(tiny.model, tiny.encoder, "tiny", "cpu", listing=ListingRule(sounds=SOUNDS))
    monkeypatch.setattr(Separator, "from_pretrained", lambda directory: separator)
    return separator


@pytest.fixture
def mixtures(directory):
    """A list of mixtures of two tones each; every second one is asked for a sound that does not occur."""
    columns = ["id", "kind", "query", "phrase", "snr_db", "target", "target_label", "interference1"]
    columns += ["interference1_label", "interference2_label"]
    with (directory / "list.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for number in range(8):
            for name in ("a", "b"):
                tone = np.sin(np.arange(16000) * (number + 1) * (ord(name) - 90) / 100)
                soundfile.write(directory / f"{name}{number}.wav", tone, 32000)
            absent, files = number % 2, [f"a{number}.wav", "rain", f"b{number}.wav", "siren"]
            kind, query, phrase = ("absent", "dog bark", "") if absent else ("pair", "rain", "drops")
            writer.writerow([number, kind, query, phrase, "0", *files, ""])
    return directory / "list.csv"


def read_config(directory):
    return yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))


def test_both_rules_are_fitted_on_a_list_and_written(directory, separator, mixtures, capsys):
    before = read_config(directory)
    rule = calibrate_presence(directory, separator, listed_mixtures(mixtures, directory))
    listing = calibrate_listing(directory, mixtures, directory)
    assert load_settings(directory, "presence", PresenceRule) == rule
    assert len(rule.background) == separator.model.condition_dim and any(rule.background)
    assert load_settings(directory, "listing", ListingRule) == listing
    assert listing.sounds == SOUNDS
    stored = load_file(directory / "sounds.safetensors")
    assert set(stored) >= set(SOUNDS)
    assert torch.equal(stored[SOUNDS[0]], Separator.from_pretrained(directory).listing_conditions[0])
    assert {**read_config(directory), "presence": 0, "listing": 0} == {**before, "presence": 0, "listing": 0}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("by label: AUC ")
    assert lines[-1].startswith("present (from 0.6)") or lines[-1].startswith(("uncertain", "absent"))


def test_conditions_of_labels_are_stored_in_the_weights(tmp_path, monkeypatch):
    directory = write_model(tmp_path / "model", name="tiny")
    config = read_config(directory)
    monkeypatch.setattr("separation.calibrate.wordings", lambda: {"rain": ("drops",), "siren": ()})
    store_labels(directory)
    encoder = Separator.from_pretrained(directory).encoder
    expected = encoder.encode_text(["rain", "drops"]).mean(0)
    assert torch.allclose(encoder.labels[0], expected / expected.norm(), atol=1e-3)  # stored in half precision
    assert torch.allclose(encoder.labels[1], encoder.encode_text(["siren"])[0], atol=1e-3)
    assert not torch.allclose(encoder.encode_query(["rain"]), encoder.encode_text(["rain"]), atol=0.01)
    config["encoder"]["init_args"] |= {"labels": 2, "classes": len(encoder.classes)}
    assert read_config(directory) == config


def test_labels_and_rules_are_written_together(tmp_path, monkeypatch, capsys):
    directory = write_model(tmp_path / "model", name="tiny")
    (directory / "sounds.safetensors").write_bytes(b"of the old labels")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    monkeypatch.setattr("separation.calibrate.wordings", lambda: {"rain": ("drops",), "siren": ()})
    monkeypatch.setattr("separation.calibrate.Corpus", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["separation.calibrate", str(directory), "--labels", "--foley", "1"])

    def fail(staged, *_):
        read_tensors(staged / "none.safetensors")

    monkeypatch.setattr("separation.calibrate.calibrate_presence", fail)
    with pytest.raises(SystemExit):
        calibrate.main()
    assert capsys.readouterr().err == f"{directory}/none.safetensors is missing.\n"
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before

    def write(staged, *_):
        assert "labels" in read_config(staged)["encoder"]["init_args"] and not (staged / "sounds.safetensors").exists()
        calibrate.write_section(staged, "presence", {"logit": 2.0})

    monkeypatch.setattr("separation.calibrate.calibrate_presence", write)
    calibrate.main()
    assert read_config(directory)["presence"] == {"logit": 2.0}
    assert len(Separator.from_pretrained(directory).encoder.labels) == 2
    assert {path.name for path in directory.iterdir()} == before.keys() - {"sounds.safetensors"}


def test_what_is_observed_is_what_a_separation_tells(separator, mixtures):
    asked = list(listed_mixtures(mixtures, mixtures.parent))[:2]
    assert [each.queries for each in asked] == [
        [("rain", "label", True), ("drops", "phrase", True)],
        [("dog bark", "label", False)],
    ]
    assert [each.recordings for each in asked] == [{"a0.wav", "b0.wav"}, {"a1.wav", "b1.wav"}]
    evidence = observe(separator, asked)
    assert evidence.present.tolist() == [True, True, False]
    assert evidence.mixture.tolist() == [0, 0, 1]
    assert np.isneginf(evidence.responses[0]).sum() == np.isneginf(evidence.responses[1]).sum() > 1  # rain and siren
    for number, mixture in enumerate(asked):
        chosen = evidence.mixture == number
        results = separator(mixture.waveform, [text for text, _, _ in mixture.queries], mixture.sample_rate)
        told = separator.rule(*(torch.from_numpy(x[chosen]) for x in (evidence.detection, evidence.conditions)))
        assert [result.presence for result in results] == pytest.approx(told.tolist(), abs=5e-3)


def test_rules_are_tested_on_other_recordings(separator):
    """Queries that occur in every second mixture of noise: nothing tells them apart, and the rule finds nothing."""
    rng = np.random.default_rng(0)
    mixtures = []
    for number in range(40):
        queries = [("rain", "label", number % 4 < 2), ("siren", "label", number % 4 > 1)]
        noise = rng.standard_normal(8000).astype(np.float32)
        mixtures.append(AskedMixture(noise, 32000, queries, {"other"}, {f"r{number // 2}"}))
    evidence = observe(separator, mixtures)
    probability = cross_fit(evidence)
    assert probability.shape == (80,) and ((probability > 0) & (probability < 1)).all()
    assert abs(probability[evidence.present].mean() - probability[~evidence.present].mean()) < 0.2


def test_without_a_list_mixtures_are_drawn(directory, separator):
    corpus = Corpus(write_corpus(directory / "clips", labels=3, recordings=1, sample_rate=32000))
    drawn = list(drawn_mixtures(corpus, 32000, count=12, seconds=1.0))
    assert all(each.labels < {f"tone {n}" for n in range(3)} and len(each.labels) == 2 for each in drawn)
    rule = calibrate_presence(directory, separator, drawn)
    assert rule.logit != 1.0 and load_settings(directory, "presence", PresenceRule) == rule


def test_queries_of_one_kind_are_refused(directory, separator, mixtures):
    before = (directory / "config.yaml").read_bytes()
    with pytest.raises(DataError, match="queries that occur and queries that do not"):
        calibrate_presence(directory, separator, list(listed_mixtures(mixtures, directory))[::2])
    with pytest.raises(DataError, match="queries that occur and queries that do not"):
        calibrate_presence(directory, separator, [])
    assert (directory / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("case", ["one recording", "a recording is missing", "no sounds are listed"])
def test_a_list_that_cannot_be_used_is_one_sentence(case, directory, separator, mixtures, monkeypatch, capsys):
    text = mixtures.read_text()
    if case == "one recording":
        mixtures.write_text("\n".join(text.replace("b1.wav", "b0.wav").replace("a1.wav", "a0.wav").split("\n")[:3]))
    elif case == "a recording is missing":
        (directory / "b7.wav").unlink()
    else:
        separator.listing = ListingRule(sounds=())
    monkeypatch.setattr(sys, "argv", ["separation.calibrate", str(directory), "--mixtures", str(mixtures)])
    before = (directory / "config.yaml").read_bytes()
    with pytest.raises(SystemExit) as stop:
        calibrate.main()
    sentences = {"one recording": "in several recordings.", "no sounds are listed": "tiny lists no sounds"}
    assert stop.value.code == 1 and sentences.get(case, "b7.wav is missing. --root") in capsys.readouterr().err
    assert (directory / "config.yaml").read_bytes() == before


def test_a_config_of_any_layout_stays_readable(directory, separator, mixtures):
    config = read_config(directory)
    (directory / "config.yaml").write_text(json.dumps(config))
    rule = calibrate_presence(directory, separator, listed_mixtures(mixtures, directory))
    assert load_settings(directory, "presence", PresenceRule) == rule
    assert read_config(directory) | {"presence": 0} == config | {"presence": 0}
