// Making elements without HTML in strings: text stays text, and the content security policy is never in the way.

import { text } from "./text.js";

export const find = (id) => document.getElementById(id);

// make("button", { type: "button", class: "first", onclick }, "Choose", child, ...); null and false are left out.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

// Text that only screen readers get.
export const unseen = (words) => make("span", { class: "unseen" }, words);

// Fills in the texts that the HTML names.
export function fillTexts(root) {
  for (const element of root.querySelectorAll("[data-text]")) element.textContent = text[element.dataset.text];
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text[element.dataset.label]);
  }
}

// Writes only what changed: a live region would read it again, and a selection would be lost.
export function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
