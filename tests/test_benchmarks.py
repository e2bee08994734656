"""The benchmarks on small models and recordings: scores, oracle masks, timers, memory, tables, the model card."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import runpy
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import ENCODER, MODEL, vectors, write_corpus, write_manifest, write_model
from torch import nn

from separation import Query, Separation, Separator
from separation.data.fixed_mixtures import read_rows, render
from separation.data.foley import synthesise
from separation.data.manifest import read_entries
from separation.encoders.joint import JointEncoder
from separation.encoders.sentence import SentenceEncoder
from separation.errors import DataError
from separation.models.band_unet import BandUNet
from separation.models.spectra import STFT, band_matrix

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
absent, bench, loading, model_card, peers, performance = map(
    importlib.import_module, ("absent", "bench", "loading", "model_card", "peers", "performance")
)

RATE = 32000
KINDS = ("oracle mask, bins", "oracle mask, bands", "oracle mask, bands, complex")
COST = {
    "multiply_adds": {"1": 1e9, "8": 2.5e9}, "overlap": 1.25, "separator_parameters": 6_250_000,
    "encoder_parameters": 2_000_000, "weights_bytes": 16_000_000,
}  # fmt: skip


def checksum(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights."""
    card = {"description": "A small model.", "sample_rate": RATE, "queries": ["text"], "licence": "CC BY 4.0"}
    return write_model(tmp_path_factory.mktemp("models") / "small", training="Not at all.", **card)


# Oracle masks


def band_model() -> SimpleNamespace:
    """The transforms of the default model."""
    to_bins = band_matrix(128, 801, 48)
    return SimpleNamespace(
        stft=STFT(1600, 500, frame_multiple=8), to_bins=to_bins, to_bands=(to_bins / to_bins.sum(0)).T
    )


