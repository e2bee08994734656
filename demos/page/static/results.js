// Everything below "Result": sounds with their spectrograms, and the mixer.
import { $, el, length, signed } from "./dom.js";
import { mixer } from "./mixer.js";

const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200];  // seconds between labels

export function showResults(result, player) {
  const fileUrl = (name) => `/files/${result.job}/${name}`;
  player.load([
    { key: "mixture", url: fileUrl("mixture.wav"), label: "Recording" },
    ...result.sounds.flatMap((sound, number) => [
      { key: `${number}.target`, url: fileUrl(`${number}.target.wav`), label: sound.query },
      { key: `${number}.residual`, url: fileUrl(`${number}.residual.wav`), label: "Everything else" }]),
  ], result.seconds);
  const heard = result.sounds.filter((sound) => sound.heard).length;
  const summary = `${heard} of ${result.sounds.length} ${result.sounds.length === 1 ? "sound" : "sounds"} heard in ${length(result.seconds)}`;
  $("result-body").replaceChildren(
    el("div", { class: "result-head" },
      el("p", {}, summary, el("span", { class: "hint" }, [result.warning, ...result.hints].filter(Boolean).map((text) => ` · ${text}`).join(""))),
      el("a", { class: "button", href: fileUrl("stems.zip"), download: "separation.zip" }, "Download all (zip)")),
    ...result.sounds.map((sound, number) => soundCard(result, sound, number, player, fileUrl)),
    mixer(result, player, fileUrl),
    el("p", { class: "hint", id: "keys" }, "A click on a spectrogram plays from there. ",
      el("span", { class: "keyboard" }, "Keys: space plays, 1 2 3 switch between recording, sound and everything else.")));
  const first = Math.max(0, result.sounds.findIndex((sound) => sound.heard));
  player.select(`${first}.target`, groupOf(first));
}

/** The tracks to compare for one sound. */
const groupOf = (number) => ["mixture", `${number}.target`, `${number}.residual`];

function soundCard(result, sound, number, player, fileUrl) {
  const known = sound.presence !== null;
  const percent = known ? `${Math.round(100 * sound.presence)} %` : "not estimated by this model";
  const download = (label, file, name, of) => el("a", {
    class: "button quiet small", href: fileUrl(`${number}.${file}`), download: name, "aria-label": `Download ${of} of ${sound.query}`,
  }, `↓ ${label}`);
  return el("article", { class: "sound", "data-number": number, "aria-label": sound.query },
    el("header", {},
      el("h3", {}, sound.query),
      el("span", { class: sound.heard ? "pill" : "pill no", title: `Presence ${percent}` },
        sound.verdict === null ? "extracted" : known ? `${sound.verdict}, ${percent}` : sound.verdict),
      el("div", { class: "links" },
        download("Sound", "target.wav", `${sound.name}.wav`, "sound"),
        download("Everything else", "residual.wav", `not_${sound.name}.wav`, "everything else"),
        download("Picture", "picture.png", `${sound.name}.png`, "the picture"))),
    plot(result, sound, number, player, fileUrl));
}

/** Spectrograms of recording, sound and everything else, which are also buttons of the player. */
function plot(result, sound, number, player, fileUrl) {
  const titles = [["Recording", "unchanged"], ["Sound", sound.query], ["Everything else", `without ${sound.query}`]];
  const rows = groupOf(number).map((key, row) => {
    const [title, detail] = titles[row];
    const play = () => { player.select(key, groupOf(number)); if (!player.playing) player.play(); };
    const track = el("button", { type: "button", class: "track", "aria-pressed": "false", on: { click: play } }, el("b", {}, title), el("small", {}, detail));
    const cursor = el("div", { class: "cursor" });
    const strip = el("div", { class: "strip", on: { click: (event) => {
      const { left, width } = strip.getBoundingClientRect();
      player.seek((event.clientX - left) / width * result.seconds);
      play();
    } } }, el("img", { src: fileUrl(`${key}.png`), alt: `Spectrogram: ${title.toLowerCase()}, ${detail}`, draggable: "false" }), cursor);
    player.listeners.push(() => {
      const selected = player.current === key && player.group.includes(`${number}.target`);
      cursor.style.transform = `translateX(${100 * player.time / result.seconds}%)`;
      track.setAttribute("aria-pressed", String(selected));
      strip.classList.toggle("on", selected);
    });
    return [track, frequencyAxis(result.view.ticks), strip];
  });
  return el("div", { class: "plot" }, ...rows[0], colourScale(result.view), ...rows[1], ...rows[2],
    el("span", { class: "unit left" }, "kHz"), timeAxis(result.seconds), el("span", { class: "unit right" }, "s"));
}

/** A label of an axis, at a share of its length from the given side. */
function label(text, side, share) {
  const element = el("span", { "aria-hidden": "true" }, text);
  element.style[side] = `${100 * share}%`;
  return element;
}

function frequencyAxis(ticks) {
  const axis = el("div", { class: "khz" });
  let last = -1;
  for (const { label: text, at } of ticks) {
    if (at - last < 0.15 || at < 0.04 || at > 0.96) continue;  // it would touch another label or the edge
    axis.append(label(text, "bottom", at));
    last = at;
  }
  return axis;
}

function timeAxis(total) {
  const step = STEPS.find((value) => total / value <= (innerWidth < 700 ? 5 : 10)) ?? 3600;
  const axis = el("div", { class: "seconds" });
  for (let at = 0; at <= total * 0.985; at += step) axis.append(label(String(Number(at.toFixed(3))), "left", at / total));
  return axis;
}

function colourScale({ top, range }) {
  const scale = el("div", { class: "db" }, el("img", { src: "/page/scale.png", alt: `Colour scale: ${top - range} to ${top} dB, 0 is a full-scale sine` }));
  for (let below = 0; below <= range; below += 20) {
    scale.append(label(signed(top - below) + (below ? "" : " dB"), "bottom", Math.min(0.98, Math.max(0.02, 1 - below / range))));
  }
  return scale;
}
