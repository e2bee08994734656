"""The demo scripts: what `score.py` computes, what `separate_file.py` writes."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import ENCODER, PARTS, tiny_model

from separation import Separation, Separator
from separation.pretrained import build, save_model

DEMOS = Path(__file__).resolve().parent.parent / "demos"
ERROR = 0.1  # of the interference that the double leaves in its targets: 20 dB less of it


def load(name: str) -> Any:
    """One of the scripts, as a module; they find each other in their folder."""
    if str(DEMOS) not in sys.path:
        sys.path.insert(0, str(DEMOS))
    return importlib.import_module(name)


score, separate_file, query_by_example = load("score"), load("separate_file"), load("query_by_example")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights."""
    directory = tmp_path_factory.mktemp("models") / "small"
    encoder = PARTS["encoder"] | {"init_args": ENCODER | {"channels": [4]}}  # deeper, all recordings would be alike
    config = {"card": {"sample_rate": 32000, "queries": ["text"]}, "model": PARTS["model"], "encoder": encoder}
    network = tiny_model()  # seeds torch
    save_model(directory, config, network, build(encoder))
    return directory


class KnowsTheStems:
    """Gives each stem with a tenth of everything else, whatever order they are asked for in."""

    def __init__(self, stems: dict[str, np.ndarray]) -> None:
        self.of_query = {
            "dog barking": stems["dog bark"],
            "alarm clock": stems["alarm clock"],
            "engine": stems["engine"],
        }
        self.calls: list[tuple[list[str], int]] = []

    def __call__(self, mixture: torch.Tensor, queries: list[str], sample_rate: int) -> list[Separation]:
        self.calls.append((queries, sample_rate))
        results = []
        for number, query in enumerate(queries):
            stem = torch.from_numpy(self.of_query[query]).float()
            target = stem + ERROR * (mixture - stem)
            results.append(Separation(target, mixture - target, sample_rate, 0.9 - 0.1 * number))
        return results


@pytest.fixture
def double(stems: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> KnowsTheStems:
    known = KnowsTheStems(stems)
    monkeypatch.setattr(score, "stems", lambda: stems)
    monkeypatch.setattr(Separator, "from_pretrained", lambda name: known)
    return known


def test_score_of_known_targets(double):
    results = score.score(double)
    assert [result.label for result in results] == ["dog bark", "alarm clock", "engine"]
    assert double.calls == [(["dog barking", "alarm clock", "engine"], 44100)]
    for result, presence in zip(results, (0.9, 0.8, 0.7), strict=True):
        assert result.gain == pytest.approx(20, abs=1e-3)
        assert result.before == pytest.approx(-3.01, abs=0.1)  # three stems, equally loud
        assert result.presence == pytest.approx(presence)
        assert result.rounding < 1e-7

    def broken(mixture, queries, sample_rate):  # target and residual do not add up
        parts = double(mixture, queries, sample_rate)
        return [Separation(r.target, r.residual + 0.25, sample_rate, r.presence) for r in parts]

    assert [result.rounding for result in score.score(broken)] == pytest.approx([0.25] * 3, abs=1e-6)


@pytest.mark.parametrize(("options", "status"), [([], 0), (["--at-least", "19.9"], 0), (["--at-least", "20.1"], 1)])
def test_score_table_and_exit_status(double, capsys, options, status):
    assert score.main(options) == status
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["stem", "mixture", "SDR", "SDRi", "presence", "|target", "+", "residual", "-", "mixture|"]
    assert [re.sub(r" {2,}", "|", line).split("|")[0] for line in lines] == ["dog bark", "alarm clock", "engine"]
    for line, presence in zip(lines, ("0.90", "0.80", "0.70"), strict=True):
        assert re.search(rf" -[23]\.\d\d dB +20\.00 dB +{presence} +\d\.\de-\d\d at most$", line)


def test_separate_file_writes_both_parts(model, tmp_path, capsys):
    samples = 0.1 * np.random.default_rng(0).standard_normal((22050, 2)).astype(np.float32)
    soundfile.write(tmp_path / "mix.wav", samples, 22050, subtype="FLOAT")
    arguments = [str(tmp_path / "mix.wav"), "Dog  barking!", "--output", str(tmp_path / "out"), "--model", str(model)]
    assert separate_file.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [Path(line).name for line in printed[:2]] == ["mix.dog_barking.wav", "mix.not_dog_barking.wav"]
    assert 0 <= float(printed[2].rsplit(" ", 1)[1]) <= 1
    target, rate = soundfile.read(printed[0])
    residual, _ = soundfile.read(printed[1])
    assert rate == 22050
    assert target.shape == samples.shape
    assert np.abs(target + residual - samples).max() < 1e-6
    assert np.abs(target).max() > 1e-3


@pytest.mark.parametrize(
    ("main", "arguments", "words"),
    [
        (score.main, ["--model", "nonesuch"], 'Unknown model "nonesuch"'),
        (separate_file.main, ["a.wav", "rain", "--output", "out", "--model", "nonesuch"], 'Unknown model "nonesuch"'),
        (separate_file.main, ["a.wav", "rain", "--output", "out"], "a.wav does not exist"),
        (separate_file.main, ["text.wav", "rain", "--output", "out"], "text.wav is damaged or not audio"),
        (separate_file.main, ["mix.wav", "rain", "--output", "."], "mix.not_rain.wav already exists"),
        (query_by_example.main, ["mix.wav", "x.wav", "--example", "none"], "none does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(
    model, tmp_path, monkeypatch, capsys, main, arguments, words
):
    monkeypatch.chdir(tmp_path)
    for name in ("text.wav", "mix.not_rain.wav"):
        Path(name).write_text("mine")
    soundfile.write("mix.wav", np.zeros(1000), 22050)
    with pytest.raises(SystemExit) as stop:
        main(arguments if "--model" in arguments else [*arguments, "--model", str(model)])
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n")) == (1, 1) and words in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mix.not_rain.wav", "mix.wav", "text.wav"]
    assert Path("mix.not_rain.wav").read_text() == "mine"


def test_query_by_example_asks_with_a_recording(model, tmp_path, capsys):
    samples = 0.1 * np.random.default_rng(0).standard_normal((22050, 2)).astype(np.float32)
    soundfile.write(tmp_path / "mix.wav", samples, 22050, subtype="FLOAT")
    outputs = []
    for name, extra in (("dog", []), ("bell", ["--sound", "church bells"]), ("file", ["--example", str(tmp_path)])):
        arguments = [str(tmp_path / "mix.wav"), str(tmp_path / f"{name}.flac"), "--model", str(model), *extra]
        assert query_by_example.main(arguments) == 0
        assert capsys.readouterr().out.startswith(f"{tmp_path / name}.flac  presence 0.")
        outputs.append(soundfile.read(tmp_path / f"{name}.flac")[0])
        assert outputs[-1].shape == samples.shape
    separator = Separator.from_pretrained(model)
    query = query_by_example.example_of("dog bark", 7)
    expected = separator(samples.T, query, 22050).target.T.numpy()
    assert np.abs(outputs[0] - expected).max() < 1e-5
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-5
