// One player for everything: tracks share the position, so switching compares the same moment.
import { $, clock, el } from "./dom.js";

const PLAY = "M8 5v14l11-7z", PAUSE = "M7 5h4v14H7zM13 5h4v14h-4z";

export class Player {
  constructor() {
    this.listeners = []; this.clear();
    $("play").addEventListener("click", () => this.toggle());
    $("position").addEventListener("input", (event) => this.seek(Number(event.target.value)));
    $("switch").addEventListener("keydown", (event) => this.arrows(event));
    const frame = () => { if (this.playing) this.tell(); requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
  }

  /** Forgets all tracks. */
  clear() {
    for (const track of this.tracks?.values() ?? []) { track.audio?.pause(); track.audio?.removeAttribute("src"); }
    this.tracks = new Map(); this.group = []; this.current = null; this.seconds = 0; this.time = 0; this.playing = false;
  }

  /** New tracks: [{key, url, label}]. */
  load(tracks, seconds) {
    this.clear();
    this.seconds = seconds;
    document.body.classList.add("has-player");
    for (const track of tracks) this.tracks.set(track.key, track);
    for (const id of ["play", "position"]) $(id).disabled = false;
    $("position").max = seconds;
    $("position").step = Math.max(0.01, seconds / 2000);
  }

  /** Puts a track in place of the one of the same key, going on where that one is. */
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
      track.audio.addEventListener("ended", () => this.current === key && this.ended());
      track.audio.addEventListener("error", () => track.audio.error && this.fail?.(track));
    }
    return track.audio;
  }

  /** Hears `key`; `group` are the keys to switch between. */
  select(key, group = this.group, from = this.current ? this.audio(this.current) : null) {
    const next = this.audio(key);
    if (from === next && group === this.group) return;
    this.group = group; this.current = key;
    for (const other of group) this.audio(other);  // loaded before they are switched to
    if (from !== next) {
      const time = from && this.playing ? from.currentTime : this.time;
      next.currentTime = time;
      this.time = time;
      if (this.playing) {
        // The old one sounds until the new one does, and the new one then catches up.
        next.play().then(() => {
          if (from && !from.paused && Math.abs(from.currentTime - next.currentTime) > 0.03) next.currentTime = from.currentTime;
          from?.pause();
        }).catch(() => this.pause());
      }
    }
    this.draw(); this.tell();
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
    if (this.current) { const audio = this.audio(this.current); this.time = audio.currentTime; }
    for (const track of this.tracks.values()) track.audio?.pause();
    this.playing = false;
    this.draw(); this.tell();
  }

  ended() { this.pause(); this.time = this.seconds; this.tell(); }

  seek(time) {
    this.time = Math.min(Math.max(0, time), this.seconds);
    if (this.current) this.audio(this.current).currentTime = this.time;
    this.tell();
  }

  tell() {
    if (this.playing && this.current) this.time = this.audio(this.current).currentTime;
    $("position").value = this.time;
    $("position").setAttribute("aria-valuetext", `${clock(this.time)} of ${clock(this.seconds)}`);
    $("clock").textContent = `${clock(this.time)} / ${clock(this.seconds)}`;
    for (const listener of this.listeners) listener(this);
  }

  draw() {
    $("play-shape").setAttribute("d", this.playing ? PAUSE : PLAY);
    $("play").setAttribute("aria-label", this.playing ? "Pause" : "Play");
    $("play").setAttribute("aria-pressed", String(this.playing));
    const focused = $("switch").contains(document.activeElement);
    $("switch").replaceChildren(...this.group.map((key) => el("button", {
      type: "button", role: "radio", "aria-checked": String(key === this.current), title: this.tracks.get(key).label,
      "data-key": key, tabindex: key === this.current ? "0" : "-1", on: { click: () => this.select(key) },
    }, this.tracks.get(key).label)));
    if (focused) $("switch").querySelector("[aria-checked=true]")?.focus();
  }

  arrows(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !this.group.length) return;
    event.preventDefault();
    const count = this.group.length;
    this.select(this.group[(this.group.indexOf(this.current) + step + count) % count]);
  }
}
