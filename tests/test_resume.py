"""A training that is killed in the middle of an epoch goes on as if it had not been."""

import signal

import pytest
import torch

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import QUIET, arguments, logged, run, run_apart, write_data

pytestmark = QUIET
TERMS = ("train/snr", "train/sdri", "train/absent", "train/tagging")
OPTIONS = {"trainer.max_epochs": 3, "data.batches": 4, "model.absent_from": 1, "model.absent_ramp": 3}
LAST = "{class_path: separation.callbacks.checkpoints.Last, init_args: {every_n_train_steps: 1}}"
OPTIONS["trainer.callbacks"] = f"[{LAST}]"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder, validation=False)
    return folder


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """The folder of an uninterrupted run of 12 steps."""
    folder = tmp_path_factory.mktemp("straight")
    run(*arguments("fit", data, folder, **OPTIONS))
    return folder


@pytest.fixture(scope="module")
def killed(data, straight, tmp_path_factory):
    """The folder of a run that was killed as it began step 7 of 12, the third of epoch 1's four.

    A process of its own; its sentences come from the cache that the uninterrupted run has filled.
    """
    folder = tmp_path_factory.mktemp("killed")
    callbacks = f"[{LAST}, {{class_path: parts.KillAt, init_args: {{step: 6}}}}]"
    done = run_apart(arguments("fit", data, folder, **OPTIONS | {"trainer.callbacks": callbacks}), folder)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def resumed(data, killed):
    stored = torch.load(killed / "last.ckpt", weights_only=True)
    assert (stored["epoch"], stored["global_step"]) == (1, 6)
    run(*arguments("fit", data, killed, **OPTIONS, ckpt_path=killed / "last.ckpt"))
    return killed


def test_the_losses_are_those_of_an_uninterrupted_run(straight, resumed):
    versions = sorted((resumed / "log").iterdir())
    again = int(versions[-1].name.removeprefix("version_"))
    for term in TERMS:
        wanted, found = logged(straight, term), logged(resumed, term, again)
        assert sorted(wanted) == list(range(12))
        assert sorted(found) == list(range(6, 12))
        assert term != "train/snr" or len(set(wanted.values())) == 12  # every step has other clips
        for step, value in found.items():
            assert value == pytest.approx(wanted[step], abs=1e-5), (term, step)


def test_weights_and_averages_with_their_statistics_are_those_of_an_uninterrupted_run(straight, resumed):
    wanted = torch.load(straight / "last.ckpt", weights_only=True)
    found = torch.load(resumed / "last.ckpt", weights_only=True)
    assert found["global_step"] == wanted["global_step"] == 12
    assert found["state_dict"].keys() == wanted["state_dict"].keys()
    assert any(name.startswith("average.") and name.endswith("running_var") for name in wanted["state_dict"])
    for name, tensor in wanted["state_dict"].items():
        assert torch.allclose(found["state_dict"][name].double(), tensor.double(), rtol=0, atol=1e-5), name
    assert len(found["recent"]) == len(wanted["recent"]) == 12
    for mine, theirs in zip(found["recent"], wanted["recent"], strict=True):
        assert all(torch.allclose(a.float(), b.float(), atol=1e-5) for a, b in zip(mine, theirs, strict=True))


def test_a_run_that_ended_in_its_first_epoch_goes_on_there(data, straight, tmp_path):
    """Lightning makes the loader of the first epoch before it knows where a resumed run stands."""
    run(*arguments("fit", data, tmp_path, **OPTIONS | {"trainer.max_steps": 3}))
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert (stored["epoch"], stored["global_step"]) == (0, 3)
    run(*arguments("fit", data, tmp_path, **OPTIONS | {"trainer.max_steps": 5}, ckpt_path=tmp_path / "last.ckpt"))
    steps = set(logged(tmp_path, "train/snr")) | set(logged(tmp_path, "train/snr", 1))
    assert steps == set(range(5))
    # The rate's course depends on how long a training is planned to be, the clips do not.
    weights = torch.load(tmp_path / "last.ckpt", weights_only=True)["recent"]
    whole = torch.load(straight / "last.ckpt", weights_only=True)["recent"]
    for (mine, _), (theirs, _) in zip(weights, whole[:5], strict=True):
        assert torch.equal(mine, theirs)
