// The field for queries: words become chips at a comma or Enter; known sounds are suggested while typing.
// A value is a text, or {form, path, name} of an example clip or a picture.
import { $, el } from "./dom.js";

const nameOf = (value) => value.name ?? value;
const MARKS = { audio: "♪ ", image: "▣ " };
const SEPARATOR = /[,;\n]/;
const MOST_OPTIONS = 40;

export class Chips {
  constructor(limits, onChange) {
    this.sounds = []; this.detected = [];  // suggestions: for what is typed, and before anything is typed
    this.values = []; this.options = []; this.active = -1; this.onChange = onChange;
    this.input = $("query"); this.list = $("options");
    this.input.maxLength = limits.letters * limits.sounds;
    this.input.addEventListener("input", () => this.onInput());
    this.input.addEventListener("keydown", (event) => this.onKey(event));
    this.input.addEventListener("focus", () => this.suggest());
    this.input.addEventListener("blur", () => { this.commit(); this.close(); });
    $("chips").addEventListener("mousedown", (event) => {
      if (event.target === $("chips")) { event.preventDefault(); this.input.focus(); }
    });
    for (const type of ["scroll", "resize"]) addEventListener(type, () => this.close(), { passive: true });
  }

  set(values) { this.values = []; this.add(values); }

  /** Add values; a text that is there already is not added again. */
  add(values) {
    for (const value of values) {
      const text = value.form ? null : value.trim().replace(/\s+/g, " ");
      const known = this.values.some((other) => !other.form && other.toLowerCase() === text?.toLowerCase());
      if (value.form || (text && !known)) this.values.push(text ?? value);
    }
    this.draw();
  }

  toggle(sound) {
    if (this.values.includes(sound)) this.remove(this.values.indexOf(sound), false);
    else this.add([sound]);
  }

  remove(index, focus = true) { this.values.splice(index, 1); this.draw(); if (focus) this.input.focus(); }

  /** Make the text in the field a chip. */
  commit() {
    const text = this.input.value;
    this.input.value = "";
    if (text.trim()) this.add(text.split(SEPARATOR));
  }

  onInput() {
    const parts = this.input.value.split(SEPARATOR), rest = parts.pop();
    if (parts.length) {
      this.add(parts);
      this.input.value = rest.trimStart();
    }
    this.suggest();
    this.onChange();
  }

  onKey(event) {
    const { key } = event, open = !this.list.hidden, count = this.options.length;
    if (key === "Enter") {
      event.preventDefault();
      if (open && this.active >= 0) this.choose(this.options[this.active]);
      else { this.commit(); this.suggest(); }
    } else if (key === "Backspace" && !this.input.value && this.values.length) this.remove(this.values.length - 1);
    else if (key === "Escape" && open) { event.stopPropagation(); this.close(); }
    else if (key === "ArrowDown" || key === "ArrowUp") {
      event.preventDefault();
      if (!open) this.suggest();
      else if (count) this.mark((this.active + (key === "ArrowDown" ? 1 : this.active < 0 ? 0 : -1) + count) % count);
    }
  }

  /** Show known sounds that begin with what was typed, then those that contain it; at first, those detected. */
  suggest() {
    const typed = this.input.value.trim().toLowerCase();
    const found = typed ? this.sounds.filter((sound) => sound.includes(typed)) : this.detected;
    this.options = found.filter((sound) => !this.values.includes(sound))
      .sort((one, other) => other.startsWith(typed) - one.startsWith(typed)).slice(0, MOST_OPTIONS);
    this.active = -1;
    this.list.replaceChildren(...this.options.map((sound, index) => el("li", {
      role: "option", id: `option-${index}`, "aria-selected": "false",
      on: { mousedown: (event) => { event.preventDefault(); this.choose(sound); } },
    }, sound)));
    const { left, bottom, width } = $("chips").getBoundingClientRect();
    Object.assign(this.list.style, { left: `${left}px`, top: `${bottom + 4}px`, width: `${width}px` });
    this.open(this.options.length > 0);
  }

  open(shown) {
    this.list.hidden = !shown;
    this.input.setAttribute("aria-expanded", String(shown));
    this.input.removeAttribute("aria-activedescendant");
  }

  close() { this.active = -1; this.open(false); }

  mark(index) {
    this.active = index;
    [...this.list.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    this.list.children[index].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", `option-${index}`);
  }

  choose(sound) { this.input.value = ""; this.add([sound]); this.suggest(); }

  draw() {
    $("chip-list").replaceChildren(...this.values.map((value, index) => el("li", { class: "chip" },
      el("span", { title: nameOf(value) }, (MARKS[value.form] ?? "") + nameOf(value)),
      el("button", { "aria-label": `Remove ${nameOf(value)}`, on: { click: () => this.remove(index) } }, "×"))));
    this.input.placeholder = this.values.length ? "" : "dog barking";
    $("chips").scrollTop = $("chips").scrollHeight;
    this.onChange();
  }
}
