// The page: a recording, queries, a button; then results.
import { asFile, call, forget, stop, upload } from "./api.js";
import { Chips } from "./chips.js";
import { $, clock, duration, el, length } from "./dom.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { showResults } from "./results.js";

const facts = JSON.parse($("facts").textContent);
const player = new Player();
const chips = new Chips(facts.limits, () => refresh());
const recorder = new Recorder();
const placeholder = $("result-body").firstElementChild;
const tokens = new Set();  // folders on the server that belong to this page
let recording = null;      // {path, name}
let recordingUrl = null;   // address of the chosen file inside this browser
let result = null;
let job = null;            // token of the running job
let busy = false, stopping = false, uploads = 0, listings = 0;

const setStatus = (text) => { $("status-text").textContent = text; };

/** Show an error in view, beside its cause ("recording", "query", "span" or "go"); without arguments, none anywhere. */
function showError(place, text = "") {
  for (const error of document.querySelectorAll(".error")) error.textContent = error.id === `${place}-error` ? text : "";
  for (const [id, of] of [["query", "query"], ["start", "span"], ["end", "span"]]) $(id).setAttribute("aria-invalid", String(Boolean(text) && place === of));
  if (!text) return;
  setStatus("");
  if (place === "span") $("more").open = true;
  $({ recording: recording ? "change" : "choose", query: "query", span: "start" }[place])?.focus();
  $(`${place}-error`).scrollIntoView({ block: "nearest" });
}

function refresh() {
  $("actions").hidden = busy;
  $("cancel").hidden = !busy;
  $("setup").classList.toggle("busy", busy);
  for (const button of $("detected-list").querySelectorAll("button")) button.setAttribute("aria-pressed", String(chips.values.includes(button.dataset.sound)));
}

// The recording

/** The folder in which a path of the server lies. */
const tokenOf = (path) => path.split(/[\\/]/).at(-2);

/** Whether the size of a file is within the limits; otherwise `place` says why not. */
function checkSize(file, place) {
  const problem = file.size > facts.limits.megabytes * 1e6 ? facts.too_large : file.size ? "" : "This file is empty.";
  showError(place, problem);
  if (!problem) setStatus("Uploading …");
  return !problem;
}

async function sendFile(file, onProgress = () => {}) {
  const path = await upload(file, onProgress);
  tokens.add(tokenOf(path));
  return path;
}

function discard(token) {
  tokens.delete(token);
  forget([token]);
}

async function useRecording(file) {
  if (busy || !checkSize(file, "recording")) return;
  const current = ++uploads;
  removeRecording();
  showRecording(file.name, "uploading …");
  try {
    const path = await sendFile(file, (share) => { $("upload-bar").style.transform = `scaleX(${share})`; });
    if (current !== uploads) return discard(tokenOf(path));
    const info = await call("inspect", [asFile(path)]);
    if (current !== uploads) return;
    recording = { path, name: file.name };
    const details = [...(info.video ? ["sound of a video"] : []), `${(info.sample_rate / 1000).toFixed(1).replace(".0", "")} kHz`, { 1: "mono", 2: "stereo" }[info.channels] ?? `${info.channels} channels`];
    showRecording(file.name, [...(info.seconds === null ? [] : [length(info.seconds)]), ...details].join(", "));
    playUpload(file, info.seconds);
    setStatus(chips.values.length ? "Ready." : "Now name the sounds.");
    listSounds();
  } catch (error) {
    if (current !== uploads) return;
    removeRecording();
    showError("recording", error.message);
  } finally {
    $("upload-bar").style.transform = "scaleX(0)";
    refresh();
  }
}

async function useExample({ title, queries }, number) {
  if (busy) return;
  chips.set(queries);
  const answer = await fetch(`/page/example/${number}`).catch(() => null);
  if (!answer?.ok) return showError("recording", "The example could not be loaded.");
  await useRecording(new File([await answer.blob()], `${title}.wav`, { type: "audio/wav" }));
}

async function toggleMicrophone() {
  const begin = !recorder.active;
  try {
    if (begin) await recorder.start();
    $("record").classList.toggle("recording", begin);
    $("record").lastElementChild.textContent = begin ? "Stop" : "Record";
    showError();
    if (begin) setStatus("Recording … press Stop at the end.");
    else await useRecording(await recorder.stop());
  } catch {
    showError("recording", begin ? "The microphone cannot be used: it is missing, or the browser does not allow it." : "Nothing was recorded.");
  }
}

/** Show name and details of the recording; without a name, the ways to choose one. */
function showRecording(name = "", details = "") {
  $("recording-name").textContent = $("recording-name").title = name;
  $("recording-facts").textContent = details;
  for (const id of ["drop-empty", "before"]) $(id).hidden = Boolean(name);
  for (const id of ["drop-full", "detected"]) $(id).hidden = !name;
  $("drop").classList.toggle("full", Boolean(name));
}

