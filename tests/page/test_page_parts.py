"""The parts of the page, without a server."""

import asyncio
import io
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
from gains import GainSeparator, GainStream
from matplotlib import colormaps
from matplotlib.image import imread
from page.engine import Engine
from page.guard import Guard, is_loopback
from page.jobs import Cancelled, Desk, Progress, Ticket, Turn
from page.limits import Limits, Refusal
from page.queries import Asked, check_forms, parse_queries, parse_span
from page.results import archive, check_gains, draw_sound
from page.store import Store
from page.work import Work, list_sounds
from starlette.exceptions import HTTPException
from tiny import write_model

from separation import Separator
from separation.cli import main
from separation.encoders.base import EncoderError
from separation.errors import NotFiniteError
from separation.plot import RANGE
from separation.pretrained import Card, ModelError


class Stream(GainStream):
    held = 100

    @staticmethod
    def presence_of(gain):
        return 0.9 if gain else 0.9e-3


class Double(GainSeparator):
    stream_class = Stream


def make_engine(load=lambda name: Double()):
    return Engine([Card(name, "", ("text",), 1, "", "", "") for name in ("a", "b", "c")], load)


def make_ticket():
    return Ticket(Progress(1.0, 24.0))


@pytest.fixture(scope="module", autouse=True)
def patience():
    """No job ends because a busy machine is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("page.jobs.PATIENCE", 3600.0)
        yield


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store" if not (tmp_path / "store").mkdir() else None)
    yield store
    store.close()


def run(store, queries, source, limits=Limits(), files=None, ticket=None, name="mix.wav", **options):  # noqa: B008
    """Separate a recording by queries as the API receives them."""
    asked = parse_queries(queries, [], limits, lambda file: files)
    work = Work(make_engine(), limits, ticket or make_ticket(), source, store.new(), name)
    return work.run(asked, "a", **options)


@pytest.fixture
def separate(store, recording):
    """Separates the recording, or another `source`."""
    return lambda queries, limits=Limits(), source=recording[0], **options: run(  # noqa: B008
        store, queries, source, limits, **options
    )


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A tiny network, loaded once."""
    directory = tmp_path_factory.mktemp("models") / "tiny"
    return Separator.from_pretrained(write_model(directory, queries=["text"], sample_rate=32000, licence="MIT"))


@pytest.fixture(scope="module")
def result(recording, tmp_path_factory):
    """Separated once."""
    store = Store(tmp_path_factory.mktemp("store"))
    yield run(store, ["0.5", "0.25", "0"], recording[0])
    store.close()


# Queries and limits


@pytest.mark.parametrize(
    ("queries", "names"),
    [
        ("dog barking", ["dog barking"]),
        ("dog,  rain ;\n siren", ["dog", "rain", "siren"]),
        (["dog, Rain", "rain", " "], ["dog", "Rain"]),
        ("犬の鳴き声, Ünïcode", ["犬の鳴き声", "Ünïcode"]),
    ],
)
def test_queries_are_split_and_each_is_kept_once(queries, names):
    assert parse_queries(queries, [], Limits(), None) == [Asked(name, name) for name in names]


CLIP, PICTURE = {"audio": {"path": "x"}}, {"image": {"path": "x"}}


@pytest.mark.parametrize(
    "queries",
    ["", " , ", [], None, {"a": 1}, [1], ",".join("abcdefghi"), "x" * 201, [CLIP] * 9, ["dog"] + [PICTURE] * 8,
     [{"video": {}}]],
)  # fmt: skip
def test_invalid_queries_are_refused_with_a_sentence(queries, tmp_path):
    with pytest.raises(Refusal, match=r"\w.*[.]$"):
        parse_queries(queries, [], Limits(), lambda file: tmp_path)


