"""The page's parts, without a server: limits, store, jobs, work, guard, pictures."""

import threading
import time
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from gains import GainSeparator, GainStream
from page import pictures
from page.asking import Asked, asked_of, check_forms, reason
from page.engine import Engine
from page.guard import Guard, is_loopback
from page.hear import hear
from page.jobs import Cancelled, Desk, Progress, Ticket, Turn
from page.limits import Limits, Refusal, queries_of
from page.store import Store
from page.work import Work, archive, draw_sound, inspect, remix, stems

from separation.encoders.base import EncoderError
from separation.encoders.taggers import split_segments
from separation.plot import RANGE, Spectrogram
from separation.pretrained import Card, ModelError


class Sure(GainStream):
    """Hears whatever is not silence."""

    held = 100

    @property
    def presence(self):
        return [0.9 if gain else 0.9e-3 for gain in self.gains.flatten().tolist()]


class Separator(GainSeparator):
    stream_class = Sure


def asked(*queries):
    return [Asked(query, query) for query in queries]


def make_engine(load=lambda name: Separator()):
    cards = [Card(name, "", ("text",), 1, "", "", "") for name in ("a", "b", "c")]
    return Engine(cards, load)


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """No job ends because a busy machine is slow."""
    monkeypatch.setattr("page.jobs.PATIENCE", 3600.0)


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path)
    yield made
    made.close()


@pytest.fixture
def result(store, recording):
    ticket = Ticket(Progress(1.0, 24.0))
    return Work(make_engine(), Limits(), ticket, recording[0], store.new()).run(asked("0.5", "0.25", "0"), "a")


# --- limits


@pytest.mark.parametrize(
    ("asked", "queries"),
    [
        ("dog barking", ["dog barking"]),
        ("dog,  rain ;\n siren", ["dog", "rain", "siren"]),
        (["dog, Rain", "rain", " "], ["dog", "Rain"]),
        ("犬の鳴き声, Ünïcode", ["犬の鳴き声", "Ünïcode"]),
    ],
)
def test_queries_are_parted_and_each_is_kept_once(asked, queries):
    assert queries_of(asked, Limits()) == queries


@pytest.mark.parametrize("asked", ["", " , ", [], None, {"a": 1}, [1], ",".join("abcdefghi"), "x" * 201])
def test_unusable_queries_are_refused(asked):
    with pytest.raises(Refusal, match=r"\w.*[.]$"):
        queries_of(asked, Limits())


def test_a_recording_outside_the_limits_is_refused(tmp_path):
    cases = {
        "long": ((8000 * 7, 1), 8000, "too long: this page takes up to 0.1 minutes"),
        "channels": ((100, 9), 8000, "9 channels"),
        "rate": ((100, 1), 400, "sample rate is 400 Hz"),
    }
    for name, (shape, rate, why) in cases.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(shape, np.float32), rate)
        with pytest.raises(Refusal, match=why):
            inspect(tmp_path / f"{name}.wav", Limits(minutes=0.1))


@pytest.mark.parametrize(
    "content", [b"", b"hello" * 100, b"RIFF\x24\0\0\0WAVEfmt ", b"#EXTM3U\nfile:///etc/passwd", b"ffconcat version 1.0"]
)
def test_what_is_no_recording_is_refused_without_the_servers_paths(tmp_path, content):
    path = tmp_path / "recording.wav"
    path.write_bytes(content)
    with pytest.raises(Refusal) as caught:
        inspect(path, Limits())
    assert str(tmp_path) not in str(caught.value)
    assert str(caught.value).startswith("This")


def test_a_header_that_hides_the_length_does_not_help(tmp_path, store):
    path = tmp_path / "long.mp3"
    soundfile.write(path, np.zeros(8000 * 8, np.float32), 8000, format="MP3")
    limits = Limits(minutes=0.1)
    work = Work(make_engine(), limits, Ticket(Progress(1.0, 24.0)), path, store.new())
    with pytest.raises(Refusal, match="too long"):
        reader = inspect(path, Limits())
        work.copy(reader, 1)
    assert not list(work.folder.iterdir())