def noise(low: float, high: float, seed: int) -> np.ndarray:
    """Two seconds of noise between two frequencies in Hz, (time,)."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(2 * RATE))
    hertz = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    wave = np.fft.irfft(spectrum * ((hertz >= low) & (hertz < high)), 2 * RATE)
    return np.asarray(wave / np.abs(wave).max() / 3)


def test_oracle_masks_separate_disjoint_bands():
    target, interference = noise(200, 700, 1), noise(3000, 9000, 2)
    scores = bench.oracle_scores(band_model(), target, target + interference)
    assert tuple(scores) == KINDS
    assert min(scores.values()) > 30
    opposite = np.stack([target, -target])  # nothing of it is left in a mono mixture
    assert min(bench.oracle_scores(band_model(), opposite, opposite + interference).values()) > 30


def test_complex_mask_separates_what_differs_in_phase():
    time = np.arange(2 * RATE) / RATE
    target, interference = 0.3 * np.sin(2 * np.pi * 400 * time), 0.3 * np.cos(2 * np.pi * 400 * time)
    scores = bench.oracle_scores(band_model(), target, target + interference)
    assert scores["oracle mask, bands, complex"] > 20
    # Half of each: the error is (t - (t + n) / 2), 3 dB below the interference alone.
    assert scores["oracle mask, bins"] == pytest.approx(3.01, abs=0.1)


def test_band_mask_is_coarser_than_bins():
    time = np.arange(2 * RATE) / RATE  # neighbouring tones at high frequencies, where a band contains many bins
    target, interference = np.sin(2 * np.pi * 12000 * time) / 3, np.sin(2 * np.pi * 12150 * time) / 3
    scores = bench.oracle_scores(band_model(), target, target + interference)
    assert scores["oracle mask, bins"] > 25 > 10 > scores["oracle mask, bands"]


# Speed, memory, cost


def test_speed_of_the_command_and_of_the_separation(model, monkeypatch):
    monkeypatch.setattr(performance, "ALONE_SECONDS", 5)
    monkeypatch.setattr(performance, "PASS_SECONDS", 1)
    monkeypatch.setattr(performance, "QUERIES", ("rain",))
    lengths: list[int] = []
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(performance, "run_python", lambda *words: time.sleep(0.01) or ran.append(words))
    rows = performance.measure_speed(lambda wave, queries, rate: lengths.append(wave.shape[1]), str(model), repeats=1)
    expected = ["import", "first"] + ["command", "separation"] * 2 + ["float32"] * 2 + ["bfloat16"] * 2
    assert [row["what"] for row in rows] == expected
    assert 0.01 <= rows[0]["best"] == min(rows[0]["runs"]) < 0.3 < rows[1]["best"] < 300  # a real process
    assert len(ran) == 3 and {"--query", "rain", "--model", str(model)} < set(ran[1])  # other tests run such a command
    assert lengths == [5 * 44100] * 4  # a run before each one that is timed
    table = performance.speed_table(
        [{"what": "float32", "queries": n, "seconds": 10, "best": n / 64, "median": 1} for n in (1, 8)]
    )
    assert table.endswith("one thread, float32, s per s of audio | 8 | 0.125 | 1 | 8.00 |")
    clock = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(performance.time, "perf_counter", lambda: next(clock))
    timing = performance.time_runs(lambda: None, 3, seconds=2)
    assert timing == {"best": 0.5, "median": 1.0, "runs": [2.5, 0.5, 1.0]}


def test_peak_memory_of_a_known_allocation():
    size = 200_000_000
    small, printed = performance.measure_process("-S", "-c", "print('done')")
    large, _ = performance.measure_process("-S", "-c", f"held = b'x' * {size}; del held")
    assert printed == "done\n"
    assert large - small == pytest.approx(size, rel=0.03)
    assert small < 60_000_000  # the size of this process, which has loaded torch, does not count
    with pytest.raises(RuntimeError, match="status 3: it broke"):
        performance.measure_process("-S", "-c", "import sys; sys.stderr.write('it broke'); sys.exit(3)")


def test_many_short_files(model, monkeypatch):
    monkeypatch.setattr(performance, "BATCH_FILES", 2)
    monkeypatch.setattr(performance, "BATCH_SECONDS", 1)
    monkeypatch.setattr(performance, "BATCH_FORMATS", ("flac",))
    monkeypatch.setattr(performance, "BATCH_JOBS", (2,))
    (row,) = performance.measure_batch(str(model))
    assert (row["format"], row["jobs"]) == ("flac", 2) and row["processor"] > 0.3
    table = performance.batch_table([{"format": "wav", "jobs": 1, "seconds": 70.26, "processor": 69}])
    assert table.splitlines()[2] == "| wav | 1 | 70.3 | 69.0 |"


def test_costs_beside_published_systems(monkeypatch, tmp_path, capsys):
    figures = {"parameters": 2e6, "multiply_adds": 3e9, "median": 0.5, "runs": [0.4, 0.5, 0.7]}
    answers = {"default": figures, "clipsep": figures | {"parameters": 1e6}, "audiosep": {"why": "more than 9 s"}}
    asked = []

    def answer(file, alone, name, seconds, *limits):
        asked.append((name, seconds))
        return 10**8, json.dumps(answers[name]) + "\n"

    monkeypatch.setattr(peers, "measure_process", answer)
    file, picture = tmp_path / "peers.json", tmp_path / "peers.png"
    words = ["default", "clipsep", "audiosep", "htdemucs", "--seconds", "60", "10", "--json", str(file)]
    assert peers.main([*words, "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "| clipsep | 10 | 0.500 (1) | 0.400 to 0.700 | 100 (1) | 1.0 (0.5) | 3.00 (1) |" in printed
    assert "| audiosep | 60 | not measured: more than 9 s |" in printed
    assert "Skipped, in part or whole (2): htdemucs: the package demucs is not installed." in printed
    assert asked.count(("audiosep", "10.0")) == 1 and ("audiosep", "60.0") not in asked  # nothing longer is tried
    assert len(json.loads(file.read_text())["rows"]) == 8 and picture.stat().st_size > 1000


def test_cost_of_one_system_by_itself(monkeypatch, capsys):
    monkeypatch.setattr(peers.resource, "setrlimit", lambda *limit: None)  # this process goes on
    row = peers.measure("clipsep", 0.5, 1, 1000, 20)
    assert row["parameters"] == pytest.approx(30.3e6, rel=0.01)
    assert row["median"] > 0 and row["multiply_adds"] > 1e9
    with pytest.raises(SystemExit):
        peers.main(["--alone", "clipsep", "2", "1", "0.01", "20"])
    assert json.loads(capsys.readouterr().out) == {"why": "more than 0.01 s"}
    assert {"default", "small"} <= set(peers.own_models())


def test_memory_of_the_command(model):
    (row,) = performance.measure_memory(str(model), (0.02,))
    assert row["minutes"] == 0.02
    assert 1e8 < row["peak_bytes"] < 3e9
    table = performance.memory_table([{"minutes": 10, "peak_bytes": 734_400_000, "seconds": 12.6}])
    assert table.splitlines()[2] == "| 10 minutes | 734 MB | 13 s |"


def test_multiply_adds_of_a_known_network():
    class Known(nn.Module):
        """Four outputs of five taps, for each query."""

        sample_rate, condition_dim = 1000, 3

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(1, 4, 5)

        def separate(self, mixture: torch.Tensor, conditions: torch.Tensor) -> None:
            self.conv(mixture.expand(conditions.shape[1], -1, -1))

    double = SimpleNamespace(model=Known(), device=torch.device("cpu"))
    seconds = performance.COST_SECONDS
    once = (seconds * 1000 - 4) * 4 * 5 / seconds
    assert performance.multiply_adds(double, 8) == pytest.approx(8 * once)


def test_cost_of_a_model(model):
    cost, network = performance.measure_cost(Separator.from_pretrained(model, "cpu"), model), BandUNet(**MODEL).eval()
    network.fold_norms()
    assert cost["separator_parameters"] == sum(p.numel() for p in network.parameters())
    assert cost["encoder_parameters"] == sum(p.numel() for p in JointEncoder(**ENCODER).parameters())
    assert cost["weights_bytes"] == (model / "model.safetensors").stat().st_size
    one, eight = cost["multiply_adds"]["1"], cost["multiply_adds"]["8"]
    assert 0 < one < eight < 8 * one  # the queries share the encoder
    assert cost["overlap"] == pytest.approx(24 / 18)
    assert f"| {one / 1e9:.3f} G |" in performance.cost_table(cost)


# Scores

MIXTURES = [  # kind, query, phrase, target, interferences
    ("pair", "dog bark", "a hound", "esc10/dog", ["other/rain"]),
    ("pair", "siren", "an ambulance", "other/siren", ["esc10/dog"]),
    ("three", "rain", "a downpour", "other/rain", ["other/siren", "esc10/dog"]),
    ("absent", "wind", "a gale", "esc10/dog", ["other/siren"]),
]
SOUNDS = {"esc10/dog": "dog bark", "other/siren": "siren", "other/rain": "rain"}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write_manifest(path, rows, list(rows[0]))


def manifest_row(path: str, split: str, label: str, recording: str, **more: Any) -> dict[str, Any]:
    return {
        "path": path, "split": split, "source": Path(path).parts[1], "recording_id": recording, "label": label,
        "caption": f"{label}.", "seconds": 7.2, "sample_rate": RATE, "licence": "CC0", "redistributable": "yes", **more,
    }  # fmt: skip


def mixture_row(number: int, kind: str, query: str, phrase: str, target: str, others: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"{kind}{number}", "kind": kind, "query": query, "phrase": phrase, "snr_db": 0}
    for name, sound in zip(("target", "interference1", "interference2"), [target, *others, ""], strict=False):
        path = f"audio/{sound}.wav" if sound else ""
        row |= {name: path, f"{name}_start": 0.0 if sound else "", f"{name}_offset": 0.0 if sound else ""}
    return {**{f"interference2{end}": "" for end in ("", "_start", "_offset")}, **row}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Recordings, a manifest and a list of mixtures."""
    rows = [manifest_row(f"audio/other/dog{n}.wav", "train", "dog bark", f"train:{n}") for n in range(5)]
    for name, label in SOUNDS.items():
        path = f"audio/{name}.wav"
        rows.append(manifest_row(path, "validation", label, f"validation:{label}"))
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / path, synthesise(label, 5.0, RATE, seed=3), RATE)
    write_csv(tmp_path / "manifest.csv", rows)
    write_csv(tmp_path / "validation_mixtures.csv", [mixture_row(n, *row) for n, row in enumerate(MIXTURES)])
    return tmp_path