function removeRecording() {
  if (recording) discard(tokenOf(recording.path));
  recording = null;
  suggest("");
  showRecording();
  $("file").value = "";
  refresh();
}

/** Before anything is separated, the player plays the file itself. */
function playUpload(file, seconds) {
  clearResult();
  if (recordingUrl) URL.revokeObjectURL(recordingUrl);
  recordingUrl = URL.createObjectURL(file);
  player.load([{ key: "mixture", url: recordingUrl, label: "Recording", own: true }], seconds ?? 0);
  if (!seconds) player.audio("mixture").addEventListener("loadedmetadata", ({ target }) => player.setLength(target.duration));
  player.select("mixture", ["mixture"]);
}

// Queries

/** List known sounds in the recording, in the background. */
async function listSounds() {
  const current = ++listings, { path, name } = recording;
  suggest("What sounds here? Listening …");
  const found = await call("listen", [asFile(path, name), $("model").value]).catch(() => null);
  if (current !== listings || recording?.path !== path) return;
  if (!found?.seconds) return suggest("");
  const part = found.seconds >= 60 * facts.limits.listed_minutes ? ` in the first ${duration(found.seconds)}` : "";
  suggest(found.sounds.length ? `What sounds here${part}? Choose what to keep or remove:` : `No sound that the model knows stands out${part}.`, found);
}

/** Show listed sounds: each is a button that makes it a query, with its spans on a timeline. */
function suggest(text, { sounds = [], seconds = 0 } = {}) {
  chips.detected = sounds.map(({ label }) => label);
  $("detected-label").textContent = text;
  $("detected-list").replaceChildren(...sounds.map(({ label, probability, times }) => {
    const spans = times.map(([from, to]) => {
      const span = el("span", {});
      Object.assign(span.style, { left: `${100 * from / seconds}%`, width: `${100 * (to - from) / seconds}%` });
      return span;
    });
    const line = el("div", { class: "timeline", "aria-hidden": "true", on: { click: (event) => player.playFrom(event, seconds) } }, ...spans);
    return el("li", {},
      el("button", { class: "button quiet small", "data-sound": label, title: `${label}: ${Math.round(100 * probability)} %`, "aria-label": label, on: { click: () => chips.toggle(label) } }, label),
      line, el("span", { class: "unseen" }, `at ${times.map(([from, to]) => `${clock(from)} to ${clock(to)}`).join(", ")}`));
  }), ...(sounds.length ? [el("li", { class: "hint ends", "aria-hidden": "true" }, el("span", {}, "0:00"), el("span", {}, clock(seconds, 0)))] : []));
  refresh();
}

/** Use an example clip or a picture as a query. */
async function addFile(file, form) {
  if (!checkSize(file, "query")) return;
  try {
    const path = await sendFile(file);
    if (form === "audio") await call("inspect", [asFile(path)]);
    chips.add([{ form, path, name: file.name.replace(/\.[^.]*$/, "") }]);
    setStatus(recording ? "Ready." : "Now choose a recording.");
  } catch (error) {
    showError("query", error.message);
  }
}

function showModel() {
  const model = facts.models.find(({ name }) => name === $("model").value);
  chips.sounds = facts.sounds[model.name];
  for (const form of ["audio", "image"]) $(`add-${form}`).hidden = !model.queries.includes(form);
  $("model-facts").textContent = [model.size, model.licence, `takes ${model.queries.join(", ")}`, model.description].filter(Boolean).join(" · ");
}

// The separation

/** Extract the sounds, or remove them all. */
async function separate(remove) {
  chips.commit();
  showError();
  if (!recording) return showError("recording", "Choose a recording first.");
  if (!chips.values.length) return showError("query", "Name a sound first, for example: dog barking.");
  busy = true;
  const focused = document.activeElement.closest("#actions");
  refresh();
  if (focused) $("cancel").focus();
  setStatus("Starting …");
  $("progress").removeAttribute("value");
  let problem = null, place = "go";
  try {
    const queries = chips.values.map((value) => (value.form ? { [value.form]: asFile(value.path), name: value.name } : value));
    const answer = await call("separate", [asFile(recording.path, recording.name), queries, ...["model", "without"].map((id) => $(id).value), remove, $("start").value, $("end").value], showProgress);
    if (answer?.state !== "done") throw new Error("Cancelled.");
    clearResult();
    result = answer;
    tokens.add(answer.job);
    showResults(answer, player, (sound) => chips.add([sound]));
    setStatus(`Done in ${duration(Math.max(1, answer.work_seconds))}.`);
  } catch (error) {
    problem = error.message;
    if (/is not a time|A span must/.test(problem)) place = "span";
  }
  const waited = [$("cancel"), document.body].includes(document.activeElement);
  busy = stopping = false;
  job = null;
  refresh();
  if (problem === "Cancelled.") setStatus(problem);
  if (waited) $(problem ? (remove ? "remove" : "separate") : "results").focus({ preventScroll: true });
  if (problem && problem !== "Cancelled.") showError(place, problem);
  else if (!problem && $("results").getBoundingClientRect().top > 0.6 * innerHeight) $("results").scrollIntoView();
}

