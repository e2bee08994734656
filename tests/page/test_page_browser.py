"""The page in headless Chromium: choose a file, ask, wait, listen, remix, cancel, and errors."""

import io
import os
import re
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.filterwarnings("ignore")  # of Gradio's client's own

SHIFTS = """
new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    if (!entry.hadRecentInput) document.documentElement.dataset.shift =
      Number(document.documentElement.dataset.shift || 0) + entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@pytest.fixture(scope="module")
def tab(browser, fake):
    """A tab of the browser and the errors in its console; requests to other servers are errors too."""
    context = browser.new_context(accept_downloads=True)
    context.add_init_script(SHIFTS)
    tab, problems = context.new_page(), []
    tab.set_default_timeout(300_000)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda message: message.type == "error" and problems.append(message.text))
    tab.on("request", lambda request: fake.url in request.url or problems.append(request.url))
    yield tab, problems
    context.close()


@pytest.fixture
def page(tab, fake):
    """The page, loaded anew at a desktop's width."""
    page, problems = tab
    problems.clear()
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")
    page.goto(fake.url)
    page.wait_for_selector("#examples button")
    yield page
    page.unroute_all()
    assert not [problem for problem in problems if not problem.startswith(("blob:", "data:"))]


def status(page, text):
    page.wait_for_selector(f'#status-text:has-text("{text}")')


def ready(page):
    page.wait_for_selector('#recording-facts:has-text("kHz")')


def choose(page, path):
    page.set_input_files("#file", str(path))
    ready(page)


def error(page, place):
    """The text of an error, which is in view beside what caused it, above the player."""
    page.wait_for_selector(f"#{place}-error:not(:empty)")
    assert page.evaluate(
        """(place) => {
          const { top, bottom } = document.getElementById(`${place}-error`).getBoundingClientRect();
          const player = document.querySelector(".has-player #player")?.offsetHeight ?? 0;
          return top >= 0 && bottom <= innerHeight - player; }""",
        place,
    )
    assert page.locator(".error:not(:empty)").count() == 1
    return page.inner_text(f"#{place}-error")


def ask(page, queries):
    page.fill("#query", queries)
    page.click("#separate")


def separate(page, path, queries):
    choose(page, path)
    ask(page, queries)
    status(page, "Done")


def download(page, selector):
    with page.expect_download() as caught:
        page.click(selector)
    return caught.value


def samples_of(page, selector):
    return soundfile.read(io.BytesIO(download(page, selector).path().read_bytes()), dtype="float32")[0]


def test_a_separation_gives_the_audio_of_the_api(page, client, recording):
    from gradio_client import handle_file

    path, samples = recording
    choose(page, path)
    assert page.inner_text("#recording-name") == path.name
    assert "44.1 kHz, stereo" in page.inner_text("#recording-facts")
    top = page.eval_on_selector("#results", "element => element.getBoundingClientRect().top + scrollY")
    ask(page, "half, nothing")
    status(page, "Done")
    assert page.eval_on_selector("#results", "element => element.getBoundingClientRect().top + scrollY") == top
    result = client.predict(handle_file(str(path)), ["half", "nothing"], api_name="/separate")
    for number, sound in enumerate(result["sounds"]):
        card = f'.sound[data-number="{number}"]'
        for kind, label in (("target", "Only this"), ("residual", "Without it")):
            link = f'{card} a[aria-label^="{label}, download: "]'
            expected = soundfile.read(sound[kind], dtype="float32")[0]
            assert np.array_equal(samples_of(page, link), expected)
    assert np.array_equal(samples_of(page, '.sound[data-number="0"] a >> nth=0'), np.float32(0.5) * samples)
    names = [page.get_attribute(f'.sound[data-number="0"] a >> nth={number}', "download") for number in range(3)]
    assert names == [f"noise & <b>more.{part}" for part in ("half.wav", "not_half.wav", "half.png")]  # as the command
    assert re.fullmatch(r"noise & .b.more\.half\.wav", download(page, ".sound a >> nth=0").suggested_filename)
    assert page.locator('.sound[data-number="1"] .others').inner_text().startswith("What does sound here:")
    page.click('.sound[data-number="1"] .others button >> nth=0')
    assert page.locator(".chip span").all_inner_texts() == ["half", "nothing", "rain"]
    assert page.inner_text('.sound[data-number="0"] .pill') == "present, 100 %"
    assert page.inner_text('.sound[data-number="1"] .pill') == "absent, 2 %"
    assert page.locator(".parts").count() == 0
    assert download(page, "text=Download all").path().read_bytes().startswith(b"PK")
    assert download(page, '.sound[data-number="0"] a >> nth=2').path().read_bytes().startswith(b"\x89PNG")
    assert float(page.get_attribute("html", "data-shift") or 0) < 0.02


