"""Callbacks of a training: speed with a mocked clock, memory, pictures, examples in TensorBoard."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra [train]")

from lightning.pytorch.loggers import TensorBoardLogger
from tiny import TinyEncoder, small_rate_model

from separation.data.fixed_mixtures import Rendered
from separation.training import callbacks
from separation.training.callbacks import Best, Examples, Last, Speed, peak_memory, spectrogram_image
from separation.training.objectives.base import Objective

RATE = 8000


class Module:
    """As much of one as is logged to."""

    device = torch.device("cpu")

    def __init__(self):
        self.logged = {}

    def log(self, name, value, **options):
        self.logged[name] = value


def test_speed_is_clips_by_time_and_waiting_the_share_before_a_batch(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(callbacks.time, "perf_counter", lambda: now[0])
    callback, module = Speed(window=2), Module()
    trainer = SimpleNamespace(datamodule=SimpleNamespace(batch_size=6), world_size=2)
    callback.on_train_epoch_start(trainer, module)
    for wait, work in ((5.0, 5.0), (1.0, 2.0), (0.5, 0.5)):
        now[0] += wait
        callback.on_train_batch_start(trainer, module, None, 0)
        now[0] += work
        callback.on_train_batch_end(trainer, module, None, None, 0)
    # The last two steps: 2 * 12 clips in 3 + 1 seconds, 1.5 of them waiting.
    assert module.logged["speed/clips_per_second"] == pytest.approx(6.0)
    assert module.logged["speed/waiting"] == pytest.approx(1.5 / 4)
    now[0] += 60  # a validation is no step's
    callback.on_validation_end(trainer, module)
    now[0] += 1
    callback.on_train_batch_start(trainer, module, None, 0)
    callback.on_train_batch_end(trainer, module, None, None, 0)
    assert module.logged["speed/clips_per_second"] == pytest.approx(24 / 2)


@pytest.mark.parametrize("system, unit", [("linux", 1024), ("darwin", 1)])
def test_memory_is_the_peak_of_the_process_in_bytes(monkeypatch, system, unit):
    resource = pytest.importorskip("resource")
    assert 50e6 < peak_memory(torch.device("cpu")) < 100e9
    monkeypatch.setattr(callbacks.sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=300_000))
    assert peak_memory(torch.device("cpu")) == 300_000 * unit


def test_a_picture_shows_where_the_sound_is():
    time = torch.arange(RATE) / RATE
    tone = torch.sin(2 * torch.pi * 1000 * time)[None]
    image = spectrogram_image({"mixture": tone, "estimate": torch.zeros_like(tone)}, "pair0 tone", RATE)
    assert image.ndim == 3 and image.shape[2] == 3
    assert 0 <= image.min() < 0.1 and 0.9 < image.max() <= 1
    inside = image[:, 100:800]
    yellow = (inside[..., 0] > 0.9) & (inside[..., 1] > 0.8) & (inside[..., 2] < 0.85)
    rows = np.flatnonzero(yellow.mean(1) > 0.5)
    assert len(rows) and rows.max() < image.shape[0] / 2  # a line in the upper panel only
    assert len(rows) < 0.1 * image.shape[0]


class Board:
    def __init__(self):
        self.sounds, self.pictures = {}, {}

    def add_audio(self, name, wave, step, sample_rate):
        assert wave.shape == (1, RATE) and sample_rate == RATE
        self.sounds[name, step] = wave

    def add_image(self, name, image, step, dataformats):
        assert dataformats == "HWC"
        self.pictures[name, step] = image


def test_examples_are_logged_at_each_validation_their_mixtures_once(tmp_path, monkeypatch):
    module = Objective(small_rate_model(), TinyEncoder(), ema=0.5)
    rng = np.random.default_rng(0)
    batches = [
        Rendered({"id": f"pair{n}", "query": "rain", "kind": "pair"}, *rng.normal(0, 0.1, (2, RATE)).astype("f"), RATE)
        for n in range(2)
    ]
    board = Board()
    monkeypatch.setattr(TensorBoardLogger, "experiment", board)
    loggers = [TensorBoardLogger(tmp_path)]
    callback = Examples(count=1)
    for step, sanity in ((0, True), (4, False), (8, False)):
        trainer = SimpleNamespace(loggers=loggers, sanity_checking=sanity, is_global_zero=True, global_step=step)
        for index, rendered in enumerate(batches):
            callback.on_validation_batch_end(trainer, module, None, rendered, index)
    names = ["pair0 rain"]
    assert set(board.pictures) == {(f"{name}/spectrograms", step) for name in names for step in (4, 8)}
    once = {(f"{name}/{what}", 4) for name in names for what in ("mixture", "target")}
    assert set(board.sounds) == once | {(f"{name}/estimate", step) for name in names for step in (4, 8)}
    wanted = module.separator()(torch.from_numpy(batches[0].mixture), "rain", RATE).target
    assert torch.equal(board.sounds["pair0 rain/estimate", 8], wanted)
    for changed in ({"loggers": []}, {"is_global_zero": False}):  # without a board, on another rank
        elsewhere = SimpleNamespace(**vars(trainer) | changed)
        elsewhere.global_step = 12
        callback.on_validation_batch_end(elsewhere, module, None, batches[0], 0)
    assert len(board.pictures) == 2


def test_checkpoints_lie_in_the_runs_folder_where_none_is_given():
    last, best = Last(every_n_train_steps=7), Best()
    assert (last.save_last, last.save_top_k, last._every_n_train_steps) == (True, 0, 7)
    assert (best.monitor, best.mode, best.filename, best.save_top_k) == ("val/sdri", "max", "best", 1)