class OracleSeparator:
    """Returns targets with a tenth of the interference, twice that by phrase; a sound's embedding is the sound."""

    modalities = frozenset({"text", "audio"})

    def __init__(self, root: Path) -> None:
        self.model, self.encoder, self.known = band_model(), self, {}
        for row in read_rows(root / "validation_mixtures.csv"):
            target = torch.from_numpy(render(row, root).target).float()
            presence = 0.2 if row["kind"] == "absent" else 0.7
            self.known |= {row["query"]: (target, 0.1, presence), row["phrase"]: (target, 0.2, presence)}

    def encode_audio(self, waveform: torch.Tensor, sample_rate: int) -> torch.Tensor:
        return waveform

    def __call__(self, mixture: Any, query: Any, sample_rate: int) -> Any:
        if isinstance(query, list):
            return [self(mixture, each, sample_rate) for each in query]
        mixture = torch.as_tensor(mixture).float()
        target, share, presence = (query.embedding, 0.1, 1.0) if isinstance(query, Query) else self.known[query]
        estimate = target + share * (mixture - target)
        return Separation(estimate[None], (mixture - estimate)[None], sample_rate, presence)


def run_bench(monkeypatch, *options: str, separator: Any = None) -> int:
    """Run the command, with a separator in place of the model's."""
    if separator is not None:
        monkeypatch.setattr(bench.Separator, "from_pretrained", lambda *arguments, **more: separator)
    return bench.main([*options])


