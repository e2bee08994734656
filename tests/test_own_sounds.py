"""A user's own sounds: from a folder to a manifest, a model that is taught them, and what it refuses."""

import contextlib
import io
import re

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tiny import DIM, noise, tiny_model, vectors, write_model

from separation import ModelError, Separator, cli
from separation.data.manifest import read_entries
from separation.datasets.command import main as prepare
from separation.encoders.sentence import SentenceEncoder
from separation.own_sounds import LowRank, OwnNames, OwnSoundsNetwork

SOUNDS = ("robot siren", "mud engine", "door_bell")


def write_clips(folder, sounds=SOUNDS, count=6, seconds=0.6):
    """Tones of another pitch for each sound."""
    for number, sound in enumerate(sounds):
        (folder / sound).mkdir(parents=True, exist_ok=True)
        for clip in range(count):
            time = np.arange(round(16000 * seconds)) / 16000
            wave = 0.3 * np.sin(2 * np.pi * 300 * 1.7**number * (1 + 0.02 * clip) * time)
            soundfile.write(folder / sound / f"{clip}.wav", wave, 16000)
    return folder


def entries(manifest):
    return {clip.path: (split, clip) for split, clip in read_entries(manifest)}


# From a folder to a manifest


def test_subfolders_are_labels_and_every_fifth_recording_is_held_out(tmp_path, capsys):
    clips = write_clips(tmp_path / "clips")
    (clips / "mud engine" / "notes.txt").write_text("no clip")
    (clips / ".cache").mkdir()
    (clips / ".cache" / "0.wav").write_bytes((clips / "mud engine" / "0.wav").read_bytes())
    (clips / "mud engine" / "broken.wav").write_text("no sound")
    assert prepare(["prepare", "folder", str(clips)]) == 0
    said = capsys.readouterr().out
    assert "left out: " in said and "broken.wav" in said and "18 clips, 1 left out because they cannot be read" in said
    found = entries(clips / "manifest.csv")
    assert {clip.label for _, clip in found.values()} == {"robot siren", "mud engine", "door bell"}
    assert [path for path, (split, _) in found.items() if split == "validation"] == [
        f"{sound}/4.wav" for sound in ("door_bell", "mud engine", "robot siren")
    ]
    assert found["mud engine/0.wav"][1].seconds == 0.6
    first = (clips / "manifest.csv").read_bytes()
    assert prepare(["prepare", "folder", "--root", str(clips), "-o", str(clips / "manifest.csv")]) == 0
    assert (clips / "manifest.csv").read_bytes() == first


def test_parts_of_a_recording_stay_together(tmp_path):
    names = [
        "a.wav",
        "b part 1.wav",
        "b part 2.wav",
        "c.wav",
        "d_0.0-5.0.wav",
        "d_5.0-9.5.wav",
        "e (1).wav",
        "e (2).wav",
    ]
    write_clips(tmp_path / "clips", ["rain"], 1)
    for name in names:
        (tmp_path / "clips" / "rain" / name).write_bytes((tmp_path / "clips" / "rain" / "0.wav").read_bytes())
    (tmp_path / "clips" / "rain" / "0.wav").unlink()
    assert prepare(["prepare", "folder", str(tmp_path / "clips")]) == 0
    found = entries(tmp_path / "clips" / "manifest.csv")
    assert len({clip.recording for _, clip in found.values()}) == 5
    assert {path for path, (split, _) in found.items() if split == "validation"} == {"rain/e (1).wav", "rain/e (2).wav"}


def write_list(folder, text):
    write_clips(folder, ["."], 4)
    (folder / "labels.csv").write_text(text)
    return folder


