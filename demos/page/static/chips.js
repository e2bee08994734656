// The field for queries: words become chips at a comma or Enter; known sounds are suggested while typing.
// A value is a text, or {form, path, name} of an example clip or a picture.
import { $, el } from "./dom.js";

const nameOf = (value) => value.name ?? value;
const MARKS = { audio: "♪ ", image: "▣ " };

export class Chips {
  constructor(sounds, limits, onChange) {
    this.sounds = sounds; this.heard = []; this.limits = limits; this.onChange = onChange;
    this.values = []; this.active = -1; this.shown = [];
    this.input = $("query"); this.list = $("chip-list"); this.options = $("options");
    this.input.maxLength = limits.letters * limits.sounds;
    this.input.addEventListener("input", () => this.typed());
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("focus", () => this.suggest());
    this.input.addEventListener("blur", () => { this.commit(); this.close(); });
    $("chips").addEventListener("mousedown", (event) => {
      if (event.target === $("chips")) { event.preventDefault(); this.input.focus(); }
    });
    for (const event of ["scroll", "resize"]) addEventListener(event, () => this.close(), { passive: true });
  }

  set(values) { this.values = []; this.add(values); }

  add(values) {
    for (const value of values) {
      if (value.form) { this.values.push(value); continue; }
      const text = value.trim().replace(/\s+/g, " ");
      const known = this.values.some((other) => !other.form && other.toLowerCase() === text.toLowerCase());
      if (text && !known) this.values.push(text);
    }
    this.draw();
  }

  remove(index) { this.values.splice(index, 1); this.draw(); this.input.focus(); }

  /** Takes what is in the field as a query. */
  commit() {
    const text = this.input.value;
    this.input.value = "";
    if (text.trim()) this.add(text.split(/[,;\n]/));
  }

  typed() {
    if (/[,;\n]/.test(this.input.value)) {
      const parts = this.input.value.split(/[,;\n]/);
      const rest = parts.pop();
      this.add(parts);
      this.input.value = rest.trimStart();
    }
    this.suggest();
    this.onChange();
  }

  key(event) {
    const open = !this.options.hidden;
    if (event.key === "Enter") {
      event.preventDefault();
      if (open && this.active >= 0) this.choose(this.shown[this.active]);
      else { this.commit(); this.suggest(); }
    } else if (event.key === "Backspace" && !this.input.value && this.values.length) this.remove(this.values.length - 1);
    else if (event.key === "Escape" && open) { event.stopPropagation(); this.close(); }
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) this.suggest();
      const count = this.shown.length;
      if (count) this.mark((this.active + (event.key === "ArrowDown" ? 1 : this.active < 0 ? 0 : -1) + count) % count);
    }
  }

  /** Known sounds that begin with what was typed, then those that contain it; before anything is typed, those heard. */
  suggest() {
    const typed = this.input.value.trim().toLowerCase();
    const free = this.sounds.filter((sound) => !this.values.includes(sound));
    const starts = typed ? free.filter((sound) => sound.startsWith(typed)) : [];
    const holds = typed ? free.filter((sound) => sound.includes(typed) && !sound.startsWith(typed)) : [];
    const heard = typed ? [] : this.heard.filter((sound) => !this.values.includes(sound));
    this.shown = [...heard, ...starts, ...holds].slice(0, 40);
    this.active = -1;
    this.options.replaceChildren(...this.shown.map((sound, index) => el("li", {
      role: "option", id: `option-${index}`, "aria-selected": "false",
      on: { mousedown: (event) => { event.preventDefault(); this.choose(sound); } },
    }, sound)));
    const place = $("chips").getBoundingClientRect();
    Object.assign(this.options.style, { left: `${place.left}px`, top: `${place.bottom + 4}px`, width: `${place.width}px` });
    this.options.hidden = !this.shown.length;
    this.input.setAttribute("aria-expanded", String(!this.options.hidden));
    this.input.removeAttribute("aria-activedescendant");
  }

  mark(index) {
    this.active = index;
    [...this.options.children].forEach((option, at) => option.setAttribute("aria-selected", String(at === index)));
    this.options.children[index].scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", `option-${index}`);
  }

  choose(sound) { this.input.value = ""; this.add([sound]); this.suggest(); }

  close() { this.options.hidden = true; this.active = -1; this.input.setAttribute("aria-expanded", "false"); }

  draw() {
    this.list.replaceChildren(...this.values.map((value, index) => el("li", { class: "chip" },
      el("span", { title: nameOf(value) }, (MARKS[value.form] ?? "") + nameOf(value)),
      el("button", { type: "button", "aria-label": `Remove ${nameOf(value)}`, on: { click: () => this.remove(index) } }, "×"))));
    this.input.placeholder = this.values.length ? "" : "dog barking";
    $("chips").scrollTop = $("chips").scrollHeight;
    this.onChange();
  }
}
