// The page: a recording, queries, a button; then results.
import { asFile, call, forget, stop, upload } from "./api.js";
import { Chips } from "./chips.js";
import { $, clock, duration, el } from "./dom.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { showResults } from "./results.js";

const facts = JSON.parse($("facts").textContent);
const player = new Player();
const chips = new Chips(facts.sounds[facts.models[0].name], facts.limits, () => refresh());
const recorder = new Recorder();
const tokens = new Set();
let recording = null;  // {path, name}
let job = null;        // token of what is being worked on
const placeholder = $("result-body").firstElementChild;
let heard = null;      // the chosen file's address inside this browser
let busy = false, result = null, recordingNow = false, round = 0, hearings = 0;

player.fail = (track) => say(track.own ? "This browser cannot play this file, but it can be separated." : "This browser could not play the file. It may have been removed; downloads may still work.", !track.own);

function say(text, bad = false) {
  $("status-text").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function refresh() {
  $("separate").disabled = busy || !recording;
  $("cancel").disabled = !busy;
  $("setup").classList.toggle("busy", Boolean(busy));
  for (const button of $("heard-list").children) button.disabled = chips.values.includes(button.dataset.sound);
}

/** The folder that a path of the server lies in. */
const tokenOf = (path) => path.split(/[\\/]/).at(-2);

async function take(file) {
  if (busy) return;
  const mine = ++round;
  if (file.size > facts.limits.megabytes * 1e6) return say(facts.too_large, true);
  if (!file.size) return say("This file is empty.", true);
  drop();
  showFile(file.name, "uploading …");
  say("Uploading …");
  try {
    const path = await upload(file, (share) => { $("upload-bar").style.transform = `scaleX(${share})`; });
    tokens.add(tokenOf(path));
    if (mine !== round) return forget([tokenOf(path)]);
    const found = await call("inspect", [asFile(path)]);
    if (mine !== round) return;
    recording = { path, name: file.name };
    const channels = { 1: "mono", 2: "stereo" }[found.channels] ?? `${found.channels} channels`;
    const length = found.seconds === null ? "" : `${found.seconds < 60 ? `${found.seconds.toFixed(1)} s` : `${clock(found.seconds, 0)} min`}, `;
    $("recording-facts").textContent = `${length}${(found.sample_rate / 1000).toFixed(1).replace(".0", "")} kHz, ${channels}`;
    listen(file, found.seconds);
    say(chips.values.length ? "Ready." : "Now say what to take out.");
    hear();
  } catch (error) {
    if (mine !== round) return;
    drop();
    say(error.message, true);
  } finally {
    $("upload-bar").style.transform = "scaleX(0)";
    refresh();
  }
}

/** Before anything is separated, the player plays the file itself. */
function listen(file, seconds) {
  clearResult();
  if (heard) URL.revokeObjectURL(heard);
  heard = URL.createObjectURL(file);
  player.listeners = [];
  player.load([{ key: "mixture", url: heard, label: "Recording", own: true }], seconds ?? 0);
  if (!seconds) player.audio("mixture").addEventListener("loadedmetadata", (event) => player.load([{ key: "mixture", url: heard, label: "Recording", own: true }], event.target.duration));
  player.select("mixture", ["mixture"]);
}

/** Sounds that may be in the recording, as buttons; asked for in the background. */
async function hear() {
  const mine = ++hearings, path = recording.path;
  suggest("Listening for sounds that the model knows …");
  const found = await call("listen", [asFile(path), $("model").value]).catch(() => null);
  if (mine !== hearings || recording?.path !== path) return;
  if (!found) return suggest("");
  const part = found.seconds >= 60 * facts.limits.hear_minutes ? ` in the first ${duration(found.seconds)}` : "";
  const names = found.sounds.map(({ label }) => label);
  suggest(names.length ? `May be heard${part}:` : found.seconds ? `Nothing that the model knows stands out${part}.` : "", found.sounds);
}

function suggest(text, sounds = []) {
  chips.heard = sounds.map(({ label }) => label);
  $("heard-label").textContent = text;
  $("heard-list").replaceChildren(...sounds.map(({ label, probability }) => el("button", {
    type: "button", class: "button quiet small", "data-sound": label, "aria-label": `Add ${label}`, title: `${Math.round(100 * probability)} %`,
    on: { click: () => chips.add([label]) },
  }, `+ ${label}`)));
  refresh();
}

/** An example clip or a picture as a query. */
async function addFile(file, form) {
  if (file.size > facts.limits.megabytes * 1e6) return say(facts.too_large, true);
  if (!file.size) return say("This file is empty.", true);
  say("Uploading …");
  try {
    const path = await upload(file, () => {});
    tokens.add(tokenOf(path));
    if (form === "audio") await call("inspect", [asFile(path)]);
    chips.add([{ form, path, name: `like ${file.name.replace(/\.[^.]*$/, "")}` }]);
    say(recording ? "Ready." : "Now choose a recording.");
  } catch (error) {
    say(error.message, true);
  }
}

const asQuery = (value) => (value.form ? { [value.form]: asFile(value.path), name: value.name } : value);

function clearResult() {
  if (!result) return;
  tokens.delete(result.job);
  forget([result.job]);
  result = null;
  $("result-body").replaceChildren(placeholder);
}

function showFile(name, detail) {
  $("recording-name").textContent = name;
  $("recording-name").title = name;
  $("recording-facts").textContent = detail;
  $("drop-empty").hidden = true; $("drop-full").hidden = false;
  $("drop").classList.add("full");
}

function drop() {
  if (recording) { const token = tokenOf(recording.path); tokens.delete(token); forget([token]); }
  recording = null;
  suggest("Sounds that are heard in the recording are suggested here.");
  $("drop-empty").hidden = false; $("drop-full").hidden = true;
  $("drop").classList.remove("full");
  $("file").value = "";
  refresh();
}

async function takeExample(number) {
  if (busy) return;
  const { title, queries } = facts.examples[number];
  chips.set(queries);
  const answer = await fetch(`/page/example/${number}`).catch(() => null);
  if (!answer?.ok) return say("The example could not be loaded.", true);
  await take(new File([await answer.blob()], `${title}.wav`, { type: "audio/wav" }));
}

async function separate() {
  chips.commit();
  if (!recording) return say("Choose a recording first.", true);
  if (!chips.values.length) { say("Say what to take out, for example: dog barking.", true); return $("query").focus(); }
  busy = true; job = null;
  refresh();
  say("Starting …");
  $("progress").removeAttribute("value");
  try {
    const answer = await call("separate", [asFile(recording.path), chips.values.map(asQuery), $("model").value, $("without").value], progress);
    if (answer?.state !== "done") throw new Error("Cancelled.");
    clearResult();
    result = answer;
    tokens.add(answer.job);
    showResults(answer, player);
    say(`Done in ${duration(Math.max(1, answer.work_seconds))}.`);
  } catch (error) {
    say(error.message, error.message !== "Cancelled.");
  } finally {
    busy = false; job = null;
    refresh();
  }
}

function progress(update) {
  if (update.state === "done") return;
  if (job === null && update.job) { job = update.job; if (busy === "stopping") stop(job); }
  if (busy === "stopping") return;
  if (update.state === "waiting") {
    say(`Waiting: ${update.ahead} ${update.ahead === 1 ? "recording is" : "recordings are"} before yours.`);
    return $("progress").removeAttribute("value");
  }
  const stage = { reading: "Reading the recording", separating: "Separating", finishing: "Drawing" }[update.stage];
  const left = update.left > 1 ? `, about ${duration(update.left)} left` : "";
  if (update.stage === "separating") {
    $("progress").value = update.fraction;
    say(`${stage}: ${Math.round(100 * update.fraction)} %${left}`);
  } else say(`${stage} …`);
}

function cancel() {
  if (!busy) return;
  busy = "stopping";
  say("Stopping …");
  if (job) stop(job);
}

async function toggleRecording() {
  const label = $("record").lastElementChild;
  if (!recordingNow) {
    try {
      await recorder.start();
    } catch {
      return say("The microphone cannot be used: it is missing, or the browser was not allowed to.", true);
    }
    recordingNow = true;
    $("record").classList.add("recording");
    label.textContent = "Stop";
    return say("Recording … press Stop when it is enough.");
  }
  recordingNow = false;
  $("record").classList.remove("recording");
  label.textContent = "Record";
  try { await take(await recorder.stop()); } catch { say("Nothing was recorded.", true); }
}

function showModel() {
  const model = facts.models.find(({ name }) => name === $("model").value);
  chips.sounds = facts.sounds[model.name];
  for (const form of ["audio", "image"]) $(`add-${form}`).hidden = !model.queries.includes(form);
  $("model-facts").textContent = [model.size, model.licence, `takes ${model.queries.join(", ")}`, model.description].filter(Boolean).join(" · ");
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button, a, textarea")) return;
  if (event.key === " " && player.current) { event.preventDefault(); player.toggle(); }
  const key = player.group["123".indexOf(event.key)];
  if (event.key >= "1" && event.key <= "3" && key) player.select(key);
}

/** All limits in words; the first ones also stand where a file is dropped. */
function tellLimits({ minutes, megabytes, channels, rates, sounds, letters, example_minutes: example, hear_minutes: hear, active, waiting, keep_minutes: keep }) {
  const length = `${minutes} ${minutes === 1 ? "minute" : "minutes"}`;
  $("limits").textContent = `Up to ${length} and ${megabytes} MB. wav, flac, mp3, ogg, opus, aiff and more.`;
  $("limit-list").append(...[
    `Recordings: up to ${length}, ${megabytes} MB, ${channels} channels, ${rates[0] / 1000} to ${rates[1] / 1000} kHz.`,
    `Sounds: up to ${sounds} at once, each up to ${letters} letters.`,
    `Example clips: up to ${duration(60 * example)}.`,
    `Suggestions: from the first ${duration(60 * hear)}.`,
    `${active} recordings are worked on at once, ${waiting} more wait; files go after ${duration(60 * keep)} without use.`,
  ].map((text) => el("li", {}, text)));
}

/** Models of the registry that are not on this computer: in the list, but not to be chosen, and how to get them below. */
function tellAbsent(models) {
  $("absent").hidden = !models.length;
  if (!models.length) return;
  $("model").append(el("optgroup", { label: "Not on this computer" }, ...models.map(({ name }) => el("option", { disabled: true }, name))));
  $("absent").firstElementChild.textContent = models.length === 1 ? "1 more model, not on this computer" : `${models.length} more models, not on this computer`;
  $("absent-list").append(...models.map(({ name, size, licence, description, home, command }) => el("li", {},
    el("strong", {}, name), ` · ${[size === "unknown" ? "" : size, licence, description].filter(Boolean).join(" · ")}. `,
    home ? `From ${home}, then ` : "Fetched by ", el("code", {}, command))));
}

tellLimits(facts.limits);
$("model").append(...facts.models.map(({ name }) => el("option", { value: name }, name)));
tellAbsent(facts.absent);
$("examples").append(...facts.examples.map(({ title }, number) => el("button", { type: "button", class: "button quiet small", on: { click: () => takeExample(number) } }, title)));
$("model").addEventListener("change", () => { showModel(); if (recording) hear(); });
for (const form of ["audio", "image"]) $(`add-${form}`).addEventListener("click", () => {
  $("form-file").accept = `${form}/*`;
  $("form-file").dataset.form = form;
  $("form-file").value = "";
  $("form-file").click();
});
$("form-file").addEventListener("change", (event) => event.target.files[0] && addFile(event.target.files[0], event.target.dataset.form));
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => $("file").files[0] && take($("file").files[0]));
$("remove").addEventListener("click", () => { if (!busy) { round++; drop(); say("Choose a recording and say what to take out."); $("choose").focus(); } });
$("record").addEventListener("click", toggleRecording);
$("separate").addEventListener("click", separate);
$("cancel").addEventListener("click", cancel);
addEventListener("keydown", keys);
for (const event of ["dragover", "dragleave", "drop"]) addEventListener(event, (happening) => {
  if (!happening.dataTransfer?.types.includes("Files")) return;
  happening.preventDefault();
  $("drop").classList.toggle("over", event === "dragover");
  if (event === "drop" && happening.dataTransfer.files[0]) take(happening.dataTransfer.files[0]);
});
addEventListener("pagehide", () => {
  if (job) navigator.sendBeacon(`/stop/${job}`);
  forget([...tokens]);
});
addEventListener("pageshow", (event) => event.persisted && location.reload());
showModel();
drop();
document.body.classList.remove("loading");