# --- asking


def test_texts_examples_and_what_to_keep_out(tmp_path):
    clip = {"path": "x"}
    asked = asked_of(
        ["dog, rain", {"audio": clip, "name": "like  bark"}], ["music, wind"], Limits(), lambda file: tmp_path
    )
    tail = " without music and wind"
    assert [each.name for each in asked] == ["dog" + tail, "rain" + tail, "like bark" + tail]
    assert [each.query.forms() for each in asked] == [{"text": ["dog"]}, {"text": ["rain"]}, {"audio": [str(tmp_path)]}]
    assert all(each.query.negatives() == ["music", "wind"] for each in asked)
    assert asked_of("dog, rain", [], Limits(), None) == [Asked("dog", "dog"), Asked("rain", "rain")]
    check_forms(asked, ("text", "audio"), "a")
    with pytest.raises(Refusal, match="The model a takes no example recordings"):
        check_forms(asked, ("text",), "a")
    for queries in ([], [{"audio": clip}] * 9, ["dog"] + [{"image": clip}] * 8, [{"video": clip}], {"a": 1}):
        with pytest.raises(Refusal):
            asked_of(queries, [], Limits(), lambda file: tmp_path)


def test_an_example_is_read_up_to_a_minute(tmp_path, store, recording):
    soundfile.write(tmp_path / "example.wav", np.full((8000, 2), 0.25), 8000, subtype="FLOAT")
    query = asked_of([{"audio": {}}], [], Limits(), lambda file: tmp_path / "example.wav")
    ticket = Ticket(Progress(1.0, 24.0))
    result = Work(make_engine(), Limits(), ticket, recording[0], store.new()).run(query, "a")
    assert result.sounds[0].query == "example"
    target = soundfile.read(result.target(0), dtype="float32")[0]
    assert np.array_equal(target, np.float32(0.25) * recording[1])  # the double takes its gain from the example
    short = Limits(example_minutes=0.01)
    with pytest.raises(Refusal, match=r"too long: this page takes up to 0\.01 minutes"):
        Work(make_engine(), short, ticket, recording[0], store.new()).run(query, "a")


# --- hear


def test_what_is_heard_is_listed_from_the_first_minutes(recording):
    found = hear(make_engine(), Limits(), recording[0], "a")
    assert [sound["label"] for sound in found["sounds"]] == ["rain", "door knock"]
    assert found["seconds"] == 3.0
    assert hear(make_engine(), Limits(hear_minutes=1 / 60), recording[0], "a")["seconds"] == 1.0


def test_a_model_that_cannot_list_gives_nothing(recording, monkeypatch):
    def refuse(self, *args, **options):
        raise ModelError("it cannot")

    monkeypatch.setattr(Separator, "list_sounds", refuse)
    assert hear(make_engine(), Limits(), recording[0], "a") == {"sounds": [], "seconds": 0.0}


def test_models_of_classes_suggest_classes():
    cards = [Card("a", "", ("text",), 1, "", "", ""), Card("b", "", ("label", "audio"), 1, "", "", "")]
    engine = Engine(cards, None, ["rain"])
    assert engine.sounds_of("a") == ["rain"]
    assert len(engine.sounds_of("b")) == 527


# --- store


def test_a_store_hands_out_only_what_is_its_own(store, tmp_path):
    place = store.place("../../evil $(x) name.wav")
    assert place.parent.parent == store.root
    assert place.name == "recording.wav"
    assert store.place("a.exe").name == "recording"
    place.write_bytes(b"x")
    assert store.recording({"path": str(place)}) == place
    (tmp_path / "outside.wav").write_bytes(b"x")
    for other in ("/etc/passwd", str(tmp_path / "outside.wav"), f"{place.parent}/../../x", "", "http://a.b/c"):
        with pytest.raises(Refusal):
            store.recording({"path": other})
    for token in ("", "..", "a" * 32, None, 7, f"{place.parent.name}/"):
        with pytest.raises(Refusal):
            store.folder(token)