def test_texts_examples_and_sounds_to_exclude(tmp_path):
    queries = ["dog, rain", CLIP | {"name": "like  bark"}]
    asked = parse_queries([*queries, "Dog, hail"], ["music, wind"], Limits(), lambda file: tmp_path)
    tail = " without music and wind"
    assert [each.name for each in asked] == [name + tail for name in ("dog", "rain", "like bark", "hail")]  # in order
    assert [*asked[1].query.forms(), *asked[2].query.forms()] == ["text", "audio"]
    assert asked[2].query.forms() == {"audio": [str(tmp_path)]}
    assert all(each.query.negatives() == ["music", "wind"] for each in asked)
    with pytest.raises(Refusal, match="“WIND” is asked for and excluded at once; leave"):
        parse_queries("rain, wind", "WIND", Limits(), lambda file: tmp_path)
    check_forms(asked, ("text", "audio"), "a")
    with pytest.raises(Refusal, match="The model a takes no example recordings"):
        check_forms(asked, ("text",), "a")


@pytest.mark.parametrize(
    ("shape", "rate", "reason"),
    [
        ((8000 * 7, 1), 8000, "too long: this page takes up to 0.1 minutes"),
        ((100, 9), 8000, "9 channels"),
        ((100, 1), 400, "1 channels at 400 Hz"),
        ((100, 1), 500000, "sample rate is 500000 Hz"),
    ],
)
def test_a_recording_outside_the_limits_is_refused(tmp_path, shape, rate, reason):
    soundfile.write(tmp_path / "recording.wav", np.zeros(shape, np.float32), rate)
    with pytest.raises(Refusal, match=reason):
        Limits(minutes=0.1).open(tmp_path / "recording.wav")


def test_a_header_without_length_does_not_evade_the_limit(tmp_path, separate, store):
    soundfile.write(tmp_path / "long.mp3", np.zeros(8000 * 8, np.float32), 8000, format="MP3")
    (tmp_path / "cut.mp3").write_bytes((tmp_path / "long.mp3").read_bytes()[500:])  # without its first frame
    assert Limits(minutes=0.1).open(tmp_path / "cut.mp3").frames is None
    with pytest.raises(Refusal, match="too long"):
        separate("1", Limits(minutes=0.1), tmp_path / "cut.mp3")
    assert not list(store.root.rglob("*.wav*"))


def test_an_example_is_read_within_its_own_limit(tmp_path, separate, recording):
    example = tmp_path / "example.wav"
    soundfile.write(example, np.full((8000, 2), 0.25), 8000, subtype="FLOAT")
    result = separate([CLIP], files=example)
    assert result.sounds[0].query == "example"
    target = soundfile.read(result.target(0), dtype="float32")[0]
    assert np.array_equal(target, np.float32(0.25) * recording[1])  # the gain is the largest sample of the example
    with pytest.raises(Refusal, match=r"too long: this page takes up to 0\.01 minutes"):
        separate([CLIP], Limits(example_minutes=0.01), files=example)
    soundfile.write(example, np.zeros((0, 1)), 8000)
    with pytest.raises(Refusal, match="This file holds no audio"):
        separate([CLIP], files=example)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (EncoderError("{root}/0a/picture.png cannot be read as a picture."), "This file cannot be read as a picture."),
        (OSError("gone"), "This query cannot be used: a file or word in it is not usable (OSError)."),
    ],
)
def test_errors_of_queries_are_explained_without_the_path_of_the_server(store, separate, monkeypatch, error, sentence):
    def refuse(self, *_):
        raise type(error)(str(error).format(root=store.root))

    monkeypatch.setattr(Double, "stream", refuse)
    with pytest.raises(Refusal) as caught:
        separate("1")
    assert str(caught.value) == sentence


def test_messages_of_the_package_are_passed_on():
    with pytest.raises(Refusal, match=r"The query contains no word\. Say what to extract, for example: dog barking"):
        parse_queries(["!?"], ["rain"], Limits(), None)


# Store and jobs


