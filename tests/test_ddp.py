"""Two processes that train together do what one does with batches twice as large."""

import contextlib
import io

import pytest
import torch
from tiny import write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import QUIET, arguments, logged, run, run_apart, write_data

from separation.data.manifest import read_manifest
from separation.data.validation import draw_rows

pytestmark = QUIET
# No batch statistics, and nothing random in a step: each rank would draw its own noise.
OPTIONS = {
    "network": "parts.StillUNet",
    "model.text_noise": 0,
    "model.audio_share": 0,
    "model.absent_from": 0,
    "model.absent_ramp": 1,
    "data.validation_count": 5,
    "trainer.callbacks": "[{class_path: separation.training.callbacks.Last}]",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run(*arguments("fit", data, folder, **OPTIONS, **{"data.batch_size": 4}), stand_in=False)
    return folder


@pytest.fixture(scope="module")
def two(data, one, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    apart = {"trainer.strategy": "ddp", "trainer.devices": 2, "data.batch_size": 2}
    done = run_apart(arguments("fit", data, folder, **OPTIONS, **apart), folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Starting with 2 processes" in done.stderr
    return folder


@pytest.mark.parametrize("term", ["train/snr", "train/sdri", "train/absent", "train/tagging"])
def test_the_losses_are_those_of_one_process_with_doubled_batches(one, two, term):
    wanted, found = logged(one, term), logged(two, term)
    assert sorted(wanted) == sorted(found) == list(range(6))
    for step, value in wanted.items():
        assert found[step] == pytest.approx(value, abs=1e-4)


def test_the_weights_are_too(one, two):
    wanted, found = (torch.load(run / "last.ckpt", weights_only=True) for run in (one, two))
    assert found["global_step"] == wanted["global_step"] == 6
    for name, tensor in wanted["state_dict"].items():
        assert torch.allclose(found["state_dict"][name], tensor, rtol=0, atol=1e-4), name
    first = wanted["state_dict"]["model.head.weight"]
    assert not torch.equal(first, wanted["state_dict"]["average.head.weight"])  # something was learnt


@pytest.mark.parametrize("name", ["val/sdri", "val/absent_db"])
def test_validation_scores_every_mixture_once_however_they_are_spread(one, two, name):
    """Five mixtures, of which one is absent: three for one rank, two for the other."""
    wanted, found = logged(one, name), logged(two, name)
    assert sorted(wanted) == sorted(found) == [2, 5]
    assert [found[step] for step in (2, 5)] == pytest.approx([wanted[step] for step in (2, 5)], abs=1e-2)


def test_weights_that_a_loss_leaves_out_and_batches_without_one_do_not_stop_two_processes(data, one, tmp_path):
    """Plain DDP waits for a gradient of every weight from every rank."""
    options = OPTIONS | {"model": "parts.Waveforms", "data.validation_count": 0, "trainer.max_epochs": 1}
    apart = {"trainer.strategy": "ddp", "trainer.devices": 2, "data.batch_size": 2}
    done = run_apart(arguments("fit", data, tmp_path, **options, **apart), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in stored["state_dict"].values())


def test_rows_that_have_no_score_are_counted_over_all_ranks(data, one, tmp_path):
    drawn = draw_rows(read_manifest(data / "manifest.csv", "validation"), 5)
    drawn[0]["target"] = "missing.wav"  # of the first rank
    drawn[3]["target"] = "gone.wav"  # of the second
    write_manifest(tmp_path / "list.csv", drawn, list(drawn[0]))
    listed = {"data.validation": tmp_path / "list.csv", "data.validation_root": data, "data.validation_every": 1}
    options = OPTIONS | listed | {"ckpt_path": one / "last.ckpt"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(*arguments("validate", data, tmp_path / "alone", **options), stand_in=False)
    apart = {"trainer.strategy": "ddp", "trainer.devices": 2}
    done = run_apart(arguments("validate", data, tmp_path / "both", **options, **apart), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("5 rows: 3 scored.") == 1
    assert "Left out, 2 rows whose recordings are missing: missing.wav; gone.wav." in done.stdout
    tables = [
        [line for line in text.splitlines() if line.startswith("| ")] for text in (printed.getvalue(), done.stdout)
    ]
    assert len(tables[0]) > 8 and tables[0] == tables[1]
