"""Two processes that train together have the losses, gradients and scores of one with batches twice as large."""

import contextlib
import io

import pytest
import torch
from tiny import write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import arguments, logged, run, write_data
from ranks import OPTIONS, loss_and_gradients, networks, run_group

from separation.data.manifest import read_manifest
from separation.data.validation import draw_rows

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A corpus, and a list of five mixtures of which each process has one whose recording is missing."""
    folder = tmp_path_factory.mktemp("data")
    drawn = draw_rows(read_manifest(write_data(folder), "validation"), 5)
    drawn[0]["target"], drawn[3]["target"] = "missing.wav", "gone.wav"
    write_manifest(folder / "list.csv", drawn, list(drawn[0]))
    return folder


@pytest.fixture(scope="module")
def one(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    run(*arguments("fit", data, folder, **OPTIONS, **{"data.batch_size": 4}))
    return folder


@pytest.fixture(scope="module")
def two(data, one, tmp_path_factory):
    return run_group(tmp_path_factory.mktemp("two"), data, one / "last.ckpt")


@pytest.mark.parametrize("term", ["train/snr", "train/sdri", "train/absent", "train/tagging"])
def test_the_losses_are_those_of_one_process_with_doubled_batches(one, two, term):
    wanted, found = logged(one, term), logged(two / "fit", term)
    assert sorted(wanted) == list(range(6))
    assert found == pytest.approx(wanted, abs=1e-4)


def test_the_weights_are_too(one, two):
    wanted, found = (torch.load(run / "last.ckpt", weights_only=True) for run in (one, two / "fit"))
    assert found["global_step"] == wanted["global_step"] == 6
    for name, tensor in wanted["state_dict"].items():
        assert torch.allclose(found["state_dict"][name], tensor, rtol=0, atol=1e-4), name
    first = wanted["state_dict"]["model.head.weight"]
    assert not torch.equal(first, wanted["state_dict"]["average.head.weight"])  # the weights have changed


@pytest.mark.parametrize("name", ["val/sdri", "val/absent_db"])
def test_validation_scores_every_mixture_once(one, two, name):
    """Five mixtures, of which one is absent: three for one process, two for the other."""
    wanted, found = logged(one, name), logged(two / "fit", name)
    assert sorted(wanted) == [2, 5]
    assert found == pytest.approx(wanted, abs=1e-2)


def test_weights_without_a_loss_and_batches_without_one_do_not_block_the_others(two):
    """Plain DDP waits for a gradient of every weight from every process."""
    stored = torch.load(two / "waveforms" / "last.ckpt", weights_only=True)
    assert stored["global_step"] == 3
    assert all(torch.isfinite(tensor).all() for tensor in stored["state_dict"].values())


def test_rows_without_a_score_are_counted_over_all_processes(data, one, two, tmp_path):
    listed = {"data.validation": data / "list.csv", "data.validation_every": 1, "ckpt_path": one / "last.ckpt"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(*arguments("validate", data, tmp_path, **OPTIONS, **listed))
    first, second = ((two / f"validate_{rank}").read_text() for rank in range(2))
    assert first.count("5 rows: 3 scored.") == 1 and "rows" not in second
    assert "Left out, 2 rows whose recordings are missing: missing.wav; gone.wav." in first
    wanted, found = (
        [line for line in text.splitlines() if line.startswith("| ")] for text in (printed.getvalue(), first)
    )
    assert len(wanted) > 8 and found == wanted


@pytest.mark.parametrize("name", ["joint", "cnt", "cnt, faithful", "noise invariant"])
def test_an_objective_has_the_loss_and_gradient_of_the_whole_batch(two, name):
    network = networks()[name]
    if name == "noise invariant":  # with separate bounds the halves would differ from the whole
        assert network.means.min() < network.objective.gamma < network.means.mean()
    loss, gradients = loss_and_gradients(network, slice(0, 8))
    found = torch.load(two / "found.pt", weights_only=True)[name]
    assert found[0].item() == pytest.approx(loss.item(), abs=1e-4)
    assert found[1].keys() == gradients.keys()
    for key, gradient in gradients.items():
        assert torch.allclose(found[1][key], gradient, rtol=1e-3, atol=1e-4 if name != "noise invariant" else 1e-6), key