function showProgress(update) {
  if (update.state === "done") return;
  if (stopping && !job) stop(update.job);
  job = update.job;
  if (stopping) return;
  const left = update.left > 1 ? `, about ${duration(update.left)} left` : "";
  const working = { reading: "Reading the recording …", separating: `Separating: ${Math.round(100 * update.fraction)} %${left}`, listening: "Listening for other sounds …", finishing: "Drawing …" };
  const waiting = `Waiting: ${update.ahead} ${update.ahead === 1 ? "recording is" : "recordings are"} before yours.`;
  setStatus(update.state === "waiting" ? waiting : working[update.stage]);
  if (update.state === "waiting") $("progress").removeAttribute("value");
  else if (update.stage === "separating") $("progress").value = update.fraction;
}

function cancel() {
  stopping = true;
  setStatus("Stopping …");
  if (job) stop(job);
}

function clearResult() {
  if (!result) return;
  discard(result.job);
  result = null;
  $("result-body").replaceChildren(placeholder);
}

// What is shown once

/** All limits in words; the first ones are also shown where a file is dropped. */
function showLimits({ minutes, megabytes, channels, rates, sounds, letters, example_minutes: example, listed_minutes: listed, active, waiting, keep_minutes: keep }) {
  const longest = `${minutes} ${minutes === 1 ? "minute" : "minutes"}`;
  $("limits").textContent = `Up to ${longest} and ${megabytes} MB. wav, mp3, m4a, flac, ogg and more; of a video, its sound.`;
  $("limit-list").append(...[
    `Recordings: up to ${longest}, ${megabytes} MB, ${channels} channels, ${rates[0] / 1000} to ${rates[1] / 1000} kHz.`,
    `Sounds: up to ${sounds} at once, each up to ${letters} letters.`,
    `Example clips: up to ${duration(60 * example)}.`,
    `Suggestions: from the first ${duration(60 * listed)}.`,
    `${active} recordings are processed at once, ${waiting} more wait; files are removed after ${duration(60 * keep)} without use.`,
  ].map((text) => el("li", {}, text)));
}

/** Registered models that are not on this computer cannot be chosen; below the list stands how to get them. */
function showAbsentModels(models) {
  $("absent").hidden = !models.length;
  if (!models.length) return;
  $("model").append(el("optgroup", { label: "Not on this computer" }, ...models.map(({ name }) => el("option", { disabled: true }, name))));
  $("absent").firstElementChild.textContent = `${models.length} more ${models.length === 1 ? "model" : "models"}, not on this computer`;
  $("absent-list").append(...models.map(({ name, size, licence, description, home, command }) => el("li", {},
    el("strong", {}, name), ` · ${[size === "unknown" ? "" : size, licence, description].filter(Boolean).join(" · ")}. `,
    home ? `From ${home}, then ` : "Fetched by ", el("code", {}, command))));
}

showLimits(facts.limits);
$("model").append(...facts.models.map(({ name }) => el("option", { value: name }, name)));
showAbsentModels(facts.absent);
$("examples").append(...facts.examples.map((example, number) => el("button", { class: "button quiet small", on: { click: () => useExample(example, number) } }, example.title)));
showModel();
removeRecording();

player.onError = (track) => setStatus(track.own ? "This browser cannot play this file, but it can be separated." : "This browser could not play the file. It may have been removed; downloads may still work.");
$("model").addEventListener("change", () => { showModel(); if (recording) listSounds(); });
for (const form of ["audio", "image"]) $(`add-${form}`).addEventListener("click", () => {
  Object.assign($("form-file"), { accept: `${form}/*`, value: "", onchange: ({ target }) => target.files[0] && addFile(target.files[0], form) });
  $("form-file").click();
});
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", ({ target }) => target.files[0] && useRecording(target.files[0]));
$("change").addEventListener("click", () => {
  if (busy) return;
  uploads++;
  removeRecording();
  showError();
  setStatus("Choose a recording and name the sounds.");
  $("choose").focus();
});
$("record").addEventListener("click", toggleMicrophone);
$("separate").addEventListener("click", () => separate(false));
$("remove").addEventListener("click", () => separate(true));
$("cancel").addEventListener("click", cancel);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button, a, textarea")) return;
  if (event.key === " " && player.current) { event.preventDefault(); player.toggle(); }
  if (/^[1-3]$/.test(event.key) && player.group[event.key - 1]) player.select(player.group[event.key - 1]);
});
for (const type of ["dragover", "dragleave", "drop"]) addEventListener(type, (event) => {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  $("drop").classList.toggle("over", type === "dragover");
  if (type === "drop" && event.dataTransfer.files[0]) useRecording(event.dataTransfer.files[0]);
});
addEventListener("pagehide", () => {
  if (job) navigator.sendBeacon(`/stop/${job}`);
  forget([...tokens]);
});
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.body.classList.remove("loading");