def test_scores_of_known_targets(data, model, monkeypatch, capsys):
    file = data / "bench.json"
    monkeypatch.setattr(bench, "HIGH", 500)
    options = [
        "--model",
        str(model),
        "--only",
        "scores,band,precision",
        "--data",
        str(data),
        "--manifest",
        "manifest.csv",
    ]
    assert run_bench(monkeypatch, *options, "--json", str(file), separator=OracleSeparator(data)) == 0
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["precision"]["rows"] == 4
    assert {value for name, value in report["precision"].items() if name != "rows"} == {0.0}  # the same separator
    scores = report["scores"]
    assert (scores["mixtures"], scores["left_out"], scores["in_training"]) == (4, 0, 0)
    assert scores["resampled_by"] == "recording"
    lines = {name: {line["rows"]: line for line in lines} for name, lines in scores["lines"].items()}
    assert sorted(lines) == sorted([bench.NOTHING, bench.LABEL, bench.PHRASE, *KINDS])
    twice = 20 - 20 * np.log10(2)
    for name, value in ((bench.NOTHING, 0.0), (bench.LABEL, 20.0), (bench.PHRASE, twice)):
        assert lines[name]["pair"]["n"] == 2
        assert lines[name]["pair"]["mean"] == pytest.approx(value, abs=1e-3)
        assert lines[name]["three"]["mean"] == pytest.approx(value, abs=1e-3)
        assert lines[name]["absent (dB under the mixture)"]["median"] == pytest.approx(value, abs=1e-3)
    assert lines[bench.LABEL]["pair, target from ESC-50"]["n"] == 1
    assert lines[bench.LABEL]["pair, class with 4+ train clips"]["n"] == 1
    for kind in KINDS:
        assert lines[kind]["pair"]["mean"] > 5
        assert "absent (dB under the mixture)" not in lines[kind]
    shares = {name: dict.fromkeys(("share", "low", "high"), v) for name, v in (("sounding", 1.0), ("absent", 0.0))}
    assert scores["heard"][bench.LABEL] == shares | {"auc": 1.0}
    classes = {row["class"]: row for row in scores["classes"]}
    assert classes["dog bark"]["train_clips"] == 5
    assert classes["siren"]["phrase"] == pytest.approx(twice, abs=1e-3)
    assert classes["siren"]["example"] == pytest.approx(20.0, abs=1e-3)  # the clean target stands for the label
    assert (report["band"]["rows"], report["band"]["sdri_below"]) == (2, pytest.approx(20.0, abs=1e-3))
    printed = capsys.readouterr().out
    tables = [part.splitlines() for part in re.findall(r"(?:^\|.*\|\n?)+", printed, re.MULTILINE)]
    assert re.match(r"\| pair \| 2 \| 0\.00; 0\.00 \| 20\.00[^|]*; 20\.00 \| 13\.98", tables[0][2])
    assert tables[2][2] in ("| dog bark | 5 | 1 | 20.0 | 14.0 |", "| siren | 0 | 1 | 20.0 | 14.0 |")
    assert "100 % of the queries that are in the mixture, 0 % of the queries that are not; area under" in printed


