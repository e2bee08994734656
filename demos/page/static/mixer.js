// The mixer: turns each sound up, down or off, and makes the mix anew on the server.
import { call } from "./api.js";
import { el } from "./dom.js";

const SMALLEST = -24, LARGEST = 12;
const PAUSE = 250;  // ms of rest at the sliders before a mix is asked for

export function mixer(result, player, file) {
  const state = result.sounds.map(() => ({ on: true, db: 0 }));
  const listen = el("button", { type: "button", class: "button", id: "remix-listen" }, "Listen to the mix");
  // Without an address it is no link for the browser, so that it can only ever save the newest mix.
  const save = el("a", { class: "button quiet", id: "remix-save", download: "remix.wav", role: "link", tabindex: "0" }, "Download the mix (wav)");
  const note = el("span", { class: "hint", id: "remix-note", role: "status" });
  const mixes = newest(
    () => call("remix", [result.job, state.map(({ on, db }) => (on ? 10 ** (db / 20) : 0))]),
    (answer) => {
      if (!save.isConnected) return;  // another recording's result is shown by now
      save.href = file(answer.path.split(/[\\/]/).pop());
      player.replace({ key: "remix", url: save.getAttribute("href"), label: "Your mix" });
      note.textContent = "";
    },
    (error) => { note.textContent = error.message; });
  let timer = 0;
  const wanted = () => {
    clearTimeout(timer);
    if (!mixes.done) note.textContent = "Mixing …";
    return mixes.get();
  };
  const changed = () => {
    mixes.outdate();
    save.removeAttribute("href");
    note.textContent = "Mixing …";
    clearTimeout(timer);
    timer = setTimeout(() => save.isConnected && wanted().catch(() => {}), PAUSE);
  };
  listen.addEventListener("click", () => wanted().then(() => {
    player.select("remix", ["mixture", "remix"]);
    if (!player.playing) player.play();
  }).catch(() => {}));
  save.addEventListener("click", (event) => {
    if (mixes.done) return;
    event.preventDefault();
    wanted().then(() => save.click()).catch(() => {});
  });
  save.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !mixes.done) save.click();  // with an address the browser does it
  });
  const lines = result.sounds.map((sound, number) => line(sound, state[number], changed));
  return el("div", { class: "mixer", role: "group", "aria-label": "Mixer" }, el("h3", {}, "Mix anew"),
    el("p", { class: "hint" }, "Turn each sound up, down or off; the rest of the recording stays as it is."), ...lines,
    el("div", { class: "foot" }, listen, save, note));
}

/**
 * Asks until the answer is of the newest state: one request at a time, and what comes of an older state is dropped.
 * `done` says whether the newest answer is there; `get` resolves to it, `outdate` says that the state has changed.
 */
function newest(ask, take, fail) {
  let round = 0, running = null, answer = null;
  const asking = async () => {
    for (;;) {
      const mine = round;
      let found = null, problem = null;
      try { found = await ask(); } catch (error) { problem = error; }
      if (mine !== round) continue;
      running = null;
      if (problem) { fail(problem); throw problem; }
      take(found);
      return (answer = found);
    }
  };
  return {
    get done() { return answer !== null; },
    get: () => (answer ? Promise.resolve(answer) : (running ??= asking())),
    outdate: () => { round++; answer = null; },
  };
}

/** Name, switch, slider and level of one sound. */
function line(sound, setting, changed) {
  const output = el("output", {}, "0 dB");
  const draw = () => {
    output.textContent = setting.on ? `${setting.db > 0 ? "+" : ""}${String(setting.db).replace("-", "−")} dB` : "off";
    slider.disabled = !setting.on;
    changed();
  };
  const slider = el("input", { type: "range", min: SMALLEST, max: LARGEST, step: 1, value: 0, "aria-label": `Level of ${sound.query}, dB`,
    on: { input: (event) => { setting.db = Number(event.target.value); draw(); } } });
  const box = el("input", { type: "checkbox", checked: true, "aria-label": `${sound.query} in the mix`,
    on: { change: (event) => { setting.on = event.target.checked; draw(); } } });
  return el("div", { class: "line" }, el("span", { class: "name", title: sound.query }, sound.query), el("label", { class: "on" }, box, "on"), slider, output);
}