def test_the_store_finds_only_its_own_files(store, tmp_path):
    place = store.place("../../evil $(x) name.wav")
    assert place.parent.parent == store.root
    assert place.name == "recording.wav"
    assert store.place("a.exe").name == "recording"
    place.write_bytes(b"x")
    assert store.upload({"path": str(place)}) == place
    (tmp_path / "outside.wav").write_bytes(b"x")
    for other in ("/etc/passwd", str(tmp_path / "outside.wav"), f"{place.parent}/../../x", "", "http://a.b/c"):
        with pytest.raises(Refusal):
            store.upload({"path": other})
    for token in ("", "..", "a" * 32, None, 7, f"{place.parent.name}/"):
        with pytest.raises(Refusal):
            store.folder(token)


def test_unused_folders_are_removed(tmp_path):
    (tmp_path / "root").mkdir()
    store = Store(tmp_path / "root", keep_minutes=0.01 / 6)
    old, deadline = store.new(), time.monotonic() + 60
    while old.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not old.exists()
    fresh = store.new()
    store.forget(fresh.name)
    assert not fresh.exists()
    store.close()
    assert not (tmp_path / "root").exists()


def test_turns_are_given_in_the_order_of_requests():
    turn, order, threads = Turn(), [], []

    def work(name):
        with turn:
            order.append(name)

    with turn:
        for name in "abcd":
            threads.append(threading.Thread(target=work, args=name))
            threads[-1].start()
            time.sleep(0.2)  # until it waits
    for thread in threads:
        thread.join()
    assert order == list("abcd")


def test_the_queue_is_counted_and_has_an_end():
    desk, gate = Desk(active=1, waiting=2), threading.Event()
    tickets = [make_ticket() for _ in range(3)]
    for ticket in tickets:
        desk.submit(ticket, lambda: gate.wait(600))
    while not tickets[0].future.running():
        time.sleep(0.001)
    assert [desk.ahead(ticket) for ticket in tickets] == [0, 1, 2]
    with pytest.raises(Refusal, match="3 recordings are waiting already"):
        desk.submit(make_ticket(), lambda: None)
    assert desk.stop(tickets[1].token)
    assert tickets[1].future.cancelled()
    assert desk.ahead(tickets[2]) == 1
    assert not desk.stop("unknown")
    gate.set()
    assert tickets[2].future.result(600) is True
    desk.close()


def test_a_job_ends_when_it_is_stopped_or_nobody_waits_for_it(separate, store, monkeypatch):
    ticket = make_ticket()
    ticket.stop()
    with pytest.raises(Cancelled):
        separate("1", ticket=ticket)
    assert not list(store.root.rglob("*.wav"))
    ticket = make_ticket()
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
    progress.done, now[0] = 120.0, 110.0
    assert progress.fraction() == pytest.approx(0.5)
    assert progress.left() == pytest.approx(10.0)
    progress.done = 240.0
    assert progress.fraction() == 0.99


# Models


def test_models_are_found_by_name_only_and_two_stay_loaded():
    loaded = []
    engine = make_engine(lambda name: loaded.append(name) or Double())
    assert engine.default == "a"
    for name in "aabcba":
        engine.separator(name)
    assert loaded == ["a", "b", "c", "a"]
    for name in ("/etc", "..", "", "A"):
        with pytest.raises(Refusal, match="there are: a, b, c"):
            engine.separator(name)


def test_loading_one_model_does_not_delay_another_and_can_be_cancelled():
    gate, loaded, ended, ticket = threading.Event(), [], [], make_ticket()

    def load(name):
        loaded.append(name)
        assert name == "a" or gate.wait(600)
        return Double()

    engine = make_engine(load)
    ready = engine.separator("a")

    def wait_for_model():
        try:
            engine.separator("b", ticket.check)
        except Cancelled:
            ended.append("cancelled")

    waiting = [threading.Thread(target=wait_for_model) for _ in range(2)]
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
    answers = [ModelError("b is damaged."), Double()]

    def load(name):
        answer = answers.pop(0)
        if isinstance(answer, ModelError):
            raise answer
        return answer

    engine = make_engine(load)
    with pytest.raises(ModelError, match="b is damaged"):
        engine.separator("b")
    assert engine.separator("b")


