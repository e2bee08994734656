// One player for all tracks. They share one position, so that switching compares the same moment.
import { $, clock, el } from "./dom.js";

const PLAY = "M8 5v14l11-7z", PAUSE = "M7 5h4v14H7zM13 5h4v14h-4z";
const ARROWS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export class Player {
  constructor() {
    this.tracks = new Map();
    this.clear();
    $("play").addEventListener("click", () => this.toggle());
    $("position").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    $("switch").addEventListener("keydown", (event) => {
      if (!ARROWS[event.key] || !this.group.length) return;
      event.preventDefault();
      const count = this.group.length;
      this.select(this.group[(this.group.indexOf(this.current) + ARROWS[event.key] + count) % count]);
    });
    const frame = () => { if (this.playing) this.update(); requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
  }

  clear() {
    for (const { audio } of this.tracks.values()) { audio?.pause(); audio?.removeAttribute("src"); }
    this.tracks = new Map(); this.group = []; this.current = null; this.listeners = [];
    this.seconds = 0; this.time = 0; this.playing = false;
  }

  /** Replace all tracks: [{key, url, label}]. */
  load(tracks, seconds) {
    this.clear();
    document.body.classList.add("has-player");
    for (const track of tracks) this.tracks.set(track.key, track);
    for (const id of ["play", "position"]) $(id).disabled = false;
    this.setLength(seconds);
  }

  setLength(seconds) {
    this.seconds = seconds;
    $("position").max = seconds;
    $("position").step = Math.max(0.01, seconds / 2000);
    this.update();
  }

  /** Replace the track of the same key; playing goes on at the same position. */
  replace(track) {
    const old = this.tracks.get(track.key);
    this.tracks.set(track.key, track);
    if (this.current === track.key) { this.current = null; this.select(track.key, this.group, old?.audio); }
  }

  audio(key) {
    const track = this.tracks.get(key);
    if (!track.audio) {
      track.audio = new Audio(track.url);
      track.audio.preload = "auto";
      track.audio.addEventListener("ended", () => {
        if (this.current !== key) return;
        this.pause();
        this.time = this.seconds;
        this.update();
      });
      track.audio.addEventListener("error", () => track.audio.error && this.onError?.(track));
    }
    return track.audio;
  }

  /** Make `key` the audible track; `group` are the keys to switch between. */
  select(key, group = this.group, from = this.current ? this.audio(this.current) : null) {
    const next = this.audio(key);
    if (from === next && group === this.group) return;
    this.group = group; this.current = key;
    for (const other of group) this.audio(other);  // loaded before they are selected
    if (from !== next) {
      this.time = from && this.playing ? from.currentTime : this.time;
      next.currentTime = this.time;
      if (this.playing) {
        // The old track is audible until the new one plays, and the new one then catches up.
        next.play().then(() => {
          if (from && !from.paused && Math.abs(from.currentTime - next.currentTime) > 0.03) next.currentTime = from.currentTime;
          from?.pause();
        }).catch(() => this.pause());
      }
    }
    this.draw(); this.update();
  }

  toggle() { return this.playing ? this.pause() : this.play(); }

  play() {
    if (!this.current) return;
    if (this.time >= this.seconds - 0.02) this.seek(0);
    this.playing = true;
    const audio = this.audio(this.current);
    audio.currentTime = this.time;
    audio.play().catch(() => this.pause());
    this.draw();
  }

  pause() {
    if (this.current) this.time = this.audio(this.current).currentTime;
    for (const track of this.tracks.values()) track.audio?.pause();
    this.playing = false;
    this.draw(); this.update();
  }

  seek(time) {
    this.time = Math.min(Math.max(0, time), this.seconds);
    if (this.current) this.audio(this.current).currentTime = this.time;
    this.update();
  }

  /** Play from the place of a click on an element that stands for `seconds` from the start. */
  playFrom({ currentTarget, clientX }, seconds, play = () => this.play()) {
    const { left, width } = currentTarget.getBoundingClientRect();
    this.seek((clientX - left) / width * seconds);
    play();
  }

  /** Show the position, here and in all listeners. */
  update() {
    if (this.playing && this.current) this.time = this.audio(this.current).currentTime;
    $("position").value = this.time;
    $("position").setAttribute("aria-valuetext", `${clock(this.time)} of ${clock(this.seconds)}`);
    $("clock").textContent = `${clock(this.time)} / ${clock(this.seconds)}`;
    for (const listener of this.listeners) listener(this);
  }

  /** Show the buttons. */
  draw() {
    $("play-shape").setAttribute("d", this.playing ? PAUSE : PLAY);
    $("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    $("play").setAttribute("aria-pressed", String(this.playing));
    const focused = $("switch").contains(document.activeElement);
    $("switch").replaceChildren(...this.group.map((key) => el("button", {
      role: "radio", "aria-checked": String(key === this.current), title: this.tracks.get(key).label,
      "data-key": key, tabindex: key === this.current ? "0" : "-1", on: { click: () => this.select(key) },
    }, this.tracks.get(key).label)));
    if (focused) $("switch").querySelector("[aria-checked=true]")?.focus();
  }
}
