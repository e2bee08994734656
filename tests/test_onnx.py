"""Models as ONNX files: equal to the package without torch, at any length; the script that uses them; refusals."""

import importlib.util
import json
import os
import resource
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import MODEL, PARTS, noise, tiny_model
from torch.nn import functional as F

from separation import Separator
from separation.convert import main
from separation.inference.levels import Level
from separation.models.bimodal_unet import BiModalUNet
from separation.models.clipsep_unet import CLIPSepUNet
from separation.models.resunet import ResUNet30
from separation.pretrained import build, load_model, save_model

ort = pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
from separation.onnx import export as onnx_export  # noqa: E402

SCRIPT = Path(__file__).resolve().parents[1] / "demos" / "onnx_separate.py"
ALIKE = 1e-4  # of the largest sample
NETWORKS = {
    "band": lambda: tiny_model(carry_high=True),
    "tagger": lambda: tiny_model(tagger=True, high_pass=25.0),
    "resunet": lambda: ResUNet30(8, 8000, 128, 80),
    "clipsep": lambda: CLIPSepUNet(8, width=4, layers=5, noise_heads=2),
    "early": lambda: CLIPSepUNet(8, fusion="early", width=4, layers=5),
    "bimodal": lambda: BiModalUNet(channels=8),
}
# Without torch: each <name>.onnx of a folder on the inputs in <name>.*.npz, into <name>.*.out.npz.
RUN = """
import pathlib, sys
sys.modules["torch"] = None
import numpy, onnxruntime
for file in pathlib.Path(sys.argv[1]).glob("*.onnx"):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for given in [*file.parent.glob(f"{file.stem}.*.npz")]:
        outputs = session.run(None, dict(numpy.load(given)))
        names = [each.name for each in session.get_outputs()]
        numpy.savez(given.with_suffix(".out"), **dict(zip(names, outputs)))
"""