def test_models_of_classes_suggest_classes():
    cards = [Card("a", "", ("text",), 1, "", "", ""), Card("b", "", ("label", "audio"), 1, "", "", "")]
    engine = Engine(cards, None, ["rain"])
    assert engine.sounds_of("a") == ["rain"]
    assert len(engine.sounds_of("b")) == 527


def test_sounds_in_the_first_minutes_are_listed(recording, monkeypatch):
    find = partial(list_sounds, make_engine(), source=recording[0], model="a")
    found = find(Limits())
    assert [sound["label"] for sound in found["sounds"]] == ["rain", "door knock"]
    assert found["seconds"] == 3.0
    assert find(Limits(listed_minutes=1 / 60))["seconds"] == 1.0

    def refuse(self, *args, **options):
        raise ModelError("it cannot")

    monkeypatch.setattr(Double, "list_sounds_in_blocks", refuse)
    assert find(Limits()) == {"sounds": [], "seconds": 0.0}

    def overflow(self, *args, **options):
        raise NotFiniteError("presence")

    monkeypatch.setattr(Double, "list_sounds_in_blocks", overflow)
    with pytest.raises(Refusal, match="NaN or infinity"):
        find(Limits())


# Results


def test_a_sound_is_heard_by_its_presence_and_level(result):
    assert [sound.heard for sound in result.sounds] == [True, True, False]
    sound = replace(result.sounds[0])
    assert sound.level == pytest.approx(-6.02, abs=0.01)
    for presence, level, heard in ((0.99, -61.0, False), (0.49, -3.0, False), (None, -3.0, True)):
        sound.presence, sound.level = presence, level
        assert sound.heard == heard


@pytest.mark.parametrize("gains", [[1, 1], [1, 1, -1], [1, 1, 5], [1, 1, float("nan")], [1, 1, "1"], None])
def test_invalid_gains_of_a_remix_are_refused(result, gains):
    with pytest.raises(Refusal):
        check_gains(result, gains)


def test_gains_are_those_of_the_slider(result):
    assert check_gains(result, [10 ** (3 / 20), 0, 1]) == [3.0, -np.inf, 0.0]
    assert check_gains(result, [10 ** (level / 20) for level in (-24, 12, -7)]) == [-24.0, 12.0, -7.0]


@pytest.mark.parametrize(
    ("name", "stem"),
    [("mix.wav", "mix"), ("C:\\a\\film.mp4", "film"), ("/etc/../my mix.tar.flac", "my mix.tar"),
     ("\x1b\n.", "recording"), ("<b>é.m4a", "<b>é"), ("x" * 400 + ".wav", "x" * 247)],
)  # fmt: skip
def test_files_are_named_as_by_the_command(separate, tmp_path, name, stem):
    soundfile.write(tmp_path / "short.wav", np.ones(800) / 4, 8000)
    assert separate("0.5", source=tmp_path / "short.wav", name=name).names[0]["target"] == f"{stem}.0_5.wav"


def test_files_carry_the_tags_of_the_recording(separate, tmp_path):
    with soundfile.SoundFile(tmp_path / "short.wav", "w", 8000, 1) as file:
        file.title, file.artist = "A song", "Somebody"
        file.write(np.ones(800) / 4)

    def tags(path):
        with soundfile.SoundFile(path) as file:
            return file.artist, file.title

    result = separate("0.5, 0.25", source=tmp_path / "short.wav")
    assert tags(result.mixture) == ("Somebody", "A song")
    assert tags(result.target(1)) == ("Somebody", "A song (0.25)")
    assert tags(result.residual(1)) == ("Somebody", "A song (without 0.25)")
    removed = separate("0.5, 0.25", source=tmp_path / "short.wav", removed=True)
    assert tags(removed.residual(0)) == ("Somebody", "A song (without 0.5, 0.25)")
    Work(make_engine(), Limits(), make_ticket(), result.mixture, result.folder).remix(
        result, [3.0, 0.0], tmp_path / "remix.wav"
    )
    assert tags(tmp_path / "remix.wav") == ("Somebody", "A song (remix)")
    with open(tmp_path / "short.wav", "ab") as file:
        file.write(b"id3 \xff\0\0\0ID3")
    [hint] = separate("0.5", source=tmp_path / "short.wav").hints
    assert hint == "This file: not carried to the outputs: the chunk “id3 ” (damaged)."


