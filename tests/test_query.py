"""What a query holds, what it is called, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from separation.query import Query


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


@pytest.mark.parametrize("arguments", [{}, {"text": ""}, {"text": ["dog", " "]}, {"audio": []}, {"negative": "rain"}])
def test_an_empty_query_is_refused(arguments):
    with pytest.raises(ValueError, match="query is empty"):
        Query(**arguments)


@pytest.mark.parametrize("weights", [{"text": 0}, {"text": -1.0}, {"text": float("nan")}, {"text": float("inf")}])
def test_a_weight_is_positive(weights):
    with pytest.raises(ValueError, match="weight of text must be a positive number"):
        Query("dog", audio="a.wav", weights=weights)


def test_a_weight_names_a_form_that_is_there():
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


def test_a_folder_is_called_by_its_name(tmp_path):
    (tmp_path / "v1.5 barks").mkdir()
    assert Query(audio=str(tmp_path / "v1.5 barks")).name == "v1.5 barks"
