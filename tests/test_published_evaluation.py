"""Evaluation as published: the systems' own inference beside this package's, and classes asked by mean embeddings."""

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from tiny import vectors, write_manifest

from separation.data.fixed_mixtures import Rendered
from separation.encoders.base import QueryEncoder
from separation.encoders.taggers import TaggerEncoder, Tags
from separation.errors import ModelError
from separation.evaluate import command as module
from separation.evaluate.metrics import sdri
from separation.evaluate.protocols.base import find_protocol, make_row
from separation.evaluate.scoring import Plan, score_mixture
from separation.models import clipsep_unet, resunet
from separation.models.clipsep_unet import CLIPSepUNet
from separation.models.resunet import ResUNet30
from separation.separator import Separator

RATE = 16000
FSDKAGGLE = ["Burping_or_eructation", "Gunshot_or_gunfire", "Oboe", "Violin_or_fiddle"]


class Texts(QueryEncoder):
    """A random vector for every text."""

    modalities, unit_length = frozenset({"text"}), False

    def __init__(self, dim):
        super().__init__()
        self.embedding_dim = dim

    def encode_text(self, texts):
        return 10 * vectors(texts, self.embedding_dim)


class Tagger(TaggerEncoder):
    """The probability of class 0 is the level of a waveform, that of class 1 its peak."""

    sample_rate, device = RATE, torch.device("cpu")

    def __init__(self):
        super().__init__("probabilities", 8)

    def tag(self, waveform):
        probabilities = torch.zeros(len(waveform), 527)
        probabilities[:, 0], probabilities[:, 1] = waveform.square().mean(1).sqrt(), waveform.abs().amax(1)
        return Tags(probabilities, probabilities)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setattr(clipsep_unet, "widths", lambda layers, finest: [2] * layers)
    monkeypatch.setattr(resunet, "CHANNELS", (1, 1, 1, 1, 1, 1, 1))


def build(model, encoder):
    torch.manual_seed(3)
    return Separator(model().requires_grad_(False), encoder, "tiny", "cpu")


