"""The command `separation-train`: fit, validate, test, the files of a run, and its messages."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny import read, write_manifest

pytest.importorskip("lightning", reason="needs the extra [train]")

from parts import RATE, RECIPE, arguments, logged, refused, run, write_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, Dataset

from separation import Separator, cli
from separation.data.fixed_mixtures import render
from separation.data.manifest import read_manifest
from separation.data.validation import draw_rows
from separation.encoders.base import EncoderError
from separation.errors import DataError
from separation.evaluate.scoring import score_mixture
from separation.pretrained import ModelError, load_model
from separation.storage.checkpoints import DESCRIPTION
from separation.training.cli import main, sentence

pytestmark = pytest.mark.usefixtures("no_sentence_weights")
COUNT = {"data.validation_count": 5}
ONE_EPOCH, TWO_EPOCHS = COUNT | {"trainer.max_epochs": 1}, COUNT | {"trainer.max_epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """The folder of a run of the default recipe with its own callbacks and loggers: two epochs of three steps."""
    folder = tmp_path_factory.mktemp("fitted")
    run(*arguments("fit", data, folder, **TWO_EPOCHS, **{"trainer.logger": None}))
    return folder


@pytest.fixture(scope="module")
def one_epoch(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("begun") / "run"
    run(*arguments("fit", data, folder, **ONE_EPOCH))
    return folder


@pytest.fixture
def begun(one_epoch, tmp_path):
    """The folder of a run of one epoch, a copy for each test."""
    return Path(shutil.copytree(one_epoch, tmp_path / "run"))


def checkpoints(folder):
    """Name within a folder -> number of steps of every checkpoint."""
    files = sorted(folder.rglob("*.ckpt"))
    return {str(file.relative_to(folder)): torch.load(file, weights_only=True)["global_step"] for file in files}


def draw(data, count=5, **options):
    return draw_rows(read_manifest(data / "manifest.csv", "validation"), count, **options)


def test_a_fit_leaves_its_last_and_its_best_checkpoint(fitted):
    found = {file.name: torch.load(file, weights_only=True) for file in fitted.glob("*.ckpt")}
    assert set(found) == {"last.ckpt", "best.ckpt"}
    assert found["last.ckpt"]["global_step"] == 6
    scores = logged(fitted, "val/sdri")
    assert sorted(scores) == [2, 5] and np.isfinite(list(scores.values())).all()
    assert found["best.ckpt"]["global_step"] == max(scores, key=scores.get) + 1
    assert sorted(logged(fitted, "val/absent_db")) == [2, 5]
    assert found["best.ckpt"][DESCRIPTION]["model"]["init_args"]["sample_rate"] == RATE


def test_a_run_leaves_the_files_and_values_of_earlier_versions(fitted):
    """Recorded before the restructuring; since then checkpoints hold no audio."""
    wanted = json.loads((Path(__file__).parent / "frozen" / "training.json").read_text())["run"]
    files = [str(file.relative_to(fitted)) for file in fitted.rglob("*") if file.is_file()]
    assert sorted(re.sub(r"tfevents.*", "tfevents", file) for file in files) == wanted["files"]
    header = (fitted / "log" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert sorted(header.split(",")) == wanted["metrics"]
    checkpoint = torch.load(fitted / "last.ckpt", weights_only=True)
    assert sorted([*checkpoint, "recent"]) == wanted["checkpoint"]


def test_speed_and_memory_are_logged_with_every_step(fitted):
    for name in ("speed/clips_per_second", "speed/waiting", "speed/memory_gb"):
        assert sorted(logged(fitted, name)) == list(range(6))
    assert all(0 < value < 1e5 for value in logged(fitted, "speed/clips_per_second").values())
    assert all(0 <= value <= 1 for value in logged(fitted, "speed/waiting").values())
    assert all(0.05 < value < 100 for value in logged(fitted, "speed/memory_gb").values())


def test_tensorboard_holds_sounds_and_pictures_of_the_first_mixtures(fitted, data):
    events = EventAccumulator(str(fitted / "tensorboard" / "version_0"), {"audio": 0, "images": 0}).Reload()
    names = [f"{row['id']} {row['query']}" for row in draw(data)[:3]]
    tags = events.Tags()
    assert set(tags["images"]) == {f"{name}/spectrograms" for name in names}
    assert set(tags["audio"]) == {f"{name}/{what}" for name in names for what in ("mixture", "target", "estimate")}
    assert [event.step for event in events.Images(f"{names[0]}/spectrograms")] == [3, 6]
    assert [event.step for event in events.Audio(f"{names[0]}/mixture")] == [3]
    assert events.Audio(f"{names[0]}/estimate")[0].sample_rate == 32000
    assert {"train/snr", "val/sdri", "speed/memory_gb"} <= set(tags["scalars"])


def test_a_new_run_moves_the_checkpoints_of_an_earlier_run(begun, data, capsys):
    for steps in (1, 2):
        run(*arguments("fit", data, begun, **{"trainer.max_steps": steps}))
    assert f"The checkpoints of an earlier run now lie in {begun / 'earlier_2'}" in capsys.readouterr().err
    moved = {"earlier_1/best.ckpt": 3, "earlier_1/last.ckpt": 3, "earlier_2/last.ckpt": 1, "last.ckpt": 2}
    assert checkpoints(begun) == moved
    assert "none.csv" in refused(capsys, *arguments("fit", data, begun, **{"data.manifest": "none.csv"}))
    assert checkpoints(begun) == moved


@pytest.mark.parametrize("how", ["last", "link to folder", "link to file", "moved", "best elsewhere"])
def test_a_resumed_run_knows_its_best_checkpoint(begun, data, tmp_path, how):
    """No later score is higher than the stored one, so the best checkpoint stays if the run knows it."""
    state = torch.load(begun / "last.ckpt", weights_only=True)
    stored = next(state for name, state in state["callbacks"].items() if name.startswith("Best"))
    [score] = logged(begun, "val/sdri").values()
    assert float(stored["best_model_score"]) == pytest.approx(score, abs=1e-5)
    stored["best_model_score"] = stored["kth_value"] = torch.tensor(99.0)
    stored["best_k_models"] = dict.fromkeys(stored["best_k_models"], torch.tensor(99.0))
    torch.save(state, begun / "last.ckpt")
    folder, options = begun, {"ckpt_path": "last" if how == "last" else begun / "last.ckpt"}
    if how == "moved":
        folder = begun.rename(tmp_path / "other")
        options["ckpt_path"] = folder / "last.ckpt"
    elif how.startswith("link"):
        target = begun if how == "link to folder" else begun / "last.ckpt"
        (tmp_path / "link").symlink_to(target)
        folder = tmp_path / "link" if how == "link to folder" else begun
        options["ckpt_path"] = tmp_path / "link" / "last.ckpt" if how == "link to folder" else tmp_path / "link"
    elif how == "best elsewhere":
        (tmp_path / "kept").mkdir()
        (begun / "best.ckpt").rename(tmp_path / "kept" / "best.ckpt")
        best = f"{{class_path: separation.training.callbacks.Best, init_args: {{dirpath: {tmp_path / 'kept'}}}}}"
        options["trainer.callbacks"] = f"[{{class_path: separation.training.callbacks.Last}}, {best}]"
    run(*arguments("fit", data, folder, **TWO_EPOCHS, **options))
    best = (tmp_path / "kept" if how == "best elsewhere" else folder) / "best.ckpt"
    assert checkpoints(folder)["last.ckpt"] == 6 and checkpoints(best.parent)["best.ckpt"] == 3
    assert not (folder / "earlier_1").exists()
    resumed = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]
    assert next(float(s["best_model_score"]) for name, s in resumed.items() if name.startswith("Best")) == 99


def test_a_run_that_starts_from_an_earlier_one_has_a_best_of_its_own(begun, data):
    earlier = Path(shutil.copytree(begun, begun / "earlier_1"))
    run(*arguments("fit", data, begun, **TWO_EPOCHS, ckpt_path=earlier / "last.ckpt"))
    moved = {f"earlier_{run}/{name}.ckpt": 3 for run in (1, 2) for name in ("best", "last")}
    assert checkpoints(begun) == moved | {"last.ckpt": 6, "best.ckpt": 6}


def test_a_fit_in_mixed_precision_scores_in_single(data, tmp_path, capsys):
    half = {"trainer.precision": "bf16-mixed", "trainer.num_sanity_val_steps": 2}
    run(*arguments("fit", data, tmp_path, **ONE_EPOCH, **half))
    score, lines = logged(tmp_path, "val/sdri")[2], []
    for precision in ({}, half):
        capsys.readouterr()
        run(*arguments("test", data, tmp_path, **COUNT, **precision, ckpt_path=tmp_path / "best.ckpt"))
        lines += [line for line in capsys.readouterr().out.splitlines() if line.startswith("| pair | ")]
    assert lines[0] == lines[1]
    assert float(lines[0].split("|")[3]) == pytest.approx(score, abs=0.006)


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_scores_are_printed_beside_the_mixture_and_an_oracle_mask(fitted, data, tmp_path, capsys, subcommand):
    run(*arguments(subcommand, data, tmp_path, **COUNT, ckpt_path=fitted / "best.ckpt"))
    printed = capsys.readouterr().out
    assert "5 rows: 5 scored." in printed
    replaced = f"Tested on split validation: {data / 'manifest.csv'}: the manifest has no rows with split test."
    assert (replaced in printed.splitlines()) == (subcommand == "test")
    assert "All systems, mean over rows; 95 % interval by recording;" in printed
    tables = printed.split("All systems, mean over rows")[1]
    heads = [line for line in tables.splitlines() if ", n = " in line]
    assert heads == ["| pair, n = 4 | SDR | SDRi | SI-SDR |", "| absent, n = 1 | dB under the mixture |"]
    lines = [line for line in tables.split("| absent, n")[0].splitlines()[1:] if line.startswith("| ")]
    cells = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines}
    mixture, oracle, model = (cells[name] for name in ("mixture (nothing done)", "oracle mask", "model"))
    sdri = [float(system[1].split()[0].rstrip(";")) for system in (mixture, oracle, model)]
    assert sdri[0] == 0.0 and sdri[1] > max(5.0, sdri[2])
    assert sdri[2] == pytest.approx(max(logged(fitted, "val/sdri").values()), abs=0.006)


@pytest.fixture(scope="module")
def listed(data, tmp_path_factory):
    """Options of a list of six rows: one whose target is silent, one that is missing, one that is broken."""
    folder = tmp_path_factory.mktemp("listed")
    drawn = draw(data, 6, absent=0.0)
    for name in {row[clip] for row in drawn for clip in ("target", "interference1", "example")}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / name, folder / name)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    (folder / "broken.wav").write_bytes(b"no sound")
    for number, name in enumerate(("silent", "missing", "broken"), 1):
        drawn[number]["target"] = f"{name}.wav"
    write_manifest(folder / "list.csv", drawn, list(drawn[0]))
    return {"data.validation": folder / "list.csv", "data.validation_every": 1}


LEFT_OUT = [
    "Left out, 1 rows whose recordings are missing: missing.wav.",
    "Left out, 1 rows whose recordings cannot be read: pair0003: ",
    "Left out, 1 rows with a silent signal: pair0001: the target is silent.",
]


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_rows_that_have_no_score_are_counted_and_named(fitted, data, listed, tmp_path, capsys, subcommand):
    run(*arguments(subcommand, data, tmp_path, **listed, ckpt_path=fitted / "best.ckpt"))
    printed = capsys.readouterr().out
    assert "6 rows: 3 scored." in printed
    assert all(line in printed for line in LEFT_OUT)
    [line] = [line for line in printed.splitlines() if line.startswith("| pair | 3 | ")]
    assert "nan" not in printed
    separator, drawn = Separator.from_pretrained(fitted, precision="float32"), draw(data, 6, absent=0.0)
    values = [score_mixture(separator, render(drawn[number], data)).value for number in (0, 4, 5)]
    assert float(line.split("|")[3]) == pytest.approx(np.mean(values), abs=0.006)


def test_a_fit_continues_without_broken_recordings_and_reports_them_once(data, listed, tmp_path, capsys):
    run(*arguments("fit", data, tmp_path, **listed))
    printed = capsys.readouterr().out
    assert [printed.count(line) for line in LEFT_OUT] == [1, 1, 1]
    assert "oracle" not in printed
    scores = logged(tmp_path, "val/sdri")
    assert sorted(scores) == [2, 5] and np.isfinite(list(scores.values())).all()
    said = refused(capsys, *arguments("fit", data, tmp_path, **listed, **{"data.validation_root": tmp_path}))
    assert said == f"{listed['data.validation']}: none of its 6 rows has its recordings in {tmp_path}."


def test_a_fit_without_validation_says_why(data, tmp_path, capsys):
    rows = [row for row in read(data / "manifest.csv") if row["split"] == "train"]
    write_manifest(tmp_path / "m.csv", rows, list(rows[0]))
    options = {"data.manifest": tmp_path / "m.csv", "data.root": data, "trainer.max_steps": 1}
    run(*arguments("fit", data, tmp_path, **COUNT, **options))
    why = f"{tmp_path / 'm.csv'}: the manifest has no rows with split validation."
    assert f"Nothing is validated, so there will be no best.ckpt: {why}" in capsys.readouterr().out
    assert checkpoints(tmp_path) == {"last.ckpt": 1}
    assert refused(capsys, *arguments("validate", data, tmp_path, **COUNT, **options)) == why


def test_a_run_without_its_own_folder_for_logs_writes_them_to_its_folder(fitted, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = arguments("fit", data, tmp_path / "mine", **{"trainer.max_steps": 1, "trainer.logger": None})
    run(*given)
    assert "Nothing is validated" not in capsys.readouterr().out  # as asked for
    assert (tmp_path / "mine" / "log" / "version_0" / "metrics.csv").is_file()
    assert (tmp_path / "mine" / "tensorboard" / "version_0").is_dir()
    assert not (tmp_path / "runs").exists()
    written = yaml.safe_load((tmp_path / "mine" / "log" / "version_0" / "config.yaml").read_text())
    saved = [logger["init_args"]["save_dir"] for logger in written["trainer"]["logger"]]
    assert saved == [str(tmp_path / "mine")] * 2


def test_a_run_folder_is_a_model(fitted, data, capsys):
    separator = Separator.from_pretrained(fitted, precision="float32")
    assert f"{fitted} is a run folder: best.ckpt is used." in capsys.readouterr().err
    pairs = [row for row in draw(data) if row["kind"] == "pair"]
    mean = np.mean([score_mixture(separator, render(row, data)).value for row in pairs])
    assert mean == pytest.approx(max(logged(fitted, "val/sdri").values()), abs=1e-2)


def test_a_checkpoint_is_a_model_of_its_averaged_weights(fitted, tmp_path):
    stored = torch.load(fitted / "last.ckpt", weights_only=True)
    alone = tmp_path / "alone.ckpt"
    shutil.copy(fitted / "last.ckpt", alone)
    for part, module in zip(("average", "encoder"), load_model(alone), strict=True):
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, stored["state_dict"][f"{part}.{name}"])
    separator = Separator.from_pretrained(alone)
    assert not torch.equal(separator.model.head.weight, stored["state_dict"]["model.head.weight"])
    assert not separator.model.training and not separator.encoder.training


def test_an_older_checkpoint_is_described_by_the_log_beside_it(fitted, tmp_path):
    stored = torch.load(fitted / "last.ckpt", weights_only=True)
    del stored[DESCRIPTION]
    torch.save(stored, tmp_path / "old.ckpt")
    with pytest.raises(ModelError, match=r"old.ckpt is a training checkpoint, but no config.yaml"):
        Separator.from_pretrained(tmp_path / "old.ckpt")
    (tmp_path / "log").mkdir()
    shutil.copytree(fitted / "log" / "version_0", tmp_path / "log" / "version_0")
    separator = Separator.from_pretrained(tmp_path)
    assert torch.equal(separator.model.head.weight, stored["state_dict"]["average.head.weight"])


def test_the_separate_command_takes_a_run_folder(fitted, tmp_path, monkeypatch):
    wave = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    soundfile.write(tmp_path / "mix.wav", wave, RATE, subtype="FLOAT")
    assert cli.main(["--model", str(fitted), "--query", "tone 1", str(tmp_path / "mix.wav")]) == 0
    found, rate = soundfile.read(tmp_path / "mix.tone_1.wav", dtype="float32")
    wanted = Separator.from_pretrained(fitted)(wave, "tone 1", RATE).target[0]
    assert rate == RATE
    assert np.abs(found - wanted.numpy()).max() < 1e-5


def test_the_configuration_can_be_printed(data, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*arguments("fit", data, tmp_path), "--print_config")
    assert stop.value.code in (None, 0)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["weights_only"] is True
    assert printed["data"]["init_args"]["batch_size"] == 2
    assert printed["model"]["init_args"]["model"]["class_path"] == "separation.models.band_unet.BandUNet"


@pytest.mark.parametrize(
    "option, said",
    [
        ("--data.batchsize=3", "data: separation.data.datamodule.MixtureData: Option 'batchsize' is not accepted."),
        ("--trainer.max_epoch=3", "unrecognized arguments: --trainer.max_epoch=3."),
        ("--data.validation=none.csv", "none.csv: there is no such list of validation mixtures."),
        ("--ckpt_path=/nope.ckpt", "/nope.ckpt: there is no such checkpoint."),
        (f"--ckpt_path={RECIPE}", f"{RECIPE}: not a training checkpoint, or damaged."),
        ("--ckpt_path=best", "--ckpt_path=best: name the file of an earlier run, such as best.ckpt in its folder."),
        ("--data.workers=-1", "data.workers is -1; the least is 0."),
        ("--data.batch_size=0", "data.batch_size is 0; the least is 1."),
        (
            "--data.validation=manifest.csv",
            "manifest.csv: the list of mixtures lacks the column id in the header "
            "path,split,label,caption,recording_id,source,seconds.",
        ),
        ("--model.compile=nosuch", "model.compile: there is no backend nosuch; these are: "),
        ("--trainer.strategy=nosuch", "trainer: You selected an invalid strategy name: `strategy='nosuch'`."),
        pytest.param(
            "--trainer.accelerator=cuda",
            "`CUDAAccelerator` can not run on your system since the accelerator is not available.",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
)
def test_errors_are_one_sentence_that_names_the_key(data, tmp_path, monkeypatch, capsys, option, said):
    monkeypatch.chdir(data)
    found = refused(capsys, *arguments("fit", data, tmp_path), option)
    if "nosuch" in option or "cuda" in option:
        assert found.startswith(said) and ("backend" not in said or "inductor" in found)
    else:
        assert found == said


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_an_objective_without_scores_is_reported(tmp_path, monkeypatch, capsys, subcommand):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.callbacks=null"]
    said = refused(capsys, subcommand, "--config", RECIPE.with_name("sound.yaml"), *options)
    assert said == f"Contrastive has no scores of its own, so there is nothing to {subcommand}."


def test_a_checkpoint_of_another_network_is_one_sentence(fitted, data, tmp_path, capsys):
    other = {"model.model.stream_dim": 8, "ckpt_path": fitted / "best.ckpt"}
    said = refused(capsys, *arguments("test", data, tmp_path, **COUNT, **other))
    assert said.startswith("The checkpoint is one of another model: size mismatch for model.")


class Failing(Dataset):
    """Whose one item raises an error."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize(
    "error", [DataError("a: b.csv: its DataError: is\nof two lines."), EncoderError("'x' is none of the labels.")]
)
def test_an_error_in_a_worker_is_its_own_text(monkeypatch, capsys, error):
    loader = DataLoader(Failing(error), batch_size=None, num_workers=1)
    monkeypatch.setattr("separation.training.cli.CLI", lambda *_, **__: list(loader))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"separation-train: {' '.join(str(error).splitlines())}\n"


NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.core.module.LightningModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'separation.training.objectives.bands.BandSupervised':
        Parser key "model":
          Problem with given class_path 'separation.models.band_unet.BandUNet':
            Option 'chanels' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'separation.training.objectives.bands.BandSupervised'}"""


@pytest.mark.parametrize(
    "message, said",
    [
        (NESTED, "model.model: separation.models.band_unet.BandUNet: Option 'chanels' is not accepted."),
        ("Subcommand 'fit' does not accept option 'a.b'", "Subcommand 'fit' does not accept option 'a.b'."),
        ("Parser key \"config\": File does not exist: 'x.yaml'", "config: File does not exist: 'x.yaml'."),
        (
            "Parser key \"batch_size\":\n  Expected a <class 'int'>. Got value: three",
            "batch_size: Expected a <class 'int'>. Got value: three.",
        ),
        ("a.csv: the manifest lacks the column label.", "a.csv: the manifest lacks the column label."),
    ],
)
def test_a_parsers_message_becomes_a_sentence(message, said):
    assert sentence(message) == said
