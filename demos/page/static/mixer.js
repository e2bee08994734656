// The mixer: a level for each sound. The server makes the mix.
import { call } from "./api.js";
import { el, signed } from "./dom.js";

const LOWEST_DB = -24, HIGHEST_DB = 12;
const DELAY = 250;  // ms without a change before a mix is requested

export function mixer(result, player, fileUrl) {
  const gains = result.sounds.map(() => 1);
  let version = 0, timer = 0, ready = false;
  let mix = null;  // promise of the mix with the current gains
  const listen = el("button", { type: "button", class: "button", id: "remix-listen" }, "Listen to the mix");
  // The link has an address only while it is the one of the newest mix, so that no older one can be saved.
  const save = el("a", { class: "button quiet", id: "remix-save", download: "remix.wav", role: "link", tabindex: "0" }, "Download the mix (wav)");
  const note = el("span", { class: "hint", id: "remix-note", role: "status" });

  function request() {
    clearTimeout(timer);
    if (mix) return mix;
    const requested = version;
    note.textContent = "Mixing …";
    mix = call("remix", [result.job, gains]).then((answer) => {
      if (requested !== version) return request();
      ready = true;
      note.textContent = "";
      save.href = fileUrl(answer.path.split(/[\\/]/).pop());
      if (save.isConnected) player.replace({ key: "remix", url: save.getAttribute("href"), label: "Your mix" });
    }, (error) => {
      if (requested !== version) return request();
      mix = null;
      note.textContent = error.message;
      throw error;
    });
    return mix;
  }

  function change(number, gain) {
    gains[number] = gain;
    version++;
    mix = null;
    ready = false;
    save.removeAttribute("href");
    note.textContent = "Mixing …";
    clearTimeout(timer);
    timer = setTimeout(() => save.isConnected && request().catch(() => {}), DELAY);
  }

  listen.addEventListener("click", () => request().then(() => {
    player.select("remix", ["mixture", "remix"]);
    if (!player.playing) player.play();
  }).catch(() => {}));
  save.addEventListener("click", (event) => {
    if (ready) return;
    event.preventDefault();
    request().then(() => save.click()).catch(() => {});
  });
  save.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !ready) save.click();  // a link with an address does it by itself
  });
  return el("div", { class: "mixer", role: "group", "aria-label": "Mixer" }, el("h3", {}, "Remix"),
    el("p", { class: "hint" }, "Turn each sound up, down or off; the rest of the recording stays unchanged."),
    ...result.sounds.map((sound, number) => line(sound, (gain) => change(number, gain))),
    el("div", { class: "foot" }, listen, save, note));
}

/** Name, switch, slider and level of one sound. */
function line(sound, onChange) {
  const update = () => {
    const level = Number(slider.value);
    output.textContent = box.checked ? `${level > 0 ? "+" : ""}${signed(level)} dB` : "off";
    slider.disabled = !box.checked;
    onChange(box.checked ? 10 ** (level / 20) : 0);
  };
  const output = el("output", {}, "0 dB");
  const slider = el("input", { type: "range", min: LOWEST_DB, max: HIGHEST_DB, step: 1, value: 0, "aria-label": `Level of ${sound.query}, dB`, on: { input: update } });
  const box = el("input", { type: "checkbox", checked: true, "aria-label": `${sound.query} in the mix`, on: { change: update } });
  return el("div", { class: "line" }, el("span", { class: "name", title: sound.query }, sound.query), el("label", { class: "on" }, box, "on"), slider, output);
}
