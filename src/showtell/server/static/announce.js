// What a screen reader says without being asked. One region for all, so that nothing is said at the same time.

import { find } from "./elements.js";

const GATHER = 150; // milliseconds in which news are said together; a region that was emptied needs some, too
let waiting = [];
let timer = 0;

export function announce(words) {
  if (waiting.at(-1) !== words) waiting.push(words);
  if (timer) return;
  find("said").textContent = ""; // so that the same words are said again
  timer = setTimeout(() => {
    timer = 0;
    find("said").textContent = waiting.join(" ");
    waiting = [];
  }, GATHER);
}