def test_switching_keeps_the_position_and_pictures_can_be_clicked(page, long_recording):
    separate(page, long_recording[0], "half")
    page.evaluate("() => { document.getElementById('position').value = 5; }")
    page.dispatch_event("#position", "input")
    page.click("#play")
    page.wait_for_selector('#play[aria-pressed="true"]')
    before = float(page.input_value("#position"))
    page.click('#switch button[data-key="mixture"]')
    after = float(page.input_value("#position"))
    assert 5.0 <= before <= after < 45.0  # it plays meanwhile
    page.click("#play")
    strip = page.locator(".strip").nth(2)
    strip.click(position={"x": strip.bounding_box()["width"] / 3, "y": 20})
    assert page.get_attribute('.track[aria-pressed="true"] >> nth=0', "class") == "track"
    assert page.get_attribute('#switch [aria-checked="true"]', "data-key") == "0.residual"
    assert 55 / 3 - 1 < float(page.input_value("#position")) < 50
    sizes = page.evaluate("() => [...document.querySelectorAll('.strip img')].map((image) => image.naturalWidth)")
    assert len(sizes) == 3
    assert min(sizes) > 100
    assert "dB" in page.inner_text(".db")
    assert page.inner_text(".unit.left >> nth=0") == "kHz"
    assert page.inner_text(".unit.right >> nth=0") == "s"
    assert page.locator('.strip img[src$="/mixture.png"]').count() == 1


def test_only_the_newest_mix_can_be_downloaded(page, recording):
    """While a mix is made, the link has no address; answers for older settings change neither the link nor the note."""
    held, holding = [], [True]
    page.route("**/gradio_api/call/remix", lambda route: held.append(route) if holding[0] else route.continue_())
    separate(page, recording[0], "half, quarter")
    page.check(".mixer .line >> nth=0 >> text=Remove")
    while not held:
        page.wait_for_timeout(50)
    page.fill(".mixer .line >> nth=1 >> input[type=range]", "6")
    page.wait_for_timeout(500)
    assert page.get_attribute("#remix-save", "href") is None
    factor = 0.5 + 0.25 * (10 ** (6 / 20) - 1)
    with page.expect_download() as caught:
        page.click("#remix-save")
        page.wait_for_timeout(300)
        holding[0] = False
        for route in reversed(held):
            route.continue_()
    mixed = soundfile.read(io.BytesIO(caught.value.path().read_bytes()), dtype="float32")[0]
    assert np.abs(mixed - np.float32(factor) * recording[1]).max() < 1e-5
    assert page.get_attribute("#remix-save", "href").startswith("/files/")
    assert page.inner_text("#remix-note") == ""

    holding[0], held[:] = True, []
    page.check(".mixer .line >> nth=0 >> text=Keep")
    while not held:
        page.wait_for_timeout(50)
    assert page.get_attribute("#remix-save", "href") is None  # nor that of the mix before
    page.check(".mixer .line >> nth=1 >> text=Remove")
    holding[0] = False
    held[0].fulfill(status=200, body="no answer")  # an older failure is not told either
    page.wait_for_selector('#remix-save[href^="/files/"]')
    assert page.inner_text("#remix-note") == ""
    assert np.abs(samples_of(page, "#remix-save") - np.float32(0.75) * recording[1]).max() < 1e-5
    page.click("#remix-listen")
    page.wait_for_selector('#switch [data-key="remix"][aria-checked="true"]')


def test_cancel_stops_the_job_and_the_page_continues(page, fake, long_recording, recording):
    before = fake.count("block")
    choose(page, long_recording[0])
    ask(page, "slow")
    status(page, "Separating")
    assert page.is_visible("#progress")
    page.click("#cancel")
    status(page, "Cancelled.")
    assert fake.count("block") - before < 6  # of six
    separate(page, recording[0], "half")


