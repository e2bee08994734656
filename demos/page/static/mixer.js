// The mixer: a level for each sound. The server makes the mix.
import { call, stop } from "./api.js";
import { el, signed } from "./dom.js";

const LOWEST_DB = -24, HIGHEST_DB = 12;
const DELAY = 250;  // ms without a change before a mix is requested

export function mixer(result, player, fileUrl) {
  const [{ removed }] = result.sounds, sounds = removed ?? result.sounds;
  const gains = sounds.map(() => (removed ? 0 : 1));
  let version = 0, timer = 0;
  let mix = null;  // promise of the mix with the current gains
  const listen = el("button", { class: "button", id: "remix-listen" }, "Listen to the mix");
  // The link has an address only while it is the one of the newest mix, so that no older one can be saved.
  const save = el("a", { class: "button quiet", id: "remix-save", role: "link", tabindex: "0" }, "Download the mix (wav)");
  const note = el("span", { class: "hint", id: "remix-note", role: "status" });

  function request() {
    clearTimeout(timer);
    if (mix) return mix;
    const requested = version;
    note.textContent = "Mixing …";
    mix = call("remix", [result.job, gains], ({ job, stage, fraction }) => {
      if (!job) return;
      if (requested !== version || !save.isConnected) stop(job);  // nobody waits for this one
      else if (stage === "separating") note.textContent = `Separating these sounds together: ${Math.round(100 * fraction)} %`;
    }).then((answer) => {
      if (requested !== version) return request();
      note.textContent = "";
      save.href = fileUrl(answer.path.split(/[\\/]/).pop());
      save.download = answer.orig_name;
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
    if (save.hasAttribute("href")) return;
    event.preventDefault();
    request().then(() => save.click()).catch(() => {});
  });
  save.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !save.hasAttribute("href")) save.click();  // a link with an address does it by itself
  });
  return el("div", { class: "mixer", role: "group", "aria-label": "Mixer" }, el("h3", {}, "Remix"),
    el("p", { class: "hint" }, "Keep or remove each sound, or turn it up or down; everything else stays as it is."),
    ...sounds.map((sound, number) => line(sound, number, removed, (gain) => change(number, gain))),
    el("div", { class: "foot" }, listen, save, note));
}

/** Name, a choice between Keep and Remove, slider and level of one sound. */
function line({ query }, number, removed, onChange) {
  const update = (event) => {
    const level = Number(slider.value), kept = keep.checked;
    output.textContent = kept ? `${level > 0 ? "+" : ""}${signed(level)} dB` : "";
    slider.disabled = !kept;
    if (event) onChange(kept ? 10 ** (level / 20) : 0);
  };
  const choice = (label, checked) => el("input", { type: "radio", name: `mix-${number}`, value: label, checked, "aria-label": `${label} ${query}`, on: { change: update } });
  const output = el("output", {}), keep = choice("Keep", !removed), drop = choice("Remove", Boolean(removed));
  const slider = el("input", { type: "range", min: LOWEST_DB, max: HIGHEST_DB, step: 1, value: 0, "aria-label": `Level of ${query}, dB`, on: { input: update } });
  update();
  return el("div", { class: "line", role: "group", "aria-label": query }, el("span", { class: "name", title: query }, query),
    el("label", { class: "on" }, keep, "Keep"), el("label", { class: "on" }, drop, "Remove"), slider, output);
}
