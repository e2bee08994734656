"""The benchmarks: oracle masks, timers, the memory meter, the tables, the model card."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny import ENCODER, MODEL, write_model
from torch import nn

from separation import Separation, Separator
from separation.data.fixed_mixtures import read_rows, render
from separation.data.foley import synthesise
from separation.data.manifest import read_manifest
from separation.encoders.joint import JointEncoder
from separation.models.band_unet import BandUNet
from separation.models.spectra import STFT, band_matrix

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
RATE = 32000
KINDS = ("oracle mask, bins", "oracle mask, bands", "oracle mask, bands, complex")
COST = {
    "multiply_adds": {"1": 1e9, "8": 2.5e9}, "overlap": 1.25, "separator_parameters": 6_250_000,
    "encoder_parameters": 2_000_000, "weights_bytes": 16_000_000,
}  # fmt: skip


def load(name: str) -> Any:
    """One of the scripts, as a module; they find each other in their folder."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.insert(0, str(BENCHMARKS))
    return importlib.import_module(name)


oracle, speed, memory, bench, model_card = map(load, ("oracle", "speed", "memory", "bench", "model_card"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random weights."""
    card = {"description": "A small model.", "sample_rate": RATE, "queries": ["text"], "licence": "CC BY 4.0"}
    return write_model(tmp_path_factory.mktemp("models") / "small", training="Not at all.", **card)


# --- Oracle masks ----------------------------------------------------------------------------


def transform() -> tuple[STFT, dict[str, Any]]:
    to_bins = band_matrix(128, 801, 48)
    return STFT(1600, 500, frame_multiple=8), oracle.masks(to_bins, (to_bins / to_bins.sum(0)).T)


def noise(low: float, high: float, seed: int, seconds: float = 2.0) -> np.ndarray:
    """Noise between two frequencies in Hz, (time,)."""
    length = round(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / RATE)
    wave = np.fft.irfft(spectrum * ((hertz >= low) & (hertz < high)), length)
    return np.asarray(wave / np.abs(wave).max() / 3)


def test_oracle_masks_part_disjoint_bands():
    target, interference = noise(200, 700, 1), noise(3000, 9000, 2)
    scores = oracle.oracle_sdri(target, target + interference, *transform())
    assert tuple(scores) == KINDS
    assert min(scores.values()) > 30


def test_oracle_masks_differ_as_they_should():
    # A tone and its copy a quarter of a period later: no magnitude mask can part them, a complex one can.
    time = np.arange(2 * RATE) / RATE
    target, interference = 0.3 * np.sin(2 * np.pi * 400 * time), 0.3 * np.cos(2 * np.pi * 400 * time)
    scores = oracle.oracle_sdri(target, target + interference, *transform())
    assert scores["oracle mask, bands, complex"] > 20
    # Half of each: the error is as loud as (t - (t + n) / 2), 3 dB under the interference alone.
    assert scores["oracle mask, bins"] == pytest.approx(3.01, abs=0.1)


def test_oracle_band_mask_is_coarser_than_bins():
    # Neighbouring tones high up, where a band is many bins wide.
    time = np.arange(2 * RATE) / RATE
    target, interference = np.sin(2 * np.pi * 12000 * time) / 3, np.sin(2 * np.pi * 12150 * time) / 3
    scores = oracle.oracle_sdri(target, target + interference, *transform())
    assert scores["oracle mask, bins"] > 25 > 10 > scores["oracle mask, bands"]


def test_oracle_keeps_what_is_left_minus_right():
    target, interference = noise(200, 700, 1), noise(3000, 9000, 2)
    left, right = np.stack([target, -target]), np.stack([interference, interference])
    assert min(oracle.oracle_sdri(left, left + right, *transform()).values()) > 30


def test_wiener_gain():
    gain = oracle.wiener(torch.tensor([1.0, 3.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 2.0, 0.0]))
    assert gain.tolist() == pytest.approx([0.5, 0.75, 0.0, 0.0])


# --- Speed and cost --------------------------------------------------------------------------


def test_timed_gives_best_and_median(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    calls: list[int] = []
    timing = speed.timed(lambda: calls.append(1), repeats=3)
    assert len(calls) == 3
    assert (timing.best, timing.median, timing.runs) == (1.0, 2.0, [5.0, 1.0, 2.0])


def test_separation_time_is_per_second_of_audio(monkeypatch):
    lengths: list[int] = []
    clock = iter([0.0, 3.2, 10.0, 12.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    timing = speed.time_separation(lambda wave, queries, rate: lengths.append(wave.shape[1]), ["rain"], 8, 2)
    assert timing.best == pytest.approx(0.25)
    assert timing.median == pytest.approx(0.325)
    assert lengths[1:] == [8 * 44100] * 2  # the first is there to warm up


def test_generated_recording(tmp_path):
    speed.write_recording(tmp_path / "long.wav", 14.5)
    samples, rate = soundfile.read(tmp_path / "long.wav")
    assert (rate, samples.shape) == (44100, (round(14.5 * 44100), 2))
    levels = [np.abs(samples[start : start + 5 * 44100]).max() for start in range(0, len(samples), 10 * 44100)]
    assert min(levels) > 0.1
    assert np.abs(samples).max() < 0.5
    assert np.abs(samples[:, 0] - samples[:, 1]).max() > 0.05
    assert not np.array_equal(samples[:44100], samples[441000 : 441000 + 44100])


def test_the_command_is_timed_and_its_failure_is_told(model, tmp_path):
    timing = speed.time_command(str(model), ["rain"], threads=1, repeats=1)
    assert 0.3 < timing.best == timing.median < 120
    with pytest.raises(RuntimeError, match=r"status 1: .*nonesuch\.wav"):
        speed.run(speed.command(tmp_path / "nonesuch.wav", tmp_path, str(model), ["rain"]))


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
    seconds = speed.COST_SECONDS
    once = (seconds * 1000 - 4) * 4 * 5 / seconds
    assert speed.multiply_adds(double, 1) == pytest.approx(once)
    assert speed.multiply_adds(double, 8) == pytest.approx(8 * once)


def test_cost_of_a_model(model):
    cost = speed.measure_cost(Separator.from_pretrained(model, "cpu"), model)
    assert cost["separator_parameters"] == sum(p.numel() for p in BandUNet(**MODEL).parameters())
    assert cost["encoder_parameters"] == sum(p.numel() for p in JointEncoder(**ENCODER).parameters())
    assert cost["weights_bytes"] == (model / "model.safetensors").stat().st_size
    one, eight = cost["multiply_adds"]["1"], cost["multiply_adds"]["8"]
    assert 0 < one < eight < 8 * one  # the queries share a half
    assert cost["overlap"] == pytest.approx(24 / 18)
    assert f"| {one / 1e9:.3f} G |" in speed.cost_table(cost)


def test_speed_table():
    rows = [
        {"what": "separation", "queries": 1, "seconds": 60, "best": 0.04123, "median": 0.05},
        {"what": "command", "queries": 8, "seconds": 10, "best": 2.5, "median": 3.25},
    ]
    lines = speed.speed_table(rows).splitlines()
    assert lines[2] == "| the command, 10 s stereo 44.1 kHz, start to end, s | 8 | 2.5 | 3.25 |"
    assert lines[3].endswith("| 1 | 0.0412 | 0.05 |")


# --- Memory ----------------------------------------------------------------------------------


def test_peak_memory_of_a_known_allocation():
    size = 200_000_000
    small = memory.peak_memory([sys.executable, "-S", "-c", "pass"])
    large = memory.peak_memory([sys.executable, "-S", "-c", f"held = b'x' * {size}; del held"])
    assert large.bytes - small.bytes == pytest.approx(size, rel=0.03)
    # This process, which has loaded torch, is larger than that: its size must not count.
    assert small.bytes < 60_000_000


def test_peak_memory_of_a_failing_command():
    with pytest.raises(RuntimeError, match="status 3: it broke"):
        memory.peak_memory([sys.executable, "-S", "-c", "import sys; sys.stderr.write('it broke'); sys.exit(3)"])


def test_memory_of_the_command_and_nothing_left(model, tmp_path):
    told: list[str] = []
    (row,) = memory.measure_memory(str(model), told.append, (0.1,), tmp_path, threads=1)
    assert row["minutes"] == 0.1
    assert 1e8 < row["peak_bytes"] < 3e9
    assert told == ["memory: a recording of 0.1 minutes"]
    assert list(tmp_path.iterdir()) == []
    assert memory.memory_table([{"minutes": 10, "peak_bytes": 734_400_000, "seconds": 12.6}]).splitlines()[2] == (
        "| 10 minutes | 734 MB | 13 s |"
    )


def test_memory_refuses_a_disk_that_is_too_small(monkeypatch, tmp_path):
    assert memory.space_needed(60) == pytest.approx(60 * 60 * 44100 * 2 * 6, rel=0.02)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    with pytest.raises(RuntimeError, match=r"60 minutes need 1\.9 GB of disk, and 1\.0 GB are free"):
        memory.measure_file("default", 60, tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- Scores ----------------------------------------------------------------------------------

MIXTURES = [  # kind, query, phrase, target, interferences
    ("pair", "dog bark", "a hound", "esc10/dog", ["other/rain"]),
    ("pair", "siren", "an ambulance", "other/siren", ["esc10/dog"]),
    ("three", "rain", "a downpour", "other/rain", ["other/siren", "esc10/dog"]),
    ("absent", "wind", "a gale", "esc10/dog", ["other/siren"]),
]
SOUNDS = {"esc10/dog": "dog bark", "other/siren": "siren", "other/rain": "rain"}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def manifest_row(path: str, split: str, label: str, recording: str, **more: Any) -> dict[str, Any]:
    return {
        "path": path, "split": split, "source": Path(path).parts[1], "recording_id": recording, "label": label,
        "caption": f"{label}.", "seconds": 7.2, "sample_rate": RATE, "licence": "CC0", "redistributable": "yes", **more,
    }  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Recordings, manifest and list of mixtures, on a small scale."""
    rows = [manifest_row(f"audio/other/dog{n}.wav", "train", "dog bark", f"train:{n}") for n in range(5)]
    for name, label in SOUNDS.items():
        path = f"audio/{name}.wav"
        rows.append(manifest_row(path, "validation", label, f"validation:{label}"))
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / path, synthesise(label, 5.0, RATE, seed=3), RATE)
    write_csv(tmp_path / "manifest.csv", rows)
    write_csv(tmp_path / "validation_mixtures.csv", [mixture_row(n, *row) for n, row in enumerate(MIXTURES)])
    return tmp_path


def mixture_row(number: int, kind: str, query: str, phrase: str, target: str, others: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"id": f"{kind}{number}", "kind": kind, "query": query, "phrase": phrase, "snr_db": 0}
    for name, sound in zip(("target", "interference1", "interference2"), [target, *others, ""], strict=False):
        path = f"audio/{sound}.wav" if sound else ""
        row |= {name: path, f"{name}_start": 0.0 if sound else "", f"{name}_offset": 0.0 if sound else ""}
    return {**{f"interference2{end}": "" for end in ("", "_start", "_offset")}, **row}


class KnowsTheTargets:
    """Gives each target with some of the interference: a tenth when asked by label, twice that by phrase."""

    def __init__(self, root: Path) -> None:
        stft, _ = transform()
        to_bins = band_matrix(128, 801, 48)
        self.model = SimpleNamespace(stft=stft, to_bins=to_bins, to_bands=(to_bins / to_bins.sum(0)).T)
        self.known = {}
        for row in read_rows(root / "validation_mixtures.csv"):
            target = torch.from_numpy(render(row, root).target).float()
            present = 0.2 if row["kind"] == "absent" else 0.7
            self.known |= {row["query"]: (target, 0.1, present), row["phrase"]: (target, 0.2, present)}

    def __call__(self, mixture: torch.Tensor, query: str, sample_rate: int) -> Separation:
        target, share, presence = self.known[query]
        estimate = target + share * (mixture - target)
        return Separation(estimate[None], (mixture - estimate)[None], sample_rate, presence)


def test_scores_of_known_targets(data):
    told: list[str] = []
    scores = bench.measure_scores(KnowsTheTargets(data), data, say=told.append)
    assert (scores["mixtures"], scores["left_out"], scores["in_training"]) == (4, 0, 0)
    lines = {name: {line["rows"]: line for line in lines} for name, lines in scores["lines"].items()}
    assert list(lines) == [bench.NOTHING, bench.LABEL, bench.PHRASE, *KINDS]
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
    assert scores["heard"][bench.LABEL] == {"sounding": 1.0, "absent": 0.0}
    found = {row["class"]: row for row in scores["classes"]}
    assert found["dog bark"]["train_clips"] == 5
    assert found["siren"]["phrase"] == pytest.approx(twice, abs=1e-3)
    assert told == ["scores: 4 of 4 mixtures"]


def test_scores_go_by_recording_not_by_clip(data):
    rows = read_rows(data / "validation_mixtures.csv")
    scores = bench.score_all(KnowsTheTargets(data), rows, data, say=lambda sentence: None)
    assert {score.recording for score in scores[bench.LABEL]} == {f"validation:{label}" for label in SOUNDS.values()}
    assert bench.measure_scores(KnowsTheTargets(data), data, say=lambda sentence: None)["resampled_by"] == "recording"


def test_recordings_that_were_trained_on_are_counted(data):
    rows = list(csv.DictReader((data / "manifest.csv").read_text(encoding="utf-8").splitlines()))
    rows[0]["recording_id"] = "validation:rain"
    write_csv(data / "manifest.csv", rows)
    assert bench.in_training(read_rows(data / "validation_mixtures.csv"), data) == 2


def test_scores_table_is_a_table(data):
    text = bench.scores_table(bench.measure_scores(KnowsTheTargets(data), data, say=lambda sentence: None))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 2 + 6
    assert re.search(r"\| model, asked by label \| 20\.00[^|]*\| 20\.00 \|.*\| 20\.00 \|$", text, re.MULTILINE)
    assert "100 % of the rows where the query sounds, 0 % of the rows where the query is absent" in text


def test_missing_recordings_are_left_out_and_counted(data):
    double = KnowsTheTargets(data)
    (data / "audio/other/rain.wav").unlink()
    scores = bench.measure_scores(double, data, say=lambda sentence: None)
    assert (scores["mixtures"], scores["left_out"]) == (2, 2)
    assert "2 left out because their recordings are missing" in bench.scores_table(scores)
    for path in (data / "audio").rglob("*.wav"):
        path.unlink()
    with pytest.raises(bench.Skipped, match="none of the recordings of 4 mixtures exists"):
        bench.measure_scores(double, data)


def test_without_data_the_scores_are_skipped(model, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SEPARATION_DATA", raising=False)
    monkeypatch.setattr(bench, "measure_cost", lambda separator, directory: COST)
    file = tmp_path / "bench.json"
    assert bench.main(["--model", str(model), "--only", "cost,scores", "--json", str(file)]) == 0
    printed = capsys.readouterr()
    assert "1 parts measured, 1 skipped, 0 failed." in printed.out
    assert "Skipped: scores: no validation_mixtures.csv and manifest.csv" in printed.out
    report = json.loads(file.read_text(encoding="utf-8"))
    assert list(report["skipped"]) == ["scores"]
    assert report["model"]["name"] == "small"
    assert report["model"]["weights_sha256"] == hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert report["machine"]["torch"] == torch.__version__
    assert report["machine"]["threads"] == torch.get_num_threads()
    assert str(tmp_path) not in file.read_text(encoding="utf-8")


def test_a_part_that_fails_costs_a_sentence(model, monkeypatch, capsys):
    def broken(*arguments: object) -> None:
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(bench, "measure_memory", broken)
    monkeypatch.setattr(bench, "measure_cost", lambda separator, directory: COST)
    assert bench.main(["--model", str(model), "--only", "memory,cost"]) == 1
    printed = capsys.readouterr()
    assert printed.err.strip() == "memory failed: the disk is gone"
    assert "1 parts measured, 0 skipped, 1 failed." in printed.out
    assert "| multiply-adds per s of audio, 8 queries | 2.500 G |" in printed.out


@pytest.mark.parametrize("options", [["--only", "scores,beauty"], ["--only", ","]])
def test_unknown_parts_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(options)
    assert stop.value.code == 2
    assert "scores, speed, memory, cost" in capsys.readouterr().err


# --- Model card ------------------------------------------------------------------------------


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
    write_csv(tmp_path / "manifest.csv", rows)
    return tmp_path / "manifest.csv"


def report_of(weights: Path, **more: Any) -> dict[str, Any]:
    def line(rows: str, value: float) -> dict[str, Any]:
        return {"rows": rows, "n": 3, "mean": value, "median": value + 1, "low": value - 1, "high": value + 2}

    def lines(value: float) -> list[dict[str, Any]]:
        return [line("pair", value), line("absent (dB under the mixture)", value + 10)]

    scores = {
        "mixtures": 6, "left_out": 0, "in_training": 0, "heard_at": 0.5,
        "heard": {bench.LABEL: {"sounding": 0.9, "absent": 0.25}},
        "lines": {bench.LABEL: lines(8.25), bench.PHRASE: lines(7.5), KINDS[2]: [line("pair", 24)]},
        "classes": [{"class": "rain", "train_clips": 1, "rows": 2, "label": -1.5, "phrase": 2.5}],
    }  # fmt: skip
    return {"model": bench.identity(weights), "date": "2000-01-02", "scores": scores, **more}


def write_report(file: Path, report: dict[str, Any]) -> Path:
    file.write_text(json.dumps(report), encoding="utf-8")
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
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert lines == [
        "- dog bark: `one_0`, `one_1` (freesound:1): CC0 (by me)",
        "- dog bark: `two` (freesound:?): CC BY 4.0 (by A. Person, freesound ?)",
        "- rain: `three` (freesound:?): CC0 (by you)",
        "- dog bark: `four` (freesound:1): CC0",
        "- wind: `five` (g:5): as is",
    ]
    assert "5 recordings from 3 sources, cut into 6 clips" in text
    counts = re.findall(r"^## (\w+) \((\d+) recordings, (\d+) clips\)$", text, re.MULTILINE)
    assert counts == [("alpha", "3", "4"), ("beta", "1", "1"), ("gamma", "1", "1")]
    assert sum(int(clips) for _, _, clips in counts) == len(read_manifest(manifest, "train"))


def test_card_says_what_data_and_figures_say(directory, manifest, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "seed_everything: 7\ntrainer: {max_epochs: 3, max_steps: -1, default_root_dir: runs/x}\n"
        "model: {class_path: a.b.Supervised, init_args: {lr: 0.002, encoder_weights: /home/me/weights.bin}}\n"
        "data: {class_path: a.b.MixtureData, init_args: {manifest: /home/me/manifest.csv, foley: 6, workers: null}}\n",
        encoding="utf-8",
    )
    scores = write_report(tmp_path / "bench.json", report_of(directory))
    model_card.write_card(directory, manifest, [scores], [recipe])
    text = (directory / "README.md").read_text(encoding="utf-8")
    for part in (
        "# The model `mine`\n\nA small model.",
        "| alpha | 3 | 4 | 0.01 | 2 | CC0 / CC BY 4.0 | yes |",
        "| beta | 1 | 1 | 2.00 | 1 | CC0 | yes |",
        "| gamma | 1 | 1 | 0.00 | 1 | as is | no |",
        "| all | 5 | 6 | 2.01 | 3 |",
        "The classes: dog bark, rain, wind.",
        "| pair | 3 | 8.25 (7.25 to 10.25) | 7.50 (6.50 to 9.50) | 24.00 (23.00 to 26.00) |",
        "| absent (dB under the mixture), median | 3 | 19.2 | 18.5 |  |",
        "6 fixed mixtures of 5 s; none holds a recording of the training data",
        "| rain | 1 | 2 | -1.5 | 2.5 |",
        "It hears up to 16 kHz",
        "fewer than 4 clips to learn from (2): rain, wind.",
        "In 1 of 1 classes the result is on average worse than the mixture itself.",
        "Presence is at least 0.5 for 25 % of the queries that are not in the mixture, and for 90 %",
        "Not at all.",
        "| `model` | Supervised |",
        "| `model.lr` | 0.002 |",
        "| `seed` | 7 |",
        "| `max_epochs` | 3 |",
        "6 clips of each of the 18 procedural sounds",
        "The weights in this directory are under CC BY 4.0",
    ):
        assert part in text
    for part in ("delta", "unheard of", "/home", str(tmp_path), "runs/x", "max_steps", "workers", "None"):
        assert part not in text


def test_reports_are_put_together(directory, manifest, tmp_path):
    first = write_report(tmp_path / "scores.json", report_of(directory))
    second = write_report(tmp_path / "cost.json", {"model": bench.identity(directory), "cost": COST})
    model_card.write_card(directory, manifest, [first, second])
    text = (directory / "README.md").read_text(encoding="utf-8")
    assert "## Scores" in text
    assert "| parameters of the separator | 6.25 M |" in text
    assert "| multiply-adds per second of audio, queries: 8 | 2.50 G |" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"weights_sha256": "0"}}, "was measured with other weights"),
        ({"every": 10}, "on a part of the mixtures only"),
        ({"model": "default"}, "is not a report of"),
    ],
)
def test_unfit_figures_are_refused(directory, manifest, tmp_path, capsys, change, message):
    scores = write_report(tmp_path / "bench.json", report_of(directory, **change))
    with pytest.raises(SystemExit) as stop:
        model_card.main([str(directory), "--manifest", str(manifest), "--scores", str(scores)])
    assert stop.value.code == 1
    assert message in capsys.readouterr().err
    assert not (directory / "README.md").exists()
    assert not (directory / "ATTRIBUTION.md").exists()