def noise(samples, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


# Published inference


def test_clipsep_is_scored_with_soft_masks_at_its_own_level_in_one_pass():
    separator = build(CLIPSepUNet, Texts(512))
    wave = noise(70000, level=0.02)  # longer than a training clip: two windows here, one pass as published
    target = wave * np.linspace(0, 1, len(wave), dtype=np.float32)
    rendered = Rendered(make_row(0, "dog", "a.wav"), wave, target, RATE)
    score = score_mixture(separator, rendered, Plan(metrics=("sdri",), faithful=True))
    model, condition = separator.model, separator.conditions(["dog"])
    published = model.as_scored()
    expected = published(torch.from_numpy(wave)[None, None], condition)[0, 0].numpy()
    assert score.faithful["sdri"] == pytest.approx(sdri(target, expected, wave), abs=1e-3)
    assert score.faithful["sdri"] != pytest.approx(score.metrics["sdri"], abs=1e-3)
    assert not model.faithful and published.sound_net is model.sound_net  # the weights are shared, nothing else
    published.binary = True  # `separate --faithful`
    assert np.abs(published(torch.from_numpy(wave)[None, None], condition)[0, 0].numpy() - expected).max() > 1e-4


def test_both_figures_are_in_the_table(tmp_path, monkeypatch, capsys):
    separator = build(lambda: ResUNet30(8, RATE, 512, 160), Texts(8))
    monkeypatch.setattr(module.Separator, "from_pretrained", lambda name: separator)
    rows = [make_row(0, "dog", "a.wav", ["b.wav"], snr_db="0")]
    for seed, name in enumerate("ab"):
        soundfile.write(tmp_path / f"{name}.wav", noise(32000, seed), 32000)
    write_manifest(tmp_path / "list.csv", rows, list(rows[0]))
    options = ["--mixtures", str(tmp_path / "list.csv"), "--metrics", "sdri", "--no-oracle"]
    assert module.main([*options, "--faithful"]) == 0
    printed = capsys.readouterr().out
    own, published = (
        next(line for line in printed.splitlines() if line.startswith(f"| {name} |"))
        for name in ("model", "model, published inference")
    )
    assert own.split("|")[2] != published.split("|")[2]
    assert module.main(options) == 0
    assert "published inference" not in capsys.readouterr().out


def test_a_model_of_this_package_has_no_published_inference():
    from tiny import tiny_separator

    with pytest.raises(ModelError, match="published with this package's own inference"):
        tiny_separator().as_scored()


# Classes by mean embeddings


@pytest.fixture
def uss(tmp_path, monkeypatch, capsys):
    """Run the command with a tiny USS; recordings of two classes are train rows of a manifest."""
    monkeypatch.setattr(
        module.Separator, "from_pretrained", lambda name: build(lambda: ResUNet30(527, RATE, 512, 160), Tagger())
    )
    rows = []
    for number, (label, level) in enumerate([("Oboe", 0.1), ("Oboe", 0.3), ("Bark", 0.2), ("Bark", 0.0)]):
        wave = np.concatenate([np.full(RATE, level), np.zeros(RATE), np.full(2 * RATE, level / 2)])
        soundfile.write(tmp_path / f"{number}.wav", wave, RATE, subtype="FLOAT")
        rows.append({"path": f"{number}.wav", "split": "train", "label": label, "recording_id": str(number)})
    rows.append({"path": "none.wav", "split": "test", "label": "Meow", "recording_id": "t"})
    write_manifest(tmp_path / "manifest.csv", rows)
    file = tmp_path / "classes.safetensors"

    def run(*options):
        try:
            status = module.main([*map(str, options), "--class-embeddings", str(file)])
        except SystemExit as stop:
            status = stop.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run, tmp_path, file


def test_mean_embeddings_of_classes(uss):
    run, folder, file = uss
    status, printed, said = run("--embed-classes", folder / "manifest.csv", "--example-seconds", 2)
    assert status == 0 and "2 classes from 4 recordings, 0 left out" in printed and said == ""
    found = load_file(file)
    assert set(found) == {"Oboe", "Bark"}
    # The first two seconds with their silence: level / sqrt(2), mean over the recordings.
    assert float(found["Oboe"][0]) == pytest.approx(0.2 / 2**0.5, abs=1e-5)
    assert float(found["Oboe"][1]) == pytest.approx(0.2, abs=1e-5) and not found["Oboe"][2:].any()
    status, printed, said = run("--embed-classes", folder / "manifest.csv")
    # Silent frames removed; 3 s are two segments of 2 s, the second one of the quieter second, repeated.
    assert status == 0 and "2 classes from 3 recordings, 1 left out" in printed and "3.wav: " in said
    first = ((1 + 0.25) / 2) ** 0.5
    assert float(load_file(file)["Oboe"][0]) == pytest.approx(0.2 * (first + 0.5) / 2, abs=1e-5)


def test_folders_of_classes_are_those_of_the_published_scripts(uss):
    run, folder, file = uss
    for name, files in {"label=Oboe": ["label=Oboe,index=000,source.wav", "label=Oboe,index=000,mixture.wav"],
                        "class_id=1": ["class_id=1,index=000,source.wav"], "Meow": ["a.wav"]}.items():  # fmt: skip
        (folder / "examples" / name).mkdir(parents=True)
        for each in files:
            level = 0.5 if each.endswith("mixture.wav") else 0.1
            soundfile.write(folder / "examples" / name / each, np.full(RATE, level), RATE, subtype="FLOAT")
    assert run("--embed-classes", folder / "examples")[0] == 0
    found = load_file(file)
    assert set(found) == {"Oboe", "Male speech, man speaking", "Meow"}
    assert {round(float(value[1]), 3) for value in found.values()} == {0.1}


def test_rows_are_asked_by_the_embedding_of_their_class(uss, monkeypatch):
    run, folder, file = uss
    embedding = torch.rand(527, generator=torch.Generator().manual_seed(0))
    save_file({"Violin_or_fiddle": embedding}, file)
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", noise(2 * 32000, number), 32000, subtype="FLOAT")
    rows = [make_row(0, "Violin or fiddle", "0.wav", ["1.wav"], snr_db="0")]
    write_manifest(folder / "list.csv", rows, list(rows[0]))
    asked, encode = [], module.NamedEmbeddings.encode_text
    monkeypatch.setattr(
        module.NamedEmbeddings, "encode_text", lambda self, texts: asked.append(encode(self, texts)) or asked[-1]
    )
    status, printed, _ = run("--mixtures", folder / "list.csv")
    assert status == 0 and "asked by class embedding" in printed
    assert torch.equal(asked[-1], embedding[None])
    save_file({"Oboe": embedding}, file)
    assert run("--mixtures", folder / "list.csv")[2] == (f"{file} lacks 1 of the 1 classes: Violin or fiddle.\n")
    save_file({"Violin_or_fiddle": embedding[:3]}, file)
    assert (
        "Violin_or_fiddle is not 527 finite numbers, but has the shape 3." in run("--mixtures", folder / "list.csv")[2]
    )
    (folder / "classes.pkl").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is not a \.safetensors file"):
        module.NamedEmbeddings.from_file(folder / "classes.pkl", 527, False)


def test_four_names_of_fsdkaggle2018_are_no_audioset_classes(uss, monkeypatch, capsys):
    _, folder, _ = uss
    for number in range(2):
        soundfile.write(folder / f"{number}.wav", noise(2 * 32000, number), 32000, subtype="FLOAT")
    rows = [
        make_row(n, name.replace("_", " "), "0.wav", ["1.wav"], snr_db="0")
        for n, name in enumerate(["Bark", *FSDKAGGLE])
    ]
    write_manifest(folder / "list.csv", rows, list(rows[0]))
    with pytest.raises(SystemExit) as stop:
        module.main(["--mixtures", str(folder / "list.csv")])
    assert stop.value.code == 1
    names = "Burping or eructation, Gunshot or gunfire, Oboe, Violin or fiddle"
    assert capsys.readouterr().err == (
        f"tiny lacks 4 of the 5 classes: {names}; --class-embeddings FILE gives it conditions of them.\n"
    )


# Two published versions of a list


def test_fsdkaggle2018_has_both_published_permutations(tmp_path):
    lists = tmp_path / "test_post_competition_scoring_clips.csv"
    labels = ["Bark", "Oboe", "Bark", "Oboe", "Meow"]
    lists.write_text("fname,label\n" + "".join(f"{n}.wav,{label}\n" for n, label in enumerate(labels)))
    rows = {name: find_protocol(f"uss/fsdkaggle2018{name}").rows(tmp_path) for name in ("", "-38344b4", "-3ba77f5")}
    assert rows[""] == rows["-38344b4"] != rows["-3ba77f5"]
    for name, count in (("-38344b4", 4), ("-3ba77f5", 5)):  # whether the last clip is a target
        random, expected = np.random.RandomState(1234), []
        wanted = {"Bark", "Oboe", "Meow"} if count == 5 else {"Bark", "Oboe"}
        while min([sum(label == each for label, _ in expected) for each in wanted]) < 100:
            for i in random.permutation(count):
                if sum(label == labels[i] for label, _ in expected) < 100:
                    expected.append((labels[i], f"{i}.wav"))
        assert [(row["label"], row["target"]) for row in rows[name]] == expected
