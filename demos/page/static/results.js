// Everything below "Result": sounds with their spectrograms, and the mixer.
import { $, el, length, signed } from "./dom.js";
import { mixer } from "./mixer.js";

const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200];  // seconds between labels

/** Show a result; `ask` makes a sound a query. */
export function showResults(result, player, ask) {
  const fileUrl = (name) => `/files/${result.job}/${name}`;
  const labels = (sound) => (sound.removed ? { target: "Removed", residual: "Without them" } : { target: sound.query, residual: "Without it" });
  player.load([
    { key: "mixture", url: fileUrl("mixture.wav"), label: "Recording" },
    ...result.sounds.flatMap((sound, number) => Object.entries(labels(sound)).map(([kind, label]) => ({ key: `${number}.${kind}`, url: fileUrl(`${number}.${kind}.wav`), label }))),
  ], result.seconds);
  const sounds = result.sounds.flatMap((sound) => sound.removed ?? [sound]), heard = sounds.filter((sound) => sound.heard).length;
  const summary = `${heard} of ${sounds.length} ${sounds.length === 1 ? "sound" : "sounds"} heard in ${length(result.seconds)}.`;
  const first = Math.max(0, result.sounds.findIndex((sound) => sound.heard));
  $("result-body").replaceChildren(
    el("div", { class: "result-head" },
      el("p", {}, summary, el("span", { class: "hint" }, [result.warning, ...result.hints].filter(Boolean).map((text) => ` ${text}`).join(""))),
      el("a", { class: "button", href: fileUrl("stems.zip"), download: result.archive }, "Download all (zip)")),
    plot(result, player, [["mixture", "Recording", "unchanged", first]], colourScale(result.view)),
    ...result.sounds.map((sound, number) => soundCard(result, sound, number, player, fileUrl, ask)),
    mixer(result, player, fileUrl),
    el("p", { class: "hint", id: "keys" }, `A click on a spectrogram plays from there; dark to bright is ${signed(result.view.top - result.view.range)} to ${signed(result.view.top)} dB. `,
      el("span", { class: "keyboard" }, "Keys: space plays, 1 2 3 switch between the recording and the two results.")));
  player.select(groupOf(result, first)[1], groupOf(result, first));
}

/** The tracks to compare for one sound; the one that was wanted is the second. */
function groupOf({ sounds }, number) {
  const kinds = sounds[number].removed ? ["residual", "target"] : ["target", "residual"];
  return ["mixture", ...kinds.map((kind) => `${number}.${kind}`)];
}

/** How sure the model is that a sound occurs. */
function pill({ query, presence, verdict, heard }, named) {
  const text = verdict === null ? "extracted" : presence === null ? verdict : `${verdict}, ${Math.round(100 * presence)} %`;
  return el("span", { class: heard ? "pill" : "pill no" }, named ? `${query}: ${text}` : text);
}

function soundCard(result, sound, number, player, fileUrl, ask) {
  const { query, names, removed } = sound, title = removed ? `Without ${query}` : query;
  const words = removed ? { residual: ["Without them", `without ${query}`], target: ["Removed", query] }
    : { target: ["Only this", query], residual: ["Without it", `without ${query}`] };
  const download = (label, detail, file, name) => el("a", {
    class: "button quiet small", href: fileUrl(`${number}.${file}`), download: name, "aria-label": `${label}, download: ${detail}`,
  }, `↓ ${label}`);
  const files = Object.entries(words);
  const absent = (removed ?? [sound]).filter(({ verdict }) => verdict === "absent");
  const others = absent.length ? result.sounding : [];
  const parts = (removed ?? [sound]).flatMap((each) => Object.entries(each.parts));  // of sentences
  return el("article", { class: "sound", "data-number": number, "aria-label": title },
    el("header", {},
      el("h3", {}, title), ...(removed ?? [sound]).map((each) => pill(each, removed)),
      el("div", { class: "links" },
        ...files.map(([kind, [label, detail]]) => download(label, detail, `${kind}.wav`, names[kind])),
        download("Picture", `spectrograms of ${query}`, "picture.png", names.picture))),
    ...(parts.length ? [el("p", { class: "hint parts" }, `Presence of each: ${parts.map(([name, presence]) => `${name} ${Math.round(100 * presence)} %`).join(", ")}.`)] : []),
    ...(others.length ? [el("p", { class: "others" }, "What does sound here: ", ...others.map((each) => el("button", { class: "button quiet small", "aria-label": `Add ${each}`, on: { click: () => ask(each) } }, `+ ${each}`)))] : []),
    plot(result, player, files.map(([kind, [label, detail]]) => [`${number}.${kind}`, label, detail, number])));
}

/** Spectrograms on one time axis, which are also buttons of the player: rows of key, label, detail and sound. */
function plot(result, player, rows, ...scale) {
  const cells = rows.map(([key, title, detail, number]) => {
    const group = () => groupOf(result, key === "mixture" && player.current ? Number(player.group[1].split(".")[0]) || 0 : number);
    const play = () => { player.select(key, group()); if (!player.playing) player.play(); };
    const track = el("button", { class: "track", "aria-pressed": "false", on: { click: play } }, el("b", {}, title), el("small", {}, detail));
    const cursor = el("div", { class: "cursor" });
    const strip = el("div", { class: "strip", on: { click: (event) => player.playFrom(event, result.seconds, play) } }, el("img", { src: `/files/${result.job}/${key}.png`, alt: `Spectrogram: ${title.toLowerCase()}, ${detail}`, draggable: "false" }), cursor);
    player.listeners.push(() => {
      cursor.style.transform = `translateX(${100 * player.time / result.seconds}%)`;
      track.setAttribute("aria-pressed", String(player.current === key));
      strip.classList.toggle("on", player.current === key);
    });
    return [track, frequencyAxis(result.view.ticks), strip];
  });
  return el("div", { class: "plot" }, ...cells.shift(), ...scale, ...cells.flat(),
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
