"""Queries: their forms and names, how they become conditions, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from tiny import TinyEncoder, noise, tiny_model, vectors
from torch.nn import functional as F

from separation import ModelError, Query, Separator
from separation.encoders.base import QueryEncoder, UnsupportedQueryError
from separation.encoders.joint import JointEncoder
from separation.encoders.table import TableEncoder

DIM = 16


def test_forms_and_several_values():
    wave = (torch.zeros(5), 8000)
    query = Query(["dog", "hound"], label=3, audio=[wave, "a.wav"], image="dog.png", embedding=torch.zeros(4))
    assert query.forms()["text"] == ["dog", "hound"]
    assert query.forms()["label"] == [3]
    assert query.forms()["audio"] == [wave, "a.wav"]
    assert list(query.forms()) == ["text", "label", "audio", "image", "embedding"]
    assert Query(audio=wave).forms()["audio"] == [wave]
    assert Query(audio=(np.zeros((2, 5)), 8000)).forms()["audio"][0][1] == 8000
    assert Query(label=0).forms() == {"label": [0]}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"text": ""}, {"text": ["dog", " "]}, {"audio": []}, {"negative": "rain"}, {"audio": ""}, {"label": ""}],
)
def test_an_empty_query_is_refused(arguments):
    with pytest.raises(ValueError, match="query is empty"):
        Query(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"text": Path("bark.wav")}, "The text of a query takes texts, not PosixPath."),
        ({"text": ["dog", None]}, "The text of a query takes texts, not NoneType."),
        ({"text": 3}, "The text of a query takes texts, not int."),
        ({"label": [0, 1.5]}, "The label of a query takes classes by name, id or number, not float."),
        ({"audio": np.zeros(9)}, "with their sample rates, such as (waveform, 44100), not ndarray."),
        ({"audio": [np.zeros(9), 8000]}, "with their sample rates, such as (waveform, 44100), not ndarray."),
        ({"audio": b"bark.wav"}, "such as (waveform, 44100), not bytes."),
        ({"embedding": [0.1, 0.2]}, "takes a vector, or a .npy or .safetensors file, not float."),
    ],
)
def test_values_of_another_type_are_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Query(**arguments)


def test_invalid_weights_are_refused():
    for weight in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="weight of text must be a positive number"):
            Query("dog", audio="a.wav", weights={"text": weight})
    with pytest.raises(ValueError, match="weight of text must be a positive number, not '2'"):
        Query("dog", audio="a.wav", weights={"text": "2"})
    for weights in ([1, 2], 2.0, "audio", None):
        with pytest.raises(ValueError, match=r'weights of a query are numbers by form, such as ."audio": 2., not'):
            Query("dog", audio="a.wav", weights=weights)
    with pytest.raises(ValueError, match="weights names image, but the query has only text, audio"):
        Query("dog", audio="a.wav", weights={"image": 1.0})


@pytest.mark.parametrize(
    ("query", "name"),
    [
        (Query("dog  barking\n"), "dog barking"),
        (Query(audio="sounds/bark.1.wav"), "bark.1"),
        (Query(audio=Path("bark.wav")), "bark"),
        (Query(audio=(torch.zeros(3), 8000)), "example"),
        (Query(image="pictures/dog.png"), "dog"),
        (Query(image=np.zeros((2, 2, 3))), "picture"),
        (Query(embedding=torch.zeros(3)), "embedding"),
        (Query(embedding="vectors/dog.npy"), "dog"),  # type: ignore[arg-type]
        (Query(label="/m/0bt9lr"), "Dog"),
        (Query(label="/m/nonsense"), "/m/nonsense"),
        (Query(label=74), "class 74"),
        (Query("dog", audio="bark.wav"), "dog and bark"),
        (Query("dog", negative=["rain", Query(audio="wind.wav")]), "dog without rain and wind"),
    ],
)
def test_names(query, name):
    assert query.name == name


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (Query("rain"), "Query(text='rain')"),
        (Query(label=[0, "Rain"], subclasses=True), "Query(label=[0, 'Rain'], subclasses=True)"),
        (Query(label=0), "Query(label=0)"),
        (
            Query(embedding=np.zeros(512), negative=Query("wind")),
            "Query(embedding=<ndarray (512,)>, negative=Query(text='wind'))",
        ),
        (
            Query("rain", audio=(torch.zeros(9), 8000), weights={"audio": 2}),
            "Query(text='rain', audio=[<Tensor (9,)>, 8000], weights={'audio': 2})",
        ),
    ],
)
def test_the_repr_shows_what_is_given(query, shown):
    assert repr(query) == shown


def test_a_folder_is_called_by_its_name(tmp_path):
    (tmp_path / "v1.5 barks").mkdir()
    assert Query(audio=str(tmp_path / "v1.5 barks")).name == "v1.5 barks"


# --- Conditions ---


class Everything(QueryEncoder):
    """Fixed vectors for every form; a recording's depends on its length, a picture's on its name."""

    embedding_dim, sample_rate = DIM, 8000
    modalities = frozenset({"text", "audio", "image"})

    def encode_text(self, texts):
        return vectors(texts)

    def encode_audio(self, waveform, sample_rate):
        assert sample_rate == self.sample_rate
        return vectors([str(waveform.shape[-1])])

    def encode_image(self, images):
        queries = [query if isinstance(query, list) else [query] for query in images]
        return torch.stack([vectors(list(map(str, query))).mean(0) for query in queries])


@pytest.fixture(scope="module")
def separator():
    return Separator(tiny_model(), Everything(), "tiny", "cpu")


def only(separator, query):
    [vector] = separator.conditions([query])
    return vector


def test_plain_values_are_queries(separator):
    vector = torch.randn(DIM)
    found = separator.conditions(["dog", Query("dog"), vector, vector.double().numpy(), Query(embedding=vector[None])])
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[2:], vector.expand(3, -1))


def test_texts_of_one_query_are_averaged_on_the_sphere(separator):
    expected = F.normalize(vectors(["dog", "hound"]).mean(0), dim=0)
    assert torch.allclose(only(separator, Query(["dog", "hound"])), expected, atol=1e-6)


def test_forms_are_averaged_with_their_weights(separator):
    query = Query("dog", image=["a.png", "b.png"], weights={"image": 3.0})
    picture = vectors(["a.png", "b.png"]).mean(0)
    assert torch.allclose(only(separator, query), F.normalize(vectors(["dog"])[0] + 3 * picture, dim=0), atol=1e-6)


def test_example_recordings_count_alike(separator, tmp_path):
    (tmp_path / "barks").mkdir()
    for name, rate, seconds in (("barks/a.wav", 8000, 1.0), ("barks/b.flac", 16000, 0.5), ("c.wav", 8000, 2.0)):
        soundfile.write(tmp_path / name, noise(seconds, rate, 2)[0].numpy(), rate)
    (tmp_path / "barks" / "notes.txt").write_text("no sound")
    wave = (noise(0.25, 8000, 2).numpy(), 8000)
    expected = F.normalize(vectors(["8000", "4000", "16000", "2000"]).mean(0), dim=0)
    found = only(separator, Query(audio=[tmp_path / "barks", str(tmp_path / "c.wav"), wave]))
    assert torch.allclose(found, expected, atol=1e-6)


def test_examples_that_show_nothing_are_refused(separator, tmp_path):
    soundfile.write(tmp_path / "mute.wav", np.zeros(800), 8000)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"mute\.wav is silent"):
        only(separator, Query(audio=tmp_path / "mute.wav"))
    with pytest.raises(ModelError, match="The example is silent"):
        only(separator, Query(audio=(np.zeros(800), 8000)))
    with pytest.raises(ModelError, match="contains no example recordings"):
        only(separator, Query(audio=tmp_path / "empty"))
    with pytest.raises(ValueError, match="The example holds NaN"):
        only(separator, Query(audio=(np.full(800, np.nan), 8000)))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_an_embedding_in_a_file(separator, tmp_path, suffix):
    vector = torch.randn(1, DIM)
    file = tmp_path / f"dog{suffix}"
    np.save(file, vector.numpy()) if suffix == ".npy" else save_file({"dog": vector}, file)
    assert torch.equal(only(separator, Query(embedding=file)), vector[0])


def test_files_that_hold_no_embedding_are_refused(separator, tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("no array")
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "two.safetensors")
    np.save(tmp_path / "short.npy", np.ones(3))
    for name, error, words in (
        ("objects.npy", ModelError, "is not a .npy file with an array of numbers"),
        ("text.npy", ModelError, "is not a .npy file with an array of numbers"),
        ("two.safetensors", ModelError, r"contains 2 arrays \(a, b\) instead of one embedding"),
        ("short.npy", ValueError, "has 16 numbers, not shape"),
    ):
        with pytest.raises(error, match=words):
            only(separator, Query(embedding=tmp_path / name))
    with pytest.raises(ValueError, match="NaN"):
        only(separator, torch.full((DIM,), torch.nan))


@pytest.mark.parametrize(
    ("query", "form"),
    [(7, "label"), (Query(label="Dog"), "label"), (Query(image="a.png"), "image"), (Query(audio="a.wav"), "audio")],
)  # fmt: skip
def test_unsupported_queries_are_one_sentence(query, form):
    separator = Separator(tiny_model(), TinyEncoder(), "tiny", "cpu")
    with pytest.raises(UnsupportedQueryError, match=rf"takes no {form}; it takes text, embedding\.$"):
        separator(noise(0.1), query, 32000)


def test_words_are_labels_where_a_model_knows_classes_only():
    table = TableEncoder(["dog", "rain"], DIM)
    separator = Separator(tiny_model(), table, "tiny", "cpu")
    rows = table.label_net.weight
    assert torch.equal(separator.conditions(["Rain", 0]), rows[[1, 0]])
    assert torch.equal(only(separator, Query("rain")), rows[1])
    assert torch.allclose(only(separator, Query("rain", label=0)), rows.mean(0))
    assert torch.allclose(only(separator, Query(["rain", "dog"])), rows.mean(0))


def test_an_encoded_query_gives_the_same_result(separator, tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(0.5, 8000)[0].numpy(), 8000)
    query = Query("dog", audio=tmp_path / "a.wav", negative="rain")
    encoded = separator.encode(query)
    (tmp_path / "a.wav").unlink()
    assert list(encoded.forms()) == ["embedding"]
    mixture = noise(0.5)
    soundfile.write(tmp_path / "a.wav", noise(0.5, 8000)[0].numpy(), 8000)
    assert torch.allclose(separator(mixture, encoded, 32000).target, separator(mixture, query, 32000).target, atol=1e-7)


def test_the_joint_encoder_averages_example_recordings():
    torch.manual_seed(0)
    encoder = JointEncoder(8000, 8, (4, 8), 16).eval().requires_grad_(False)
    long, short = noise(23.0, 8000), noise(2.0, 8000, seed=1)
    [found] = encoder.encode_examples([(long, 8000), (short, 8000)])
    pieces = [encoder.encode_audio(piece, 8000) for piece in long.tensor_split(4, dim=-1)]
    each = [F.normalize(torch.cat(pieces).mean(0), dim=0), encoder.encode_audio(short, 8000)[0]]
    assert torch.allclose(found, F.normalize(sum(each), dim=0), atol=1e-5)
    assert float(found.norm()) == pytest.approx(1.0, abs=1e-5)
