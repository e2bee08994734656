// Small helpers. Whatever a person typed goes through textContent, never through HTML.

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children; `on` holds listeners, texts become text nodes. */
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

/** 75.4 -> "1:15.4". */
export function clock(seconds, digits = 1) {
  const tenths = Math.floor(Math.max(0, seconds) * 10 ** digits) / 10 ** digits;
  const rest = (tenths % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return `${Math.floor(tenths / 60)}:${rest}`;
}

/** 75 -> "1 min 15 s". */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
}