PHONE = {"width": 360, "height": 640}
SCHEMES = ("light", "dark")


@pytest.mark.parametrize("size", [PHONE, {"width": 1440, "height": 900}], ids=["phone", "desktop"])
def test_errors_are_in_view_beside_what_caused_them(page, tmp_path, recording, size):
    page.set_viewport_size(size)
    page.click("#remove")
    assert error(page, "recording") == "Choose a recording first."
    assert page.evaluate("() => document.activeElement.id") == "choose"
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF nonsense" * 100)
    page.set_input_files("#file", str(bad))
    assert error(page, "recording").startswith("This file")
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(13_000_000))
    page.set_input_files("#file", str(large))
    assert error(page, "recording") == "This file is too large: this page takes up to 12 MB."
    choose(page, recording[0])
    assert page.locator(".error:not(:empty)").count() == 0
    page.click("#separate")
    assert error(page, "query") == "Name a sound first, for example: dog barking."
    assert page.get_attribute("#query", "aria-invalid") == "true"
    ask(page, "broken")
    assert error(page, "go").startswith("Something went wrong on the server")
    page.click(".chip button")
    page.click("#more summary >> nth=0")
    page.fill("#start", "1:75")
    page.click("#more summary >> nth=0")
    ask(page, "half")
    assert error(page, "span").startswith("'1:75' is not a time: use seconds (3.2)")
    page.fill("#start", "")
    separate(page, recording[0], "half")
    assert page.locator(".error:not(:empty)").count() == 0


def test_results_have_the_order_of_the_queries(page, recording, tmp_path):
    soundfile.write(tmp_path / "my bark.wav", np.full(800, 0.25), 8000, subtype="FLOAT")
    choose(page, recording[0])
    page.fill("#query", "quarter, ")
    page.set_viewport_size(PHONE)
    with page.expect_file_chooser() as chooser:
        page.click("#add-audio")
    chooser.value.set_files(str(tmp_path / "my bark.wav"))
    page.wait_for_selector(".chip >> nth=1")
    ask(page, "half then nothing, nothing")
    status(page, "Done")
    assert page.locator(".sound h3").all_inner_texts() == ["quarter", "my bark", "half then nothing", "nothing"]
    assert page.locator(".mixer .name").all_inner_texts() == ["quarter", "my bark", "half then nothing", "nothing"]
    assert page.locator(".parts").all_inner_texts() == ["Presence of each: half 100 %, nothing 2 %."]
    assert page.evaluate("() => document.activeElement.id") == "results"


def test_sounds_are_removed_into_one_file(page, recording):
    choose(page, recording[0])
    page.click("#more summary >> nth=0")
    page.fill("#start", "0:01")
    page.fill("#end", "2.5")
    page.fill("#query", "half, quarter")
    page.click("#remove")
    status(page, "Done")
    assert page.locator(".sound h3").all_inner_texts() == ["Without half, quarter"]
    assert page.locator(".sound .pill").all_inner_texts() == ["half: present, 100 %", "quarter: present, 75 %"]
    assert page.get_attribute(".sound a >> nth=0", "download") == "noise & <b>more.without.wav"
    cleaned, mixture = samples_of(page, ".sound a >> nth=0"), recording[1]
    assert np.array_equal(cleaned[:44100], mixture[:44100])  # before the span
    assert np.abs(cleaned[50000:100000] - 0.25 * mixture[50000:100000]).max() < 1e-6
    assert page.get_attribute('#switch [aria-checked="true"]', "data-key") == "0.residual"
    page.check('[aria-label="Keep half"]')
    page.wait_for_selector('#remix-save[href^="/files/"]')
    assert page.get_attribute("#remix-save", "download") == "noise & <b>more.not_quarter.wav"
    assert np.abs(samples_of(page, "#remix-save")[50000:100000] - 0.75 * mixture[50000:100000]).max() < 1e-6


def test_texts_become_chips_and_known_sounds_are_suggested(page):
    page.focus("#query")
    page.keyboard.type("my dog, Rain, ra")
    assert page.locator(".chip span").all_inner_texts() == ["my dog", "Rain"]
    page.wait_for_selector("#options li")
    assert page.locator("#options li").all_inner_texts() == ["rain"]
    page.fill("#query", "do")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".chip span").all_inner_texts() == ["my dog", "Rain", "door knock"]
    page.keyboard.press("Backspace")
    page.keyboard.type("<img src=x onerror=alert(1)>,")
    assert page.locator(".chip span").all_inner_texts()[-1] == "<img src=x onerror=alert(1)>"
    assert page.locator(".chip img").count() == 0