def test_a_list_gives_labels_captions_and_splits(tmp_path, capsys):
    rows = "0.wav,Rain,it rains,\n1.wav,rain,,test\n./2.wav,rain,,\n3.wav,wind,,\n3.wav,rain,,\n"
    folder = write_list(tmp_path / "flat", f"file,label,caption,split\n{rows}")
    assert prepare(["prepare", "folder", str(folder), "-o", str(tmp_path / "m.csv")]) == 0
    found = entries(tmp_path / "m.csv")
    assert {path: (split, clip.labels) for path, (split, clip) in found.items()} == {
        "flat/0.wav": ("train", ("rain",)),
        "flat/1.wav": ("test", ("rain",)),
        "flat/2.wav": ("train", ("rain",)),
        "flat/3.wav": ("train", ("wind", "rain")),
    }
    assert found["flat/0.wav"][1].caption == "it rains"
    other = tmp_path / "elsewhere.csv"
    other.write_text("file,label\n0.wav,rain\n1.wav,rain\n")
    assert prepare(["prepare", "folder", str(folder), "--labels", str(other), "-o", str(tmp_path / "n.csv")]) == 0
    assert [split for split, _ in read_entries(tmp_path / "n.csv")] == ["train", "validation"]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("path,label\n0.wav,rain\n", "no column file in the header path,label"),
        ("file,label\n", "the list has no rows"),
        ("file,label\n9.wav,rain\n", "row 2: .*9.wav: there is no such file"),
        ("file,label\n0.wav,\n", "row 2: the label is empty"),
        ("file,label\n../out.wav,rain\n", r"row 2: \.\./out\.wav is not in the folder"),
        ("file,label\n/etc/passwd,rain\n", "row 2: /etc/passwd is not in the folder"),
        ("file,label\n0.wav,a;b\n", "row 2: “a;b” cannot be the name of a sound"),
        ("file,label\n0.wav,…\n", "row 2: “…” cannot be the name of a sound"),
        ("file,label,split\n0.wav,a,train\n0.wav,b,test\n", "0.wav is listed with the splits train and test"),
        ("file,label,split\n0.wav,rain,dev\n", "row 2: the split is dev, not one of train, validation, test"),
    ],
)
def test_a_wrong_list_is_one_sentence(tmp_path, capsys, text, expected):
    folder = write_list(tmp_path / "flat", text)
    (tmp_path / "out.wav").write_bytes((folder / "0.wav").read_bytes())
    assert prepare(["prepare", "folder", str(folder)]) == 1
    said = capsys.readouterr().err
    assert re.search(expected, said) and len(said.splitlines()) == 1
    assert not (folder / "manifest.csv").exists()


@pytest.mark.parametrize("name", ["0.wav", "labels.csv"])
def test_the_manifest_replaces_no_clip_and_no_list(tmp_path, capsys, name):
    folder = write_list(tmp_path / "flat", "\ufefffile,label\n0.wav,rain\n")  # as spreadsheets write it
    before = (folder / name).read_bytes()
    assert prepare(["prepare", "folder", str(folder), "-o", str(folder / name)]) == 1
    assert "is one of the files that the manifest is made from" in capsys.readouterr().err
    assert (folder / name).read_bytes() == before
    assert prepare(["prepare", "folder", str(folder)]) == 0


@pytest.mark.parametrize("made", ["missing", "empty", "flat", "broken"])
def test_a_folder_without_clips_is_one_sentence(tmp_path, capsys, made):
    folder = tmp_path / "clips"
    if made != "missing":
        folder.mkdir()
    if made == "flat":
        write_clips(folder, ["."], 2)
    if made == "broken":
        (folder / "rain").mkdir()
        (folder / "rain" / "a.wav").write_text("no sound")
    assert prepare(["prepare", "folder", str(folder)]) == 1
    expected = {"missing": "no such folder", "broken": "none of its 1 clips can be read"}
    said = capsys.readouterr().err
    assert expected.get(made, "no clips in subfolders; a folder of own sounds has one subfolder") in said
    assert len(said.splitlines()) == 1


# Which queries are for the new sounds


def test_a_text_names_a_sound_unless_it_is_nearer_to_a_known_one():
    sentence = SentenceEncoder()
    names = torch.stack([sentence.encode_text([text]) for text in ("electric guitar", "dog snoring")])
    own = OwnNames(names, sentence.encode_text(["guitar", "snoring"])[:, None], 2 * vectors(["a", "b"]))
    texts = ["an electric guitar", "electric guitar", "guitar", "a dog is snoring", "snoring", "rain"]
    found = own(sentence.encode_text(texts), torch.zeros(len(texts), DIM))
    a, b, none = *vectors(["a", "b"]), torch.zeros(DIM)
    assert torch.allclose(found, torch.stack([a, a, none, b, none, none]), atol=1e-6)


def test_each_query_has_the_weights_that_its_condition_chooses():
    base, adapted = (tiny_model(seed) for seed in (0, 1))
    own, other = vectors(["own"]), vectors(["rain", "wind"])
    network = OwnSoundsNetwork(base, adapted, own).eval()
    mixture, conditions = noise(1)[None], torch.stack([other[0], own[0], other[1]])[None]
    with torch.inference_mode():
        found = network.separate(mixture, conditions)
        for number, expected in enumerate((base, adapted, base)):
            alone = expected.separate(mixture, conditions[:, number : number + 1])
            assert torch.allclose(found.targets[:, number], alone.targets[:, 0], atol=1e-6)
            assert torch.allclose(found.logits[:, number], alone.logits[:, 0], atol=1e-5)
        assert torch.allclose(network.score_presence(mixture, conditions)[0], found.logits, atol=1e-5)
    assert (network.sample_rate, network.context, network.lists_sounds) == (base.sample_rate, base.context, True)