def test_recordings_that_were_trained_on_and_missing_ones_are_counted(data):
    double, listed, manifest = OracleSeparator(data), read_rows(data / "validation_mixtures.csv"), data / "manifest.csv"
    rows = [manifest_row("audio/other/dog.wav", "train", "rain", "validation:rain")]
    rows += [manifest_row(f"audio/{n}.wav", "validation", label, f"validation:{label}") for n, label in SOUNDS.items()]
    write_csv(manifest, rows)
    assert bench.measure_scores(double, listed, data, manifest)["in_training"] == 2
    (data / "audio/other/rain.wav").unlink()
    scores = bench.measure_scores(double, listed, data, manifest)
    assert (scores["mixtures"], scores["left_out"]) == (2, 2)
    assert "2 were left out because their recordings are missing" in bench.scores_table(scores)
    for path in (data / "audio").rglob("*.wav"):
        path.unlink()
    with pytest.raises(DataError, match="none of the recordings of 4 mixtures exists"):
        bench.measure_scores(double, listed, data, manifest)


def test_parts_are_skipped_or_fail_with_a_sentence(model, tmp_path, monkeypatch, capsys):
    def fail(*arguments: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.delenv("SEPARATION_DATA", raising=False)
    monkeypatch.setattr(bench, "measure_memory", fail)
    monkeypatch.setattr(bench, "measure_cost", lambda separator, directory: COST)
    file = tmp_path / "bench.json"
    assert run_bench(monkeypatch, "--model", str(model), "--only", "memory,cost,scores", "--json", str(file)) == 1
    printed = capsys.readouterr()
    assert "Failed: memory: the disk is gone." in printed.out
    assert "Skipped: scores: no validation_mixtures.csv (--data FOLDER" in printed.out
    assert "| multiply-adds per s of audio, 8 queries | 2.500 G |" in printed.out
    report = json.loads(file.read_text(encoding="utf-8"))
    assert (list(report["skipped"]), list(report["failed"])) == (["scores"], ["memory"])
    assert report["model"] == {"name": "small", "weights_sha256": checksum(model)}
    assert report["machine"]["torch"] == torch.__version__
    assert report["machine"]["threads"] == torch.get_num_threads()
    assert str(tmp_path) not in file.read_text(encoding="utf-8")
    assert run_bench(monkeypatch, "--model", str(model), "--only", "cost") == 0


@pytest.mark.parametrize("parts", ["scores,beauty", ","])
def test_unknown_parts_are_refused(parts, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(["--only", parts])
    assert stop.value.code == 2
    assert "scores, remove, band, precision, speed, batch, memory, cost" in capsys.readouterr().err


# Model card


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three sources; a recording in two clips; an unknown recording of two authors; a validation row."""
    cc_by = "CC BY 4.0 (by A. Person, freesound ?)"
    rows = [
        manifest_row("audio/alpha/dog_bark/one_0.ogg", "train", "dog bark", "freesound:1", licence="CC0 (by me)"),
        manifest_row("audio/alpha/dog_bark/one_1.ogg", "train", "dog bark", "freesound:1", licence="CC0 (by me)"),
        manifest_row("audio/alpha/dog_bark/two.ogg", "train", "dog bark", "freesound:?", licence=cc_by),
        manifest_row("audio/alpha/rain/three.ogg", "train", "rain", "freesound:?", licence="CC0 (by you)"),
        manifest_row("audio/beta/dog_bark/four.ogg", "train", "dog bark", "freesound:1", seconds=7200),
        manifest_row("audio/gamma/wind/five.ogg", "train", "wind", "g:5", licence="as is", redistributable="no"),
        manifest_row("audio/delta/wind/six.ogg", "validation", "wind", "g:6", licence="unheard of"),
    ]
    return write_csv(tmp_path / "manifest.csv", rows)


def write_report(file: Path, directory: Path, **more: Any) -> Path:
    """A report of benchmarks/bench.py."""

    def lines(value: float) -> list[dict[str, Any]]:
        line = {"n": 3, "mean": value, "median": value + 1, "low": value - 1, "high": value + 2}
        return [line | {"rows": "pair"}, line | {"rows": "absent (dB under the mixture)", "median": value + 11}]

    share = {"share": 0.9, "low": 0.8, "high": 0.95}
    worst = {"example": 4.0, "ceiling": 9.0, "presence": 0.25, "reason": "Noise."}
    scores = {
        "mixtures": 6, "left_out": 0, "in_training": 0, "resampled_by": "recording",
        "heard": {bench.LABEL: {"sounding": share, "absent": share | {"share": 0.25}, "auc": 0.93}},
        "lines": {bench.LABEL: lines(8.25), bench.PHRASE: lines(7.5), bench.CEILING: lines(24)[:1]},
        "classes": [{"class": "rain", "train_clips": 1, "rows": 2, "label": -1.5, "phrase": 2.5} | worst],
    }  # fmt: skip
    report = {"model": {"name": "mine", "weights_sha256": checksum(directory)}, "date": "2000-01-02", "scores": scores}
    file.write_text(json.dumps(report | {"cost": COST} | more), encoding="utf-8")
    return file


@pytest.fixture
def directory(model: Path, tmp_path: Path) -> Path:
    """A copy of the model, to write into."""
    copy = tmp_path / "models" / "mine"
    copy.mkdir(parents=True)
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_attribution_names_every_recording_once(directory, manifest):
    assert model_card.main([str(directory), "--manifest", str(manifest)]) == 0
    text = (directory / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("- ")] == [
        "- dog bark: `one_0`, `one_1` (freesound:1): CC0 (by me)",
        "- dog bark: `two` (freesound:?): CC BY 4.0 (by A. Person, freesound ?)",
        "- rain: `three` (freesound:?): CC0 (by you)",
        "- dog bark: `four` (freesound:1): CC0",
        "- wind: `five` (g:5): as is",
    ]
    assert "5 recordings from 3 sources, cut into 6 clips" in text
    counts = re.findall(r"^## (\w+) \((\d+) recordings, (\d+) clips\)$", text, re.MULTILINE)
    assert counts == [("alpha", "3", "4"), ("beta", "1", "1"), ("gamma", "1", "1")]


def test_card_says_what_data_and_figures_say(directory, manifest, tmp_path):
    rendered = "## font (12 rendered recordings)\n\n12 notes rendered with a font: cello (12).\n"
    (directory / "ATTRIBUTION.md").write_text(f"# Old\n\n## beta (0 recordings)\n\n{rendered}", encoding="utf-8")
    (directory / "LICENSE-YAMNET").touch()
    words = ["--manifest", str(manifest), "--scores", str(write_report(tmp_path / "bench.json", directory))]
    assert model_card.main([str(directory), *words]) == 0
    text = (directory / "README.md").read_text(encoding="utf-8")
    for part in (
        "# The model `mine`\n\nA small model.",
        "| alpha | 3 | 4 | 0.01 | 2 | CC0 / CC BY 4.0 | yes |",
        "| beta | 1 | 1 | 2.00 | 1 | CC0 | yes |",
        "| gamma | 1 | 1 | 0.00 | 1 | as is | no |",
        "| all | 5 | 6 | 2.01 | 3 |",
        "Besides: 12 notes rendered with a font.",
        "The classes: dog bark, rain, wind.",
        "| pair | 3 | 8.25 (7.25 to 10.25); 9.25 | 7.50 (6.50 to 9.50); 8.50 | 24.00 (23.00 to 26.00); 25.00 |",
        "| absent (dB under the mixture) | 3 | 19.25 | 18.50 |  |",
        "Measured 2000-01-02.",
        "6 fixed mixtures of 5 s; none contains a recording of the training data",
        "| rain | -1.5 | 4.0 | 9.0 | 0.25 | Noise. |",
        "| rain | 1 | 2 | -1.5 | 2.5 |",
        "It analyses frequencies up to 16 kHz",
        "fewer than 4 training clips (2): rain, wind.",
        "In 1 of 1 classes the target is on average worse than the mixture itself: rain.",
        "90 (80 to 95) % of the queries that are in the mixture, 25 (80 to 95) % of the queries that are not",
        "Not at all.",
        "| parameters of the separator | 6.25 M |",
        "are YAMNet (TensorFlow Models), under the Apache License 2.0",
        "The weights in this directory are under CC BY 4.0",
    ):
        assert part in text
    for part in ("delta", "unheard of", str(tmp_path), "None"):
        assert part not in text
    listed = (directory / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert listed.endswith(f"\n\n{rendered}")  # sections of sources that are not in the manifest are kept
    assert listed.count("## beta") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"weights_sha256": "0"}}, "was measured with other weights"),
        ({"every": 10}, "on a part of the mixtures only"),
        ({"model": "default"}, "is not a report of"),
        (None, "lacks the column licence"),
    ],
)
def test_unusable_inputs_are_refused(directory, manifest, tmp_path, capsys, change, message):
    scores = write_report(tmp_path / "bench.json", directory, **(change or {}))
    if change is None:
        manifest.write_text(manifest.read_text(encoding="utf-8").replace("licence", "terms", 1), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        model_card.main([str(directory), "--manifest", str(manifest), "--scores", str(scores)])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not (directory / "README.md").exists()
    assert not (directory / "ATTRIBUTION.md").exists()


def test_attribution_of_the_real_manifest(data_root, directory):
    model_card.main([str(directory), "--manifest", str(data_root / "manifest.csv")])
    lines = (directory / "ATTRIBUTION.md").read_text(encoding="utf-8").splitlines()
    named = Counter(title for line in lines if line.startswith("- ") for title in re.findall(r"`([^`]*)`", line))
    clips = read_entries(data_root / "manifest.csv")
    assert named == Counter(Path(clip.path).stem for split, clip in clips if split == "train")


# Absent queries, loading


def test_absent_queries_are_neither_present_nor_synonyms(tmp_path, monkeypatch, capsys):
    labels = ["bell", "cat", "dog", "hound", "rain"]
    write_csv(tmp_path / "validation_mixtures.csv", [
        {"id": "1", "kind": "pair", "query": "dog", "snr_db": 0, "target": "a.wav", "target_label": "dog",
         "interference1_label": "rain"},
    ])  # fmt: skip
    similar = torch.eye(5)[[0, 1, 2, 2, 4]]  # a hound is a dog
    monkeypatch.setattr(SentenceEncoder, "encode_text", lambda self, texts: similar)
    double = SimpleNamespace(listing=SimpleNamespace(sounds=labels))
    monkeypatch.setattr(absent.Separator, "from_pretrained", lambda name: double)

    def measure(separator: Any, row: Any, root: Path, queries: list[str]) -> list[dict[str, Any]]:
        return [{"query": query, "near": query == "cat", "presence": 0.0, "under_db": 20.0} for query in queries]

    monkeypatch.setattr(absent, "measure_row", measure)
    absent.main(["--data", str(tmp_path), "--json", str(tmp_path / "absent.json")])
    answers = json.loads((tmp_path / "absent.json").read_text(encoding="utf-8"))
    assert sorted(answer["query"] for answer in answers) == ["bell", "cat"]
    assert "| all | 2 | 20.0 | 20.0 | 0% | 0% |" in capsys.readouterr().out


def test_table_of_absent_queries():
    answers = [{"under_db": db, "presence": db / 20, "near": db < 5} for db in (0.0, 4.0, 8.0, 12.0, 16.0)]
    assert absent.table(answers).splitlines()[2:] == [
        "| all | 5 | 8.0 | 1.6 | 40% | 40% |",
        "| near | 2 | 2.0 | 0.4 | 100% | 0% |",
        "| far | 3 | 12.0 | 8.8 | 0% | 67% |",
    ]


def test_loading_counts_mixtures_without_the_first_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("separation.data.texts.SentenceEncoder.encode_text", lambda self, texts: vectors(texts, 4))
    clock = iter([10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr(loading.time, "perf_counter", lambda: next(clock))
    manifest, file = write_corpus(tmp_path, labels=4), tmp_path / "loading.json"
    words = ["--batch-size", "3", "--seconds", "0.25", "--batches", "5", "--workers", "0", "1", "--json", str(file)]
    loading.main(["--manifest", str(manifest), *words])
    assert json.loads(file.read_text(encoding="utf-8")) == [
        {"workers": 0, "mixtures": 15, "seconds": 2.0, "mixtures_per_second": 7.5},
        {"workers": 1, "mixtures": 15, "seconds": 4.0, "mixtures_per_second": 3.75},
    ]
    printed = capsys.readouterr().out
    assert "batches of 3 mixtures of 0.25 s at 32000 Hz, two or three sources each" in printed
    assert printed.endswith("| 0 | 7.5 | 2.50 | 2 |\n| 1 | 3.8 | 1.25 | 1 |\n")


# Speech, vocals and music


def test_speech_is_scored_at_its_levels_and_its_table_goes_into_the_card(directory, manifest, tmp_path, capsys):
    speech = importlib.import_module("speech")
    held = tmp_path / "held"
    write_corpus(held, labels=5, recordings=2, seconds=3.0, sample_rate=RATE, split="validation")
    text = (held / "manifest.csv").read_text(encoding="utf-8")
    for number, label in enumerate(("man speaking", "speech", "singing voice", "flute", "violin")):
        text = text.replace(f",tone {number},", f",{label},")
    (held / "manifest.csv").write_text(text, encoding="utf-8")
    words = ["--data", str(held), "--rows", "6", "--json", str(tmp_path / "speech.json"), "--model", str(directory)]
    speech.main([*words, "--task", "vocals"])
    assert "vocals: the targets are 2 of 2 held-out recordings." in (said := capsys.readouterr().out)
    assert "| vocals, n = 6 |" in said and "music" not in said
    speech.main(words)
    assert "music is left out: there are no held-out recordings of it." in (said := capsys.readouterr().out)
    assert "instruments: the targets are 3 of 4" in said and said.count("| 10 dB | mixture |") == 3
    report = json.loads((tmp_path / "speech.json").read_text(encoding="utf-8"))
    lines = {(line["level"], line["system"]): line for line in report["tasks"]["speech"]}
    for level in (0, 5, 10):  # tones of different frequencies
        assert abs(lines[f"{level} dB", "mixture"]["SI-SDR, dB"]["mean"] - level) < 0.5
        assert lines[f"{level} dB", "mixture"]["SI-SDR, dB"]["n"] == 2
    also = ["--also", str(tmp_path / "speech.json")]
    assert model_card.main([str(directory), "--manifest", str(manifest), *also]) == 0
    assert "## Speech in noise, vocals, music and instruments\n\n| speech, n = 6 |" in (
        directory / "README.md"
    ).read_text("utf-8")
    report["weights"] = "0" * 64
    (tmp_path / "speech.json").write_text(json.dumps(report), encoding="utf-8")
    with pytest.raises(SystemExit):
        model_card.main([str(directory), "--manifest", str(manifest), *also])
    assert "was measured with other weights" in capsys.readouterr().err


# Data that are missing


@pytest.mark.parametrize("script", [
    "absent", "direction", "example_recordings", "listing", "live --only scores --model small", "onnx_export",
    "own_sounds", "query_forms", "real_mix --out out", "sentences", "speech", "typed_queries",
    "studies/noise_invariant",
])  # fmt: skip
@pytest.mark.parametrize("data", [(), ("--data", "empty")])
def test_a_benchmark_without_its_data_is_one_sentence(script, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEPARATION_DATA", raising=False)
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: SimpleNamespace(model=nn.Linear(1, 1)))
    name, *words = script.split()
    path = Path(absent.__file__).parent / f"{name}.py"
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), *words, *data])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name="__main__")
    sentence = capsys.readouterr().err.splitlines()[-1]
    assert (
        stop.value.code == 2
        and sentence.startswith(path.name)
        and ("empty/" in sentence if data else "--data" in sentence)
    )
    assert not list(tmp_path.iterdir())  # nothing was begun