def test_examples_are_one_click_away_and_the_keyboard_is_enough(page):
    page.keyboard.press("Tab")
    for _ in range(2):  # Choose a file, Record
        page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.textContent") == "Dog, alarm clock, engine"
    page.keyboard.press("Enter")
    ready(page)
    assert page.locator(".chip span").all_inner_texts() == ["dog barking", "alarm clock", "engine"]
    page.focus("#separate")
    page.keyboard.press("Enter")
    status(page, "Done")
    page.focus("#switch [aria-checked=true]")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute('#switch [aria-checked="true"]', "data-key") == "0.residual"
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("1")
    assert page.get_attribute('#switch [aria-checked="true"]', "data-key") == "mixture"
    page.keyboard.press(" ")
    page.wait_for_selector('#play[aria-pressed="true"]')


def test_detected_sounds_are_suggested_and_nothing_jumps(page, recording):
    choose(page, recording[0])
    top = page.eval_on_selector("#separate", "element => element.getBoundingClientRect().top")
    page.wait_for_selector("#detected-list button")
    assert page.eval_on_selector("#separate", "element => element.getBoundingClientRect().top") == top
    assert page.inner_text("#detected-label") == "What sounds here? Choose what to keep or remove:"
    assert page.locator("#detected-list button").all_inner_texts() == ["rain", "door knock"]
    spans = "(all) => all.map(({ style }) => [parseFloat(style.left), parseFloat(style.width)])"
    assert np.allclose(
        page.eval_on_selector_all(".timeline span", spans), [[0, 200 / 3], [100 / 3, 100 / 3], [100, 100 / 3]]
    )
    assert page.locator("#detected-list .unseen").all_inner_texts()[1] == "at 0:01.0 to 0:02.0, 0:03.0 to 0:04.0"
    page.focus("#detected-list button >> nth=1")
    page.keyboard.press("Enter")
    assert page.locator(".chip span").all_inner_texts() == ["door knock"]
    assert page.get_attribute("#detected-list button >> nth=1", "aria-pressed") == "true"
    page.focus("#query")
    page.wait_for_selector("#options li")
    assert page.locator("#options li").all_inner_texts() == ["rain"]
    page.click("#detected-list button >> nth=1")  # once more takes it back
    assert page.locator(".chip").count() == 0
    page.click("#change")
    assert page.locator("#detected-list button").count() == 0


def test_an_example_clip_is_a_query_and_a_sound_can_be_excluded(page, recording, tmp_path):
    soundfile.write(tmp_path / "my bark.wav", np.full(800, 0.25), 8000, subtype="FLOAT")
    choose(page, recording[0])
    with page.expect_file_chooser() as chooser:
        page.click("#add-audio")
    chooser.value.set_files(str(tmp_path / "my bark.wav"))
    page.wait_for_selector(".chip")
    assert page.locator(".chip span").all_inner_texts() == ["♪ my bark"]
    page.click("#more summary >> nth=0")
    page.fill("#without", "rain")
    page.click("#separate")
    status(page, "Done")
    assert page.inner_text(".sound h3") == "my bark without rain"
    assert np.array_equal(samples_of(page, ".sound a >> nth=0"), np.float32(0.25) * recording[1])
    page.select_option("#model", "other")
    assert not page.is_visible("#add-audio")


def test_the_microphone_records(page):
    page.click("#record")
    status(page, "Recording")
    page.wait_for_timeout(1500)
    page.click("#record")
    ready(page)
    assert page.inner_text("#recording-name") == "Your recording.wav"