def test_manifest_without_a_licence_column_is_refused(directory, tmp_path, capsys):
    row = manifest_row("audio/alpha/x.ogg", "train", "rain", "r:1")
    del row["licence"]
    write_csv(tmp_path / "manifest.csv", [row])
    with pytest.raises(SystemExit):
        model_card.main([str(directory), "--manifest", str(tmp_path / "manifest.csv")])
    assert "lacks the column licence" in capsys.readouterr().err


@pytest.mark.skipif("SEPARATION_DATA" not in os.environ, reason="SEPARATION_DATA names no recordings")
def test_attribution_of_the_real_manifest():
    clips = model_card.read_clips(Path(os.environ["SEPARATION_DATA"]) / "manifest.csv")
    lines = model_card.attribution("default", clips, "CC BY 4.0").splitlines()
    named = Counter(title for line in lines if line.startswith("- ") for title in re.findall(r"`([^`]*)`", line))
    assert named == Counter(clip.title for clip in clips)


def test_absent_queries_mean_nothing_that_sounds():
    absent = load("absent")
    labels, alike = ["cat", "dog", "hound", "rain", "bell"], np.eye(5, dtype=bool)
    alike[1, 2] = alike[2, 1] = True
    row = {"target_label": "dog", "interference1_label": "rain"}
    drawn = absent.absent_labels(labels, alike, row, 7, 20)
    assert sorted(drawn) == ["bell", "cat"]
    assert absent.absent_labels(labels, alike, row, 7, 20) == drawn
    assert len(absent.absent_labels(labels, alike, row, 7, 1)) == 1


def test_the_table_of_absent_queries_counts_what_is_loud_and_what_is_near():
    absent = load("absent")
    answers = [{"under_db": db, "presence": db / 20, "near": db < 5} for db in (0.0, 4.0, 8.0, 12.0, 16.0)]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in absent.table(answers).splitlines()[2:]]
    assert rows[0] == ["all", "5", "8.0", "1.6", "40%", "40%"]
    assert rows[1] == ["near", "2", "2.0", "0.4", "100%", "0%"]
    assert rows[2] == ["far", "3", "12.0", "8.8", "0%", "67%"]
