// Helpers for elements and for times. Texts of users become text nodes, never HTML.

export const $ = (id) => document.getElementById(id);

/** Create an element with attributes, listeners (`on`) and children. */
export function el(tag, { on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  element.append(...children);
  return element;
}

/** A number with a real minus sign. */
export const signed = (number) => String(number).replace("-", "−");

/** 75.4 -> "1:15.4". */
export function clock(seconds, digits = 1) {
  const rounded = Math.floor(Math.max(0, seconds) * 10 ** digits) / 10 ** digits;
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return `${Math.floor(rounded / 60)}:${rest}`;
}

/** Length of a recording: 7.25 -> "7.3 s", 75 -> "1:15 min". */
export const length = (seconds) => (seconds < 60 ? `${seconds.toFixed(1)} s` : `${clock(seconds, 0)} min`);

/** 75 -> "1 min 15 s". */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
}