RULES = """() => {
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().width > 1;
  const controls = [...document.querySelectorAll("button, input, select, a, summary, [tabindex]")].filter(shown);
  const text = (id) => document.getElementById(id)?.textContent;
  const name = (e) => e.getAttribute("aria-label") || text(e.getAttribute("aria-labelledby"))
    || [...(e.labels ?? [])].map((label) => label.textContent).join("") || e.textContent;
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const named = ["aria-labelledby", "aria-describedby", "aria-controls"].flatMap((attribute) =>
    [...document.querySelectorAll(`[${attribute}]`)].flatMap((e) => e.getAttribute(attribute).split(" ")));
  return {
    unnamed: controls.filter((e) => !name(e).trim()).map((e) => e.outerHTML),
    jumping: controls.filter((e) => e.tabIndex > 0).map((e) => e.outerHTML),
    pictures: [...document.images].filter((e) => !e.hasAttribute("alt")).map((e) => e.outerHTML),
    twice: ids.filter((id, at) => ids.indexOf(id) !== at),
    lost: named.filter((id) => !ids.includes(id)),
    levels: [...document.querySelectorAll("h1, h2, h3")].filter(shown).map((e) => Number(e.tagName[1]))
      .filter((level, at, all) => level > (all[at - 1] ?? 0) + 1),
    spoken: ["status-text", "detected-label"].filter((id) => document.getElementById(id).role !== "status"),
    errors: [...document.querySelectorAll(".error")].filter((e) => e.role !== "alert").map((e) => e.id),
  };
}"""
INKS = """() => {
  for (const e of document.querySelectorAll("[data-ink]")) delete e.dataset.ink;
  return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility({ visibilityProperty: true })
    && [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && !e.closest(":disabled, .unseen"))
    .map((e) => { e.dataset.ink = "shown"; }).length;
}"""


COLOURS = """(elements) => elements.map((element) => {
  const solid = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  return [element.innerText, getComputedStyle(element).color, solid(element)]; })"""