def test_folders_go_when_nobody_uses_them(tmp_path):
    store = Store(tmp_path / "root" if (tmp_path / "root").mkdir() is None else None, keep_minutes=0.01 / 6)
    old = store.new()
    deadline = time.monotonic() + 60
    while old.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not old.exists()
    fresh = store.new()
    store.forget(fresh.name)
    assert not fresh.exists()
    store.close()
    assert not (tmp_path / "root").exists()


# --- jobs


def test_turns_are_taken_in_the_order_of_asking():
    turn, order = Turn(), []

    def work(name):
        with turn:
            order.append(name)

    threads = []
    with turn:
        for name in "abcd":
            threads.append(threading.Thread(target=work, args=name))
            threads[-1].start()
            while len(turn._waiting) < len(threads):
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list("abcd")


def test_the_line_is_counted_and_ends_somewhere():
    desk, gate = Desk(active=1, waiting=2), threading.Event()
    tickets = [Ticket(Progress(1.0, 1.0)) for _ in range(3)]
    for ticket in tickets:
        desk.submit(ticket, lambda: gate.wait(600))
    while not tickets[0].future.running():
        time.sleep(0.001)
    assert [desk.ahead(ticket) for ticket in tickets] == [0, 1, 2]
    with pytest.raises(Refusal, match="3 recordings are waiting already"):
        desk.submit(Ticket(Progress(1.0, 1.0)), lambda: None)
    assert desk.stop(tickets[1].token)
    assert tickets[1].future.cancelled()
    assert desk.ahead(tickets[2]) == 1
    assert not desk.stop("unknown")
    gate.set()
    assert tickets[2].future.result(600) is True
    desk.close()


def test_a_stopped_ticket_ends_the_work(store, recording):
    ticket = Ticket(Progress(1.0, 24.0))
    folder = store.new()
    ticket.stop()
    with pytest.raises(Cancelled):
        Work(make_engine(), Limits(), ticket, recording[0], folder).run(asked("1"), "a")
    assert not list(folder.iterdir())


def test_a_job_that_nobody_waits_for_ends(monkeypatch):
    ticket = Ticket(Progress(1.0, 24.0))
    ticket.check()
    monkeypatch.setattr("page.jobs.PATIENCE", 0.0)
    time.sleep(0.01)
    with pytest.raises(Cancelled):
        ticket.check()