def test_a_low_rank_change_is_zero_at_first():
    weight = torch.randn(6, 3, 2, 2)
    change = LowRank(weight, 2)
    assert torch.equal(change(weight), weight)
    torch.nn.init.ones_(change.left)
    assert torch.linalg.matrix_rank((change(weight) - weight).flatten(1)) == 1


# Teaching


def teach(folder, run_folder, *words):
    """Teach the model in `folder` the sounds of its clips in a few small steps, beside three procedural sounds."""
    from parts import ROOT, run

    from separation.data import foley, own_sounds

    few = {name: foley.SOUNDS[name] for name in ("rain", "wind", "engine")}
    command = ["fit", "--config", ROOT / "conf" / "recipe" / "finetune.yaml", "--model.base", folder / "base"]
    command += ["--data.batch_size=2", "--data.seconds=1", "--data.foley=1", "--data.held_out=1", *words]
    command += ["--data.manifest", folder / "clips" / "manifest.csv", "--trainer.default_root_dir", run_folder]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(foley, "SOUNDS", few)
        patch.setattr(own_sounds, "SOUNDS", few)
        run(*command, "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny model that was taught three sounds in three steps: its folder, and what the command printed."""
    pytest.importorskip("lightning", reason="needs the extra [train]")
    folder, printed = tmp_path_factory.mktemp("own"), io.StringIO()
    write_model(folder / "base")
    assert prepare(["prepare", "folder", str(write_clips(folder / "clips"))]) == 0
    with contextlib.redirect_stdout(printed):
        teach(folder, folder / "run", "--trainer.max_steps=3")
    return folder, printed.getvalue()


@pytest.fixture
def sentences(monkeypatch):
    """Sentences need no weights, as in the training."""
    monkeypatch.setattr(SentenceEncoder, "_embed", lambda self, texts: vectors(texts, 384))


def test_teaching_writes_a_small_difference_and_measures_it(taught):
    folder, printed = taught
    files = [file for file in (folder / "run").iterdir() if file.suffix in (".safetensors", ".yaml")]
    assert sum(file.stat().st_size for file in files) < 1e6
    config = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert config["base"]["sounds"] == ["door bell", "mud engine", "robot siren"]
    assert config["base"]["model"] == str((folder / "base").resolve())
    lines = printed.splitlines()
    own = [line.split()[:3] for line in lines if line.startswith("  ")]
    assert own == [["door", "bell", "1"], ["mud", "engine", "1"], ["robot", "siren", "1"]]
    assert any(line.startswith("procedural sounds") and line.endswith("+0.00 (+0.00 to +0.00)") for line in lines)


def test_old_sounds_are_those_of_the_base_and_new_ones_are_not(taught, sentences):
    folder, _ = taught
    base, own = (Separator.from_pretrained(folder / name, "cpu") for name in ("base", "run"))
    mixture = noise(2)
    for query, same in (("rain", True), ("robot siren", False), ("mud engine", False)):
        first, second = base(mixture, query, 32000), own(mixture, query, 32000)
        assert torch.equal(first.target, second.target) == same
        assert (first.presence == second.presence) == same
        assert torch.allclose(second.target + second.residual, mixture, atol=1e-6)
    together = own(mixture, ["rain", "robot siren"], 32000)
    assert torch.allclose(together[1].target, own(mixture, "robot siren", 32000).target, atol=1e-6)
    assert {"rain", "robot siren"} <= {sound.name for sound in own.listed_sounds}
    assert own.suggest("robot siren") == []


def test_the_command_uses_and_lists_them(taught, sentences, tmp_path, capsys):
    folder, _ = taught
    soundfile.write(tmp_path / "mix.wav", noise(1)[0].numpy(), 32000)
    model = ["--model", str(folder / "run"), "--device", "cpu"]
    assert cli.main([*model, "--query", "robot siren", str(tmp_path / "mix.wav")]) == 0
    assert (tmp_path / "mix.robot_siren.wav").is_file()
    assert cli.main([*model, "--list", str(tmp_path / "mix.wav")]) == 0
    capsys.readouterr()
    assert cli.main([*model, "--sounds"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == ["door bell", "mud engine", "robot siren"]
    assert cli.main(["--sounds", "robot", *model]) == 0
    assert "robot siren" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, expected",
    [
        ("weights", "was trained on other weights of .* so it cannot be used with these; train it again"),
        ("missing", "its base cannot be loaded: Unknown model"),
        ("sha256", "base must give model and sha256"),
        ("itself", "is not the directory of a base model"),
        ("vectors", "has no conditions of sounds that fit its base"),
        ("shape", "does not fit its base: model.bottom.0.weight.left"),
        ("name", "does not fit its base: model.nothing"),
    ],
)
def test_a_difference_that_does_not_fit_is_refused(taught, sentences, tmp_path, change, expected):
    from safetensors.torch import load_file, save_file

    folder, _ = taught
    config, tensors = yaml.safe_load((folder / "run" / "config.yaml").read_text()), None
    if change == "weights":
        config["base"]["sha256"] = "0" * 64
    elif change == "missing":
        config["base"]["model"] = str(tmp_path / "nowhere")
    elif change == "sha256":
        del config["base"]["sha256"]
    elif change == "itself":
        config["base"]["model"] = str(folder / "run")
    tensors = load_file(folder / "run" / "model.safetensors")
    if change == "vectors":
        tensors["encoder.own.vectors"] = tensors["encoder.own.vectors"][:, :-1].contiguous()
    elif change == "shape":
        tensors["model.bottom.0.weight.left"] = tensors["model.bottom.0.weight.left"][:, :-1].contiguous()
    elif change == "name":
        tensors["model.nothing"] = torch.zeros(3)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.yaml").write_text(yaml.safe_dump(config))
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ModelError, match=expected):
        Separator.from_pretrained(tmp_path / "model", "cpu")


def test_a_training_resumes_from_a_small_checkpoint(taught, tmp_path):
    folder, _ = taught
    last = folder / "run" / "last.ckpt"
    before = torch.load(last, weights_only=True)
    assert not [name for name in before["state_dict"] if "original" in name or name.startswith("average")]
    teach(folder, tmp_path / "run", "--trainer.max_epochs=2", "--trainer.max_steps=4", "--ckpt_path", last)
    after = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert (before["global_step"], after["global_step"]) == (3, 4)
    changed = [float((value - before["state_dict"][name]).abs().max()) for name, value in after["state_dict"].items()]
    assert 0 < max(changed) < 0.02  # one step from where it stood


@pytest.mark.parametrize("packed", [False, True])
def test_other_recordings_are_rehearsed(taught, tmp_path, packed):
    from separation.data.own_sounds import OwnSoundsData

    folder, _ = taught
    rehearsal = write_clips(tmp_path / "others", ["glass chime", "mud engine", "cow bell"]) / "manifest.csv"
    assert prepare(["prepare", "folder", str(rehearsal.parent)]) == 0
    if packed:
        assert prepare(["pack", str(rehearsal), "-o", str(tmp_path / "packed")]) == 0
        rehearsal = tmp_path / "packed"
    data = OwnSoundsData(manifest=folder / "clips" / "manifest.csv", rehearsal=rehearsal, rehearsal_clips=2)
    data.load()
    assert data.own == ["door bell", "mud engine", "robot siren"]
    assert data.corpus.labels == sorted([*data.own, "cow bell", "glass chime"])
    assert [len(data.corpus.tree[label]) for label in ("cow bell", "glass chime", "mud engine")] == [1, 1, 5]
    assert data.batch(0, 0).labels.shape == (12, 3)
    if packed:
        teach(folder, tmp_path / "run", "--trainer.max_steps=3", "--data.rehearsal", rehearsal)
        config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        assert config["base"]["sounds"] == data.own


def test_what_cannot_be_taught_is_one_sentence(taught, capsys):
    from parts import ROOT, refused

    folder, _ = taught
    recipe = [
        "fit",
        "--config",
        ROOT / "conf" / "recipe" / "finetune.yaml",
        "--trainer.accelerator=cpu",
        "--data.foley=0",
    ]
    manifest = ["--data.manifest", folder / "clips" / "manifest.csv"]
    for words, expected in (
        ([*manifest, "--model.base", folder / "run"], "was itself taught sounds; start from its base"),
        ([*manifest, "--model.base", "nothing"], "Unknown model"),
        ([*manifest, "--model.base", folder / "base", "--data.sample_rate", "16000"], "works at 32000 Hz"),
        (["--model.base", folder / "base", "--data.manifest", folder / "none.csv"], "none.csv: the manifest cannot be"),
    ):
        assert expected in refused(capsys, *recipe, *words)
    words = [*manifest, "--model.base", folder / "base"]
    assert "are measured when fit ends" in refused(capsys, "test", *recipe[1:], *words)
