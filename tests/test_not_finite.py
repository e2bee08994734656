"""What is computed as NaN or infinity is an error everywhere, and nothing of it is written."""

import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny import DIM, TinyEncoder, noise, tiny_model, vectors, write_model

from separation import ModelError, Query, Separator, write
from separation.audio import AudioError, Reader
from separation.cli import main
from separation.errors import NotFiniteError

pytestmark = pytest.mark.usefixtures("no_sentence_weights")
BAD = [float("nan"), float("inf"), -float("inf")]
MAX = float(torch.finfo(torch.float32).max)


@pytest.fixture
def broken():
    """A separator, and a function that makes a part of what its network returns not finite."""
    model = tiny_model()
    separate, score = model.separate, model.score_presence

    def breaks(part, value):
        def spoil(tensor):
            tensor = tensor.clone()
            tensor.view(-1)[tensor.numel() // 2] = value
            return tensor

        def separate_badly(*inputs):
            found = separate(*inputs)
            return found._replace(**{part: spoil(getattr(found, part))})

        model.separate = separate_badly
        model.score_presence = lambda *inputs: (spoil(score(*inputs)[0]), None)
        return Separator(model, TinyEncoder(), "broken", "cpu")

    return breaks


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("part", ["targets", "logits"])
def test_an_estimate_that_is_not_finite_is_an_error(broken, tmp_path, part, value):
    separator, mixture = broken(part, value), noise(2.0)
    soundfile.write(tmp_path / "mix.wav", mixture.T.numpy(), 32000)
    stream = separator.stream(["dog"], 32000, 1, 0.1)
    for compute in (
        lambda: separator(mixture, "dog", 32000),
        lambda: separator(mixture, ["dog", Query("rain", negative="dog")], 32000),
        lambda: (stream.push(mixture), stream.flush()),
        lambda: list(separator.separate_file(Reader(tmp_path / "mix.wav"), ["dog", "rain"], share=True)),
    ):
        with pytest.raises(NotFiniteError, match="contains NaN or infinity"):
            compute()
    if part == "logits":
        for compute in (separator.list_sounds, lambda wave, rate: separator.when(wave, "dog", rate)):
            with pytest.raises(NotFiniteError, match="presence of the model contains NaN or infinity"):
                compute(mixture, 32000)


def test_conditions_that_are_not_finite_are_an_error(monkeypatch):
    separator = Separator(tiny_model(), TinyEncoder(), "tiny", "cpu")
    monkeypatch.setattr(TinyEncoder, "encode_text", lambda self, texts: vectors(texts, DIM) * torch.inf)
    with pytest.raises(ModelError, match="condition of the model contains NaN"):
        separator(noise(0.5), "dog", 32000)


def test_recordings_near_the_largest_number_are_separated_or_refused():
    separator = Separator(tiny_model(), TinyEncoder(), "tiny", "cpu")
    wave = noise(1.0)
    quiet = separator(wave, "dog", 32000)
    loud = separator(wave * (1e37 / wave.abs().max()), "dog", 32000)
    assert torch.isfinite(loud.target).all() and torch.isfinite(loud.residual).all()
    assert loud.presence == pytest.approx(quiet.presence, abs=1e-3)
    with pytest.raises(ModelError, match="NaN or infinity"):
        separator(wave.sign() * MAX, "dog", 32000)


@pytest.fixture
def model(tmp_path):
    """A model directory whose weights are finite and whose masks are not."""
    directory = write_model(tmp_path / "broken")
    stored = load_file(directory / "model.safetensors")
    for name in ("model.head.weight", "model.detect.weight"):
        stored[name] = torch.full_like(stored[name], MAX, dtype=torch.float32)
    save_file(stored, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("options", [["--query", "rain"], ["--query", "rain", "--residual"], ["--list"], ["--all"]])
def test_the_command_writes_nothing_and_says_why(model, tmp_path, capsys, options):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "mix.wav", noise(1.0).T.numpy(), 32000)
    out = tmp_path / "out"
    options = [*options, *(() if "--list" in options else ("-o", str(out)))]
    status = main([*options, "--model", str(model), "--json", str(tmp_path / "in" / "mix.wav")])
    said = capsys.readouterr()
    assert status == 1 and not list(tmp_path.glob("out/*")) and len(list((tmp_path / "in").iterdir())) == 1
    record = json.loads(said.out)
    assert "mix.wav could not be separated: The " in record["error"] and "NaN or infinity" in record["error"]
    assert "Traceback" not in said.err


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_samples_that_are_not_finite_are_not_written(tmp_path, suffix, value):
    wave = np.zeros((2, 99), np.float32)
    wave[1, 50] = value
    with pytest.raises(AudioError, match="cannot be written: the samples contain NaN or infinity"):
        write(tmp_path / f"x.{suffix}", torch.from_numpy(wave), 8000)
    assert list(tmp_path.iterdir()) == []
