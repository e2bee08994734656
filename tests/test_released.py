"""Published separators from files written here, with a few channels: recognised, loaded, converted, refused.

`tests/frozen/pretrained.json` holds the cards of all models and what `separation-convert` writes for every system, as
they were before the records of the systems were written.
"""

import json
import shlex
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from separation import ModelError, Query, Separator, cli, list_models
from separation.convert import main as convert
from separation.encoders.taggers import FrameTagger, TaggerEncoder, Tags
from separation.models import bimodal_unet, clipsep_unet, resunet
from separation.models.bimodal_unet import BiModalUNet
from separation.models.clipsep_unet import CLIPSepUNet
from separation.models.resunet import ResUNet30
from separation.pretrained import load_model, read_card
from separation.released.encoder import ReleasedEncoder
from separation.released.recognise import recognise
from separation.released.systems import LISTED, SYSTEMS
from separation.storage.moved import resolve

FROZEN = json.loads((Path(__file__).parent / "frozen" / "pretrained.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path, hub_cache):
    """Narrow networks, and an empty cache."""
    monkeypatch.setattr(resunet, "CHANNELS", (1, 1, 1, 1, 1, 1, 1))
    monkeypatch.setattr(clipsep_unet, "widths", lambda layers, finest: [2] * layers)
    monkeypatch.setattr(bimodal_unet, "CHANNELS", 8)
    monkeypatch.setattr(bimodal_unet, "MULTIPLES", (1,) * 7)
    monkeypatch.setenv("SEPARATION_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUDIOSET_ONTOLOGY", raising=False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


NETWORKS = {
    "audiosep": (lambda: ResUNet30(512), "ss_model."),
    "audiosep-hive": (lambda: ResUNet30(512), "ss_model."),
    "dcase2024": (lambda: ResUNet30(512, 16000, 1024, 160), "ss_model."),
    "uss": (lambda: ResUNet30(527, segment=64000), "ss_model."),
    "uss-embedding": (lambda: ResUNet30(2048, segment=64000), "model.ss_model."),
    "clipsep": (CLIPSepUNet, "module."),
    "clipsep-nit": (lambda: CLIPSepUNet(noise_heads=2), "module."),
    "labelsep": (lambda: CLIPSepUNet(labels=5), "module."),
    "clipsep-pit": (lambda: CLIPSepUNet(fusion="none"), "module."),
    "clipsep-early": (lambda: CLIPSepUNet(fusion="early"), "module."),
    "clipsep-middle": (lambda: CLIPSepUNet(fusion="middle"), "module."),
    "bertsep": (lambda: CLIPSepUNet(condition_dim=256), "module."),
    "bimodal": (BiModalUNet, "module."),
}


def network(name):
    torch.manual_seed(3)
    return NETWORKS[name][0]().eval().requires_grad_(False)


def state(name):
    return {NETWORKS[name][1] + key: value for key, value in network(name).state_dict().items()}


def write(folder, name, content=None):
    file = folder / (SYSTEMS[name].checkpoint_name if name == "audiosep-hive" else f"{name}.ckpt")
    torch.save({"state_dict": state(name) if content is None else content, "epoch": 1}, file)
    return file


def refusal(model, **options) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        Separator.from_pretrained(model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Recognised, loaded, converted -------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_recognised_and_loaded(tmp_path, name):
    separator = Separator.from_pretrained(write(tmp_path, name), device="cpu")
    assert separator.encoder.family == name
    expected = network(name)
    assert separator.sample_rate == expected.sample_rate
    assert separator.model.condition_dim == separator.encoder.embedding_dim == expected.condition_dim
    mixture, condition = torch.randn(2, 1, 2000) / 10, torch.rand(2, expected.condition_dim)
    both = separator.model(mixture, condition)  # the bare network, (batch, 1, time) and (batch, dim)
    assert both.shape == (2, 1, 2000)
    assert torch.allclose(both, expected(mixture, condition), atol=1e-6)
    assert torch.allclose(both[1:], expected(mixture[1:], condition[1:]), atol=1e-5)
    result, other = separator(mixture[0], [condition[0], condition[1].numpy()], separator.sample_rate)
    assert torch.allclose(result.target + result.residual, mixture[0], atol=1e-6)
    assert torch.allclose(other.target, separator(mixture[0], condition[1], separator.sample_rate).target, atol=1e-6)
    if name == "labelsep":
        assert torch.equal(separator.conditions([3, "1"]), expected.label_net.weight[[3, 1]])


@pytest.mark.parametrize("name", NETWORKS)
def test_converted(tmp_path, name, capsys):
    file, directory = write(tmp_path, name), tmp_path / "made"
    assert convert([str(file), str(directory)]) == 0
    assert name in capsys.readouterr().out
    assert sorted(path.name for path in directory.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    config = yaml.safe_load((directory / "config.yaml").read_text())
    frozen = FROZEN["converted"][name]
    frozen["encoder"]["class_path"] = resolve(frozen["encoder"]["class_path"])
    assert config | {"readme": (directory / "README.md").read_text()} == frozen
    model, encoder = load_model(directory)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in network(name).state_dict().items())
    assert encoder.family == name
    assert convert([str(file), str(directory)]) == 1
    assert "already holds a model" in capsys.readouterr().err


def test_only_published_checkpoints_are_converted(tmp_path, capsys):
    torch.save({"state_dict": {"average.x": torch.ones(1), "model.x": torch.ones(1)}, "separation": {"model": {}}},
               tmp_path / "own.ckpt")  # fmt: skip
    for file, message in (("own.ckpt", "is not a published checkpoint"), ("gone.ckpt", "gone.ckpt is missing")):
        assert convert([str(tmp_path / file), str(tmp_path / "made")]) == 1
        assert message in capsys.readouterr().err


def test_missing_extra_and_misshapen_tensors_are_named(tmp_path):
    content = state("audiosep")
    del content["ss_model.base.pre_conv.weight"]
    content["ss_model.base.surplus"] = torch.ones(1)
    content["ss_model.base.after_conv.bias"] = torch.ones(7)
    sentence = refusal(write(tmp_path, "audiosep", content))
    assert "1 missing: base.pre_conv.weight" in sentence
    assert "1 unexpected: base.surplus" in sentence
    assert "1 of another shape: base.after_conv.bias ((7,) instead of (3,))" in sentence


def test_other_checkpoints_are_refused(tmp_path):
    tagger = FrameTagger(["a", "b"], channels=(2, 2, 2), hidden=2).state_dict()
    for content, message in (
        (state("clipsep") | {"surplus.weight": torch.ones(1)}, "do not belong to it: surplus.weight"),
        ({"x": torch.ones(1)}, "not a checkpoint of a known separator"),
        ({"conv_block6.conv2.weight": torch.ones(1)}, "holds the tagger PANNs Cnn14, not a separator"),
        ({f"encoder.{name}": value for name, value in tagger.items()}, "holds a tagger, not a separator."),
        ({"encoder.own.vectors": torch.ones(1)}, "has not ended: go on with --ckpt_path."),
        ({"ss_model." + k: v for k, v in ResUNet30(300).state_dict().items()}, "conditions of 300 numbers"),
    ):
        assert message in refusal(write(tmp_path, "a", content))
    (tmp_path / "text.ckpt").write_text("hello")
    assert "is damaged" in refusal(tmp_path / "text.ckpt")


def test_frozen_transforms_are_left_out_and_encoders_kept(tmp_path):
    content = state("uss") | {
        "ss_model.base.stft.conv_real.weight": torch.zeros(1, 2),
        "ss_model.base.istft.ola_window": torch.zeros(3),
        "anchor_segment_detector.sed_model.fc1.weight": torch.zeros(1),
        "query_net.base.fc1.weight": torch.zeros(1),
    }
    found = recognise(content, "x").tensors
    assert len(found) == len(content) - 2
    assert sum(name.startswith("encoder.") for name in found) == 2
    file = write(tmp_path, "uss", content)
    assert Separator.from_pretrained(file).encoder.family == "uss"
    assert convert([str(file), str(tmp_path / "made")]) == 0
    assert "query_net.base.fc1.weight" in load_model(tmp_path / "made")[1].state_dict()


# --- Names, cards, downloads -------------------------------------------------------------------


def test_listed(capsys):
    own, cards = ["default", "live", "small"], [vars(card) | {"queries": list(card.queries)} for card in list_models()]
    assert [card["name"] for card in cards[:3]] == own and cards[3:] == FROZEN["cards"]
    assert cli.main(["--list-models", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == cards


@pytest.mark.parametrize("name", LISTED)
def test_without_files_and_network_one_sentence_says_what_to_do(name):
    sentence, system = refusal(name, offline=True), SYSTEMS[name]
    for part in (f'"{name}"', "get ", "https://", system.checkpoint_name, "use "):
        assert part in sentence
    words = shlex.split(sentence.split(" and then use separate ")[1].split(" (or keep")[0])
    assert {"--query": "text", "--query-class": "label", "--query-audio": "audio"}[words[2]] in system.queries
    assert words[:2] == ["--model", system.checkpoint_name] and words[-1] == "mix.wav"


def test_a_checkpoint_in_the_cache_is_on_disk_and_used(tmp_path, cache, capsys):
    write(tmp_path, "dcase2024").rename(cache / SYSTEMS["dcase2024"].checkpoint_name)
    assert cli.main(["--list-models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "  yes, unverified  " in lines["dcase2024"]
    assert "  no  " in lines["audiosep"]
    assert Separator.from_pretrained("dcase2024", offline=True).encoder.family == "dcase2024"
    card = read_card(write(tmp_path, "dcase2024"))
    assert (card.name, card.sample_rate, card.on_disk) == ("dcase2024", 16000, True)


def test_a_file_without_known_address_is_used_from_the_cache(tmp_path, cache):
    assert f"or keep it as {cache / 'clipsep-nit.pt'} and use this name" in refusal("clipsep-nit", offline=True)
    write(tmp_path, "clipsep-nit").rename(cache / "clipsep-nit.pt")
    on_disk = {card.name: card.on_disk for card in list_models()}
    assert on_disk["clipsep-nit"] and not on_disk["clipsep"]
    assert Separator.from_pretrained("clipsep-nit", offline=True).encoder.family == "clipsep-nit"
    assert 'Unknown model "bertsep"' in refusal("bertsep")  # a variant that is known as a file only
    write(tmp_path, "audiosep").rename(cache / SYSTEMS["audiosep"].checkpoint_name)
    assert "bytes instead of 1264844076" in refusal("audiosep", offline=True)  # not the published file


HIVE_CONFIG = "data: {sampling_rate: %s}\nmodel: {query_net: CLAP, condition_size: %s, model_type: ResUNet30}\n"


def test_audiosep_hive_reads_its_rate_from_its_config(tmp_path, cache):
    file = write(tmp_path, "audiosep-hive")
    assert Separator.from_pretrained(file).sample_rate == 32000  # no config beside it
    for name in ("config.yaml", "audiosep_hive.yaml"):  # as published, and in the cache
        (tmp_path / name).write_text(HIVE_CONFIG % (44100, 512))
        separator = Separator.from_pretrained(file)
        assert (separator.encoder.family, separator.sample_rate) == ("audiosep-hive", 44100)
        (tmp_path / name).unlink()
    for text, words in (
        (HIVE_CONFIG % ("fast", 512), "the sampling rate 'fast' is not valid."),
        (HIVE_CONFIG % (32000, 527), "describes ResUNet30 for 527 numbers, which audiosep-hive is not."),
        ("data: 3\n", "is not the configuration of audiosep-hive: it gives no rate and network."),
        ("data: [\n", "is not the configuration of audiosep-hive: it gives no rate and network."),
    ):
        (tmp_path / "config.yaml").write_text(text)
        assert words in refusal(file)
    other = file.rename(tmp_path / "mine.ckpt")
    assert Separator.from_pretrained(other).encoder.family == "audiosep"  # tensors alone do not tell
    assert "1264846755" in refusal_of_a_file_in_the_cache(cache)


def refusal_of_a_file_in_the_cache(cache):
    """The sentence about a file under the name of audiosep-hive's checkpoint that is another file."""
    write(cache, "audiosep-hive")
    return refusal("audiosep-hive", offline=True)


# --- Queries -----------------------------------------------------------------------------------


class FakeTagger(TaggerEncoder):
    """Hears speech in every segment; its vector for an example is its mean power, in all places."""

    sample_rate = 32000

    def __init__(self):
        super().__init__("probabilities", 2048)
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def tag(self, waveform):
        probabilities = waveform.square().mean(-1, keepdim=True).expand(-1, 527).clone()
        probabilities[:, 0] = 0.8
        return Tags(probabilities, probabilities)


def test_class_ids_with_the_embedding_model_are_refused_with_the_reason(tmp_path):
    separator = Separator.from_pretrained(write(tmp_path, "uss-embedding"))
    for query in (17, Query(label="Dog"), Query(label=["Dog", 3])):
        with pytest.raises(ModelError, match="takes no class ids: its condition is the tagger's embedding"):
            separator(torch.randn(1, 2000), query, 32000)


def test_a_class_with_those_below_it(tmp_path, monkeypatch):
    nodes = [("/m/0jbk", "Animal", ["/m/068hy"]), ("/m/068hy", "Domestic animals, pets", ["/m/0bt9lr"])]
    tree = [{"id": mid, "name": name, "child_ids": below} for mid, name, below in [*nodes, ("/m/0bt9lr", "Dog", [])]]
    (tmp_path / "ontology.json").write_text(json.dumps(tree))
    monkeypatch.setenv("AUDIOSET_ONTOLOGY", str(tmp_path / "ontology.json"))
    separator = Separator.from_pretrained(write(tmp_path, "uss"))
    below, several, single = separator.conditions(
        [Query(label="Animal", subclasses=True), Query(label=["Animal", 73, "Dog"]), Query(label="Animal")]
    )
    assert below.nonzero()[:, 0].tolist() == [72, 73, 74]
    assert torch.equal(below, several)
    assert single.nonzero()[:, 0].tolist() == [72]
    assert torch.equal(separator.conditions(["Speech"]), separator.conditions([0]))  # which needs no tagger


def test_a_query_directory_is_the_mean_over_segments_and_then_over_files(tmp_path):
    separator = Separator.from_pretrained(write(tmp_path, "uss"))
    separator.encoder.parts["audio"] = FakeTagger()
    folder = tmp_path / "speech"
    folder.mkdir()
    loud, quiet = torch.full((64000,), 0.5), torch.full((32000,), 0.1)
    silence = torch.zeros(32000)
    soundfile.write(folder / "b.wav", torch.cat([silence, loud, quiet]).numpy(), 32000, subtype="FLOAT")
    soundfile.write(folder / "a.wav", quiet.numpy(), 32000, subtype="FLOAT")
    [found] = separator.conditions([Query(audio=folder)])
    first, second = (0.5**2 + 0.1**2) / 2, 0.1**2  # segments of 2 s without the silence; the last one is repeated
    assert float(found[1]) == pytest.approx((first + second) / 2, rel=1e-3)
    assert float(found[0]) == pytest.approx(0.8)


@pytest.mark.parametrize("name", ["audiosep", "clipsep", "bimodal"])
def test_without_the_text_encoder(tmp_path, name):
    separator = Separator.from_pretrained(write(tmp_path, name))
    hint = r"; without them the command separate takes embeddings alone \(--query-embedding\)\.$"
    with pytest.raises(ModelError, match=r"weights of the encoder CL\w+ are missing: get .* from https://.*" + hint):
        separator(torch.randn(1, 2000), "dog", 16000)
    with pytest.raises(ValueError, match="numbers, not shape"):
        separator(torch.randn(1, 2000), torch.ones(3), 16000)


def test_command_with_a_file_whose_encoder_is_missing(tmp_path, capsys, hub_cache):
    mixture = tmp_path / "mix.wav"
    soundfile.write(mixture, (torch.randn(4000) / 10).numpy(), 16000, subtype="FLOAT")
    file = write(tmp_path, "clipsep")
    for _ in range(2):
        assert cli.main(["--model", str(file), "--query", "dog", "--device", "cpu", str(mixture)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("separate: The weights of the encoder CLIP are missing")
        assert error.count("\n") == 1
        hub_cache("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_model.safetensors")  # another CLIP
    by_class = ["--model", str(write(tmp_path, "uss")), "--device", "cpu", "--overwrite", "--query-class"]
    for query in (["--query", "Dog"], ["--query-class", "/m/0bt9lr"]):
        assert cli.main([*by_class[:-1], *query, str(mixture)]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "mix.dog.wav")
    assert cli.main([*by_class, "Dogg", str(mixture)]) == 2
    assert "close to it: Dog" in capsys.readouterr().err
    assert cli.main([*by_class, "Animal", "--subclasses", str(mixture)]) == 2
    assert "get ontology.json from github.com/audioset/ontology" in capsys.readouterr().err


def test_parts_that_are_built_late_are_where_their_encoder_is():
    encoder = ReleasedEncoder("audiosep", 4)
    first, second = FakeTagger(), FakeTagger()
    for part in (first, second):
        part.weight = torch.nn.Parameter(torch.ones(2))
    encoder.keep("audio", first)
    assert not first.weight.requires_grad and not first.training
    encoder.to("meta")
    assert first.weight.device.type == "meta"
    encoder.keep("text", second)
    assert second.weight.device.type == "meta"
    assert encoder.state_dict() == {} and not list(encoder.children())
