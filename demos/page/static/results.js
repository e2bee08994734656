// Everything below "Result": sounds with their spectrograms; mixer.js has the mixer.
import { $, clock, el } from "./dom.js";
import { mixer } from "./mixer.js";

export function showResults(result, player) {
  const file = (name) => `/files/${result.job}/${name}`;
  const tracks = [{ key: "mixture", url: file("mixture.wav"), label: "Recording" }];
  result.sounds.forEach((sound, number) => tracks.push(
    { key: `${number}.target`, url: file(`${number}.target.wav`), label: sound.query },
    { key: `${number}.residual`, url: file(`${number}.residual.wav`), label: "Everything else" }));
  player.load(tracks, result.seconds);
  player.listeners = [];
  const heard = result.sounds.filter((sound) => sound.heard).length;
  const say = `${heard} of ${result.sounds.length} ${result.sounds.length === 1 ? "sound" : "sounds"} heard in ${result.seconds < 60 ? `${result.seconds.toFixed(1)} s` : `${clock(result.seconds, 0)} min`}`;
  $("result-body").replaceChildren(
    el("div", { class: "result-head" },
      el("p", {}, say, el("span", { class: "hint" }, result.warning ? ` · ${result.warning}` : "")),
      el("a", { class: "button", href: `/archive/${result.job}`, download: "separation.zip" }, "Download all (zip)")),
    ...result.sounds.map((sound, number) => soundCard(result, sound, number, player, file)),
    mixer(result, player, file),
    el("p", { class: "hint", id: "keys" }, "A click into a spectrogram plays from there. ",
      el("span", { class: "keyboard" }, "Keys: space plays, 1 2 3 switch between recording, sound and everything else.")));
  const first = Math.max(0, result.sounds.findIndex((sound) => sound.heard));
  player.select(`${first}.target`, groupOf(first));
}

const groupOf = (number) => ["mixture", `${number}.target`, `${number}.residual`];

function soundCard(result, sound, number, player, file) {
  const known = sound.presence !== null;
  const percent = known ? `${Math.round(100 * sound.presence)} %` : "not told by this model";
  const links = [["Sound", "target", sound.name], ["Everything else", "residual", `not_${sound.name}`]].map(([label, kind, name]) =>
    el("a", { class: "button quiet small", href: file(`${number}.${kind}.wav`), download: `${name}.wav`, "aria-label": `Download ${label.toLowerCase()} of ${sound.query}, wav` }, `↓ ${label}`));
  links.push(el("a", { class: "button quiet small", href: `/picture/${result.job}/${number}`, download: `${sound.name}.png`, "aria-label": `Download the picture of ${sound.query}, png` }, "↓ Picture"));
  return el("article", { class: "sound", "data-number": number, "aria-label": sound.query },
    el("header", {},
      el("h3", {}, sound.query),
      el("span", { class: sound.heard ? "pill" : "pill no", title: `Presence ${percent}` },
        sound.heard ? (known ? `heard, ${percent}` : "taken out") : "not heard in this recording"),
      el("div", { class: "links" }, ...links)),
    plot(result, sound, number, player, file));
}

function plot(result, sound, number, player, file) {
  const rows = [
    ["mixture", "mixture", "Recording", "as it was"],
    [`${number}.target`, `${number}.target`, "Sound", sound.query],
    [`${number}.residual`, `${number}.residual`, "Everything else", `without ${sound.query}`],
  ];
  const cells = rows.flatMap(([key, name, title, detail]) => {
    const hear = (play) => { player.select(key, groupOf(number)); if (play && !player.playing) player.play(); };
    const track = el("button", { type: "button", class: "track", "aria-pressed": "false", on: { click: () => hear(true) } }, el("b", {}, title), el("small", {}, detail));
    const cursor = el("div", { class: "cursor" });
    const strip = el("div", { class: "strip", on: { click: (event) => {
      const place = strip.getBoundingClientRect();
      player.seek((event.clientX - place.left) / place.width * result.seconds);
      hear(true);
    } } }, el("img", { src: file(`${name}.png`), alt: `Spectrogram: ${title.toLowerCase()}, ${detail}`, draggable: "false" }), cursor);
    player.listeners.push(() => {
      const on = player.current === key && player.group.includes(`${number}.target`);
      cursor.style.transform = `translateX(${100 * player.time / result.seconds}%)`;
      track.setAttribute("aria-pressed", String(on));
      strip.classList.toggle("on", on);
    });
    return [track, frequencies(result.view.ticks), strip];
  });
  return el("div", { class: "plot" }, ...cells.slice(0, 3), levels(result.view), ...cells.slice(3),
    el("span", { class: "unit left" }, "kHz"), seconds(result.seconds), el("span", { class: "unit right" }, "s"));
}

/** Labels at their height; those that would touch are left out. */
function frequencies(ticks) {
  const axis = el("div", { class: "khz", "aria-hidden": "true" });
  let last = -1;
  for (const tick of ticks) {
    if (tick.at - last < 0.15 || tick.at < 0.04 || tick.at > 0.96) continue;
    last = tick.at;
    const label = el("span", {}, tick.label);
    label.style.bottom = `${100 * tick.at}%`;
    axis.append(label);
  }
  return axis;
}

function levels({ top, range }) {
  const bar = el("div", { class: "db" }, el("img", { src: "/page/scale.png", alt: `Colour scale: ${top - range} to ${top} dB, 0 is a full-scale sine` }));
  for (let down = 0; down <= range; down += 20) {
    const label = el("span", { "aria-hidden": "true" }, `${String(top - down).replace("-", "−")}${down ? "" : " dB"}`);
    label.style.bottom = `${Math.min(98, Math.max(2, 100 - 100 * down / range))}%`;
    bar.append(label);
  }
  return bar;
}

function seconds(total) {
  const steps = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200];
  const step = steps.find((value) => total / value <= (innerWidth < 700 ? 5 : 10)) ?? 3600;
  const axis = el("div", { class: "seconds", "aria-hidden": "true" });
  for (let at = 0; at <= total * 0.985; at += step) {
    const label = el("span", {}, String(Number(at.toFixed(3))));
    label.style.left = `${100 * at / total}%`;
    axis.append(label);
  }
  return axis;
}