def faint(page, selector):
    """Texts whose contrast with their background, as WCAG defines it, is 4.5 or less in one of the colour schemes."""

    def luminance(colour):
        red_green_blue = np.array([float(number) for number in re.findall(r"[\d.]+", colour)[:3]]) / 255
        linear = np.where(red_green_blue <= 0.04045, red_green_blue / 12.92, ((red_green_blue + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    found = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for text, *colours in page.eval_on_selector_all(selector, COLOURS):
            darker, lighter = sorted(map(luminance, colours))
            if (lighter + 0.05) / (darker + 0.05) <= 4.5:
                found.append((scheme, text))
    return found


@pytest.mark.parametrize("axe", [False, True])
def test_screen_readers_and_keyboards_have_what_they_need(page, recording, axe):
    """Names of all controls, alternatives to pictures, headings, announcements, contrast, focus; or axe-core."""
    source = find_spec("axe_playwright_python") if axe else None
    if axe and source is None:
        pytest.skip("axe-core was not asked: pip install axe-playwright-python")
    page.set_viewport_size(PHONE)

    def check(what):
        if source:
            page.evaluate(Path(source.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
            found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")["violations"]
            assert not [(each["id"], each["nodes"][0]["html"]) for each in found], what
            return
        assert not {rule: found for rule, found in page.evaluate(RULES).items() if found}, what
        assert page.evaluate(INKS) > 10
        assert not faint(page, "[data-ink]"), what

    check("start")
    page.click("#separate")
    check("error")
    choose(page, recording[0])
    page.wait_for_selector("#detected-list button")
    page.click("#more summary >> nth=0")
    page.fill("#query", "half, nothing")
    page.focus("#separate")
    page.keyboard.press("Enter")
    status(page, "Done")
    check("kept")
    page.focus("#change")  # from here, the focus goes through all controls in the order in which they are read
    order = """() => { const { top, left } = document.activeElement.getBoundingClientRect();
      return [document.activeElement.id || document.activeElement.textContent, top + scrollY, left]; }"""
    visited = []
    while not visited or visited[-1][0] != "position":
        visited.append(page.evaluate(order))
        page.keyboard.press("Tab")
    names = [name for name, *_ in visited]
    assert names[:5] == ["change", "rain", "door knock", "×", "×"]
    controls = ["query", "add-audio", "without", "start", "end", "model", "separate", "remove", "remix-listen", "play"]
    assert [name for name in names if name in controls] == controls
    assert len(set(names)) > 20
    page.click("#remove")
    page.wait_for_selector(".sound h3 >> text=Without half, nothing")
    check("removed")


SIZES = {"desktop": (1440, 900), "tablet": (768, 1024), "phone": (360, 740)}
OVER = """() => [...document.querySelectorAll("main *, header *, #player *")].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width && getComputedStyle(e).position !== "absolute" && (box.left < -0.5 || box.right > innerWidth + 0.5);
}).map((e) => `${e.tagName} ${e.id} ${e.className}`)"""
PLACES = """() => Object.fromEntries(["drop", "chips", "more", "actions", "status", "results"].map((id) => {
  const { left, top, width } = document.getElementById(id).getBoundingClientRect();
  return [id, [left, top + scrollY, width]];
}))"""
SMALL = """() => [...document.querySelectorAll("button, a.button, select")].filter((e) => e.offsetParent)
  .map((e) => [e.textContent, e.getBoundingClientRect().height]).filter(([, height]) => height < 32)"""
TEXTS = ["#status-text", ".pill >> nth=0", "#query-hint", "#separate", ".track small >> nth=0", ".unit >> nth=0"]


@pytest.fixture
def shots(tmp_path):
    """Folder for screenshots; PAGE_SCREENSHOTS names another one, to look at them."""
    folder = Path(os.environ.get("PAGE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("device", SIZES)
def test_pictures_of_the_page(page, recording, shots, device):
    """Empty, with results and at the mixer: nothing beyond the edge, nothing moved by results, texts with contrast."""
    width, height = SIZES[device]

    def picture(name, whole=True):
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        assert not page.evaluate(OVER)
        if whole:  # in a window of that height, so that the player does not lie over the middle
            tall = page.evaluate("() => document.documentElement.scrollHeight")
            page.set_viewport_size({"width": width, "height": max(height, tall)})
        for scheme in SCHEMES if os.environ.get("PAGE_SCREENSHOTS") else SCHEMES[:1]:  # of one size
            page.emulate_media(color_scheme=scheme)
            path = shots / f"{device}_{scheme}_{name}.png"
            page.screenshot(path=path)
            across, down = struct.unpack(">II", path.read_bytes()[16:24])
            assert across == width
            assert down >= height if whole else down == height
        page.set_viewport_size({"width": width, "height": height})

    page.set_viewport_size({"width": width, "height": height})
    picture("empty")
    if os.environ.get("PAGE_MODEL"):  # a real model is asked for what is in the first example
        page.click("#examples button >> nth=0")
        ready(page)
    else:
        choose(page, recording[0])
        page.fill("#query", "half, nothing, a description that goes on and on and on without an end in sight")
        page.press("#query", "Enter")
    page.wait_for_function("() => !document.getElementById('detected-label').textContent.includes('Listening')")
    before = page.evaluate(PLACES)
    page.click("#separate")
    status(page, "Done")
    page.wait_for_function("() => [...document.querySelectorAll('.strip img')].every((image) => image.naturalWidth)")
    assert page.evaluate(PLACES) == before
    assert float(page.get_attribute("html", "data-shift") or 0) < 0.02
    assert not page.evaluate(SMALL)  # everything can be touched
    assert not [found for selector in TEXTS for found in faint(page, selector)]
    beyond = "(e) => e.getBoundingClientRect().right > e.closest('.plot').getBoundingClientRect().right"
    assert not any(page.eval_on_selector_all(".db span", f"(all) => all.map({beyond})"))  # no label is cut
    picture("results")
    foot = page.eval_on_selector("#keys", "element => element.getBoundingClientRect().top + scrollY")
    page.check(".mixer .line >> nth=0 >> text=Remove")
    page.wait_for_selector('#remix-save[href^="/files/"]')
    page.locator(".mixer").scroll_into_view_if_needed()
    assert page.eval_on_selector("#keys", "element => element.getBoundingClientRect().top + scrollY") == foot
    picture("mixer", whole=False)


def test_limits_and_models_elsewhere_can_be_read(page):
    page.click("#all-limits summary")
    limits = page.inner_text("#limit-list")
    for words in ("1 minute, 12 MB, 8 channels, 1 to 384 kHz", "up to 8 at once", "Example clips: up to 1 min"):
        assert words in limits
    assert page.get_attribute("#model optgroup option", "disabled") is not None
    page.click("#more summary >> nth=0")
    page.click("#absent summary")
    assert page.inner_text("#absent-list") == "far · 1.2 GB · MIT · elsewhere. Fetched by fetch far"