def test_the_presence_of_each_sound_of_a_sentence(separate):
    sounds = separate(["0.5 then 0", "0.5"]).summary()["sounds"]
    assert [sound["parts"] for sound in sounds] == [{"0.5": 0.9, "0": 0.0009}, {}]


@pytest.mark.parametrize(
    ("gains", "span", "options"),
    [
        ({"rain": 3}, (), "--gain rain=3"),
        ({"rain": -7, "dog": 12}, (), "--gain dog=12 --gain rain=-7"),
        ({"siren": 0.5, "rain": -np.inf}, ("0.5", "0:01"), "--gain siren=.5 --remove rain --from .5 --to 1"),
        ({"dog": -np.inf, "siren": -np.inf}, (), "--remove dog --remove siren"),
        ({"dog": -np.inf}, (), "--remove dog"),
    ],
)
def test_a_remix_is_bit_by_bit_that_of_the_command(real, store, tmp_path, monkeypatch, gains, span, options):
    monkeypatch.setattr(Separator, "from_pretrained", lambda *_, **__: real)
    monkeypatch.setattr(real, "list_sounds_in_blocks", lambda *_, **__: [])  # slow
    mixture = (0.1 * np.random.default_rng(0).standard_normal((24000, 2))).astype(np.float32)
    soundfile.write(tmp_path / "mix.wav", mixture, 16000, subtype="FLOAT")
    names = ["dog", "siren", "rain"]
    asked, engine = (
        parse_queries(names, [], Limits(), None),
        Engine([Card("a", "", ("text",), 1, "", "", "")], lambda name: real),
    )
    work = Work(engine, Limits(), make_ticket(), tmp_path / "mix.wav", store.new(), "mix.wav")
    result = work.run(asked, "a", span=parse_span(*span) if span else None)
    levels = check_gains(result, [10 ** (gains.get(name, 0) / 20) for name in names])
    assert main(["-o", str(tmp_path / "out"), *options.split(), str(tmp_path / "mix.wav")]) == 0
    [written] = (tmp_path / "out").glob("mix.*")
    expected = soundfile.read(written, dtype="float32")[0]
    assert result.mix_name(levels) == written.name
    for number in range(2):  # the second time from what the first has kept
        work.remix(result, levels, tmp_path / f"{number}.wav")
        assert np.array_equal(soundfile.read(tmp_path / f"{number}.wav", dtype="float32")[0], expected)
    assert not np.array_equal(expected, mixture)
    if set(gains.values()) == {-np.inf}:
        work = Work(engine, Limits(), make_ticket(), tmp_path / "mix.wav", store.new(), "mix.wav")
        result = work.run(parse_queries(list(gains), [], Limits(), None), "a", removed=True)
        assert np.array_equal(soundfile.read(result.residual(0), dtype="float32")[0], expected)


def test_names_of_results_together(separate):
    result = separate(["0.5", "Dog, barking?"])
    pairs = [(names["target"], names["residual"], names["picture"]) for names in result.names]
    assert pairs[2] == ("mix.barking.wav", "mix.not_barking.wav", "mix.barking.png")
    gains = {(3, 0, 0): "mix.remix.wav", (-np.inf, 0, 0): "mix.not_0_5.wav", (-np.inf, -np.inf, 0): "mix.without.wav"}
    gains |= {(0, 0, 0): "mix.remix.wav", (-np.inf, -6, 0): "mix.remix.wav"}
    assert {levels: result.mix_name(levels) for levels in gains} == gains
    assert separate("0.5, 0.25", removed=True).names == [{"residual": "mix.without.wav", "picture": "mix.without.png"}]
    assert separate("0.5", removed=True).names == [{"residual": "mix.not_0_5.wav", "picture": "mix.not_0_5.png"}]