def test_progress_grows_and_never_runs_far_ahead(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("page.jobs.time.monotonic", lambda: now[0])
    progress = Progress(rate=0.5, step=24.0)
    assert progress.fraction() == 0.0
    assert progress.left() is None
    progress.begin(240.0)
    assert progress.left() == pytest.approx(120.0)
    now[0] += 1000.0
    assert progress.fraction() == pytest.approx(0.95 * 0.1)
    progress.done = 120.0
    now[0] = 110.0
    assert progress.fraction() == pytest.approx(0.5)
    assert progress.left() == pytest.approx(10.0)
    progress.done = 240.0
    assert progress.fraction() == 0.99


# --- engine


def test_models_are_known_by_name_only_and_two_stay_loaded():
    loaded = []
    engine = make_engine(lambda name: loaded.append(name) or Separator())
    assert engine.default == "a"
    for name in "aabcba":
        engine.separator(name)
    assert loaded == ["a", "b", "c", "a"]
    for name in ("/etc", "..", "", "A"):
        with pytest.raises(Refusal, match="there are: a, b, c"):
            engine.separator(name)


def test_nobody_waits_for_another_model_and_waiting_can_be_stopped():
    gate, loaded = threading.Event(), []

    def load(name):
        loaded.append(name)
        assert name == "a" or gate.wait(600)
        return Separator()

    engine = make_engine(load)
    ready = engine.separator("a")
    ticket = Ticket(Progress(1.0, 1.0))
    ended = []

    def want():
        try:
            engine.separator("b", ticket.check)
        except Cancelled:
            ended.append("cancelled")

    waiting = [threading.Thread(target=want) for _ in range(2)]
    for thread in waiting:
        thread.start()
    while "b" not in loaded:
        time.sleep(0.001)
    assert engine.separator("a") is ready  # while the other one is still loaded
    ticket.stop()
    for thread in waiting:
        thread.join(600)
    assert ended == ["cancelled"] * 2
    gate.set()
    engine.separator("b")
    assert loaded == ["a", "b"]  # once for all


def test_a_model_that_could_not_be_loaded_is_tried_again():
    answers = [ModelError("b is damaged."), Separator()]

    def load(name):
        answer = answers.pop(0)
        if isinstance(answer, ModelError):
            raise answer
        return answer

    engine = make_engine(load)
    with pytest.raises(ModelError, match="b is damaged"):
        engine.separator("b")
    assert engine.separator("b")


# --- work


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            EncoderError("{root}/0a/recording.png cannot be read as a picture."),
            "This file cannot be read as a picture.",
        ),
        (OSError("gone"), "This cannot be asked for: a file or word of the query is not usable (OSError)."),
    ],
)
def test_why_something_cannot_be_asked_for_is_said_without_the_servers_paths(
    store, recording, monkeypatch, error, sentence
):
    def refuse(self, *_):
        raise type(error)(*(str(part).format(root=store.root) for part in error.args))

    monkeypatch.setattr(Separator, "stream", refuse)
    with pytest.raises(Refusal) as caught:
        Work(make_engine(), Limits(), Ticket(Progress(1.0, 24.0)), recording[0], store.new()).run(asked("1"), "a")
    assert str(caught.value) == sentence


def test_the_packages_own_sentences_are_passed_on(tmp_path):
    with pytest.raises(Refusal, match=r"The query contains no word\. Say what to extract, for example: dog barking"):
        asked_of(["!?"], ["rain"], Limits(), None)
    with pytest.raises(ValueError) as caught:
        split_segments(torch.zeros(1, 0), 8)
    assert reason(caught.value) == "An example recording has at least one sample."


def test_an_empty_example_is_refused_in_words(tmp_path, store, recording):
    soundfile.write(tmp_path / "example.wav", np.zeros((0, 1)), 8000)
    query = asked_of([{"audio": {}}], [], Limits(), lambda file: tmp_path / "example.wav")
    with pytest.raises(Refusal, match="This file holds no audio"):
        Work(make_engine(), Limits(), Ticket(Progress(1.0, 24.0)), recording[0], store.new()).run(query, "a")


def test_targets_and_residuals_add_up_and_say_what_was_heard(result, recording):
    for number, gain in enumerate((0.5, 0.25, 0.0)):
        target, rate = soundfile.read(result.target(number), dtype="float32")
        residual = soundfile.read(result.residual(number), dtype="float32")[0]
        assert rate == 44100
        assert np.array_equal(target, np.float32(gain) * recording[1])
        assert np.abs(target + residual - recording[1]).max() < 1e-7
    assert [sound.heard for sound in result.sounds] == [True, True, False]
    assert result.sounds[0].level == pytest.approx(-6.02, abs=0.01)


def test_an_output_of_next_to_nothing_was_not_heard(result):
    sound = result.sounds[0]
    sound.presence, sound.level = 0.99, -61.0
    assert not sound.heard
    sound.presence, sound.level = 0.49, -3.0
    assert not sound.heard
    sound.presence = None  # the model does not say
    assert sound.heard