def lively(model, seed=0):
    """Statistics of batch norms that differ from their start, and a tagger that counts."""
    generator = torch.Generator().manual_seed(seed)
    for name in ("late_to_stream", "middle_to_stream", "late_to_bottom", "bands_to_bottom"):
        if getattr(model, "branch", None):
            getattr(model.branch, name).weight.data.normal_(0, 0.3, generator=generator)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def without_torch(code, *words):
    """Run Python code in a process that cannot import torch; return what it prints."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def difference(found, expected):
    expected = np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_equal_theirs_without_torch(name, tmp_path):
    torch.manual_seed(1)
    model, expected = lively(NETWORKS[name]()), {}
    torch.manual_seed(1)
    content, about = onnx_export.export_separator(lively(NETWORKS[name]()), True)
    (tmp_path / "net.onnx").write_bytes(content)
    for number, (seconds, channels, queries) in enumerate(((0.01, 1, 1), (2.2, 2, 3), (10.3, 1, 2))):
        mixture = noise(seconds, model.sample_rate, channels, number, model.input_level)
        condition = F.normalize(torch.randn(queries, model.condition_dim), dim=-1)
        with torch.no_grad():
            expected[number] = model.separate(mixture[None], condition[None])
        np.savez(tmp_path / f"net.{number}.npz", mixture=mixture, condition=condition)
    without_torch(RUN, tmp_path)
    for number, estimate in expected.items():
        found = np.load(tmp_path / f"net.{number}.out.npz")
        assert list(found) == list(about["outputs"])
        assert difference(found["target"], estimate.targets[0]) < ALIKE
        if model.estimates_presence:
            assert np.abs(found["presence"] - estimate.logits[0].numpy()).max() < 1e-4
        if estimate.high_gain is not None:
            assert np.abs(found["high_gain"] - estimate.high_gain[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("name", ["tagger", "resunet"])
def test_spectra_as_inputs(name):
    torch.manual_seed(1)
    model = lively(NETWORKS[name]())
    torch.manual_seed(1)
    content, about = onnx_export.export_separator(lively(NETWORKS[name]()), False)
    mixture = noise(5.1, model.sample_rate, 2, 0, model.input_level)
    condition = F.normalize(torch.randn(2, model.condition_dim), dim=-1)
    given, length = {"condition": condition.numpy()}, mixture.shape[1]
    for key, how in about["transforms"].items():  # as docs/export.md says
        frames = length // how["hop"] + 1
        if how["multiple"]:
            frames = -(-(-(-length // how["hop"]) + 1) // how["multiple"]) * how["multiple"]
        half = how["n_fft"] // 2
        wave = np.pad(mixture, ((0, 0), (half, half)), how["ends"])
        wave = np.pad(wave, ((0, 0), (0, max(0, (frames - 1) * how["hop"] + 2 * half - wave.shape[1]))))
        window = np.hanning(how["window"] + 1)[:-1]
        window = np.pad(window, (how["n_fft"] - how["window"]) // 2)
        place = np.arange(frames)[:, None] * how["hop"] + np.arange(how["n_fft"])
        spectrum = np.fft.rfft(wave[:, place] * window).transpose(0, 2, 1)
        given[key] = np.stack([spectrum.real, spectrum.imag], axis=1).astype(np.float32)
    target = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(["target"], given)[0]
    with torch.no_grad():
        expected = model.separate(mixture[None], condition[None]).targets[0]
    spectrum = torch.complex(*torch.from_numpy(target).unbind(2))
    assert difference(model.stft.inverse(spectrum, length).numpy(), expected) < ALIKE


# --- Folders, and the script that uses them ----------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model directory whose network has a high-pass filter and a gain above its band."""
    directory, network = tmp_path_factory.mktemp("models") / "mine", MODEL | {"high_pass": 25.0, "carry_high": True}
    parts = PARTS | {"model": PARTS["model"] | {"init_args": network}}
    torch.manual_seed(0)
    presence = {"bias": 0.3, "logit": 0.8, "background": [0.5] * 16}
    card = {"card": {"licence": "CC0"}, **parts, "presence": presence}
    save_model(directory, card, tiny_model(high_pass=25.0, carry_high=True), build(parts["encoder"]))
    (directory / "LICENSE-MINE").write_text("Do as you like.")
    return directory


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Its export."""
    folder = tmp_path_factory.mktemp("exports") / "mine"
    assert main(["onnx", str(model), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("onnx_separate", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_folder(exported):
    about = json.loads((exported / "model.json").read_text())
    assert sorted(about["files"]) == sorted(os.listdir(exported))
    assert {"separator.onnx", "text.onnx", "tokenizer.json", "LICENSE-MINE"} < set(about["files"])
    assert about["licence"] == "CC0" and about["opset"] == 17 and about["sample_rate"] == 32000
    session = ort.InferenceSession(exported / "separator.onnx", providers=["CPUExecutionProvider"])
    for side, tensors in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert list(about[side]) == [each.name for each in tensors]
    assert about["inputs"]["condition"] == ["queries", 16]
    assert about["outputs"]["target"] == ["queries", "channels", "time"]


def test_texts(exported, model, script):
    about = json.loads((exported / "model.json").read_text())
    encoder = load_model(model)[1]
    for text in ("rain", "a  dog that barks at a passing car, and then another one far away"):
        with torch.no_grad():
            expected = encoder.encode_text([" ".join(text.split())])
        assert np.abs(script.encode(exported, about, text) - expected.numpy()).max() < 1e-5


def recording(rate, seconds, channels=2, lead=0.0, rumble=0.0):
    wave = noise(seconds, rate, channels).numpy()
    time = np.arange(wave.shape[1]) / rate
    wave += rumble * np.sin(2 * np.pi * 9 * time) * (np.sin(2 * np.pi * 0.2 * time) > 0) + 0.01
    return np.concatenate([np.zeros((channels, round(lead * rate)), np.float32), wave.astype(np.float32)], axis=1)


CASES = {
    "44 kHz stereo in two segments": (44100, recording(44100, 27.3)),
    "rumble": (44100, recording(44100, 4.1, rumble=0.1)),
    "silence before": (32000, recording(32000, 3.0, 1, lead=1.3)),
    "low rate": (8000, recording(8000, 3.3, 1)),
    "very short": (48000, recording(48000, 0.02)),
}


@pytest.mark.parametrize("case", CASES)
def test_script_equals_the_package(case, exported, model, script, tmp_path):
    rate, wave = CASES[case]
    soundfile.write(tmp_path / "mix.wav", wave.T, rate, "FLOAT")
    separator = Separator.from_pretrained(model, device="cpu", precision="float32")
    expected = separator(wave, "dog barking", sample_rate=rate)
    level = separator.level([torch.from_numpy(wave)], rate)
    assert isinstance(level, Level) and level.keeps_rumble >= (case == "rumble")
    outputs = tmp_path / "target.wav", tmp_path / "residual.wav"
    presence = script.separate(exported, tmp_path / "mix.wav", "dog barking", *outputs)
    target, residual = (soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in outputs)
    assert difference(target, expected.target) < ALIKE
    assert np.abs(target + residual - wave).max() < 1e-6
    assert presence == pytest.approx(expected.presence, abs=1e-3)


def test_default_without_torch(tmp_path, monkeypatch):
    assert main(["onnx", "default", str(tmp_path / "default")]) == 0
    wave = recording(44100, 4.0)
    soundfile.write(tmp_path / "mix.wav", wave.T, 44100, "FLOAT")
    block = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]"
    code = f"{block}; runpy.run_path(sys.argv[0], run_name='__main__')"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    printed = without_torch(code, SCRIPT, tmp_path / "default", tmp_path / "mix.wav", "rain")
    assert not (tmp_path / "home").exists()
    separator = Separator.from_pretrained(device="cpu", precision="float32")
    expected = separator(wave, "rain", sample_rate=44100)
    found = soundfile.read(tmp_path / "mix.target.wav", dtype="float32")[0].T
    assert difference(found, expected.target) < ALIKE
    assert float(printed.split()[-1]) == pytest.approx(expected.presence, abs=1e-3)
    assert {"LICENSE-YAMNET", "ATTRIBUTION.md"} < set(os.listdir(tmp_path / "default"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (0, "mix.wav holds no audio: its length is zero."),
        (b"text " * 99, "Format not recognised"),
        (b"", "Format not recognised"),
    ],
)
def test_script_refuses_in_one_sentence(content, sentence, exported, tmp_path, monkeypatch, capsys):
    if content == 0:
        soundfile.write(tmp_path / "mix.wav", np.zeros((0, 2)), 8000)
    else:
        (tmp_path / "mix.wav").write_bytes(content)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(exported), str(tmp_path / "mix.wav"), "rain"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code == 1 and sentence in said and said.count("\n") == 1
    assert not list(tmp_path.glob("mix.*.wav"))


def test_script_leaves_silence_silent(exported, script, tmp_path):
    soundfile.write(tmp_path / "mix.wav", np.zeros((8000, 2)), 8000)
    outputs = tmp_path / "target.wav", tmp_path / "residual.wav"
    assert script.separate(exported, tmp_path / "mix.wav", "rain", *outputs) == 0
    assert soundfile.read(tmp_path / "target.wav")[0].shape == (8000, 2)
    assert not soundfile.read(tmp_path / "target.wav")[0].any()


def test_half_precision(exported, model, script, tmp_path):
    assert main(["onnx", str(model), str(tmp_path / "small"), "--precision", "float16"]) == 0
    sizes = [(folder / "text.onnx").stat().st_size for folder in (exported, tmp_path / "small")]
    assert sizes[1] < 0.55 * sizes[0]
    about = json.loads((exported / "model.json").read_text())
    a, b = (script.encode(folder, about, "dog barking")[0] for folder in (exported, tmp_path / "small"))
    assert a @ b > 0.98
    given = {"mixture": recording(32000, 2.0), "condition": a[None]}
    targets = [
        ort.InferenceSession(folder / "separator.onnx", providers=["CPUExecutionProvider"]).run(["target"], given)[0]
        for folder in (exported, tmp_path / "small")
    ]
    assert 0 < difference(targets[1], targets[0]) < 0.02


# --- Refusals ----------------------------------------------------------------------------------


def refused(words, capsys):
    """The only line that a refusal prints."""
    assert main(["onnx", *map(str, words)]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_refusals(exported, model, tmp_path, capsys, monkeypatch):
    assert 'Unknown model "nothing"' in refused(["nothing", tmp_path / "out"], capsys)
    before = (exported / "separator.onnx").stat().st_mtime_ns
    assert "exists; name another folder" in refused([model, exported], capsys)
    (exported / "mine.txt").write_text("")
    assert "other files (mine.txt)" in refused([model, exported, "--overwrite"], capsys)
    (exported / "mine.txt").unlink()
    assert "not an export" in refused([model, model, "--overwrite"], capsys)
    inside = model / "config.yaml" / "out"
    assert f"{inside} cannot be written: {model / 'config.yaml'} is not a folder." in refused([model, inside], capsys)
    assert (exported / "separator.onnx").stat().st_mtime_ns == before
    monkeypatch.setattr(onnx_export, "GRAPHS", {})
    assert "BandUNet has no ONNX export" in refused([model, tmp_path / "out"], capsys)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert 'pip install "separation[onnx]"' in refused([model, tmp_path / "out"], capsys)
    assert os.listdir(tmp_path) == []


def test_full_disk(exported, model, capsys, monkeypatch):
    before = {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    monkeypatch.setattr(onnx_export, "export_separator", lambda *_: (b"", {}))
    monkeypatch.setattr(onnx_export, "trace", lambda *_: b"")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # the tokenizer is larger
    try:
        said = refused([model, exported, "--overwrite"], capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{exported} cannot be written: the file would be larger than is allowed here." in said
    assert os.listdir(exported.parent) == [exported.name]
    assert {path.name: path.stat().st_mtime_ns for path in exported.iterdir()} == before
    monkeypatch.undo()
    monkeypatch.setattr(onnx_export, "export_separator", lambda *_: (b"new", {}))
    monkeypatch.setattr(onnx_export, "trace", lambda *_: b"")
    assert main(["onnx", str(model), str(exported.parent / "other")]) == 0
    assert main(["onnx", str(model), str(exported.parent / "other"), "--overwrite"]) == 0
    assert sorted(os.listdir(exported.parent)) == sorted([exported.name, "other"])