def test_sounds_are_removed_together_and_absent_ones_are_answered(separate, recording):
    result = separate("0.5, 0.25, 0", removed=True)
    target, residual = (soundfile.read(path(0), dtype="float32")[0] for path in (result.target, result.residual))
    assert np.abs(target - 0.75 * recording[1]).max() < 1e-6
    assert np.array_equal(residual, recording[1] - target)
    summary = result.summary()
    assert summary["sounding"] == ["rain", "door knock"]
    assert [sound["query"] for sound in summary["sounds"]] == ["0.5, 0.25, 0"]
    assert [sound["verdict"] for sound in summary["sounds"][0]["removed"]] == ["present", "present", "absent"]
    assert separate("0.5, 0.25").sounding == []
    later = separate("0.5", span=parse_span("0:01", ""))
    assert not soundfile.read(later.target(0))[0][:44100].any()
    assert separate("0.5", span=parse_span("9", "")).hints == [
        "The recording ends at 3 s, before the span begins (9 s), so nothing is changed."
    ]
    for start, end, reason in (("x", "", "'x' is not a time"), ("3", "2", "A span must begin before it ends")):
        with pytest.raises(Refusal, match=reason):
            parse_span(start, end)


def test_the_archive_has_all_stems_under_safe_names(separate):
    result = separate(["../Dog <barking>", "dog barking!", "0"])
    with zipfile.ZipFile(archive(result)) as file:
        assert file.namelist() == [
            "mix.wav", "mix.dog_barking.wav", "mix.not_dog_barking.wav", "mix.dog_barking.2.wav",
            "mix.not_dog_barking.2.wav", "mix.0.wav", "mix.not_0.wav", "separation.json",
        ]  # fmt: skip
        assert file.read("mix.dog_barking.wav") == result.target(0).read_bytes()


def test_pictures_share_one_colour_scale(result):
    """The target is 6 dB below the mixture, so it is darker by 6 dB, up to rounding of colours."""
    colours = colormaps["magma"](np.linspace(0, 1, 256))[:, :3]

    def level(name):
        pixels = imread(io.BytesIO((result.folder / f"{name}.png").read_bytes()))[120, 50:-50, :3]
        return np.abs(pixels[:, None] - colours).sum(-1).argmin(1) / 255 * RANGE

    assert np.mean(level("mixture") - level("0.target")) == pytest.approx(6.02, abs=0.2)
    assert result.view["range"] == RANGE
    ticks = result.view["ticks"]
    assert [tick["label"] for tick in ticks] == ["0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10", "20"]
    places = [tick["at"] for tick in ticks]
    assert places == sorted(places)
    assert 0 < places[0] < places[-1] < 1
    assert draw_sound(result, 1).read_bytes().startswith(b"\x89PNG")
    for number in (-1, 3, "0", None):
        with pytest.raises(Refusal):
            draw_sound(result, number)


# Security


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("localhost", True), ("::1", True), ("[::1]", True), ("8.8.8.8", False),
     ("example.org", False), ("localhost.example.org", False), ("10.0.0.1", False), ("0.0.0.0", False)],
)  # fmt: skip
def test_only_names_of_this_computer_are_loopback(host, loopback):
    assert is_loopback(host) == loopback


def test_a_client_that_sends_nothing_more_is_not_waited_for(monkeypatch):
    """The first part of a body comes, the second does not; but the end of a connection may take long."""
    monkeypatch.setattr("page.guard.BODY_SECONDS", 0.05)
    parts = [{"type": "http.request", "body": b"x", "more_body": True}]
    scope = {"type": "http", "path": "/forget", "headers": [(b"host", b"localhost")]}

    async def receive():
        return parts.pop(0) if parts else await asyncio.sleep(0.2, {"type": "http.disconnect"})

    async def read_all(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        assert (await receive())["type"] == "http.disconnect"

    def run():  # in a thread of its own: the browser of other tests keeps a loop in this one
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(Guard(read_all)(scope, receive, None))).result()

    with pytest.raises(HTTPException) as refused:
        run()
    assert refused.value.status_code == 408
    parts += [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.request", "body": b"y"}]
    run()