def test_the_mixer_turns_sounds_up_down_and_off(result, recording, tmp_path):
    for gains, factor in (([1, 1, 1], 1.0), ([0, 1, 1], 0.5), ([2.0, 0.0, 4.0], 1.25)):
        path = tmp_path / f"{factor}.wav"
        remix(result, gains, path)
        assert np.abs(soundfile.read(path, dtype="float32")[0] - factor * recording[1]).max() < 1e-6
    for gains in ([1, 1], [1, 1, -1], [1, 1, 5], [1, 1, float("nan")], [1, 1, "1"], None):
        with pytest.raises(Refusal):
            remix(result, gains, tmp_path / "no.wav")
    assert not (tmp_path / "no.wav").exists()


def test_the_zip_has_all_stems_under_safe_names(result):
    result.sounds[0].query = "../Dog, <barking>"
    result.sounds[1].query = "dog barking"
    with zipfile.ZipFile(archive(result)) as file:
        names = file.namelist()
        assert names == [
            "mixture.wav", "dog_barking.wav", "not_dog_barking.wav", "dog_barking_2.wav", "not_dog_barking_2.wav",
            "0.wav", "not_0.wav", "separation.json",
        ]  # fmt: skip
        assert file.read("dog_barking.wav") == result.target(0).read_bytes()
    assert all(path.parent == result.folder for path, _ in stems(result))


def test_pictures_are_drawn_for_every_sound(result):
    assert draw_sound(result, 1).read_bytes().startswith(b"\x89PNG")
    for number in (-1, 3, "0", None):
        with pytest.raises(Refusal):
            draw_sound(result, number)


def test_strips_share_one_scale(result):
    """The target is 6 dB under the mixture, so it is darker by 6 dB on the same scale, up to rounding of colours."""
    from matplotlib import colormaps
    from matplotlib.image import imread

    colours = colormaps["magma"](np.linspace(0, 1, 256))[:, :3]

    def level(name):
        pixels = imread(result.folder / f"{name}.png")[120, 50:-50, :3]
        index = np.abs(pixels[:, None] - colours).sum(-1).argmin(1)
        return index / 255 * RANGE

    assert np.mean(level("mixture") - level("0.target")) == pytest.approx(6.02, abs=0.2)
    assert result.view["range"] == RANGE


def test_the_axis_is_in_khz_and_rises():
    ticks = pictures.axis(Spectrogram(44100, 44100).edges)
    assert [tick["label"] for tick in ticks][:3] == ["0.05", "0.1", "0.2"]
    assert ticks[-1]["label"] == "20"
    places = [tick["at"] for tick in ticks]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 1


def test_the_colours_brighten_evenly():
    """Lightness, as the eye has it, rises with every step of the scale."""
    import io

    from matplotlib.image import imread

    column = imread(io.BytesIO(pictures.scale()), format="png")[::-1, 0, :3]
    linear = np.where(column <= 0.04045, column / 12.92, ((column + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    lightness = np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)
    steps = np.diff(lightness[::16])
    assert steps.min() > 0  # near black it rises more slowly
    assert steps[1:].min() > 0.8 * steps.mean()
    assert steps.max() < 1.3 * steps.mean()


# --- guard


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_is_let_through(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "example.org", "localhost.example.org", "10.0.0.1", "0.0.0.0"])
def test_other_computers_are_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, None),
        ("/gradio_api/call/separate", {"origin": "http://127.0.0.1:7860"}, None),
        ("/gradio_api/call/separate", {"origin": "http://evil.example"}, 403),
        ("/", {"host": "evil.example"}, 421),
        ("/gradio_api/file=http://169.254.169.254/x", {}, 403),
        ("/gradio_api/proxy=http://x", {}, 404),
        ("/gradio_api/vibe-edit", {}, 404),
        ("/monitoring", {}, 404),
        ("/gradio_api/stream/a/b/0/playlist.m3u8", {}, 404),
    ],
)
def test_the_guard_lets_through_what_the_page_needs(path, headers, status):
    pairs = {"host": "127.0.0.1:7860", **headers}
    scope = {"path": path, "headers": [(key.encode(), value.encode()) for key, value in pairs.items()]}
    assert Guard(None).refuse(scope) == status
